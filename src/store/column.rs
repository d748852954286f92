//! How values stand in columns: ids and names as text, records as JSON.

use super::StoreError;
use crate::model::ItemState;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::str::FromStr;

pub(super) fn json_of(what: &'static str, value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::decode(what, error))
}

pub(super) fn from_json<T: DeserializeOwned>(
    what: &'static str,
    value: ValueRef<'_>,
) -> Result<T, StoreError> {
    let text = value
        .as_str()
        .map_err(|error| StoreError::decode(what, error))?;
    serde_json::from_str(text).map_err(|error| StoreError::decode(what, error))
}

/// An id or a name as a text column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<T>(pub(super) T);

impl<T: std::fmt::Display> ToSql for Text<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.to_string()))
    }
}

impl<T: FromStr> FromSql for Text<T> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value
            .as_str()?
            .parse()
            .map(Self)
            .map_err(|_| FromSqlError::InvalidType)
    }
}

/// An item's state as a text column.
pub(super) struct State(pub(super) ItemState);

impl FromSql for State {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        ItemState::parse(value.as_str()?)
            .map(Self)
            .ok_or(FromSqlError::InvalidType)
    }
}
