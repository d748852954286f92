//! The stored form of an item's record.
//!
//! It is its own type, so that the domain may rename a field without making stored rows unreadable: such a field keeps
//! its old name here. A field that is added needs a default, one that is removed stays readable by itself. The form of
//! schema version 1 is pinned by the test below.

use super::StoreError;
use crate::error::RedactedProblem;
use crate::model::{
    At, Attempt, CheckStatus, DiffStat, ItemIndex, ItemRecord, ItemState, PoolName, Risk, Stage,
    Usage, VerifyResult,
};
use crate::redact::Redacted;
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
    doing: Option<Redacted>,
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
    #[serde(default, skip_serializing_if = "Option::is_none", with = "verify")]
    verify: Option<VerifyResult>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    applied: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    undo: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_tail: Option<Redacted>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stage: Option<Stage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<Redacted>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<RedactedProblem>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "VerifyResult")]
struct StoredVerify {
    status: CheckStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_tail: Option<Redacted>,
}

/// `StoredVerify` where there is one; serde has no remote form of an option.
mod verify {
    use super::{StoredVerify, VerifyResult};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Stored(#[serde(with = "StoredVerify")] VerifyResult);

    pub(super) fn serialize<S: Serializer>(
        verify: &Option<VerifyResult>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        verify.clone().map(Stored).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<VerifyResult>, D::Error> {
        let verify = Option::<Stored>::deserialize(deserializer)?;
        Ok(verify.map(|verify| verify.0))
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, Problem};
    use serde_json::json;

    fn read(json: &serde_json::Value) -> ItemRecord {
        let text = json.to_string();
        Item::column_result(ValueRef::Text(text.as_bytes()))
            .expect("readable")
            .0
    }

    #[test]
    fn rows_of_schema_version_one_stay_readable() {
        // All fields that a row of this version can have. A name may change in the domain, never here.
        let row = json!({
            "item": 3, "repo": "/r/a", "pool": "local", "status": "timed_out", "attempt": 2, "exit_code": 101,
            "started_at": "2026-11-28T02:11:00.000Z", "duration_ms": 12_340, "idle_s": 1.5, "doing": "verify",
            "changed": true, "base_commit": "c0ffee", "base_branch": "main", "left_out_dirty": 4,
            "branch": "mahavishnu/b", "commit": "beef", "worktree": "/state/w",
            "diff": {"files": 1, "insertions": 2, "deletions": 3}, "uncommitted": ["sub"],
            "risks": [{"kind": "git_config", "path": ".git/config"}],
            "verify": {"status": "failed", "exit_code": 1, "output_tail": "assertion failed"},
            "applied": "merge", "undo": "u1", "output_tail": "done", "stage": "verify", "cause": "2 tests failed",
            "error": {"kind": "failed", "message": "m", "hint": "h", "retryable": false},
            "usage": {"input_tokens": 1, "output_tokens": 2, "cost_usd": 0.5},
        });
        let written = json_of(&read(&row)).expect("written");
        let written: serde_json::Value = serde_json::from_str(&written).expect("JSON");
        assert_eq!(written, row);
    }

    #[test]
    fn fields_without_a_value_are_absent() {
        let row = json!({"item": 3, "repo": "/r", "status": "queued", "attempt": 0});
        let record = ItemRecord::unstarted(3, "/r", ItemState::Queued);
        assert_eq!(read(&row), record);
        assert_eq!(json_of(&record).expect("written"), row.to_string());
    }

    #[test]
    fn a_stored_problem_has_no_secrets() {
        let secret = format!("ghp_{}", "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYz123");
        let record = ItemRecord {
            error: Some(Problem::new(ErrorKind::Failed, format!("bad {secret}")).into()),
            ..ItemRecord::unstarted(0, "/r", ItemState::Failed)
        };
        let row = json_of(&record).expect("written");
        assert!(
            row.contains("[REDACTED-") && !row.contains(&secret),
            "{row}"
        );
    }
}
