//! Pools whose worker cannot be used: out of the choice until it can, so that tasks do not flow to where they fail
//! fastest.

use super::load::Availability;
use super::pool::Pool;
use super::pools::{Pools, Slot};
use super::spec::PoolKey;
use crate::error::Problem;
use crate::model::Filter;
use crate::resilience::Backoff;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The first and the longest pause before a worker is asked again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// What is needed to ask workers again in the background.
#[derive(Clone)]
pub(crate) struct Quarantine {
    pub(crate) pools: Pools,
    /// How long one question may take.
    pub(crate) patience: Duration,
    pub(crate) tasks: TaskTracker,
    pub(crate) closing: CancellationToken,
}

impl Quarantine {
    /// Takes a pool out of the choice and asks its worker again and again until it can be used. Does nothing to one that
    /// is out already.
    pub(crate) fn put(&self, key: PoolKey, pool: Arc<Pool>) {
        if !self
            .pools
            .turn(key, Availability::Open, Availability::Unhealthy)
        {
            return;
        }
        let this = self.clone();
        self.tasks.spawn(async move {
            let closing = this.closing.clone();
            closing.run_until_cancelled(this.revive(key, &pool)).await;
        });
    }

    /// Probes the pool of an attempt that could not be started, and takes it out where its worker cannot be used and
    /// another open pool fits `filter`. The last one stays: a task that fails gives a reason, one that waits for ever does
    /// not.
    pub(crate) async fn suspect(&self, slot: &Slot, filter: &Filter) {
        if !self.pools.has_other(slot.key, filter) {
            return;
        }
        if let Some(Err(problem)) = self.ask(&slot.pool).await {
            tracing::info!(pool = %slot.pool.name, %problem, "its worker cannot be used; it is left out");
            self.put(slot.key, Arc::clone(&slot.pool));
        }
    }

    async fn revive(&self, key: PoolKey, pool: &Pool) {
        let (first, longest) = PAUSES;
        for pause in Backoff::new(first, longest, u64::from(std::process::id())) {
            tokio::time::sleep(pause).await;
            if !self.pools.is(key, Availability::Unhealthy) {
                return;
            }
            if let Some(Ok(())) = self.ask(pool).await {
                self.pools
                    .turn(key, Availability::Unhealthy, Availability::Open);
                return;
            }
        }
    }

    /// Asks the worker; nothing where it does not answer in time.
    async fn ask(&self, pool: &Pool) -> Option<Result<(), Problem>> {
        tokio::time::timeout(self.patience, pool.worker.probe())
            .await
            .ok()
    }
}
