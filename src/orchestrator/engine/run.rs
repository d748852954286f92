//! A run: one workflow that this server works on now, as a state machine over its items.
//!
//! Transitions only: the dispatcher decides what starts when, attempts do the work. An item ends, for every observer,
//! when its end is journaled, so that no end that was reported is lost with the server. The revision is the journal's
//! own: it only grows, whichever server reports it.
//!
//! ```text
//!            ┌─ unblock ── Blocked ◄─ undo_begin ┐
//!            ▼                ▲ block            │
//! Idle ─► Ready ──────────────┴── begin ──► Running ── end ─► Ending ── ends_journaled ─► Idle
//!   resume   ▲                                                  │ (another attempt)
//!            └──────────────────────────────────────────────────┘
//! ```

use super::item::{Item, Phase, is_failure, unstarted_end};
use super::ledger::Ledger;
use super::live::LiveAttempt;
use super::stop::Stop;
use crate::model::{
    Counts, Filter, ItemIndex, ItemRecord, ItemState, ItemWork, PoolName, Revision, WorkflowId,
    WorkflowRecord,
};

use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A workflow that this server works on now.
pub(crate) struct Run {
    // Held for tree and vector operations; a view of 10,000 items clones as many pointers.
    state: Mutex<State>,
    // Held to add or take lines.
    ledger: Mutex<Ledger>,
    id: WorkflowId,
    /// The journal's revision; sent at every change, so that it wakes all observers.
    revision: watch::Sender<Revision>,
    began: Instant,
}

struct State {
    record: Arc<WorkflowRecord>,
    items: Vec<Item>,
    counts: Counts,
    /// What can start now, those with fewer tries first.
    ready: BTreeSet<(u32, ItemIndex)>,
    /// How many items run.
    running: u32,
    /// Since the run was taken up.
    failed: u32,
    ended: u32,
    /// The revision that made the last failure known, in this run.
    failed_at: Option<Revision>,
}

/// How far a run is, at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunStatus {
    pub(crate) counts: Counts,
    pub(crate) revision: Revision,
    /// The revision that made the last failure known, where one is known.
    pub(crate) failed_at: Option<Revision>,
}

/// What callers see of a run, at one moment.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) record: Arc<WorkflowRecord>,
    pub(crate) items: Vec<Arc<ItemRecord>>,
    pub(crate) counts: Counts,
    pub(crate) revision: Revision,
    pub(crate) eta: Option<Duration>,
}

/// What a run could start next.
pub(super) enum Next {
    /// This item.
    Item(Arc<ItemWork>),
    /// Nothing before an item of it ends.
    Later,
    /// Nothing: no item is ready.
    Nothing,
}

/// An attempt that was just begun.
pub(super) struct Begun {
    pub(super) record: ItemRecord,
    pub(super) work: Arc<ItemWork>,
    pub(super) workflow: Arc<WorkflowRecord>,
    pub(super) live: Arc<LiveAttempt>,
}

impl Run {
    /// Makes a run of journaled items; the queued ones are ready.
    pub(crate) fn new(
        record: WorkflowRecord,
        items: impl IntoIterator<Item = (ItemWork, ItemRecord)>,
        revision: Revision,
    ) -> Self {
        let items: Vec<Item> = items.into_iter().map(Item::new).collect();
        let waits = |item: &Item| item.record.status == ItemState::Queued;
        let ready = items.iter().filter(|item| waits(item));
        Self {
            id: record.id,
            revision: watch::Sender::new(revision),
            began: Instant::now(),
            ledger: Mutex::default(),
            state: Mutex::new(State {
                record: Arc::new(record),
                counts: Counts::of(items.iter().map(|item| item.record.status)),
                ready: ready.map(|item| (0, item.record.item)).collect(),
                items,
                running: 0,
                failed: 0,
                ended: 0,
                failed_at: None,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Returns what is to be journaled of it.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock()
    }

    /// Wakes all observers, with the journal's revision where something was written.
    fn wake(&self, revision: Option<Revision>) {
        self.revision
            .send_modify(|known| *known = (*known).max(revision.unwrap_or(0)));
    }

    /// Returns the workflow's id.
    pub(crate) fn id(&self) -> WorkflowId {
        self.id
    }

    /// Returns the workflow's record.
    pub(crate) fn record(&self) -> Arc<WorkflowRecord> {
        Arc::clone(&self.state().record)
    }

    /// Returns a receiver that is woken by every change.
    pub(crate) fn changes(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Waits until every item has ended.
    pub(crate) async fn ended(&self) {
        let mut changes = self.changes();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = changes.wait_for(|_| self.is_over()).await;
    }

    /// Returns whether every item has ended.
    pub(crate) fn is_over(&self) -> bool {
        let counts = self.counts();
        counts.queued + counts.running == 0
    }

    /// Returns the counts now.
    pub(crate) fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Returns how far it is.
    pub(crate) fn status(&self) -> RunStatus {
        let state = self.state();
        RunStatus {
            counts: state.counts,
            revision: *self.revision.borrow(),
            failed_at: state.failed_at,
        }
    }

    /// Returns how many items have ended without their end being journaled yet.
    pub(crate) fn unsaved(&self) -> usize {
        let ending = |item: &&Item| matches!(item.phase, Phase::Ending { .. });
        self.state().items.iter().filter(ending).count()
    }

    /// Returns what callers see of it.
    pub(crate) fn view(&self) -> View {
        let state = self.state();
        View {
            record: Arc::clone(&state.record),
            items: state.items.iter().map(Item::shown).collect(),
            counts: state.counts,
            revision: *self.revision.borrow(),
            eta: self.eta(&state),
        }
    }

    /// Returns how much longer it will take at its pace so far.
    fn eta(&self, state: &State) -> Option<Duration> {
        let left = state.counts.queued + state.counts.running;
        let pace = f64::from(left) / f64::from(state.ended);
        (left > 0 && state.ended > 0).then(|| self.began.elapsed().mul_f64(pace))
    }
}

/// Transitions by the dispatcher.
impl Run {
    /// Returns what could start next, without taking it.
    pub(super) fn next(&self) -> Next {
        let state = self.state();
        let Some(&(_, item)) = state.ready.first() else {
            return Next::Nothing;
        };
        let limit = state.record.settings.max_parallel;
        if limit.is_some_and(|limit| state.running >= limit) || state.has_failed_enough() {
            return Next::Later;
        }
        match state.items.get(item as usize) {
            Some(item) => Next::Item(Arc::clone(&item.work)),
            None => Next::Nothing,
        }
    }

    /// Begins an attempt at a ready item, which has a slot of `pool` from now on; none where it is not ready any more.
    pub(super) fn begin(&self, item: ItemIndex, pool: &PoolName, grace: Duration) -> Option<Begun> {
        let mut state = self.state();
        let live = Arc::new(LiveAttempt::new(grace));
        if !state.leave_ready(item, Phase::Running(Arc::clone(&live))) {
            return None;
        }
        let workflow = Arc::clone(&state.record);
        let item = state.items.get_mut(item as usize)?;
        let record = item.next_attempt(pool);
        item.record = Arc::new(record.clone());
        item.tries += 1;
        let work = Arc::clone(&item.work);
        state.running += 1;
        state.counts.shift(ItemState::Queued, ItemState::Running);
        drop(state);
        self.wake(None);
        Some(Begun {
            record,
            work,
            workflow,
            live,
        })
    }

    /// Sets a ready item aside until its repository is free; false where it is not ready any more.
    pub(super) fn block(&self, item: ItemIndex) -> bool {
        self.state().leave_ready(item, Phase::Blocked)
    }

    /// Makes a blocked item ready again; false where it is not blocked any more.
    pub(super) fn unblock(&self, item: ItemIndex) -> bool {
        let mut state = self.state();
        let is_blocked = |item: &Item| matches!(item.phase, Phase::Blocked);
        let blocked = state.items.get(item as usize).is_some_and(is_blocked);
        if blocked {
            state.make_ready(item);
        }
        blocked
    }
}

/// Transitions by attempts and the journal.
impl Run {
    /// Blocks an item whose attempt was begun, as if that had not been; returns its end, to be journaled, where it was
    /// stopped meanwhile.
    pub(super) fn undo_begin(&self, item: ItemIndex) -> Option<ItemRecord> {
        let mut state = self.state();
        let place = state.items.get_mut(item as usize)?;
        let Phase::Running(live) = &place.phase else {
            return None;
        };
        let stop = live.stopped();
        place.tries = place.tries.saturating_sub(1);
        place.phase = Phase::Blocked;
        let record = Arc::make_mut(&mut place.record);
        record.status = ItemState::Queued;
        record.attempt = record.attempt.saturating_sub(1);
        record.started_at = None;
        state.running -= 1;
        state.counts.shift(ItemState::Running, ItemState::Queued);
        let ended = stop.and_then(|why| state.end_waiting(item, why));
        drop(state);
        self.wake(None);
        ended
    }

    /// Notes that the begin of an attempt is journaled, as `record`.
    pub(super) fn begin_journaled(&self, record: &ItemRecord, revision: Revision) {
        let mut state = self.state();
        if let Some(item) = state.items.get_mut(record.item as usize)
            && matches!(item.phase, Phase::Running(_))
        {
            item.record = Arc::new(record.clone());
        }
        drop(state);
        self.wake(Some(revision));
    }

    /// Ends an attempt. Returns what is to be journaled: the end and, where `may_retry` and the item has another attempt
    /// left, its wait for that.
    pub(super) fn end(&self, end: &ItemRecord, may_retry: bool) -> Vec<ItemRecord> {
        let mut state = self.state();
        let failed = is_failure(end.status);
        let retries = state.record.settings.retries;
        let Some(item) = state.items.get_mut(end.item as usize) else {
            return Vec::new();
        };
        let Phase::Running(live) = &item.phase else {
            return Vec::new();
        };
        let stopped = live.stopped().is_some();
        item.failed = None;
        let left = item.tries <= retries;
        let again = may_retry && failed && left && !stopped && !state.has_failed_enough();
        state.failed += u32::from(failed && !again);
        state.running -= 1;
        let mut records = vec![end.clone()];
        if again {
            records.push(ItemRecord {
                status: ItemState::Queued,
                ..end.clone()
            });
        }
        state.items[end.item as usize].phase = Phase::Ending {
            end: Arc::new(end.clone()),
            again,
            stop: None,
        };
        drop(state);
        self.wake(None);
        records
    }

    /// Notes that the ends of these items are journaled; returns ends that are to be journaled now, of items that were
    /// stopped while they were about to wait for another attempt.
    pub(super) fn ends_journaled(
        &self,
        items: impl IntoIterator<Item = ItemIndex>,
        revision: Option<Revision>,
    ) -> Vec<ItemRecord> {
        let mut state = self.state();
        let mut more = Vec::new();
        for index in items {
            more.extend(state.settle(index, revision));
        }
        drop(state);
        self.wake(revision);
        more
    }

    /// Returns whether an item is ready.
    pub(super) fn has_ready(&self) -> bool {
        !self.state().ready.is_empty()
    }

    /// Returns whether so many items have failed that nothing more may start.
    pub(super) fn has_failed_enough(&self) -> bool {
        self.state().has_failed_enough()
    }
}

/// Transitions by callers.
impl Run {
    /// Stops items, all if none is named; returns the ends, to be journaled, of those that were waiting.
    pub(crate) fn stop(
        &self,
        items: &[ItemIndex],
        why: Stop,
        grace: Option<Duration>,
    ) -> Vec<ItemRecord> {
        let named: BTreeSet<ItemIndex> = items.iter().copied().collect();
        let mut state = self.state();
        let mut ended = Vec::new();
        for index in 0..u32::try_from(state.items.len()).unwrap_or(u32::MAX) {
            if !named.is_empty() && !named.contains(&index) {
                continue;
            }
            match &mut state.items[index as usize].phase {
                Phase::Idle => {}
                Phase::Running(live) if why.ends_running() => live.stop(why, grace),
                Phase::Running(_) => {}
                Phase::Ending { stop, .. } => *stop = (*stop).max(Some(why)),
                Phase::Ready | Phase::Blocked => ended.extend(state.end_waiting(index, why)),
            }
        }
        drop(state);
        self.wake(None);
        ended
    }

    /// Stops what runs in this pool.
    pub(crate) fn stop_pool(&self, pool: &PoolName) {
        for item in &self.state().items {
            if let Phase::Running(live) = &item.phase
                && item.record.pool.as_ref() == Some(pool)
            {
                live.stop(Stop::PoolClosed, None);
            }
        }
    }

    /// Returns whether an item is idle, so that it can be resumed.
    pub(crate) fn is_idle(&self, item: ItemIndex) -> bool {
        let idle = |item: &Item| matches!(item.phase, Phase::Idle);
        self.state().items.get(item as usize).is_some_and(idle)
    }

    /// Makes idle items ready again, as they are journaled already; from now on the workflow runs by the settings in
    /// `record`.
    pub(crate) fn resume(
        &self,
        record: WorkflowRecord,
        items: impl IntoIterator<Item = (ItemWork, ItemRecord)>,
        revision: Revision,
    ) {
        let mut state = self.state();
        state.record = Arc::new(record);
        // A resumed run starts, whatever failed before.
        state.failed = 0;
        for (work, record) in items {
            let index = record.item;
            let Some(item) = state.items.get_mut(index as usize) else {
                continue;
            };
            let old = item.record.status;
            *item = Item::new((work, record));
            state.counts.shift(old, ItemState::Queued);
            state.make_ready(index);
        }
        drop(state);
        self.wake(Some(revision));
    }

    /// Returns the pools that its items may go to.
    pub(crate) fn filter(&self) -> Filter {
        self.state().record.settings.filter.clone()
    }
}

impl State {
    fn has_failed_enough(&self) -> bool {
        let limit = self.record.settings.max_failures;
        limit.is_some_and(|limit| self.failed >= limit)
    }

    fn leave_ready(&mut self, index: ItemIndex, phase: Phase) -> bool {
        let Some(item) = self.items.get_mut(index as usize) else {
            return false;
        };
        let was = self.ready.remove(&(item.tries, index));
        if was {
            item.phase = phase;
        }
        was
    }

    fn make_ready(&mut self, index: ItemIndex) {
        if let Some(item) = self.items.get_mut(index as usize) {
            item.phase = Phase::Ready;
            self.ready.insert((item.tries, index));
        }
    }

    /// Ends an item that waits, as its last attempt did or else for this reason; returns the end, to be journaled.
    fn end_waiting(&mut self, index: ItemIndex, why: Stop) -> Option<ItemRecord> {
        let item = self.items.get_mut(index as usize)?;
        self.ready.remove(&(item.tries, index));
        let end = match item.failed.take() {
            Some(failed) if why != Stop::Closing => failed,
            _ => Arc::new(unstarted_end(&item.record, why)),
        };
        if is_failure(end.status) {
            self.failed += 1;
        }
        item.phase = Phase::Ending {
            end: Arc::clone(&end),
            again: false,
            stop: None,
        };
        Some((*end).clone())
    }

    /// Makes an item's journaled end known; returns the end, to be journaled, of one that was stopped while it was about
    /// to wait for another attempt.
    fn settle(&mut self, index: ItemIndex, revision: Option<Revision>) -> Option<ItemRecord> {
        let item = self.items.get_mut(index as usize)?;
        let Phase::Ending { end, again, stop } = &item.phase else {
            return None;
        };
        let (end, again, stop) = (Arc::clone(end), *again, *stop);
        let old = item.record.status;
        if is_failure(end.status) {
            self.failed_at = revision.or(self.failed_at);
        }
        if !again {
            item.phase = Phase::Idle;
            self.counts.shift(old, end.status);
            item.record = end;
            self.ended += 1;
            return None;
        }
        item.record = Arc::new(ItemRecord {
            status: ItemState::Queued,
            ..(*end).clone()
        });
        item.failed = Some(end);
        self.counts.shift(old, ItemState::Queued);
        match stop {
            Some(why) => self.end_waiting(index, why),
            None => {
                self.make_ready(index);
                None
            }
        }
    }
}
