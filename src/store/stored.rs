//! The stored form of an item's record.
//!
//! It is its own type, so that the domain may rename a field without making stored rows unreadable: such a field keeps
//! its old name here. A field that is added needs a default, one that is removed stays readable by itself. The form of
//! schema version 1 is pinned by the test below.

use super::StoreError;
use crate::error::Problem;
use crate::model::{
    At, Attempt, DiffStat, ItemIndex, ItemRecord, ItemState, PoolName, Risk, Stage, Usage,
    VerifyResult,
};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(remote = "ItemRecord")]
struct StoredItem {
    item: ItemIndex,
    repo: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pool: Option<PoolName>,
    status: ItemState,
    attempt: Attempt,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at: Option<At>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idle_s: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    doing: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changed: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base_commit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base_branch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left_out_dirty: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    branch: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worktree: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    diff: Option<DiffStat>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    uncommitted: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    risks: Vec<Risk>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verify: Option<VerifyResult>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    applied: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    undo: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flaky: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_tail: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stage: Option<Stage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

/// Returns the JSON of a record.
pub(super) fn json_of(record: &ItemRecord) -> Result<String, StoreError> {
    let mut json = Vec::new();
    StoredItem::serialize(record, &mut serde_json::Serializer::new(&mut json))
        .map_err(|error| StoreError::decode("an item", error))?;
    String::from_utf8(json).map_err(|error| StoreError::decode("an item", error))
}

/// A record that is read from its column.
pub(super) struct Item(pub(super) ItemRecord);

impl FromSql for Item {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let mut json = serde_json::Deserializer::from_str(value.as_str()?);
        let record = StoredItem::deserialize(&mut json);
        record.map(Self).map_err(FromSqlError::other)
    }
}
