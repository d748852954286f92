//! The pools of this process: the router behind its one lock, and the guards that give slots back.

use super::pool::Pool;
use super::{Availability, BackoffMutex, LoadOf, Placement, PoolKey, PoolSpec, Router, Why};
use crate::model::{Filter, PoolName};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, MutexGuard};
use tokio::sync::Notify;

/// All pools; cloning shares them.
#[derive(Clone, Default)]
pub(crate) struct Pools(Arc<Inner>);

#[derive(Default)]
struct Inner {
    // Every hold is one router operation (tens to hundreds of nanoseconds), never across an await.
    state: BackoffMutex<State>,
    /// Rung whenever a slot may have become free; the dispatcher is the one who listens.
    freed: Notify,
}

#[derive(Default)]
struct State {
    router: Router,
    pools: HashMap<PoolKey, Arc<Pool>>,
    /// Pools at the end of their closing: what waits for them starts elsewhere or not at all.
    shut: HashSet<PoolKey>,
}

/// A pool with its place in the router, at one moment.
#[derive(Clone)]
pub(crate) struct Standing {
    pub(crate) key: PoolKey,
    pub(crate) pool: Arc<Pool>,
    pub(crate) spec: PoolSpec,
    pub(crate) load: LoadOf,
    pub(crate) availability: Availability,
}

impl Standing {
    /// Returns whether the pool may take what `filter` lets through.
    pub(crate) fn fits(&self, filter: &Filter) -> bool {
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
        let Ok(key) = state.router.insert(spec) else {
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
        state.shut.remove(&key);
    }

    /// Lets nothing more that waits for the pool start in it.
    pub(crate) fn shut(&self, key: PoolKey) {
        self.state().shut.insert(key);
        self.ring();
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
        let open = |pool: &Standing| pool.availability == Availability::Open;
        let (pools, _) = self.page(None, usize::MAX);
        pools
            .iter()
            .any(|pool| pool.key != key && open(pool) && pool.fits(filter))
    }

    /// Returns the pool of this name.
    pub(crate) fn get(&self, name: &str) -> Option<Standing> {
        let state = self.state();
        let key = state.router.key(name)?;
        state.standing(key)
    }

    /// Returns the names of all pools, in order.
    pub(crate) fn names(&self) -> Vec<PoolName> {
        self.state().router.names().cloned().collect()
    }

    /// Returns up to `limit` pools whose names come after `after`, by name, and how many there are in all.
    pub(crate) fn page(&self, after: Option<&str>, limit: usize) -> (Vec<Standing>, usize) {
        let state = self.state();
        let page = state
            .router
            .iter_after(after.unwrap_or(""))
            .take(limit)
            .filter_map(|(key, _)| state.standing(key))
            .collect();
        (page, state.router.len())
    }

    /// Returns whether `filter` lets any pool through, whatever that is able to take now.
    pub(crate) fn any(&self, filter: &Filter) -> bool {
        !self.state().router.kinds_in(filter).is_empty()
    }

    /// Returns the worker kinds of the pools that `filter` lets through, and whether those are all kinds that pools have.
    pub(crate) fn kinds_in(&self, filter: &Filter) -> (Vec<String>, bool) {
        let state = self.state();
        let kinds = state.router.kinds_in(filter);
        let all = kinds.len() == state.router.worker_kinds().count();
        (kinds.into_iter().map(str::to_owned).collect(), all)
    }

    /// Returns the first of `names` that no pool has.
    pub(crate) fn missing<'a>(&self, names: &'a [PoolName]) -> Option<&'a PoolName> {
        let state = self.state();
        names
            .iter()
            .find(|name| state.router.key(name.as_str()).is_none())
    }

    /// Takes a slot of the least-loaded pool that has one free.
    pub(crate) fn acquire(&self, filter: &Filter) -> Option<Slot> {
        let mut state = self.state();
        let key = state.router.acquire(filter)?;
        self.slot(&state, key)
    }

    /// Takes a slot of this pool, where it takes tasks and has one free.
    pub(crate) fn acquire_in(&self, key: PoolKey) -> Option<Slot> {
        let mut state = self.state();
        let taken = state.router.acquire_in(key);
        taken.then(|| self.slot(&state, key)).flatten()
    }

    /// Returns how many slots a pool has; none where it is gone.
    pub(crate) fn width(&self, key: PoolKey) -> u32 {
        let load = self.state().router.load(key);
        load.map_or(0, |load| load.max_workers)
    }

    /// Returns where a task would go now, and why.
    pub(crate) fn explain(&self, filter: &Filter, limit: usize) -> Why {
        self.state().router.explain(filter, limit)
    }

    /// Takes a slot of the least-loaded pool, or a place in its queue; says with up to `limit` rows of each sort why it is
    /// that pool, or why none.
    pub(crate) fn route(&self, filter: &Filter, limit: usize) -> (Option<Routed>, Why) {
        let mut state = self.state();
        // In the same hold of the lock: the grounds are those of this very choice.
        let why = state.router.explain(filter, limit);
        let placed = state.router.acquire_or_queue(filter).ok();
        let routed = placed.and_then(|placement| match placement {
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
        });
        (routed, why)
    }

    fn slot(&self, state: &State, key: PoolKey) -> Option<Slot> {
        let pool = state.pools.get(&key)?.clone();
        Some(Slot {
            pools: self.clone(),
            key,
            pool,
            rings: true,
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
pub(crate) enum Routed {
    /// A slot.
    Slot(Slot),
    /// A place in the queue of the least-loaded pool.
    Queued(Place),
}

/// A taken slot; dropping it, on whatever path, gives it back.
pub(crate) struct Slot {
    pools: Pools,
    pub(crate) key: PoolKey,
    pub(crate) pool: Arc<Pool>,
    /// Whether the dispatcher is to hear of its end.
    rings: bool,
}

impl Slot {
    /// Gives it back without waking the dispatcher, whose part the caller is to do; returns its pool's key.
    pub(crate) fn give_back(mut self) -> PoolKey {
        self.rings = false;
        self.key
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pools.state().router.release(self.key);
        if self.rings {
            self.pools.ring();
        }
    }
}

/// A place in a pool's queue; dropping it gives it up.
pub(crate) struct Place {
    pools: Pools,
    pub(crate) key: PoolKey,
    pub(crate) pool: Arc<Pool>,
    kept: bool,
}

impl Place {
    /// Turns the place into a slot where the pool has one free now.
    pub(crate) fn promote(mut self) -> Result<Slot, Self> {
        if !self.pools.state().router.promote(self.key) {
            return Err(self);
        }
        self.kept = false;
        Ok(Slot {
            pools: self.pools.clone(),
            key: self.key,
            pool: self.pool.clone(),
            rings: true,
        })
    }

    /// Returns whether its pool is still there and starts what waits for it.
    pub(crate) fn is_open(&self) -> bool {
        let state = self.pools.state();
        state.router.load(self.key).is_some() && !state.shut.contains(&self.key)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.kept {
            self.pools.state().router.unqueue(self.key);
        }
    }
}
