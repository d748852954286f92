//! A set of pools in the router's order: exact load, outstanding tasks, least recently routed to.
//!
//! Pools of one class, one load and one number of outstanding tasks share a **bucket**. Routing to a pool makes it the
//! most recent one of all, so it joins its new bucket at the end of a list in O(1); only a pool that comes back out of
//! turn (a slot released while others were routed to since) goes to the bucket's small heap, in O(log n), or where few
//! are in the bucket to its place in the list. The buckets of a class are a heap by load (its **lane**), and the lanes of
//! a group are either scanned, being few, or a heap by their best pools. So the best pool of any group is at hand, and one
//! change touches one lane and its groups' heaps.
//!
//! After Dial, "Algorithm 360: Shortest-path forest with topological ordering", CACM 12(11), 1969, for the buckets.

mod walk;

use super::heap;
use super::node::{NONE, Node, Rank};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A group of more lanes than this is kept as a heap, one of fewer than half of it is scanned.
const SCANNED_LANES: usize = 16;

/// A bucket of no more pools than this takes all of them into its list.
const LISTED: u32 = 8;

/// Empty buckets kept for the next use, beside as many as there are filled ones.
const SPARE_BUCKETS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct BucketKey {
    class: u32,
    outstanding: u32,
    /// 1 where nothing is outstanding: all idle pools are equally loaded.
    max_workers: u32,
}

impl BucketKey {
    fn of(node: &Node) -> Self {
        let outstanding = node.outstanding();
        Self {
            class: node.class,
            outstanding,
            max_workers: if outstanding == 0 {
                1
            } else {
                node.max_workers
            },
        }
    }
}

#[derive(Debug)]
struct Bucket {
    key: BucketKey,
    /// The list, least recent first.
    head: u32,
    tail: u32,
    /// Those that came back out of turn while there were many: recency and slot.
    heap: Vec<(u64, u32)>,
    pools: u32,
    /// Its place in its lane, or `NONE`. An empty bucket stays until it is the lane's first, since the next pool likely
    /// comes back to it.
    at: u32,
    /// Where the last pool that left this bucket for another one in the same step went: likely where the next one goes.
    onward: [u32; 2],
}

#[derive(Debug, Clone, Copy)]
struct LaneEntry {
    outstanding: u32,
    max_workers: u32,
    bucket: u32,
}

impl LaneEntry {
    fn less(&self, other: &Self) -> bool {
        let rank = |entry: &Self| Rank {
            outstanding: entry.outstanding,
            max_workers: entry.max_workers,
            recency: 0,
        };
        rank(self).load_cmp(&rank(other)).is_lt()
    }
}

#[derive(Debug)]
struct Lane {
    buckets: Vec<LaneEntry>,
    /// The best pool and its rank.
    best: Rank,
    slot: u32,
    /// Its place in each of its groups.
    at: Box<[u32]>,
}

#[derive(Debug, Clone, Copy)]
struct GroupEntry {
    /// Its lane's best; kept only while the group is a heap.
    rank: Rank,
    class: u32,
    /// Which of the lane's groups this one is.
    nth: u32,
}

#[derive(Debug, Default)]
struct Group {
    lanes: Vec<GroupEntry>,
    is_heap: bool,
}

/// A set of pools in order.
#[derive(Debug, Default)]
pub(crate) struct Index {
    buckets: Vec<Bucket>,
    vacant: Vec<u32>,
    by_key: HashMap<BucketKey, u32, BuildHasherDefault<Mix>>,
    empty: usize,
    lanes: Vec<Lane>,
    groups: Vec<Group>,
    /// How many groups are heaps.
    heaps: usize,
}

impl Index {
    /// Makes room for a class, new to the router, that is in `groups`.
    pub(crate) fn add_class(&mut self, class: u32, groups: &[u32]) {
        let mut at = Vec::with_capacity(groups.len());
        for (nth, &group) in groups.iter().enumerate() {
            let group = group as usize;
            if self.groups.len() <= group {
                self.groups.resize_with(group + 1, Group::default);
            }
            let group = &mut self.groups[group];
            // Nothing is in the lane yet, so the group's last place is the right one, heap or not.
            at.push(to_u32(group.lanes.len()));
            group.lanes.push(GroupEntry {
                rank: Rank::LAST,
                class,
                nth: to_u32(nth),
            });
        }
        let lane = Lane {
            buckets: Vec::new(),
            best: Rank::LAST,
            slot: NONE,
            at: at.into(),
        };
        let class = class as usize;
        if class < self.lanes.len() {
            self.lanes[class] = lane;
        } else {
            self.lanes.push(lane);
        }
        for &group in groups {
            let group = &mut self.groups[group as usize];
            if !group.is_heap && group.lanes.len() > SCANNED_LANES {
                group.is_heap = true;
                self.heaps += 1;
                for entry in &mut group.lanes {
                    entry.rank = self.lanes[entry.class as usize].best;
                }
                let lanes = &mut self.lanes;
                heap::build(&mut group.lanes, entry_less, |entry, at| {
                    note_place(lanes, entry, at);
                });
            }
        }
    }

    /// Forgets a class that no pool is in any more.
    pub(crate) fn drop_class(&mut self, class: u32, groups: &[u32]) {
        let places = std::mem::take(&mut self.lanes[class as usize].at);
        for (&group, &at) in groups.iter().zip(&places) {
            let group = &mut self.groups[group as usize];
            let at = at as usize;
            let lanes = &mut self.lanes;
            if group.is_heap {
                heap::remove(&mut group.lanes, at, entry_less, |entry, at| {
                    note_place(lanes, entry, at);
                });
                group.is_heap = group.lanes.len() >= SCANNED_LANES / 2;
                self.heaps -= usize::from(!group.is_heap);
            } else {
                group.lanes.swap_remove(at);
                if let Some(entry) = group.lanes.get(at) {
                    note_place(lanes, entry, at);
                }
            }
            trim(&mut group.lanes);
        }
        for entry in std::mem::take(&mut self.lanes[class as usize].buckets) {
            self.buckets[entry.bucket as usize].at = NONE;
        }
    }

    /// Puts a pool in, by its counts and its recency. [`Index::refresh`] its class afterwards.
    pub(crate) fn link(&mut self, nodes: &mut [Node], slot: u32) {
        let key = BucketKey::of(&nodes[slot as usize]);
        let id = self.bucket(key, nodes[slot as usize].bucket);
        let bucket = &mut self.buckets[id as usize];
        nodes[slot as usize].bucket = id;
        if !bucket.list(nodes, slot) {
            nodes[slot as usize].in_heap = true;
            heap::push(
                &mut bucket.heap,
                (nodes[slot as usize].recency, slot),
                |a, b| a.0 < b.0,
                |&(_, slot), at| nodes[slot as usize].prev = to_u32(at),
            );
        }
        self.empty -= usize::from(bucket.pools == 0);
        bucket.pools += 1;
        if bucket.at == NONE {
            let entry = LaneEntry {
                outstanding: key.outstanding,
                max_workers: key.max_workers,
                bucket: id,
            };
            let (lane, buckets) = (&mut self.lanes[key.class as usize], &mut self.buckets);
            heap::push(&mut lane.buckets, entry, LaneEntry::less, |entry, at| {
                buckets[entry.bucket as usize].at = to_u32(at);
            });
        }
    }

    /// Takes a pool out. [`Index::refresh`] its class afterwards.
    ///
    /// The node keeps its bucket's number as a hint for the next [`Index::link`].
    pub(crate) fn unlink(&mut self, nodes: &mut [Node], slot: u32) {
        let Node {
            bucket: id,
            prev,
            next,
            in_heap,
            ..
        } = nodes[slot as usize];
        let bucket = &mut self.buckets[id as usize];
        if in_heap {
            heap::remove(
                &mut bucket.heap,
                prev as usize,
                |a, b| a.0 < b.0,
                |&(_, slot), at| nodes[slot as usize].prev = to_u32(at),
            );
            trim(&mut bucket.heap);
        } else {
            match prev {
                NONE => bucket.head = next,
                _ => nodes[prev as usize].next = next,
            }
            match next {
                NONE => bucket.tail = prev,
                _ => nodes[next as usize].prev = prev,
            }
        }
        bucket.pools -= 1;
        self.empty += usize::from(bucket.pools == 0);
    }

    /// Takes a bucket out of its lane.
    fn retire(&mut self, class: u32, at: usize) {
        let (lane, buckets) = (&mut self.lanes[class as usize], &mut self.buckets);
        buckets[lane.buckets[at].bucket as usize].at = NONE;
        heap::remove(&mut lane.buckets, at, LaneEntry::less, |entry, at| {
            buckets[entry.bucket as usize].at = to_u32(at);
        });
        trim(&mut lane.buckets);
    }

    /// Finds a class's best pool again and tells its groups, after `changed` was linked or unlinked.
    pub(crate) fn refresh(&mut self, nodes: &[Node], class: u32, groups: &[u32], changed: u32) {
        let lane = &self.lanes[class as usize];
        let was_best = lane.slot == changed || lane.slot == NONE;
        if !was_best && nodes[changed as usize].rank() > lane.best {
            return;
        }
        let mut slot = NONE;
        while let Some(first) = self.lanes[class as usize].buckets.first() {
            let bucket = &self.buckets[first.bucket as usize];
            if bucket.pools > 0 {
                slot = bucket.first(nodes);
                break;
            }
            self.retire(class, 0);
        }
        let best = nodes.get(slot as usize).map_or(Rank::LAST, Node::rank);
        let lane = &mut self.lanes[class as usize];
        if lane.slot == slot && lane.best.is_same(best) {
            return;
        }
        lane.slot = slot;
        lane.best = best;
        if self.heaps > 0 {
            self.tell_groups(class, groups, best);
        }
    }

    fn tell_groups(&mut self, class: u32, groups: &[u32], best: Rank) {
        for (nth, &group) in groups.iter().enumerate() {
            let group = &mut self.groups[group as usize];
            if group.is_heap {
                let at = self.lanes[class as usize].at[nth] as usize;
                group.lanes[at].rank = best;
                let lanes = &mut self.lanes;
                heap::settle(&mut group.lanes, at, entry_less, |entry, at| {
                    note_place(lanes, entry, at);
                });
            }
        }
    }

    /// Returns a group's best pool, in O(1).
    pub(crate) fn best(&self, group: u32) -> Option<(Rank, u32)> {
        let group = self.groups.get(group as usize)?;
        let class = if group.is_heap {
            group.lanes.first()?.class
        } else {
            let best = |entry: &&GroupEntry| self.lanes[entry.class as usize].best;
            match group.lanes.as_slice() {
                [only] => only.class,
                lanes => lanes.iter().min_by_key(best)?.class,
            }
        };
        let lane = &self.lanes[class as usize];
        (lane.slot != NONE).then_some((lane.best, lane.slot))
    }

    /// Returns the bucket for `key`; `from` is the bucket the pool comes from, if any.
    fn bucket(&mut self, key: BucketKey, from: u32) -> u32 {
        let up = |from: &Bucket| usize::from(from.key.outstanding < key.outstanding);
        if let Some(bucket) = self.buckets.get(from as usize) {
            let hint = bucket.onward[up(bucket)];
            if self
                .buckets
                .get(hint as usize)
                .is_some_and(|hinted| hinted.key == key)
            {
                return hint;
            }
        }
        let id = match self.by_key.get(&key) {
            Some(&id) => id,
            None => self.make(key),
        };
        if let Some(bucket) = self.buckets.get_mut(from as usize) {
            let step = up(bucket);
            bucket.onward[step] = id;
        }
        id
    }

    fn make(&mut self, key: BucketKey) -> u32 {
        if self.empty > SPARE_BUCKETS + (self.by_key.len() - self.empty) {
            self.sweep();
        }
        let made = Bucket {
            key,
            head: NONE,
            tail: NONE,
            heap: Vec::new(),
            pools: 0,
            at: NONE,
            onward: [NONE; 2],
        };
        let id = if let Some(id) = self.vacant.pop() {
            self.buckets[id as usize] = made;
            id
        } else {
            self.buckets.push(made);
            to_u32(self.buckets.len() - 1)
        };
        self.by_key.insert(key, id);
        self.empty += 1;
        id
    }

    /// Forgets all empty buckets; paid for by the changes that emptied them.
    fn sweep(&mut self) {
        for id in 0..self.buckets.len() {
            let bucket = &self.buckets[id];
            if bucket.pools == 0 && bucket.at != NONE {
                self.retire(bucket.key.class, bucket.at as usize);
            }
        }
        let (buckets, vacant) = (&mut self.buckets, &mut self.vacant);
        self.by_key.retain(|_, &mut id| {
            let bucket = &mut buckets[id as usize];
            if bucket.pools == 0 {
                // No pool has this key, so that a hint that led here is recognised as stale.
                bucket.key.max_workers = 0;
                bucket.heap = Vec::new();
                vacant.push(id);
            }
            bucket.pools > 0
        });
        self.by_key.shrink_to(2 * self.by_key.len());
        self.empty = 0;
    }

    #[cfg(test)]
    pub(crate) fn buckets_held(&self) -> usize {
        self.buckets.len()
    }
}

impl Bucket {
    /// Puts a pool into the list, behind the last that is less recent; returns false, and does nothing, where that is
    /// further from the end than a heap's steps are worth.
    fn list(&mut self, nodes: &mut [Node], slot: u32) -> bool {
        let recency = nodes[slot as usize].recency;
        let steps = if self.pools <= LISTED { LISTED } else { 0 };
        let (mut before, mut after, mut step) = (self.tail, NONE, 0);
        while before != NONE && nodes[before as usize].recency > recency {
            if step == steps {
                return false;
            }
            step += 1;
            after = before;
            before = nodes[before as usize].prev;
        }
        let node = &mut nodes[slot as usize];
        node.in_heap = false;
        node.prev = before;
        node.next = after;
        match before {
            NONE => self.head = slot,
            _ => nodes[before as usize].next = slot,
        }
        match after {
            NONE => self.tail = slot,
            _ => nodes[after as usize].prev = slot,
        }
        true
    }

    /// Returns the least recent pool of a bucket that is not empty.
    fn first(&self, nodes: &[Node]) -> u32 {
        match self.heap.first() {
            None => self.head,
            Some(&(_, slot)) if self.head == NONE => slot,
            Some(&(recency, slot)) if recency < nodes[self.head as usize].recency => slot,
            Some(_) => self.head,
        }
    }
}

fn entry_less(a: &GroupEntry, b: &GroupEntry) -> bool {
    a.rank < b.rank
}

fn note_place(lanes: &mut [Lane], entry: &GroupEntry, at: usize) {
    lanes[entry.class as usize].at[entry.nth as usize] = to_u32(at);
}

/// Gives back memory after a large set became a small one; paid for by the removals.
fn trim<T>(items: &mut Vec<T>) {
    const WORTH_IT: usize = 64;
    if items.capacity() > WORTH_IT && items.len() < items.capacity() / 4 {
        items.shrink_to(2 * items.len());
    }
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).expect("slots are numbered in 32 bits, so there are no more of anything")
}

/// A hasher for keys of a few integers that are not chosen to collide.
#[derive(Debug, Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        // The golden ratio in 64 bits: Knuth, The Art of Computer Programming 3, 6.4 (multiplicative hashing).
        self.0 = (self.0.rotate_left(26) ^ u64::from(value)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}
