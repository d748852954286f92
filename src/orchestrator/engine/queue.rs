//! What waits to be started: runs with ready items, routed tasks in their pools' queues, and items whose repository is
//! in use.

use super::run::Run;
use crate::model::{Isolation, ItemIndex, ItemWork};
use crate::orchestrator::routing::PoolKey;
use crate::orchestrator::routing::pools::QueuePlace;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// What waits to be started.
#[derive(Default)]
pub(super) struct Queue {
    /// Runs with ready items, each once, the next one to be served first.
    runs: VecDeque<Arc<Run>>,
    /// Repositories that an `in_place` item of this process works on.
    busy: HashSet<String>,
    /// Items that wait for one of those.
    blocked: HashMap<String, Vec<(Arc<Run>, ItemIndex)>>,
    /// Routed single tasks that wait in their pool's queue.
    routed: HashMap<PoolKey, VecDeque<(Arc<Run>, QueuePlace)>>,
    /// Whether the runs have the first choice of freed slots in the next pass.
    pub(super) runs_first: bool,
}

impl Queue {
    /// Puts a run with ready items last in line, if it is not in line yet.
    pub(super) fn add(&mut self, run: Arc<Run>) {
        if !self.runs.iter().any(|known| Arc::ptr_eq(known, &run)) {
            self.runs.push_back(run);
        }
    }

    /// Takes the first run out of the line.
    pub(super) fn pop(&mut self) -> Option<Arc<Run>> {
        self.runs.pop_front()
    }

    /// Returns how many runs are in line.
    pub(super) fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Puts a routed task last in its pool's line.
    pub(super) fn add_routed(&mut self, run: Arc<Run>, place: QueuePlace) {
        let line = self.routed.entry(place.key).or_default();
        line.push_back((run, place));
    }

    /// Takes the routed tasks of each pool, in order.
    pub(super) fn take_routed(&mut self) -> Vec<VecDeque<(Arc<Run>, QueuePlace)>> {
        self.routed.drain().map(|(_, line)| line).collect()
    }

    /// Puts back the rest of a pool's routed tasks.
    pub(super) fn put_routed(&mut self, line: VecDeque<(Arc<Run>, QueuePlace)>) {
        if let Some((_, place)) = line.front() {
            self.routed.insert(place.key, line);
        }
    }

    /// Notes that an item of this run begins to work on a repository.
    pub(super) fn enter_repo(&mut self, run: &Run, repo: &str) {
        if in_place(run) {
            self.busy.insert(repo.to_owned());
        }
    }

    /// Lets others have the repository that an item of this run worked on: every item that waits for it is ready again,
    /// since any of them may have been stopped or may find no slot.
    pub(super) fn leave_repo(&mut self, run: &Run, repo: &str) {
        if !in_place(run) {
            return;
        }
        self.busy.remove(repo);
        for (next, item) in self.blocked.remove(repo).unwrap_or_default() {
            if next.unblock(item) {
                self.add(next);
            }
        }
    }

    /// Sets a ready item aside where its repository is busy; returns whether that is so.
    pub(super) fn block_if_busy(&mut self, run: &Arc<Run>, work: &ItemWork) -> bool {
        if !in_place(run) || !self.busy.contains(&work.repo) {
            return false;
        }
        if run.block(work.item) {
            let blocked = self.blocked.entry(work.repo.clone()).or_default();
            blocked.push((Arc::clone(run), work.item));
        }
        true
    }
}

fn in_place(run: &Run) -> bool {
    run.record().settings.isolation == Isolation::InPlace
}
