//! How loaded a pool is, whether it takes tasks, and its rank in the routing order.

use std::cmp::Ordering;

/// Whether a pool takes new tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Availability {
    /// It takes tasks.
    Open,
    /// It finishes what it has accepted, queued tasks included, and takes nothing new.
    Draining,
    /// It is about to be removed: tasks that wait for it go elsewhere.
    Closing,
    /// Its worker cannot be used now.
    Unhealthy,
}

/// How loaded a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// Slots taken.
    pub(crate) in_flight: u32,
    /// Tasks waiting for a slot.
    pub(crate) queued: u32,
    /// Slots there are.
    pub(crate) max_workers: u32,
    /// How many tasks may wait.
    pub(crate) queue: u32,
}

impl Load {
    /// Returns `(in_flight + queued) / max_workers`; a pool without slots counts as one with a single slot.
    pub(crate) fn ratio(&self) -> f64 {
        let outstanding = f64::from(self.in_flight) + f64::from(self.queued);
        outstanding / f64::from(self.max_workers.max(1))
    }

    /// Returns what the pool has room for, if it is open.
    pub(super) fn vacancy(&self) -> Vacancy {
        if self.in_flight < self.max_workers {
            Vacancy::Slot
        } else if self.max_workers > 0 && self.queued < self.queue {
            Vacancy::Queue
        } else {
            Vacancy::Nothing
        }
    }
}

/// What a pool can take now, in the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Vacancy {
    /// A task in a free slot.
    Slot,
    /// A task in its queue: all its slots are taken.
    Queue,
    /// Nothing: it is not open, or full with its queue.
    Nothing,
}

/// A pool's place in the routing order, the smallest first: vacancy, exact load, fewer outstanding tasks, least recently
/// routed to. No two pools have the same recency, so the order is strict.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rank {
    pub(super) vacancy: Vacancy,
    outstanding: u32,
    max_workers: u32,
    recency: u64,
}

impl Rank {
    pub(super) fn new(vacancy: Vacancy, load: Load, recency: u64) -> Self {
        Self {
            vacancy,
            outstanding: load.in_flight.saturating_add(load.queued),
            max_workers: load.max_workers.max(1),
            recency,
        }
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        // Two fractions, compared exactly by cross-multiplication.
        let mine = u64::from(self.outstanding) * u64::from(other.max_workers);
        let others = u64::from(other.outstanding) * u64::from(self.max_workers);
        let by_load = self.vacancy.cmp(&other.vacancy).then(mine.cmp(&others));
        by_load
            .then(self.outstanding.cmp(&other.outstanding))
            .then(self.recency.cmp(&other.recency))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Rank {}
