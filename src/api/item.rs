//! One item of a workflow, as answers show it.

use crate::error::Problem;
use crate::model::{
    At, Attempt, CheckStatus, DiffStat, ItemIndex, ItemRecord, ItemState, PoolName, Risk, Stage,
    Usage, VerifyResult,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One item; a field without a value is absent.
///
/// Its own type beside [`ItemRecord`], so that the domain and the store may change without changing what callers read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Item {
    /// The item's place in the workflow, from 0.
    pub item: ItemIndex,
    /// The repository's canonical absolute path.
    pub repo: String,
    /// The pool that ran it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// The item's status.
    pub status: ItemState,
    /// Which try this is, from 1; 0 before the first start.
    pub attempt: Attempt,
    /// The program's exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// When the attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<At>,
    /// How long the attempt took, or has taken so far, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Seconds since it last wrote anything, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_s: Option<f64>,
    /// What it does, while it runs: the stage, or what the worker reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doing: Option<String>,
    /// Whether it left a change in its repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<bool>,
    /// The commit it began from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_commit: Option<String>,
    /// The branch that commit was the head of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_branch: Option<String>,
    /// How many dirty files of the working copy the item did not see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out_dirty: Option<u32>,
    /// The branch that holds its work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The commit that holds its work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The folder it worked in, where that is a worktree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worktree: Option<String>,
    /// How large its change is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<DiffStat>,
    /// Paths in the worktree with changes that no commit keeps, such as nested repositories and files git cannot add.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uncommitted: Vec<String>,
    /// What it did beside plain work on files; apply_changes refuses it unless `allow_risks` names the kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub risks: Vec<Risk>,
    /// What `verify` found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// How and when its change was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<String>,
    /// Takes that back, as the `undo` of apply_changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<String>,
    /// Whether repeats of it ended differently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flaky: Option<bool>,
    /// The end of what it wrote (of stderr, where it failed and stderr has any).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tail: Option<String>,
    /// The step that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// The failure's normalised cause; equal causes are one group in `failures`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
    /// What the worker used, where it reports that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What `verify` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Verify {
    /// How the check ended.
    pub status: CheckStatus,
    /// The exit code of the last line that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The end of what that line wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tail: Option<String>,
}

impl From<VerifyResult> for Verify {
    fn from(result: VerifyResult) -> Self {
        Self {
            status: result.status,
            exit_code: result.exit_code,
            output_tail: result.output_tail.map(String::from),
        }
    }
}

impl From<ItemRecord> for Item {
    fn from(record: ItemRecord) -> Self {
        Self {
            item: record.item,
            repo: record.repo,
            pool: record.pool,
            status: record.status,
            attempt: record.attempt,
            exit_code: record.exit_code,
            started_at: record.started_at,
            duration_ms: record.duration_ms,
            idle_s: record.idle_s,
            doing: record.doing.map(String::from),
            changed: record.changed,
            base_commit: record.base_commit,
            base_branch: record.base_branch,
            left_out_dirty: record.left_out_dirty,
            branch: record.branch,
            commit: record.commit,
            worktree: record.worktree,
            diff: record.diff,
            uncommitted: record.uncommitted,
            risks: record.risks,
            verify: record.verify.map(Verify::from),
            applied: record.applied,
            undo: record.undo,
            flaky: None,
            output_tail: record.output_tail.map(String::from),
            stage: record.stage,
            cause: record.cause.map(String::from),
            error: record.error.map(Problem::from),
            usage: record.usage,
        }
    }
}
