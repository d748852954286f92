//! One pool as attempts see it: its worker and its figures.
//!
//! Not responsible for choosing a pool (the router) nor for counting its slots (the guards of `pools`).

use super::stats::PoolStats;
use crate::model::PoolName;
use crate::worker::Worker;
use std::sync::Arc;
use std::time::Duration;

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
    pub(crate) stats: PoolStats,
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
            stats: PoolStats::default(),
        }
    }
}
