//! What the router knows of one pool while it routes, in one cache line.

use std::cmp::Ordering;

/// No slot, no bucket.
pub(crate) const NONE: u32 = u32::MAX;

/// Whether a pool takes new tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Availability {
    /// It takes tasks.
    Open,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// Its worker cannot be used now.
    Unhealthy,
}

/// How loaded a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadOf {
    /// Slots taken.
    pub in_flight: u32,
    /// Tasks waiting for a slot.
    pub queued: u32,
    /// Slots there are.
    pub max_workers: u32,
    /// How many tasks may wait.
    pub queue: u32,
}

impl LoadOf {
    /// Returns `(in_flight + queued) / max_workers`; a pool without slots counts as one with a single slot.
    pub fn ratio(&self) -> f64 {
        let outstanding = f64::from(self.in_flight) + f64::from(self.queued);
        outstanding / f64::from(self.max_workers.max(1))
    }
}

/// The router's order: exact load, then outstanding tasks, then who was routed to least recently.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rank {
    pub(crate) outstanding: u32,
    pub(crate) max_workers: u32,
    pub(crate) recency: u64,
}

impl Rank {
    /// Comes after every pool's rank.
    pub(crate) const LAST: Self = Self {
        outstanding: u32::MAX,
        max_workers: 1,
        recency: u64::MAX,
    };

    pub(crate) fn is_last(self) -> bool {
        self.recency == u64::MAX
    }

    /// Returns whether the two are alike in every part, which is cheaper to tell than their order.
    pub(crate) fn is_same(self, other: Self) -> bool {
        let parts = |rank: Self| (rank.recency, rank.outstanding, rank.max_workers);
        parts(self) == parts(other)
    }

    /// Compares loads exactly, as fractions.
    pub(crate) fn load_cmp(&self, other: &Self) -> Ordering {
        let mine = u64::from(self.outstanding) * u64::from(other.max_workers);
        let others = u64::from(other.outstanding) * u64::from(self.max_workers);
        mine.cmp(&others)
            .then(self.outstanding.cmp(&other.outstanding))
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        self.load_cmp(other).then(self.recency.cmp(&other.recency))
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

/// Which set a pool is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// It has been removed; its slot is to be used again.
    Vacant,
    /// It has a free slot.
    Free,
    /// All its slots are taken and its queue has room.
    Waiting,
    /// It takes nothing: unavailable, or full with its queue.
    Aside,
}

/// One pool. `prev` and `next` link it within its set; a node in a bucket's heap has its place there in `prev`.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Node {
    pub(crate) serial: u64,
    pub(crate) recency: u64,
    pub(crate) in_flight: u32,
    pub(crate) queued: u32,
    pub(crate) max_workers: u32,
    pub(crate) queue: u32,
    pub(crate) class: u32,
    pub(crate) bucket: u32,
    pub(crate) prev: u32,
    pub(crate) next: u32,
    pub(crate) home: Home,
    pub(crate) in_heap: bool,
    pub(crate) availability: Availability,
}

impl Node {
    pub(crate) fn outstanding(&self) -> u32 {
        self.in_flight.saturating_add(self.queued)
    }

    pub(crate) fn rank(&self) -> Rank {
        Rank {
            outstanding: self.outstanding(),
            max_workers: self.max_workers,
            recency: self.recency,
        }
    }

    pub(crate) fn load(&self) -> LoadOf {
        LoadOf {
            in_flight: self.in_flight,
            queued: self.queued,
            max_workers: self.max_workers,
            queue: self.queue,
        }
    }

    /// Returns the set the pool belongs to as it is now.
    pub(crate) fn belongs(&self) -> Home {
        // One below the type's end, so that no pool ranks as `Rank::LAST` and no count overflows.
        let room = self.outstanding() < u32::MAX - 1 && self.max_workers > 0;
        if self.availability != Availability::Open || !room {
            Home::Aside
        } else if self.in_flight < self.max_workers {
            Home::Free
        } else if self.queued < self.queue {
            Home::Waiting
        } else {
            Home::Aside
        }
    }
}
