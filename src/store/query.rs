//! The ways to run a statement. Each is prepared once per connection.

use super::StoreError;
use rusqlite::{Connection, OptionalExtension, Params, Row};

pub(super) trait Query {
    /// Runs a statement and returns how many rows it changed.
    fn run(&self, sql: &str, values: impl Params) -> Result<u32, StoreError>;

    /// Returns whether a query has any row.
    fn any(&self, sql: &str, values: impl Params) -> Result<bool, StoreError>;

    /// Reads the first row, if there is one.
    fn first<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError>;

    /// Reads all rows.
    fn all<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError>;
}

impl Query for Connection {
    fn run(&self, sql: &str, values: impl Params) -> Result<u32, StoreError> {
        let changed = self.prepare_cached(sql)?.execute(values)?;
        Ok(u32::try_from(changed).unwrap_or(u32::MAX))
    }

    fn any(&self, sql: &str, values: impl Params) -> Result<bool, StoreError> {
        Ok(self.prepare_cached(sql)?.exists(values)?)
    }

    fn first<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        let found = self.prepare_cached(sql)?.query_row(values, read);
        Ok(found.optional()?)
    }

    fn all<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self.prepare_cached(sql)?;
        let rows = statement.query_map(values, read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
