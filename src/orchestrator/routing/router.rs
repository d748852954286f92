//! The router: which pool takes the next task.

use super::heap::Heaps;
use super::load::{Availability, Load, Rank, Vacancy};
use super::spec::{PoolKey, PoolSpec};
use crate::model::{Filter, PoolName};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

/// Where a task was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// In a slot of this pool: give it back with [`Router::release`].
    Slot(PoolKey),
    /// In this pool's queue: then [`Router::promote`] or [`Router::unqueue`].
    Queued(PoolKey),
}

/// Set in the recency of pools that were routed to, so that the others come first.
const ROUTED: u64 = 1 << 63;

/// All pools, their loads, and the order among them.
///
/// Pure and synchronous: no clock, no task, no randomness, so the same calls give the same choices. With `n` pools a
/// choice and a change of a count are O(log n) for each label of the pool; adding, removing and naming pools are
/// O(log n) too; `explain` and `kinds_in` look at every pool.
#[derive(Debug, Default)]
pub struct Router {
    pools: HashMap<PoolKey, Routed>,
    pub(super) by_name: BTreeMap<PoolName, PoolKey>,
    pub(super) heaps: Heaps,
    /// The last key or recency given out.
    clock: u64,
}

/// A pool with its counts.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) spec: PoolSpec,
    pub(super) availability: Availability,
    in_flight: u32,
    queued: u32,
    /// When it was routed to last, or was made, by the router's clock.
    recency: u64,
}

impl Routed {
    pub(super) fn load(&self) -> Load {
        Load {
            in_flight: self.in_flight,
            queued: self.queued,
            max_workers: self.spec.max_workers,
            queue: self.spec.queue,
        }
    }

    pub(super) fn rank(&self) -> Rank {
        let load = self.load();
        let vacancy = match self.availability {
            Availability::Open => load.vacancy(),
            _ => Vacancy::Nothing,
        };
        Rank::new(vacancy, load, self.recency)
    }
}

/// Adding, changing and looking at pools.
impl Router {
    /// Adds a pool: open, nothing in flight, never routed to. Returns none, and does nothing, if its name is taken.
    pub fn insert(&mut self, mut spec: PoolSpec) -> Option<PoolKey> {
        if self.by_name.contains_key(&spec.name) {
            return None;
        }
        normalise(&mut spec.labels);
        self.clock += 1;
        let key = PoolKey(self.clock);
        self.by_name.insert(spec.name.clone(), key);
        let pool = Routed {
            spec,
            availability: Availability::Open,
            in_flight: 0,
            queued: 0,
            recency: self.clock,
        };
        self.heaps.put(key, &pool.spec, pool.rank());
        self.pools.insert(key, pool);
        Some(key)
    }

    /// Removes a pool, taken slots and all; giving those back later does nothing. Returns whether there was one.
    pub(super) fn remove(&mut self, key: PoolKey) -> bool {
        let Some(pool) = self.pools.remove(&key) else {
            return false;
        };
        self.by_name.remove(&pool.spec.name);
        self.heaps.remove(key, &pool.spec);
        true
    }

    /// Sets how many slots a pool has; taken ones above that are kept until they are released.
    pub(crate) fn rescale(&mut self, key: PoolKey, max_workers: u32) {
        self.change(key, |pool| pool.spec.max_workers = max_workers);
    }

    /// Sets whether a pool takes tasks.
    pub(crate) fn set_availability(&mut self, key: PoolKey, availability: Availability) {
        self.change(key, |pool| pool.availability = availability);
    }

    /// Replaces a pool's labels.
    pub(crate) fn relabel(&mut self, key: PoolKey, labels: &[String]) {
        if let Some(pool) = self.pools.get_mut(&key) {
            self.heaps.remove(key, &pool.spec);
            pool.spec.labels = labels.to_vec();
            normalise(&mut pool.spec.labels);
            self.heaps.put(key, &pool.spec, pool.rank());
        }
    }

    /// Returns the key of the pool named `name`.
    pub(super) fn key(&self, name: &str) -> Option<PoolKey> {
        self.by_name.get(name).copied()
    }

    /// Returns a pool as it is now, its labels in alphabetical order, each once.
    pub(super) fn spec(&self, key: PoolKey) -> Option<&PoolSpec> {
        self.pools.get(&key).map(|pool| &pool.spec)
    }

    /// Returns a pool's counts and limits.
    pub(super) fn load(&self, key: PoolKey) -> Option<Load> {
        self.pools.get(&key).map(Routed::load)
    }

    /// Returns whether a pool takes tasks.
    pub(super) fn availability(&self, key: PoolKey) -> Option<Availability> {
        self.pools.get(&key).map(|pool| pool.availability)
    }

    /// Returns how many pools there are.
    pub(super) fn len(&self) -> usize {
        self.pools.len()
    }

    /// Returns the pools whose names come after `name`, in order; all of them after an empty one.
    pub(super) fn keys_after(&self, name: &str) -> impl Iterator<Item = PoolKey> {
        let range = (Bound::Excluded(name), Bound::Unbounded);
        self.by_name.range::<str, _>(range).map(|(_, &key)| key)
    }

    /// Returns all names in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &PoolName> {
        self.by_name.keys()
    }

    /// Returns the pools that `filter` admits, whatever they are able to take now, in no order.
    pub(super) fn admitted(&self, filter: &Filter) -> impl Iterator<Item = (PoolKey, &Routed)> {
        let fits = |(_, pool): &(_, &Routed)| pool.spec.fits(filter);
        self.pools
            .iter()
            .map(|(&key, pool)| (key, pool))
            .filter(fits)
    }

    /// Returns the worker kinds of the pools that `filter` admits, each once.
    pub(super) fn kinds_in(&self, filter: &Filter) -> BTreeSet<&str> {
        let kinds = self.admitted(filter);
        kinds.map(|(_, pool)| pool.spec.worker.as_str()).collect()
    }

    /// Returns how many worker kinds the pools have.
    pub(super) fn kind_count(&self) -> usize {
        self.heaps.kind_count()
    }

    /// Returns a pool with its counts.
    pub(super) fn routed(&self, key: PoolKey) -> Option<&Routed> {
        self.pools.get(&key)
    }
}

/// Choosing pools and keeping their counts.
impl Router {
    /// Returns the pool that [`Router::acquire`] would choose.
    pub(super) fn peek(&self, filter: &Filter) -> Option<PoolKey> {
        let (rank, key) = self.best(filter)?;
        (rank.vacancy == Vacancy::Slot).then_some(key)
    }

    /// Takes a slot of the least-loaded candidate that has a free one.
    pub fn acquire(&mut self, filter: &Filter) -> Option<PoolKey> {
        let key = self.peek(filter)?;
        self.route(key, |pool| pool.in_flight += 1);
        Some(key)
    }

    /// Takes a slot as [`Router::acquire`] does, or else a place in the queue of the least-loaded full pool that has
    /// one left; none if every pool that fits is unavailable or full with its queue.
    ///
    /// A free slot goes to the caller even if tasks wait in that pool: promote those first after each release.
    pub(super) fn acquire_or_queue(&mut self, filter: &Filter) -> Option<Placement> {
        let (rank, key) = self.best(filter)?;
        match rank.vacancy {
            Vacancy::Slot => {
                self.route(key, |pool| pool.in_flight += 1);
                Some(Placement::Slot(key))
            }
            Vacancy::Queue => {
                self.route(key, |pool| pool.queued += 1);
                Some(Placement::Queued(key))
            }
            Vacancy::Nothing => None,
        }
    }

    /// Moves one queued task into a slot; returns false, and does nothing, if none waits or no slot is free.
    ///
    /// The pool's availability does not matter: a draining pool still finishes what it accepted.
    pub(super) fn promote(&mut self, key: PoolKey) -> bool {
        let can = |pool: &Routed| pool.queued > 0 && pool.in_flight < pool.spec.max_workers;
        let promotes = self.pools.get(&key).is_some_and(can);
        if promotes {
            self.change(key, |pool| {
                pool.queued -= 1;
                pool.in_flight += 1;
            });
        }
        promotes
    }

    /// Gives up a place in a pool's queue. Harmless if the pool has been removed since.
    pub(super) fn unqueue(&mut self, key: PoolKey) {
        self.change(key, |pool| pool.queued = pool.queued.saturating_sub(1));
    }

    /// Gives back a slot. Harmless if the pool has been removed since.
    pub fn release(&mut self, key: PoolKey) {
        self.change(key, |pool| {
            debug_assert!(pool.in_flight > 0, "a slot is given back twice");
            pool.in_flight = pool.in_flight.saturating_sub(1);
        });
    }

    /// Returns the first pool in routing order that `filter` admits, and its rank.
    pub(super) fn best(&self, filter: &Filter) -> Option<(Rank, PoolKey)> {
        let fits = |pool: &Routed| pool.spec.fits(filter);
        if filter.pools.is_empty() {
            return self
                .heaps
                .best(filter, |key| self.pools.get(&key).is_some_and(fits));
        }
        let named = filter
            .pools
            .iter()
            .filter_map(|name| self.by_name.get(name));
        let ranked = named.filter_map(|&key| Some((self.pools.get(&key)?, key)));
        let fitting = ranked.filter(|(pool, _)| fits(pool));
        fitting
            .map(|(pool, key)| (pool.rank(), key))
            .min_by_key(|&(rank, _)| rank)
    }

    /// Counts a task in and makes the pool the one routed to last.
    fn route(&mut self, key: PoolKey, count: impl FnOnce(&mut Routed)) {
        self.clock += 1;
        let recency = ROUTED | self.clock;
        self.change(key, |pool| {
            count(pool);
            pool.recency = recency;
        });
    }

    /// Changes a pool's counts or limits and moves it to its new place.
    fn change(&mut self, key: PoolKey, change: impl FnOnce(&mut Routed)) {
        if let Some(pool) = self.pools.get_mut(&key) {
            change(pool);
            self.heaps.put(key, &pool.spec, pool.rank());
        }
    }
}

fn normalise(labels: &mut Vec<String>) {
    labels.sort_unstable();
    labels.dedup();
}
