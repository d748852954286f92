//! The pools of this process: the router behind its one lock, and the guards that give slots back.

use super::router::{Availability, LoadOf, Placement, PoolKey, PoolSpec, Router, Why};
use crate::model::{Filter, PoolName};
use crate::pool::Pool;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// All pools; cloning shares them.
#[derive(Clone, Default)]
pub(super) struct Pools(Arc<Inner>);

#[derive(Default)]
struct Inner {
    // A std mutex: every hold is one router operation (tens to hundreds of nanoseconds), never across an await.
    state: Mutex<State>,
    /// Rung whenever a slot may have become free; the dispatcher is the one who listens.
    freed: Notify,
}

#[derive(Default)]
struct State {
    router: Router,
    pools: HashMap<PoolKey, Arc<Pool>>,
}

/// A pool with its place in the router, at one moment.
#[derive(Clone)]
pub(super) struct Standing {
    pub(super) key: PoolKey,
    pub(super) pool: Arc<Pool>,
    pub(super) spec: PoolSpec,
    pub(super) load: LoadOf,
    pub(super) availability: Availability,
}

impl Standing {
    /// Returns whether the pool may take what `filter` lets through.
    pub(super) fn fits(&self, filter: &Filter) -> bool {
        let spec = &self.spec;
        (filter.pools.is_empty() || filter.pools.contains(&spec.name))
            && (filter.workers.is_empty() || filter.workers.contains(&spec.worker))
            && filter
                .labels
                .iter()
                .all(|label| spec.labels.contains(label))
    }
}

impl Pools {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a slot may have become free.
    pub(super) async fn freed(&self) {
        self.0.freed.notified().await;
    }

    /// Wakes the dispatcher: there may be something to start.
    pub(super) fn ring(&self) {
        self.0.freed.notify_one();
    }

    /// Adds a pool; returns whether its name was free.
    pub(super) fn add(&self, spec: PoolSpec, pool: Pool) -> bool {
        let mut state = self.state();
        let Ok(key) = state.router.insert(spec) else {
            return false;
        };
        state.pools.insert(key, Arc::new(pool));
        drop(state);
        self.ring();
        true
    }

    /// Removes a pool; slots that are still taken give themselves back harmlessly.
    pub(super) fn remove(&self, key: PoolKey) {
        let mut state = self.state();
        state.router.remove(key);
        state.pools.remove(&key);
    }

    /// Changes a pool under the lock and wakes the dispatcher.
    pub(super) fn change(&self, change: impl FnOnce(&mut Router)) {
        change(&mut self.state().router);
        self.ring();
    }

    /// Changes a pool's availability where it is `from`; returns whether it was.
    pub(super) fn turn(&self, key: PoolKey, from: Availability, to: Availability) -> bool {
        let mut turned = false;
        self.change(|router| {
            turned = router.availability(key) == Some(from);
            if turned {
                router.set_availability(key, to);
            }
        });
        turned
    }

    /// Returns whether a pool is there and has this availability.
    pub(super) fn is(&self, key: PoolKey, availability: Availability) -> bool {
        self.state().router.availability(key) == Some(availability)
    }

    /// Returns whether another pool than this one is open and fits `filter`.
    pub(super) fn has_other(&self, key: PoolKey, filter: &Filter) -> bool {
        let open = |pool: &Standing| pool.availability == Availability::Open;
        self.all()
            .iter()
            .any(|pool| pool.key != key && open(pool) && pool.fits(filter))
    }

    /// Returns the pool of this name.
    pub(super) fn get(&self, name: &str) -> Option<Standing> {
        let state = self.state();
        let key = state.router.key(name)?;
        state.standing(key)
    }

    /// Returns the names of all pools, in order.
    pub(super) fn names(&self) -> Vec<PoolName> {
        self.state().router.names().cloned().collect()
    }

    /// Returns up to `limit` pools whose names come after `after`, by name, and how many there are in all.
    pub(super) fn page(&self, after: Option<&str>, limit: usize) -> (Vec<Standing>, usize) {
        let state = self.state();
        let page = state
            .router
            .iter_after(after.unwrap_or(""))
            .take(limit)
            .filter_map(|(key, _)| state.standing(key))
            .collect();
        (page, state.router.len())
    }

    /// Returns every pool, by name.
    pub(super) fn all(&self) -> Vec<Standing> {
        self.page(None, usize::MAX).0
    }

    /// Returns why a choice among `filter` falls as it does.
    pub(super) fn explain(&self, filter: &Filter, limit: usize) -> Why {
        self.state().router.explain(filter, limit)
    }

    /// Takes a slot of the least-loaded pool that has one free.
    pub(super) fn acquire(&self, filter: &Filter) -> Option<Slot> {
        let mut state = self.state();
        let key = state.router.acquire(filter)?;
        self.slot(&state, key)
    }

    /// Takes a slot of the least-loaded pool, or a place in its queue.
    pub(super) fn acquire_or_queue(&self, filter: &Filter) -> Option<Routed> {
        let mut state = self.state();
        match state.router.acquire_or_queue(filter).ok()? {
            Placement::Slot(key) => self.slot(&state, key).map(Routed::Slot),
            Placement::Queued(key) => {
                let pool = state.pools.get(&key)?.clone();
                Some(Routed::Queued(Place {
                    pools: self.clone(),
                    key,
                    pool,
                    kept: true,
                }))
            }
        }
    }

    fn slot(&self, state: &State, key: PoolKey) -> Option<Slot> {
        let pool = state.pools.get(&key)?.clone();
        Some(Slot {
            pools: self.clone(),
            key,
            pool,
        })
    }
}

impl State {
    fn standing(&self, key: PoolKey) -> Option<Standing> {
        Some(Standing {
            key,
            pool: self.pools.get(&key)?.clone(),
            spec: self.router.spec(key)?,
            load: self.router.load(key)?,
            availability: self.router.availability(key)?,
        })
    }
}

/// What a routed task got.
pub(super) enum Routed {
    /// A slot.
    Slot(Slot),
    /// A place in the queue of the least-loaded pool.
    Queued(Place),
}

/// A taken slot; dropping it, on whatever path, gives it back.
pub(super) struct Slot {
    pools: Pools,
    pub(super) key: PoolKey,
    pub(super) pool: Arc<Pool>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pools.state().router.release(self.key);
        self.pools.ring();
    }
}

/// A place in a pool's queue; dropping it gives it up.
pub(super) struct Place {
    pools: Pools,
    pub(super) key: PoolKey,
    pub(super) pool: Arc<Pool>,
    kept: bool,
}

impl Place {
    /// Turns the place into a slot where the pool has one free now.
    pub(super) fn promote(mut self) -> Result<Slot, Self> {
        if !self.pools.state().router.promote(self.key) {
            return Err(self);
        }
        self.kept = false;
        Ok(Slot {
            pools: self.pools.clone(),
            key: self.key,
            pool: self.pool.clone(),
        })
    }

    /// Returns whether its pool is still there.
    pub(super) fn is_open(&self) -> bool {
        self.pools.state().router.load(self.key).is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.kept {
            self.pools.state().router.unqueue(self.key);
        }
    }
}
