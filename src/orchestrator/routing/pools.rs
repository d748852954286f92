//! The pools of this process: the router behind its one lock, and the guards that give slots back.

use super::explain::Why;
use super::load::{Availability, Load};
use super::pool::Pool;
use super::router::{Placement, Router};
use super::spec::{PoolKey, PoolSpec};
use crate::model::{Filter, PoolName};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// All pools; cloning shares them.
#[derive(Clone, Default)]
pub(crate) struct Pools(Arc<Inner>);

#[derive(Default)]
struct Inner {
    // Held for one router operation, never across an await.
    state: Mutex<State>,
    /// Rung whenever a slot may have become free; only the dispatcher waits for it.
    freed: Notify,
}

#[derive(Default)]
struct State {
    router: Router,
    pools: HashMap<PoolKey, Arc<Pool>>,
}

/// A pool and how it stands in the router, at one moment.
#[derive(Clone)]
pub(crate) struct PoolStatus {
    pub(crate) key: PoolKey,
    pub(crate) pool: Arc<Pool>,
    pub(crate) spec: PoolSpec,
    pub(crate) load: Load,
    pub(crate) availability: Availability,
}

impl Pools {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    /// Waits until a slot may have become free.
    pub(crate) async fn freed(&self) {
        self.0.freed.notified().await;
    }

    /// Wakes the dispatcher: there may be something to start.
    pub(crate) fn ring(&self) {
        self.0.freed.notify_one();
    }

    /// Adds a pool; returns whether its name was free.
    pub(crate) fn add(&self, spec: PoolSpec, pool: Pool) -> bool {
        let mut state = self.state();
        let Some(key) = state.router.insert(spec) else {
            return false;
        };
        state.pools.insert(key, Arc::new(pool));
        drop(state);
        self.ring();
        true
    }

    /// Removes a pool; slots that are still taken give themselves back harmlessly.
    pub(crate) fn remove(&self, key: PoolKey) {
        let mut state = self.state();
        state.router.remove(key);
        state.pools.remove(&key);
    }

    /// Changes a pool under the lock and wakes the dispatcher.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Router)) {
        change(&mut self.state().router);
        self.ring();
    }

    /// Changes a pool's availability where it is `from`; returns whether it was.
    pub(crate) fn turn(&self, key: PoolKey, from: Availability, to: Availability) -> bool {
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
    pub(crate) fn is(&self, key: PoolKey, availability: Availability) -> bool {
        self.state().router.availability(key) == Some(availability)
    }

    /// Returns whether another pool than this one is open and fits `filter`.
    pub(crate) fn has_other(&self, key: PoolKey, filter: &Filter) -> bool {
        let state = self.state();
        let mut others = state.router.admitted(filter);
        others.any(|(other, pool)| other != key && pool.availability == Availability::Open)
    }

    /// Returns the pool of this name.
    pub(crate) fn get(&self, name: &str) -> Option<PoolStatus> {
        let state = self.state();
        let key = state.router.key(name)?;
        state.status(key)
    }

    /// Returns the names of all pools, in order.
    pub(crate) fn names(&self) -> Vec<PoolName> {
        self.state().router.names().cloned().collect()
    }

    /// Returns up to `limit` pools whose names come after `after`, by name, and how many there are in all.
    pub(crate) fn page(&self, after: Option<&str>, limit: usize) -> (Vec<PoolStatus>, usize) {
        let state = self.state();
        let keys = state.router.keys_after(after.unwrap_or(""));
        let page = keys.take(limit).filter_map(|key| state.status(key));
        (page.collect(), state.router.len())
    }

    /// Returns whether `filter` admits any pool, whatever that is able to take now.
    pub(crate) fn any(&self, filter: &Filter) -> bool {
        self.state().router.admitted(filter).next().is_some()
    }

    /// Returns the worker kinds of the pools that `filter` admits, and whether those are all kinds that pools have.
    pub(crate) fn kinds_in(&self, filter: &Filter) -> (Vec<String>, bool) {
        let state = self.state();
        let kinds = state.router.kinds_in(filter);
        let are_all = kinds.len() == state.router.kind_count();
        (kinds.into_iter().map(str::to_owned).collect(), are_all)
    }

    /// Returns the first of `names` that no pool has.
    pub(crate) fn missing<'a>(&self, names: &'a [PoolName]) -> Option<&'a PoolName> {
        let state = self.state();
        names
            .iter()
            .find(|name| state.router.key(name.as_str()).is_none())
    }

    /// Returns where a task would go now, and why.
    pub(crate) fn explain(&self, filter: &Filter, limit: usize) -> Why {
        self.state().router.explain(filter, limit)
    }

    /// Takes a slot of the least-loaded pool that has one free.
    pub(crate) fn acquire(&self, filter: &Filter) -> Option<Slot> {
        let mut state = self.state();
        let key = state.router.acquire(filter)?;
        self.slot(&state, key)
    }

    /// Takes a slot of the least-loaded pool, or a place in its queue; returns with up to `limit` rows of each sort why it
    /// is that pool, or why none.
    pub(crate) fn route(&self, filter: &Filter, limit: usize) -> (Option<Assignment>, Why) {
        let mut state = self.state();
        // In the same hold of the lock: the reasons are those of this very choice.
        let why = state.router.explain(filter, limit);
        let placed = state.router.acquire_or_queue(filter);
        let assigned = placed.and_then(|placement| match placement {
            Placement::Slot(key) => self.slot(&state, key).map(Assignment::Slot),
            Placement::Queued(key) => Some(Assignment::Queued(QueuePlace {
                pools: self.clone(),
                key,
                pool: Arc::clone(state.pools.get(&key)?),
                promoted: false,
            })),
        });
        (assigned, why)
    }

    fn slot(&self, state: &State, key: PoolKey) -> Option<Slot> {
        Some(Slot {
            pools: self.clone(),
            key,
            pool: Arc::clone(state.pools.get(&key)?),
        })
    }
}

impl State {
    fn status(&self, key: PoolKey) -> Option<PoolStatus> {
        Some(PoolStatus {
            key,
            pool: self.pools.get(&key)?.clone(),
            spec: self.router.spec(key)?.clone(),
            load: self.router.load(key)?,
            availability: self.router.availability(key)?,
        })
    }
}

/// What a routed task got.
pub(crate) enum Assignment {
    /// A slot.
    Slot(Slot),
    /// A place in the queue of the least-loaded pool.
    Queued(QueuePlace),
}

/// A taken slot; dropping it, on whatever path, gives it back and wakes the dispatcher.
pub(crate) struct Slot {
    pools: Pools,
    pub(crate) key: PoolKey,
    pub(crate) pool: Arc<Pool>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pools.change(|router| router.release(self.key));
    }
}

/// A place in a pool's queue; dropping it gives it up.
pub(crate) struct QueuePlace {
    pools: Pools,
    pub(crate) key: PoolKey,
    pub(crate) pool: Arc<Pool>,
    promoted: bool,
}

impl QueuePlace {
    /// Turns the place into a slot where the pool has one free now.
    pub(crate) fn promote(mut self) -> Result<Slot, Self> {
        self.promoted = self.pools.state().router.promote(self.key);
        if !self.promoted {
            return Err(self);
        }
        Ok(Slot {
            pools: self.pools.clone(),
            key: self.key,
            pool: Arc::clone(&self.pool),
        })
    }

    /// Returns whether its pool still starts what waits for it; a pool that is closing or gone does not.
    pub(crate) fn is_open(&self) -> bool {
        let availability = self.pools.state().router.availability(self.key);
        availability.is_some_and(|availability| availability != Availability::Closing)
    }
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        if !self.promoted {
            self.pools.state().router.unqueue(self.key);
        }
    }
}
