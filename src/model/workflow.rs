//! A workflow: its settings, its state and its counts.

use super::words::words;
use super::{At, Filter, ItemState, ServerId, WorkflowId};
use crate::redact::Redacted;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Where an item works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Isolation {
    /// In a git worktree and branch of its own.
    Worktree,
    /// In the user's working copy, one item at a time per repository.
    InPlace,
    /// In a detached worktree; a change fails the item.
    ReadOnly,
}

/// What a worktree is made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BaseRef {
    /// The commit that HEAD names.
    #[default]
    Head,
    /// The default branch's commit.
    DefaultBranch,
    /// HEAD and what is not committed yet.
    WorkingCopy,
    /// Any ref.
    Ref(String),
}

/// What a person's interrupt of a waiting call does to the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OnInterrupt {
    /// The run is cancelled; it can be resumed.
    #[default]
    Cancel,
    /// The run goes on.
    Keep,
}

/// How a workflow runs, fixed when it is journaled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The pools its items may go to.
    #[serde(default)]
    pub filter: Filter,
    /// The pools that were asked for, before `filter` was narrowed to those whose workers would take the work.
    #[serde(default)]
    pub asked: Option<Filter>,
    /// Where its items work.
    pub isolation: Isolation,
    /// Whether nobody chose the isolation, so that a worker which is elsewhere needs none.
    #[serde(default)]
    pub isolation_by_default: bool,
    /// What worktrees are made from.
    #[serde(default)]
    pub base_ref: BaseRef,
    /// Command lines that run before the worker, each an argv.
    #[serde(default)]
    pub setup: Vec<Vec<String>>,
    /// Command lines that judge the work, each an argv.
    #[serde(default)]
    pub verify: Vec<Vec<String>>,
    /// Files copied from the working copy into the worktree.
    #[serde(default)]
    pub copy_files: Vec<String>,
    /// The most items at once; none: the slots alone limit it.
    #[serde(default)]
    pub max_parallel: Option<u32>,
    /// The longest one attempt may take, with setup and verify, from its start.
    #[serde(default)]
    pub timeout: Option<Duration>,
    /// The longest a worker may write nothing.
    #[serde(default)]
    pub stall: Option<Duration>,
    /// The longest the whole run may take.
    #[serde(default)]
    pub run_timeout: Option<Duration>,
    /// How many more attempts a failed item gets.
    #[serde(default)]
    pub retries: u32,
    /// How often each item runs.
    #[serde(default = "one")]
    pub repeat: u32,
    /// After this many failed items nothing more is started.
    #[serde(default)]
    pub max_failures: Option<u32>,
    /// What a person's interrupt does.
    #[serde(default)]
    pub on_interrupt: OnInterrupt,
}

fn one() -> u32 {
    1
}

/// Where a workflow stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum WorkflowStatus {
    /// Journaled by `dry_run`; nothing runs until it is resumed.
    Planned,
    /// Items run or wait.
    Running,
    /// Every item succeeded.
    Succeeded,
    /// Some items succeeded, some did not.
    Partial,
    /// No item succeeded.
    Failed,
    /// Stopped on request before every item ended.
    Cancelled,
    /// Its server ended before it did.
    Interrupted,
}

words!(WorkflowStatus {
    Planned => "planned",
    Running => "running",
    Succeeded => "succeeded",
    Partial => "partial",
    Failed => "failed",
    Cancelled => "cancelled",
    Interrupted => "interrupted",
});

/// How many items there are in all and in each state, zeros included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Counts {
    /// All items.
    pub total: u32,
    /// Journaled by `dry_run`.
    pub planned: u32,
    /// Waiting for a slot.
    pub queued: u32,
    /// Being worked on.
    pub running: u32,
    /// Ended well.
    pub succeeded: u32,
    /// Ended badly.
    pub failed: u32,
    /// Out of time.
    pub timed_out: u32,
    /// Stopped on request.
    pub cancelled: u32,
    /// Their server ended before they did.
    pub interrupted: u32,
}

impl Counts {
    /// Returns the counts of `states`.
    pub fn of(states: impl IntoIterator<Item = ItemState>) -> Self {
        let mut counts = Self::default();
        for state in states {
            counts.total += 1;
            *counts.slot(state) += 1;
        }
        counts
    }

    /// Moves one item from `old` to `new`.
    pub fn shift(&mut self, old: ItemState, new: ItemState) {
        *self.slot(old) = self.slot(old).saturating_sub(1);
        *self.slot(new) += 1;
    }

    /// Returns how many items are queued or run.
    pub fn unfinished(&self) -> u32 {
        self.queued + self.running
    }

    /// Returns how many items will not change any more by themselves.
    pub fn ended(&self) -> u32 {
        self.succeeded + self.failed + self.timed_out + self.cancelled + self.interrupted
    }

    /// Returns where a workflow with these counts stands that starts nothing more after `max_failures`.
    ///
    /// What was not started because so many items had failed was cancelled by nobody.
    pub fn status_within(&self, max_failures: Option<u32>) -> WorkflowStatus {
        let enough = max_failures.is_some_and(|limit| self.failed + self.timed_out >= limit);
        match self.status() {
            WorkflowStatus::Cancelled if enough && self.succeeded == 0 => WorkflowStatus::Failed,
            WorkflowStatus::Cancelled if enough => WorkflowStatus::Partial,
            status => status,
        }
    }

    /// Returns where a workflow with these counts stands that has no `max_failures`.
    pub fn status(&self) -> WorkflowStatus {
        if self.unfinished() > 0 {
            WorkflowStatus::Running
        } else if self.interrupted > 0 {
            WorkflowStatus::Interrupted
        } else if self.cancelled > 0 {
            WorkflowStatus::Cancelled
        } else if self.total > 0 && self.planned == self.total {
            WorkflowStatus::Planned
        } else if self.succeeded == self.total {
            WorkflowStatus::Succeeded
        } else if self.succeeded == 0 {
            WorkflowStatus::Failed
        } else {
            WorkflowStatus::Partial
        }
    }

    fn slot(&mut self, state: ItemState) -> &mut u32 {
        match state {
            ItemState::Planned => &mut self.planned,
            ItemState::Queued => &mut self.queued,
            ItemState::Running => &mut self.running,
            ItemState::Succeeded => &mut self.succeeded,
            ItemState::Failed => &mut self.failed,
            ItemState::TimedOut => &mut self.timed_out,
            ItemState::Cancelled => &mut self.cancelled,
            ItemState::Interrupted => &mut self.interrupted,
        }
    }
}

/// A workflow as it is journaled, without its items.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkflowRecord {
    /// The workflow's id.
    pub id: WorkflowId,
    /// A line for people: the start of the task or of the command.
    pub title: Redacted,
    /// The server process that runs it or ran it last.
    pub owner: ServerId,
    /// When it was journaled.
    pub created_at: At,
    /// Whether it is one routed task, bound to a pool at once.
    pub single: bool,
    /// How it runs.
    pub settings: Settings,
    /// The caller's idempotency key.
    pub idempotency_key: Option<String>,
    /// SHA-256 (hex) of the caller's arguments, to tell another request under the same key.
    pub arguments_hash: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use ItemState::{
        Cancelled, Failed, Interrupted, Planned, Queued, Running, Succeeded, TimedOut,
    };

    #[test]
    fn the_status_follows_from_the_counts() {
        let cases = [
            (vec![Planned, Planned], WorkflowStatus::Planned),
            (vec![Succeeded, Queued], WorkflowStatus::Running),
            (vec![Failed, Running], WorkflowStatus::Running),
            (vec![Succeeded, Succeeded], WorkflowStatus::Succeeded),
            (vec![Succeeded, TimedOut], WorkflowStatus::Partial),
            (vec![Failed, TimedOut], WorkflowStatus::Failed),
            (vec![Succeeded, Cancelled], WorkflowStatus::Cancelled),
            (
                vec![Succeeded, Interrupted, Cancelled],
                WorkflowStatus::Interrupted,
            ),
        ];
        for (states, status) in cases {
            assert_eq!(Counts::of(states.clone()).status(), status, "{states:?}");
        }
    }

    #[test]
    fn what_max_failures_left_out_was_cancelled_by_nobody() {
        let none = Counts::of([Failed, TimedOut, Cancelled]);
        let some = Counts::of([Failed, TimedOut, Succeeded, Cancelled]);
        assert_eq!(none.status_within(Some(2)), WorkflowStatus::Failed);
        assert_eq!(some.status_within(Some(2)), WorkflowStatus::Partial);
        for limit in [None, Some(3)] {
            assert_eq!(some.status_within(limit), WorkflowStatus::Cancelled);
        }
    }

    #[test]
    fn a_shift_keeps_the_total() {
        let mut counts = Counts::of([Queued, Running]);
        counts.shift(Queued, Succeeded);
        assert_eq!((counts.total, counts.queued, counts.succeeded), (2, 0, 1));
        assert_eq!(counts.ended(), 1);
    }
}
