//! A group's pools from best to worst, one at a time, without sorting them: a best-first walk over the heaps.

use super::{Bucket, Index, Node, Rank};
use crate::orchestrator::routing::node::NONE;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The next thing to look at, by the rank of the best pool in it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    rank: Rank,
    what: What,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Entry { group: u32, at: usize },
    Bucket { class: u32, at: usize },
    InHeap { bucket: u32, at: usize },
    InList { slot: u32 },
}

/// An iterator over pools' slots, best first; each step is O(log n).
pub(in crate::orchestrator::routing) struct Walk<'a, F> {
    index: &'a Index,
    nodes: &'a [Node],
    admits: F,
    frontier: BinaryHeap<Reverse<Step>>,
    /// How many lanes may still be looked at.
    budget: usize,
}

impl Index {
    /// Walks the pools of `groups` (no lane in two of them) whose class is admitted, looking at `budget` lanes at most.
    pub(in crate::orchestrator::routing) fn walk<'a, F: Fn(u32) -> bool>(
        &'a self,
        nodes: &'a [Node],
        groups: &[u32],
        admits: F,
        budget: usize,
    ) -> Walk<'a, F> {
        let mut walk = Walk {
            index: self,
            nodes,
            admits,
            frontier: BinaryHeap::new(),
            budget,
        };
        for &id in groups {
            match self.groups.get(id as usize) {
                Some(group) if group.is_heap => walk.push_entry(id, 0),
                Some(group) => group.lanes.iter().for_each(|entry| {
                    if (walk.admits)(entry.class) {
                        walk.push_bucket(entry.class, 0);
                    }
                }),
                None => {}
            }
        }
        walk
    }
}

impl<F: Fn(u32) -> bool> Walk<'_, F> {
    fn push(&mut self, rank: Rank, what: What) {
        self.frontier.push(Reverse(Step { rank, what }));
    }

    fn push_entry(&mut self, group: u32, at: usize) {
        let entry = self.index.groups[group as usize].lanes.get(at);
        if let Some(entry) = entry.filter(|entry| !entry.rank.is_last()) {
            self.push(entry.rank, What::Entry { group, at });
        }
    }

    fn push_bucket(&mut self, class: u32, at: usize) {
        if let Some(entry) = self.index.lanes[class as usize].buckets.get(at) {
            // No later than its first pool, which is enough for the order, and right for an empty bucket.
            let rank = Rank {
                outstanding: entry.outstanding,
                max_workers: entry.max_workers,
                recency: 0,
            };
            self.push(rank, What::Bucket { class, at });
        }
    }

    fn push_in_heap(&mut self, bucket: u32, at: usize) {
        if let Some(&(_, slot)) = self.index.buckets[bucket as usize].heap.get(at) {
            let rank = self.nodes[slot as usize].rank();
            self.push(rank, What::InHeap { bucket, at });
        }
    }

    fn push_in_list(&mut self, slot: u32) {
        if slot != NONE {
            let rank = self.nodes[slot as usize].rank();
            self.push(rank, What::InList { slot });
        }
    }

    /// Looks at a group's lane; returns false when the budget is used up.
    fn expand_entry(&mut self, group: u32, at: usize) -> bool {
        let Some(left) = self.budget.checked_sub(1) else {
            return false;
        };
        self.budget = left;
        let class = self.index.groups[group as usize].lanes[at].class;
        self.push_entry(group, 2 * at + 1);
        self.push_entry(group, 2 * at + 2);
        if (self.admits)(class) {
            self.push_bucket(class, 0);
        }
        true
    }

    fn expand_bucket(&mut self, class: u32, at: usize) {
        let bucket = self.index.lanes[class as usize].buckets[at].bucket;
        let Bucket { head, .. } = self.index.buckets[bucket as usize];
        self.push_bucket(class, 2 * at + 1);
        self.push_bucket(class, 2 * at + 2);
        self.push_in_heap(bucket, 0);
        self.push_in_list(head);
    }
}

impl<F: Fn(u32) -> bool> Iterator for Walk<'_, F> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        loop {
            match self.frontier.pop()?.0.what {
                What::Entry { group, at } => {
                    if !self.expand_entry(group, at) {
                        return None;
                    }
                }
                What::Bucket { class, at } => self.expand_bucket(class, at),
                What::InHeap { bucket, at } => {
                    self.push_in_heap(bucket, 2 * at + 1);
                    self.push_in_heap(bucket, 2 * at + 2);
                    return Some(self.index.buckets[bucket as usize].heap[at].1);
                }
                What::InList { slot } => {
                    self.push_in_list(self.nodes[slot as usize].next);
                    return Some(slot);
                }
            }
        }
    }
}
