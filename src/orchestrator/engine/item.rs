//! One item of a run, and the phase it is in.

use super::live::LiveAttempt;
use super::stop::Stop;
use crate::model::{At, ItemRecord, ItemState, ItemWork, PoolName, Stage};
use crate::redact::redact;
use std::sync::Arc;

/// An item with its phase.
pub(super) struct Item {
    pub(super) work: Arc<ItemWork>,
    /// What the journal holds, or will in a moment where it has just begun.
    pub(super) record: Arc<ItemRecord>,
    pub(super) phase: Phase,
    /// Attempts it has had since the run was started or resumed.
    pub(super) tries: u32,
    /// How the attempt before ended, while it waits for another one.
    pub(super) failed: Option<Arc<ItemRecord>>,
}

/// What happens to an item now.
pub(super) enum Phase {
    /// Nothing is to happen to it: it has ended, or is only planned.
    Idle,
    /// It can start.
    Ready,
    /// It waits for its repository.
    Blocked,
    /// It has a slot; its attempt begins or runs.
    Running(Arc<LiveAttempt>),
    /// Its end is being journaled. With `again` it then waits for another attempt, unless it was stopped meanwhile.
    Ending {
        end: Arc<ItemRecord>,
        again: bool,
        stop: Option<Stop>,
    },
}

impl Item {
    pub(super) fn new((work, record): (ItemWork, ItemRecord)) -> Self {
        Self {
            work: Arc::new(work),
            phase: match record.status {
                ItemState::Queued => Phase::Ready,
                _ => Phase::Idle,
            },
            record: Arc::new(record),
            tries: 0,
            failed: None,
        }
    }

    /// Returns the record of the next attempt, begun now.
    pub(super) fn next_attempt(&self, pool: &PoolName) -> ItemRecord {
        let old = &self.record;
        let mut record = ItemRecord::unstarted(old.item, old.repo.clone(), ItemState::Running);
        record.attempt = old.attempt + 1;
        record.pool = Some(pool.clone());
        record.started_at = Some(At::now());
        // This attempt continues in what the one before left.
        record.worktree.clone_from(&old.worktree);
        record.branch.clone_from(&old.branch);
        record.base_commit.clone_from(&old.base_commit);
        record.base_branch.clone_from(&old.base_branch);
        record
    }

    /// Returns the record as callers see it.
    pub(super) fn shown(&self) -> Arc<ItemRecord> {
        let mut record = Arc::clone(&self.record);
        match &self.phase {
            Phase::Running(live) => live.overlay(Arc::make_mut(&mut record)),
            Phase::Ending { .. } => {
                Arc::make_mut(&mut record).doing = Some("writing its end to the journal".into());
            }
            _ => {}
        }
        record
    }
}

pub(super) fn is_failure(status: ItemState) -> bool {
    matches!(status, ItemState::Failed | ItemState::TimedOut)
}

/// Returns the end of an item that never got another attempt.
pub(super) fn unstarted_end(record: &ItemRecord, why: Stop) -> ItemRecord {
    let (status, problem) = why.end();
    ItemRecord {
        status,
        stage: Some(Stage::Start),
        cause: Some(redact(&problem.message)),
        error: Some(problem.into()),
        ..record.clone()
    }
}
