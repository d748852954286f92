//! One item of a workflow: what it is to do, and what is known of it.

use super::words::words;
use super::{At, Attempt, ItemIndex, PoolName, Risk};
use crate::error::RedactedProblem;
use crate::redact::Redacted;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a worker is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// A prompt, for worker kinds that take one.
    Task(String),
    /// An argv; never given to a shell. An empty one stands for work that was forgotten.
    Command(Vec<String>),
}

impl Work {
    /// The title of a workflow whose work was forgotten.
    pub const FORGOTTEN_TITLE: &str = "(forgotten)";

    /// Returns what stands in the place of work that was forgotten.
    pub fn forgotten() -> Self {
        Self::Command(Vec::new())
    }

    /// Returns whether it was forgotten, so that nobody can do it again.
    pub fn is_forgotten(&self) -> bool {
        matches!(self, Self::Command(argv) if argv.is_empty())
    }
}

/// What one item is to do, fixed when the workflow is journaled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemWork {
    /// The item's place in the workflow.
    pub item: ItemIndex,
    /// The repository's canonical absolute path.
    pub repo: String,
    /// What the worker gets, `per_repo` text included.
    pub work: Work,
}

/// Where an item stands.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum ItemState {
    /// Journaled by `dry_run`; starts only by `resume_workflow`.
    Planned,
    /// Waits for a slot.
    Queued,
    /// A worker is at it.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// Ran into `timeout_s`, `stall_s` or `run_timeout_s`.
    TimedOut,
    /// Stopped on request.
    Cancelled,
    /// Its server ended before it did.
    Interrupted,
}

impl ItemState {
    /// Returns whether the item will not change any more by itself.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Planned | Self::Queued | Self::Running)
    }
}

words!(ItemState {
    Planned => "planned",
    Queued => "queued",
    Running => "running",
    Succeeded => "succeeded",
    Failed => "failed",
    TimedOut => "timed_out",
    Cancelled => "cancelled",
    Interrupted => "interrupted",
});

/// The step in which an item failed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Stage {
    /// Before anything ran: the repository, the worktree or the program could not be had.
    Start,
    /// A `setup` line.
    Setup,
    /// The worker.
    Run,
    /// A `verify` line.
    Verify,
}

words!(Stage {
    Start => "start",
    Setup => "setup",
    Run => "run",
    Verify => "verify",
});

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum CheckStatus {
    /// Every line exited 0.
    Passed,
    /// A line exited with another code.
    Failed,
    /// There was nothing to verify, or the item failed before.
    Skipped,
    /// The item's deadline passed in a line.
    TimedOut,
}

/// What `verify` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyResult {
    /// How the check ended.
    pub status: CheckStatus,
    /// The exit code of the last line that ran.
    pub exit_code: Option<i32>,
    /// The end of what that line wrote.
    pub output_tail: Option<Redacted>,
}

/// How large a change is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct DiffStat {
    /// Files changed.
    pub files: u32,
    /// Lines added.
    pub insertions: u32,
    /// Lines removed.
    pub deletions: u32,
}

/// What a model-backed worker used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Usage {
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Cost in US dollars, where the worker tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
}

/// All that is known of one item.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemRecord {
    /// The item's place in the workflow, from 0.
    pub item: ItemIndex,
    /// The repository's canonical absolute path.
    pub repo: String,
    /// The pool that ran it last.
    pub pool: Option<PoolName>,
    /// Where the item stands.
    pub status: ItemState,
    /// Which try this is, from 1; 0 before the first start.
    pub attempt: Attempt,
    /// The program's exit code.
    pub exit_code: Option<i32>,
    /// When the attempt began.
    pub started_at: Option<At>,
    /// How long the attempt took or has taken so far, in milliseconds.
    pub duration_ms: Option<u64>,
    /// Seconds since it last wrote anything, while it runs.
    pub idle_s: Option<f64>,
    /// What it is at, while it runs: the stage, or what the worker says of itself.
    pub doing: Option<Redacted>,
    /// Whether it left a change in its repository.
    pub changed: Option<bool>,
    /// The commit it began from.
    pub base_commit: Option<String>,
    /// The branch that commit was the head of.
    pub base_branch: Option<String>,
    /// How many dirty files of the working copy the item did not see.
    pub left_out_dirty: Option<u32>,
    /// The branch that holds its work.
    pub branch: Option<String>,
    /// The commit that holds its work.
    pub commit: Option<String>,
    /// The folder it worked in, where that is a worktree.
    pub worktree: Option<String>,
    /// How large its change is.
    pub diff: Option<DiffStat>,
    /// What no commit of its repository holds: files that git cannot add, and repositories inside the worktree, submodules
    /// included, with work of their own.
    pub uncommitted: Vec<String>,
    /// What it did beside plain work on files; apply_changes refuses it unless `allow_risks` names the kinds.
    pub risks: Vec<Risk>,
    /// What `verify` found.
    pub verify: Option<VerifyResult>,
    /// How its change was applied, and when.
    pub applied: Option<String>,
    /// Takes that back, as the `undo` of apply_changes.
    pub undo: Option<String>,
    /// The end of what it wrote (of stderr, where it failed and stderr has any).
    pub output_tail: Option<Redacted>,
    /// The step that failed.
    pub stage: Option<Stage>,
    /// The failure's normalised cause; equal causes are one group in `failures`.
    pub cause: Option<Redacted>,
    /// The failure.
    pub error: Option<RedactedProblem>,
    /// What the worker used, where it tells it.
    pub usage: Option<Usage>,
}

impl ItemRecord {
    /// Returns the record of an item that has not started.
    pub fn unstarted(item: ItemIndex, repo: impl Into<String>, status: ItemState) -> Self {
        Self {
            item,
            repo: repo.into(),
            pool: None,
            status,
            attempt: 0,
            exit_code: None,
            started_at: None,
            duration_ms: None,
            idle_s: None,
            doing: None,
            changed: None,
            base_commit: None,
            base_branch: None,
            left_out_dirty: None,
            branch: None,
            commit: None,
            worktree: None,
            diff: None,
            uncommitted: Vec::new(),
            risks: Vec::new(),
            verify: None,
            applied: None,
            undo: None,
            output_tail: None,
            stage: None,
            cause: None,
            error: None,
            usage: None,
        }
    }
}
