//! The router: which pool takes the next task.
//!
//! Least outstanding work per slot, exactly: load is `(in_flight + queued) / max_workers`, compared as fractions; ties
//! go to fewer outstanding tasks, then to the pool routed to least recently, one never routed to first. Choosing a
//! pool *takes* its slot in the same step. Pure and synchronous: no clock, no task, no randomness, so the same calls
//! give the same choices. Put it behind one short lock.
//!
//! With `n` pools a change or a choice is O(log n), and O(1) in the steady state of few distinct loads; the best pool
//! of all, of a label or of a worker kind is at hand; several labels are a best-first walk over the rarest one's
//! pools, a class of equally labelled pools at a time. Memory is O(pools), whatever happens.
//!
//! Not responsible for giving slots back on every path: that is the guard's part that holds the key.

mod backoff;
mod classes;
mod explain;
mod heap;
mod index;
mod node;
pub(crate) mod pool;
pub(crate) mod pools;
pub(crate) mod quarantine;
pub(crate) mod stats;
#[cfg(test)]
mod tests;

use crate::model::{Filter, PoolName};
use classes::{Classes, EVERYONE, Interned, WORKER, Wanted};
use index::Index;
use node::{Home, NONE, Node};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

pub use backoff::BackoffMutex;
pub use explain::{Exclusion, Why};
pub use node::{Availability, LoadOf};

/// A pool of this router; stale once the pool is removed, and never another pool's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolKey {
    slot: u32,
    /// Unique for the router's life, so a slot's next pool is not taken for its last one.
    serial: u64,
}

/// A pool as it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSpec {
    /// Its name, unique in the router.
    pub name: PoolName,
    /// Its worker kind's name.
    pub worker: String,
    /// Its slots. A pool of none takes nothing.
    pub max_workers: u32,
    /// How many routed tasks may wait for a slot.
    pub queue: u32,
    /// Its labels; order and repetition mean nothing.
    pub labels: Vec<String>,
}

/// A pool of that name exists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pool {0} exists already")]
pub struct NameTaken(pub PoolName);

/// No pool can take the task now; [`Router::explain`] tells why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no pool can take the task now")]
pub struct NoCandidate;

/// Where a task was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// In a slot of this pool: give it back with [`Router::release`].
    Slot(PoolKey),
    /// In this pool's queue: then [`Router::promote`] or [`Router::unqueue`].
    Queued(PoolKey),
}

/// Set in the recency of pools that were routed to, so that the others come first.
const ROUTED: u64 = 1 << 63;

/// All pools, their loads, and the order among them.
#[derive(Debug)]
pub struct Router {
    nodes: Vec<Node>,
    /// The names, by slot.
    names: Vec<Option<PoolName>>,
    by_name: BTreeMap<PoolName, u32>,
    /// Slots to use again.
    vacant: Vec<u32>,
    classes: Classes,
    /// Pools with a free slot.
    free: Index,
    /// Full pools whose queue has room.
    waiting: Index,
    /// First and last of the pools that take nothing, linked through their nodes.
    aside: (u32, u32),
    /// The last recency or serial given out.
    clock: u64,
}

impl Default for Router {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            names: Vec::new(),
            by_name: BTreeMap::new(),
            vacant: Vec::new(),
            classes: Classes::default(),
            free: Index::default(),
            waiting: Index::default(),
            aside: (NONE, NONE),
            clock: 0,
        }
    }
}

/// Adding, changing and looking at pools.
impl Router {
    /// Adds a pool: open, nothing in flight, never routed to.
    ///
    /// # Errors
    ///
    /// [`NameTaken`] if a pool of that name exists.
    pub fn insert(&mut self, spec: PoolSpec) -> Result<PoolKey, NameTaken> {
        if self.by_name.contains_key(&spec.name) {
            return Err(NameTaken(spec.name));
        }
        let class = self.enter(&spec.worker, &spec.labels);
        let serial = self.tick();
        let node = Node {
            serial,
            recency: serial,
            in_flight: 0,
            queued: 0,
            max_workers: spec.max_workers,
            queue: spec.queue,
            class,
            bucket: NONE,
            prev: NONE,
            next: NONE,
            home: Home::Vacant,
            in_heap: false,
            availability: Availability::Open,
        };
        let slot = if let Some(slot) = self.vacant.pop() {
            self.nodes[slot as usize] = node;
            slot
        } else {
            self.nodes.push(node);
            self.names.push(None);
            u32::try_from(self.nodes.len() - 1).expect("fewer than 2^32 pools fit in memory")
        };
        self.names[slot as usize] = Some(spec.name.clone());
        self.by_name.insert(spec.name, slot);
        self.attach(slot);
        Ok(PoolKey { slot, serial })
    }

    /// Removes a pool, taken slots and all; giving those back later does nothing. Returns whether there was one.
    pub fn remove(&mut self, key: PoolKey) -> bool {
        let Some(slot) = self.live(key) else {
            return false;
        };
        self.detach(slot);
        let node = &mut self.nodes[slot as usize];
        let class = node.class;
        node.serial = 0;
        node.home = Home::Vacant;
        self.leave(class);
        if let Some(name) = self.names[slot as usize].take() {
            self.by_name.remove(&name);
        }
        self.vacant.push(slot);
        true
    }

    /// Sets how many slots a pool has; taken ones above that are kept until they are released.
    pub fn rescale(&mut self, key: PoolKey, max_workers: u32) {
        self.change(key, |node| node.max_workers = max_workers);
    }

    /// Sets how many tasks may wait in a pool; those above that go on waiting.
    pub fn set_queue(&mut self, key: PoolKey, queue: u32) {
        self.change(key, |node| node.queue = queue);
    }

    /// Sets whether a pool takes tasks.
    pub fn set_availability(&mut self, key: PoolKey, availability: Availability) {
        self.change(key, |node| node.availability = availability);
    }

    /// Replaces a pool's labels.
    pub fn relabel(&mut self, key: PoolKey, labels: &[String]) {
        let Some(slot) = self.live(key) else {
            return;
        };
        self.detach(slot);
        let old = self.nodes[slot as usize].class;
        let worker = self.classes.text(self.classes.worker_of(old)).to_owned();
        self.nodes[slot as usize].class = self.enter(&worker, labels);
        self.leave(old);
        self.attach(slot);
    }

    /// Returns the key of the pool named `name`.
    pub fn key(&self, name: &str) -> Option<PoolKey> {
        self.by_name.get(name).map(|&slot| self.key_of(slot))
    }

    /// Returns a pool's name.
    pub fn name(&self, key: PoolKey) -> Option<&PoolName> {
        let slot = self.live(key)?;
        self.names[slot as usize].as_ref()
    }

    /// Returns a pool as it is now, its labels in alphabetical order, each once.
    pub fn spec(&self, key: PoolKey) -> Option<PoolSpec> {
        let node = self.nodes[self.live(key)? as usize];
        let text = |group| self.classes.text(group).to_owned();
        let labels = self.classes.labels_of(node.class);
        let mut labels: Vec<String> = labels.iter().map(|&label| text(label)).collect();
        labels.sort_unstable();
        Some(PoolSpec {
            name: self.name(key)?.clone(),
            worker: text(self.classes.worker_of(node.class)),
            max_workers: node.max_workers,
            queue: node.queue,
            labels,
        })
    }

    /// Returns a pool's counts and limits.
    pub fn load(&self, key: PoolKey) -> Option<LoadOf> {
        Some(self.nodes[self.live(key)? as usize].load())
    }

    /// Returns whether a pool takes tasks.
    pub fn availability(&self, key: PoolKey) -> Option<Availability> {
        Some(self.nodes[self.live(key)? as usize].availability)
    }

    /// Returns how many pools there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Returns whether there are no pools.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Returns all pools in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (PoolKey, &PoolName)> {
        self.by_name
            .iter()
            .map(|(name, &slot)| (self.key_of(slot), name))
    }

    /// Returns the pools whose names come after `name`, in order: the next page.
    pub fn iter_after(&self, name: &str) -> impl Iterator<Item = (PoolKey, &PoolName)> {
        self.by_name
            .range::<str, _>((Bound::Excluded(name), Bound::Unbounded))
            .map(|(name, &slot)| (self.key_of(slot), name))
    }

    /// Returns the worker kinds that pools have, in no order.
    pub fn worker_kinds(&self) -> impl Iterator<Item = &str> {
        self.classes.workers()
    }

    /// Returns the worker kinds of the pools that `filter` lets through, whatever those are able to take now, each once.
    ///
    /// Costs as much as there are named pools, worker kinds or, where labels are asked for, sorts of equally labelled
    /// pools: a million pools alike cost no more than one.
    pub fn kinds_in(&self, filter: &Filter) -> BTreeSet<&str> {
        let Some(wanted) = self.wanted(filter) else {
            return BTreeSet::new();
        };
        let kind = |groups: &[u32]| self.classes.text(groups[WORKER]);
        if !filter.pools.is_empty() {
            let slots = filter
                .pools
                .iter()
                .filter_map(|name| self.by_name.get(name));
            let classes = slots.map(|&slot| self.nodes[slot as usize].class);
            let admitted = classes.filter(|&class| self.classes.admits(class, &wanted));
            return admitted
                .map(|class| kind(self.classes.groups(class)))
                .collect();
        }
        if wanted.labels.is_empty() {
            let named = |kind: &&str| {
                filter.workers.is_empty() || filter.workers.iter().any(|name| name == kind)
            };
            return self.worker_kinds().filter(named).collect();
        }
        let admitted = self.classes.all().filter(|groups| wanted.admits(groups));
        admitted.map(kind).collect()
    }

    /// Returns all names in order.
    pub fn names(&self) -> impl Iterator<Item = &PoolName> {
        self.by_name.keys()
    }
}

/// Choosing pools and keeping their counts.
impl Router {
    /// Takes a slot of the least-loaded candidate that has a free one.
    pub fn acquire(&mut self, filter: &Filter) -> Option<PoolKey> {
        let slot = self.best(Home::Free, filter)?;
        Some(self.route(slot, |node| node.in_flight += 1))
    }

    /// Takes a slot of this very pool; returns false, and does nothing, where it takes no tasks or has none free.
    pub fn acquire_in(&mut self, key: PoolKey) -> bool {
        let free = |slot: &u32| self.nodes[*slot as usize].home == Home::Free;
        let Some(slot) = self.live(key).filter(free) else {
            return false;
        };
        self.route(slot, |node| node.in_flight += 1);
        true
    }

    /// Takes a slot as [`Router::acquire`] does, or else a place in the queue of the least-loaded full pool that has
    /// one left.
    ///
    /// A free slot goes to the caller even if tasks wait in that pool: promote those first after each release.
    ///
    /// # Errors
    ///
    /// [`NoCandidate`] if every pool that matches is unavailable or full with its queue.
    pub fn acquire_or_queue(&mut self, filter: &Filter) -> Result<Placement, NoCandidate> {
        if let Some(key) = self.acquire(filter) {
            return Ok(Placement::Slot(key));
        }
        let slot = self.best(Home::Waiting, filter).ok_or(NoCandidate)?;
        let key = self.route(slot, |node| node.queued += 1);
        Ok(Placement::Queued(key))
    }

    /// Moves one queued task into a slot; returns false, and does nothing, if none waits or no slot is free.
    ///
    /// It asks nothing of the pool's availability: a draining pool still finishes what it accepted.
    pub fn promote(&mut self, key: PoolKey) -> bool {
        let can = |node: &Node| node.queued > 0 && node.in_flight < node.max_workers;
        let slot = self.live(key);
        if !slot.is_some_and(|slot| can(&self.nodes[slot as usize])) {
            return false;
        }
        self.change(key, |node| {
            node.queued -= 1;
            node.in_flight += 1;
        });
        true
    }

    /// Gives up a place in a pool's queue.
    pub fn unqueue(&mut self, key: PoolKey) {
        self.change(key, |node| node.queued = node.queued.saturating_sub(1));
    }

    /// Gives back a slot. Harmless if the pool has been removed since.
    pub fn release(&mut self, key: PoolKey) {
        self.change(key, |node| {
            debug_assert!(node.in_flight > 0, "a slot is given back twice");
            node.in_flight = node.in_flight.saturating_sub(1);
        });
    }

    /// Returns the pool that [`Router::acquire`] would choose, in O(1) where nothing is filtered.
    pub fn peek(&self, filter: &Filter) -> Option<PoolKey> {
        self.best(Home::Free, filter).map(|slot| self.key_of(slot))
    }

    fn best(&self, home: Home, filter: &Filter) -> Option<u32> {
        let index = self.index(home)?;
        let of_group = |group| index.best(group);
        match (
            filter.pools.as_slice(),
            filter.labels.as_slice(),
            filter.workers.as_slice(),
        ) {
            ([], [], []) => of_group(EVERYONE).map(|(_, slot)| slot),
            ([], [label], []) => of_group(self.classes.label(label)?).map(|(_, slot)| slot),
            ([], [], kinds) => kinds
                .iter()
                .filter_map(|kind| of_group(self.classes.worker(kind)?))
                .min()
                .map(|(_, slot)| slot),
            ([], labels, _) => {
                let wanted = self.wanted(filter)?;
                let rarest = self.rarest(labels)?;
                let admits = |class| self.classes.admits(class, &wanted);
                index
                    .walk(&self.nodes, &[rarest], admits, usize::MAX)
                    .next()
            }
            (names, _, _) => {
                let wanted = self.wanted(filter)?;
                names
                    .iter()
                    .filter_map(|name| self.by_name.get(name).copied())
                    .filter(|&slot| {
                        let node = &self.nodes[slot as usize];
                        node.home == home && self.classes.admits(node.class, &wanted)
                    })
                    .min_by_key(|&slot| self.nodes[slot as usize].rank())
            }
        }
    }

    /// Returns the filter's labels and kinds as groups, or nothing if no pool can match.
    fn wanted(&self, filter: &Filter) -> Option<Wanted> {
        let labels = filter.labels.iter().map(|label| self.classes.label(label));
        let kinds = filter.workers.iter();
        let wanted = Wanted {
            labels: labels.collect::<Option<_>>()?,
            workers: kinds.filter_map(|kind| self.classes.worker(kind)).collect(),
        };
        let possible = filter.workers.is_empty() || !wanted.workers.is_empty();
        possible.then_some(wanted)
    }

    /// Returns the label with the fewest classes of pools.
    fn rarest(&self, labels: &[String]) -> Option<u32> {
        labels
            .iter()
            .filter_map(|label| self.classes.label(label))
            .min_by_key(|&group| self.classes.size(group))
    }

    /// Counts a task in at `slot` and makes that pool the most recent one.
    fn route(&mut self, slot: u32, count: impl FnOnce(&mut Node)) -> PoolKey {
        let recency = ROUTED | self.tick();
        self.update(slot, |node| {
            count(node);
            node.recency = recency;
        });
        self.key_of(slot)
    }
}

/// Keeping every pool in the set it belongs to.
impl Router {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn live(&self, key: PoolKey) -> Option<u32> {
        let node = self.nodes.get(key.slot as usize)?;
        (node.serial == key.serial).then_some(key.slot)
    }

    fn key_of(&self, slot: u32) -> PoolKey {
        PoolKey {
            slot,
            serial: self.nodes[slot as usize].serial,
        }
    }

    fn index(&self, home: Home) -> Option<&Index> {
        match home {
            Home::Free => Some(&self.free),
            Home::Waiting => Some(&self.waiting),
            Home::Aside | Home::Vacant => None,
        }
    }

    fn enter(&mut self, worker: &str, labels: &[String]) -> u32 {
        match self.classes.enter(worker, labels) {
            Interned::Known(class) => class,
            Interned::New(class) => {
                let groups = self.classes.groups(class);
                self.free.add_class(class, groups);
                self.waiting.add_class(class, groups);
                class
            }
        }
    }

    fn leave(&mut self, class: u32) {
        if let Some(groups) = self.classes.leave(class) {
            self.free.drop_class(class, &groups);
            self.waiting.drop_class(class, &groups);
        }
    }

    fn change(&mut self, key: PoolKey, change: impl FnOnce(&mut Node)) {
        if let Some(slot) = self.live(key) {
            self.update(slot, change);
        }
    }

    /// Changes a pool's counts or limits and brings it to its new place.
    fn update(&mut self, slot: u32, change: impl FnOnce(&mut Node)) {
        let before = self.nodes[slot as usize].home;
        self.unlink(slot);
        change(&mut self.nodes[slot as usize]);
        let after = self.link(slot);
        self.refresh(slot, before);
        if after != before {
            self.refresh(slot, after);
        }
    }

    fn attach(&mut self, slot: u32) {
        let home = self.link(slot);
        self.refresh(slot, home);
    }

    fn detach(&mut self, slot: u32) {
        self.unlink(slot);
        self.refresh(slot, self.nodes[slot as usize].home);
    }

    fn link(&mut self, slot: u32) -> Home {
        let home = self.nodes[slot as usize].belongs();
        self.nodes[slot as usize].home = home;
        match home {
            Home::Free => self.free.link(&mut self.nodes, slot),
            Home::Waiting => self.waiting.link(&mut self.nodes, slot),
            Home::Aside | Home::Vacant => self.put_aside(slot),
        }
        home
    }

    fn unlink(&mut self, slot: u32) {
        match self.nodes[slot as usize].home {
            Home::Free => self.free.unlink(&mut self.nodes, slot),
            Home::Waiting => self.waiting.unlink(&mut self.nodes, slot),
            Home::Aside | Home::Vacant => self.take_back(slot),
        }
    }

    fn refresh(&mut self, slot: u32, home: Home) {
        let index = match home {
            Home::Free => &mut self.free,
            Home::Waiting => &mut self.waiting,
            Home::Aside | Home::Vacant => return,
        };
        let class = self.nodes[slot as usize].class;
        let groups = self.classes.groups(class);
        index.refresh(&self.nodes, class, groups, slot);
    }

    fn put_aside(&mut self, slot: u32) {
        let last = self.aside.1;
        let node = &mut self.nodes[slot as usize];
        node.prev = last;
        node.next = NONE;
        self.aside.1 = slot;
        match last {
            NONE => self.aside.0 = slot,
            _ => self.nodes[last as usize].next = slot,
        }
    }

    fn take_back(&mut self, slot: u32) {
        let Node { prev, next, .. } = self.nodes[slot as usize];
        match prev {
            NONE => self.aside.0 = next,
            _ => self.nodes[prev as usize].next = next,
        }
        match next {
            NONE => self.aside.1 = prev,
            _ => self.nodes[next as usize].prev = prev,
        }
    }
}
