//! Pools in routing order: one indexed binary heap for each worker kind and one for each label.
//!
//! Every pool is in the heap of its kind and in those of its labels, whatever it can take: the rank of one that can take
//! nothing is last. A change of rank is O(log n) in each, the best pool of a heap is at hand. There are few kinds, so the
//! best pool of all is the best of the kinds' best. Where a filter asks for more than one heap stands for, and its best
//! pool does not fit, the heap of the rarest label is scanned. Memory is O(pools and their labels): a heap goes with its
//! last pool.

use super::load::Rank;
use super::spec::{PoolKey, PoolSpec};
use crate::model::Filter;
use priority_queue::PriorityQueue;
use std::cmp::Reverse;
use std::collections::HashMap;

type Heap = PriorityQueue<PoolKey, Reverse<Rank>>;

/// The heaps of all pools.
#[derive(Debug, Default)]
pub(super) struct Heaps {
    kinds: HashMap<String, Heap>,
    labels: HashMap<String, Heap>,
}

impl Heaps {
    /// Puts a pool at its place, or moves it to its new one.
    pub(super) fn put(&mut self, key: PoolKey, spec: &PoolSpec, rank: Rank) {
        put(&mut self.kinds, &spec.worker, key, rank);
        for label in &spec.labels {
            put(&mut self.labels, label, key, rank);
        }
    }

    /// Takes a pool out.
    pub(super) fn remove(&mut self, key: PoolKey, spec: &PoolSpec) {
        remove(&mut self.kinds, &spec.worker, key);
        for label in &spec.labels {
            remove(&mut self.labels, label, key);
        }
    }

    /// Returns the first pool in routing order of those that `filter` admits by label and worker kind; `fits` has to say
    /// the same of a single pool.
    pub(super) fn best(
        &self,
        filter: &Filter,
        fits: impl Fn(PoolKey) -> bool,
    ) -> Option<(Rank, PoolKey)> {
        if !filter.labels.is_empty() {
            let heaps = filter.labels.iter().map(|label| self.labels.get(label));
            let rarest = heaps.min_by_key(|heap| heap.map_or(0, Heap::len))??;
            let first = first(rarest)?;
            if fits(first.1) {
                return Some(first);
            }
            let fitting = rarest.iter().filter(|&(&key, _)| fits(key));
            return fitting
                .map(|(&key, rank)| (rank.0, key))
                .min_by_key(by_rank);
        }
        let kinds: &mut dyn Iterator<Item = &Heap> = if filter.workers.is_empty() {
            &mut self.kinds.values()
        } else {
            &mut filter
                .workers
                .iter()
                .filter_map(|kind| self.kinds.get(kind))
        };
        kinds.filter_map(first).min_by_key(by_rank)
    }

    /// Returns how many worker kinds pools have.
    pub(super) fn kind_count(&self) -> usize {
        self.kinds.len()
    }

    /// Returns how many labels pools have.
    #[cfg(test)]
    pub(super) fn label_count(&self) -> usize {
        self.labels.len()
    }
}

fn put(heaps: &mut HashMap<String, Heap>, name: &str, key: PoolKey, rank: Rank) {
    match heaps.get_mut(name) {
        Some(heap) => {
            heap.push(key, Reverse(rank));
        }
        None => {
            heaps.insert(name.to_owned(), Heap::from(vec![(key, Reverse(rank))]));
        }
    }
}

fn remove(heaps: &mut HashMap<String, Heap>, name: &str, key: PoolKey) {
    if let Some(heap) = heaps.get_mut(name) {
        heap.remove(&key);
        if heap.is_empty() {
            heaps.remove(name);
        }
    }
}

fn first(heap: &Heap) -> Option<(Rank, PoolKey)> {
    heap.peek().map(|(&key, rank)| (rank.0, key))
}

fn by_rank(found: &(Rank, PoolKey)) -> Rank {
    found.0
}
