//! A run: one workflow that this server works on now, as a state machine over its items.
//!
//! Transitions only; what to start when is the dispatcher's, running it the attempt's part. Every transition that
//! callers can see raises the revision and wakes who waits.

use crate::error::{ErrorKind, Problem};
use crate::model::{
    At, Counts, ItemIndex, ItemRecord, ItemState, ItemWork, PoolName, Settings, Stage, WorkflowId,
    WorkflowRecord,
};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Why items are stopped; a stronger reason replaces a weaker one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::orchestrator) enum Stop {
    /// `max_failures` items have failed.
    MaxFailures,
    /// `run_timeout_s` is over.
    RunTimeout,
    /// The pool was closed.
    PoolClosed,
    /// Somebody asked for it.
    Requested,
    /// The server ends.
    Closing,
}

impl Stop {
    /// Returns the state and the problem of an item that was stopped for this reason.
    pub(super) fn verdict(self) -> (ItemState, Problem) {
        let (state, kind, message) = match self {
            Self::MaxFailures => (
                ItemState::Cancelled,
                ErrorKind::Cancelled,
                "not started: max_failures items had failed",
            ),
            Self::RunTimeout => (
                ItemState::TimedOut,
                ErrorKind::TimedOut,
                "stopped: the run's run_timeout_s was over",
            ),
            Self::PoolClosed => (
                ItemState::Cancelled,
                ErrorKind::Cancelled,
                "stopped: its pool was closed",
            ),
            Self::Requested => (
                ItemState::Cancelled,
                ErrorKind::Cancelled,
                "stopped on request",
            ),
            Self::Closing => (
                ItemState::Interrupted,
                ErrorKind::Interrupted,
                "interrupted: the server ended",
            ),
        };
        let problem = Problem::new(kind, message).with_hint("resume_workflow runs it again");
        (state, problem)
    }
}

/// A running attempt, as seen from outside.
pub(super) struct Live {
    pub(super) cancel: CancellationToken,
    pub(super) started: Instant,
    /// Milliseconds after `started` at which it last wrote something.
    alive_ms: AtomicU64,
    // A std mutex: held to replace or clone a short text.
    doing: Mutex<String>,
    // A std mutex: held to compare and replace a reason.
    stop: Mutex<Option<Stop>>,
    grace: OnceLock<Duration>,
}

impl Live {
    fn new(run: &CancellationToken) -> Self {
        Self {
            cancel: run.child_token(),
            started: Instant::now(),
            alive_ms: AtomicU64::new(0),
            doing: Mutex::new("starting".to_owned()),
            stop: Mutex::new(None),
            grace: OnceLock::new(),
        }
    }

    pub(super) fn alive(&self) {
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.alive_ms.store(ms, Ordering::Relaxed);
    }

    pub(super) fn doing(&self, what: impl Into<String>) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
    }

    pub(super) fn stopped(&self) -> Option<Stop> {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how long its programs may take to end, where the one who stopped it said so.
    pub(super) fn grace(&self) -> Option<Duration> {
        self.grace.get().copied()
    }

    fn stop(&self, why: Stop, grace: Option<Duration>) {
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        *stop = (*stop).max(Some(why));
        drop(stop);
        if let Some(grace) = grace {
            // The first one who says how long is heard: a second stop only hurries what is ending already.
            self.grace.get_or_init(|| grace);
        }
        self.cancel.cancel();
    }

    /// Fills in what is only known while it runs.
    fn overlay(&self, record: &mut ItemRecord) {
        let elapsed = self.started.elapsed();
        let alive = Duration::from_millis(self.alive_ms.load(Ordering::Relaxed));
        record.duration_ms = u64::try_from(elapsed.as_millis()).ok();
        let idle = elapsed.saturating_sub(alive).as_secs_f64();
        record.idle_s = Some((idle * 10.0).round() / 10.0);
        let doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner);
        record.doing = Some(doing.clone());
    }
}

/// A workflow that this server works on now.
pub(in crate::orchestrator) struct Run {
    // A std mutex: transitions are map and vector operations; copying 10,000 records for a view takes milliseconds.
    state: Mutex<State>,
    id: WorkflowId,
    single: bool,
    revision: watch::Sender<u64>,
    /// Fires for every item at once; items have children of it.
    all: CancellationToken,
    began: Instant,
}

struct State {
    record: Arc<WorkflowRecord>,
    works: Vec<ItemWork>,
    items: Vec<ItemRecord>,
    counts: Counts,
    ready: VecDeque<ItemIndex>,
    live: HashMap<ItemIndex, Arc<Live>>,
    /// Attempts an item has had since this run was taken up.
    tries: HashMap<ItemIndex, u32>,
    /// Items whose end is not journaled yet.
    unsaved: u32,
    failed_here: u32,
    ended_here: u32,
}

/// What callers are shown of a run, at one moment.
#[derive(Debug, Clone)]
pub(in crate::orchestrator) struct View {
    pub(in crate::orchestrator) record: Arc<WorkflowRecord>,
    pub(in crate::orchestrator) items: Vec<ItemRecord>,
    pub(in crate::orchestrator) counts: Counts,
    pub(in crate::orchestrator) revision: u64,
    pub(in crate::orchestrator) eta: Option<Duration>,
}

/// An attempt that was just begun.
pub(super) struct Begun {
    pub(super) record: ItemRecord,
    pub(super) work: ItemWork,
    pub(super) settings: Arc<WorkflowRecord>,
    pub(super) live: Arc<Live>,
}

impl Run {
    /// Makes a run of journaled items; the queued ones are ready.
    pub(in crate::orchestrator) fn new(
        record: WorkflowRecord,
        works: Vec<ItemWork>,
        items: Vec<ItemRecord>,
        revision: u64,
    ) -> Self {
        let ready = items
            .iter()
            .filter(|item| item.status == ItemState::Queued)
            .map(|item| item.item)
            .collect();
        Self {
            id: record.id,
            single: record.single,
            revision: watch::Sender::new(revision),
            all: CancellationToken::new(),
            began: Instant::now(),
            state: Mutex::new(State {
                record: Arc::new(record),
                counts: Counts::of(items.iter().map(|item| item.status)),
                works,
                items,
                ready,
                live: HashMap::new(),
                tries: HashMap::new(),
                unsaved: 0,
                failed_here: 0,
                ended_here: 0,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bump(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }

    /// Returns the workflow's id.
    pub(in crate::orchestrator) fn id(&self) -> WorkflowId {
        self.id
    }

    /// Returns whether it is one routed task, which is bound to a pool at once.
    pub(super) fn is_single(&self) -> bool {
        self.single
    }

    /// Returns the repository of an item.
    pub(super) fn repo_of(&self, item: ItemIndex) -> Option<String> {
        let state = self.state();
        Some(state.works.get(item as usize)?.repo.clone())
    }

    /// Returns how it runs.
    pub(super) fn settings(&self) -> Settings {
        self.state().record.settings.clone()
    }

    /// Returns the workflow's record.
    pub(super) fn record(&self) -> Arc<WorkflowRecord> {
        Arc::clone(&self.state().record)
    }

    /// Returns a receiver that is woken by every change.
    pub(in crate::orchestrator) fn changes(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Waits until every item has ended and every end is journaled.
    pub(in crate::orchestrator) async fn ended(&self) {
        let mut changes = self.changes();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = changes.wait_for(|_| self.is_over()).await;
    }

    /// Returns whether every item has ended and every end is journaled.
    pub(in crate::orchestrator) fn is_over(&self) -> bool {
        let state = self.state();
        state.counts.queued + state.counts.running == 0 && state.unsaved == 0
    }

    /// Returns the counts now.
    pub(in crate::orchestrator) fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Returns what callers are shown.
    pub(in crate::orchestrator) fn view(&self) -> View {
        let state = self.state();
        let mut items = state.items.clone();
        for (item, live) in &state.live {
            if let Some(record) = items.get_mut(*item as usize) {
                live.overlay(record);
            }
        }
        let mut counts = state.counts;
        if state.unsaved > 0 && counts.queued + counts.running == 0 {
            // Not over before the last end is journaled: what is told as done must survive the server.
            counts = Counts::of(items.iter().map(|item| item.status));
        }
        View {
            record: Arc::clone(&state.record),
            items,
            counts,
            revision: *self.revision.borrow(),
            eta: self.eta(&state),
        }
    }

    /// Returns how much longer it will take at the pace since it was taken up.
    fn eta(&self, state: &State) -> Option<Duration> {
        let left = state.counts.queued + state.counts.running;
        if left == 0 || state.ended_here == 0 {
            return None;
        }
        Some(
            self.began
                .elapsed()
                .mul_f64(f64::from(left) / f64::from(state.ended_here)),
        )
    }

    /// Returns the next ready item's repository without taking it, if the run may start one more now.
    pub(super) fn peek_ready(&self) -> Option<(ItemIndex, String)> {
        let state = self.state();
        let running = u32::try_from(state.live.len()).unwrap_or(u32::MAX);
        let limit = state.record.settings.max_parallel;
        if limit.is_some_and(|limit| running >= limit) {
            return None;
        }
        let item = *state.ready.front()?;
        Some((item, state.works.get(item as usize)?.repo.clone()))
    }

    /// Takes `item` off the ready list.
    pub(super) fn take_ready(&self, item: ItemIndex) -> bool {
        let mut state = self.state();
        let before = state.ready.len();
        state.ready.retain(|&ready| ready != item);
        state.ready.len() < before
    }

    /// Puts an item that could not be started back, first in line, if it still waits.
    pub(super) fn put_back(&self, item: ItemIndex) {
        let mut state = self.state();
        let queued = state
            .items
            .get(item as usize)
            .is_some_and(|record| record.status == ItemState::Queued);
        if queued && !state.ready.contains(&item) {
            state.ready.push_front(item);
        }
    }

    /// Returns whether no item waits or runs.
    pub(super) fn is_drained(&self) -> bool {
        let counts = self.state().counts;
        counts.queued + counts.running == 0
    }

    /// Begins an attempt: the item runs from now on. None if it was stopped meanwhile.
    pub(super) fn begin(&self, item: ItemIndex, pool: &PoolName) -> Option<Begun> {
        let mut state = self.state();
        let place = item as usize;
        if state.items.get(place)?.status != ItemState::Queued {
            return None;
        }
        let live = Arc::new(Live::new(&self.all));
        state.live.insert(item, Arc::clone(&live));
        *state.tries.entry(item).or_default() += 1;
        state.counts.shift(ItemState::Queued, ItemState::Running);
        let old = state.items.get_mut(place)?;
        let mut record = ItemRecord::unstarted(item, old.repo.clone(), ItemState::Running);
        record.attempt = old.attempt + 1;
        record.pool = Some(pool.clone());
        record.started_at = Some(At::now());
        // What the attempt before left is where this one goes on.
        record.worktree.clone_from(&old.worktree);
        record.branch.clone_from(&old.branch);
        record.base_commit.clone_from(&old.base_commit);
        record.base_branch.clone_from(&old.base_branch);
        *old = record.clone();
        let begun = Begun {
            record,
            work: state.works.get(place)?.clone(),
            settings: Arc::clone(&state.record),
            live,
        };
        drop(state);
        self.bump();
        Some(begun)
    }

    /// Takes an attempt that was begun but not started back to the queue, as if it had not been.
    pub(super) fn unbegin(&self, item: ItemIndex) {
        let mut state = self.state();
        state.live.remove(&item);
        if let Some(tries) = state.tries.get_mut(&item) {
            *tries = tries.saturating_sub(1);
        }
        if let Some(record) = state.items.get_mut(item as usize) {
            record.status = ItemState::Queued;
            record.attempt = record.attempt.saturating_sub(1);
            record.started_at = None;
            state.counts.shift(ItemState::Running, ItemState::Queued);
        }
        drop(state);
        self.bump();
    }

    /// Updates what is known of a running attempt.
    pub(super) fn update(&self, record: &ItemRecord) {
        let mut state = self.state();
        if let Some(old) = state.items.get_mut(record.item as usize) {
            old.clone_from(record);
        }
    }

    /// Returns whether a failed item has another attempt left.
    pub(super) fn may_retry(&self, item: ItemIndex) -> bool {
        let state = self.state();
        let tries = state.tries.get(&item).copied().unwrap_or(0);
        tries <= state.record.settings.retries && !self.all.is_cancelled()
    }

    /// Ends an attempt: with `record`'s state, or back in the queue for another one. The end is not journaled yet.
    pub(super) fn end(&self, record: &ItemRecord, again: bool) {
        let mut state = self.state();
        state.live.remove(&record.item);
        let status = if again {
            ItemState::Queued
        } else {
            record.status
        };
        if let Some(old) = state.items.get_mut(record.item as usize) {
            let before = old.status;
            old.clone_from(record);
            old.status = status;
            state.counts.shift(before, status);
        }
        state.unsaved += 1;
        if again {
            state.ready.push_back(record.item);
        } else {
            state.ended_here += 1;
            if matches!(status, ItemState::Failed | ItemState::TimedOut) {
                state.failed_here += 1;
            }
        }
        drop(state);
        self.bump();
    }

    /// Tells that `count` ends are journaled now.
    pub(super) fn saved(&self, count: u32) {
        let mut state = self.state();
        state.unsaved = state.unsaved.saturating_sub(count);
        drop(state);
        self.bump();
    }

    /// Returns whether so many items have failed that nothing more may start.
    pub(super) fn has_failed_enough(&self) -> bool {
        let state = self.state();
        let limit = state.record.settings.max_failures;
        limit.is_some_and(|limit| state.failed_here >= limit)
    }

    /// Stops items, all if none is named; returns those that only waited and so have ended now.
    pub(in crate::orchestrator) fn stop(
        &self,
        items: &[ItemIndex],
        why: Stop,
        grace: Option<Duration>,
    ) -> Vec<ItemRecord> {
        let named = |item: ItemIndex| items.is_empty() || items.contains(&item);
        let mut state = self.state();
        if why != Stop::MaxFailures {
            for (item, live) in &state.live {
                if named(*item) {
                    live.stop(why, grace);
                }
            }
        }
        let mut ended = Vec::new();
        let (status, problem) = why.verdict();
        let State {
            items: records,
            counts,
            ..
        } = &mut *state;
        for record in records.iter_mut() {
            if record.status != ItemState::Queued || !named(record.item) {
                continue;
            }
            counts.shift(ItemState::Queued, status);
            record.status = status;
            record.stage = Some(Stage::Start);
            record.cause = Some(problem.message.clone());
            record.error = Some(problem.clone());
            ended.push(record.clone());
        }
        state.ready.retain(|item| !named(*item));
        state.unsaved += u32::try_from(ended.len()).unwrap_or(u32::MAX);
        drop(state);
        self.bump();
        ended
    }

    /// Stops what runs in this pool.
    pub(in crate::orchestrator) fn stop_pool(&self, pool: &PoolName) {
        let state = self.state();
        for (item, live) in &state.live {
            let there = state.items.get(*item as usize);
            if there.is_some_and(|record| record.pool.as_ref() == Some(pool)) {
                live.stop(Stop::PoolClosed, None);
            }
        }
    }
}
