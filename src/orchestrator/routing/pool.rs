//! One pool as attempts see it: its worker and its figures.
//!
//! Not responsible for choosing a pool (the router) nor for counting its slots (the guards of `pools`).

use super::stats::Stats;
use crate::model::PoolName;
use crate::worker::Worker;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A pool as attempts see it.
pub(crate) struct Pool {
    /// Its name.
    pub(crate) name: PoolName,
    /// Its worker kind's name in the config.
    pub(crate) worker_name: String,
    /// What runs its tasks.
    pub(crate) worker: Arc<dyn Worker>,
    /// How long one attempt may take, where the call gives no limit.
    pub(crate) timeout: Option<Duration>,
    /// What its attempts have taken so far.
    pub(crate) stats: Stats,
    // Held to copy an instant, never across an await.
    usable_at: Mutex<Option<Instant>>,
}

impl Pool {
    /// Makes a pool that has run nothing yet.
    pub(crate) fn new(
        name: PoolName,
        worker_name: String,
        worker: Arc<dyn Worker>,
        timeout: Option<Duration>,
    ) -> Self {
        Self {
            name,
            worker_name,
            worker,
            timeout,
            stats: Stats::default(),
            usable_at: Mutex::default(),
        }
    }

    /// Notes that its worker was found usable at `now`.
    pub(crate) fn found_usable(&self, now: Instant) {
        *self.usable_at.lock() = Some(now);
    }

    /// Returns whether its worker was found usable less than `age` before `now`.
    pub(crate) fn was_usable(&self, now: Instant, age: Duration) -> bool {
        let usable_at = *self.usable_at.lock();
        usable_at.is_some_and(|at| now.saturating_duration_since(at) < age)
    }
}
