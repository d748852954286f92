//! What the router is compared with: the same rule over simpler structures, without names, queues or availability.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};

/// A pool's place in the order: exact load, fewer outstanding, least recent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rank {
    in_flight: u32,
    slots: u32,
    recency: u64,
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        let mine = u64::from(self.in_flight) * u64::from(other.slots);
        let others = u64::from(other.in_flight) * u64::from(self.slots);
        mine.cmp(&others)
            .then(self.in_flight.cmp(&other.in_flight))
            .then(self.recency.cmp(&other.recency))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Rank {}

impl Rank {
    fn is_full(&self) -> bool {
        self.in_flight >= self.slots
    }
}

/// A structure that keeps pools in order. A full pool's load is 1, so it comes last by itself.
pub(crate) trait Order: Default {
    fn insert(&mut self, rank: Rank, pool: u32);
    fn change(&mut self, pool: u32, from: Rank, to: Rank);
    fn first(&self, ranks: &[Rank]) -> Option<u32>;
}

/// Pools of equal size in some order.
pub(crate) struct Pools<O> {
    ranks: Vec<Rank>,
    order: O,
    clock: u64,
}

impl<O: Order> Pools<O> {
    pub(crate) fn new(pools: u32, slots: u32) -> Self {
        let mut made = Self {
            ranks: Vec::new(),
            order: O::default(),
            clock: u64::from(pools),
        };
        for pool in 0..pools {
            let rank = Rank {
                in_flight: 0,
                slots,
                recency: u64::from(pool),
            };
            made.ranks.push(rank);
            made.order.insert(rank, pool);
        }
        made
    }

    pub(crate) fn acquire(&mut self) -> Option<u32> {
        let pool = self.order.first(&self.ranks)?;
        let rank = &mut self.ranks[pool as usize];
        if rank.is_full() {
            return None;
        }
        let from = *rank;
        self.clock += 1;
        rank.in_flight += 1;
        rank.recency = self.clock;
        self.order.change(pool, from, *rank);
        Some(pool)
    }

    pub(crate) fn give_back(&mut self, pool: u32) {
        let rank = &mut self.ranks[pool as usize];
        let from = *rank;
        rank.in_flight -= 1;
        self.order.change(pool, from, *rank);
    }
}

/// Looks at every pool.
pub(crate) type LinearScan = Pools<Nothing>;

#[derive(Default)]
pub(crate) struct Nothing;

impl Order for Nothing {
    fn insert(&mut self, _: Rank, _: u32) {}

    fn change(&mut self, _: u32, _: Rank, _: Rank) {}

    fn first(&self, ranks: &[Rank]) -> Option<u32> {
        let best = ranks.iter().enumerate().min_by_key(|&(_, rank)| rank)?.0;
        u32::try_from(best).ok()
    }
}

/// Keeps the pools in a `BTreeSet`.
pub(crate) type OrderedSet = Pools<Set>;

#[derive(Default)]
pub(crate) struct Set(BTreeSet<(Rank, u32)>);

impl Order for Set {
    fn insert(&mut self, rank: Rank, pool: u32) {
        self.0.insert((rank, pool));
    }

    fn change(&mut self, pool: u32, from: Rank, to: Rank) {
        self.0.remove(&(from, pool));
        self.0.insert((to, pool));
    }

    fn first(&self, _: &[Rank]) -> Option<u32> {
        self.0.first().map(|&(_, pool)| pool)
    }
}

/// Keeps the pools in an indexed binary heap with the ranks inline.
pub(crate) type BinaryHeap = Pools<Heap>;

#[derive(Default)]
pub(crate) struct Heap {
    entries: Vec<(Rank, u32)>,
    /// Each pool's place among the entries.
    places: Vec<u32>,
}

impl Heap {
    fn put(&mut self, at: usize, entry: (Rank, u32)) {
        self.entries[at] = entry;
        self.places[entry.1 as usize] = u32::try_from(at).expect("pools are numbered in 32 bits");
    }

    fn up(&mut self, mut at: usize) {
        let entry = self.entries[at];
        while at > 0 && entry.0 < self.entries[(at - 1) / 2].0 {
            self.put(at, self.entries[(at - 1) / 2]);
            at = (at - 1) / 2;
        }
        self.put(at, entry);
    }

    fn down(&mut self, mut at: usize) {
        let entry = self.entries[at];
        loop {
            let mut child = 2 * at + 1;
            if child >= self.entries.len() {
                break;
            }
            if child + 1 < self.entries.len() && self.entries[child + 1].0 < self.entries[child].0 {
                child += 1;
            }
            if entry.0 <= self.entries[child].0 {
                break;
            }
            self.put(at, self.entries[child]);
            at = child;
        }
        self.put(at, entry);
    }
}

impl Order for Heap {
    fn insert(&mut self, rank: Rank, pool: u32) {
        self.entries.push((rank, pool));
        if self.places.len() <= pool as usize {
            self.places.resize(pool as usize + 1, u32::MAX);
        }
        self.up(self.entries.len() - 1);
    }

    fn change(&mut self, pool: u32, from: Rank, to: Rank) {
        let at = self.places[pool as usize] as usize;
        self.entries[at].0 = to;
        if to < from {
            self.up(at);
        } else {
            self.down(at);
        }
    }

    fn first(&self, _: &[Rank]) -> Option<u32> {
        self.entries.first().map(|&(_, pool)| pool)
    }
}

/// One heap for all pools and one for each label, as routing with and without labels needs.
pub(crate) struct Labelled {
    all: BinaryHeap,
    by_label: HashMap<String, usize>,
    heaps: Vec<Heap>,
    /// Each pool's heap, and its number in there.
    label_of: Vec<(usize, u32)>,
    /// Each heap's pools, by their numbers in there.
    pools_of: Vec<Vec<u32>>,
}

impl Labelled {
    pub(crate) fn new(pools: u32, slots: u32, label: impl Fn(u32) -> String) -> Self {
        let mut made = Self {
            all: BinaryHeap::new(pools, slots),
            by_label: HashMap::new(),
            heaps: Vec::new(),
            label_of: Vec::new(),
            pools_of: Vec::new(),
        };
        for pool in 0..pools {
            let new = made.heaps.len();
            let heap = *made.by_label.entry(label(pool)).or_insert(new);
            if heap == new {
                made.heaps.push(Heap::default());
                made.pools_of.push(Vec::new());
            }
            let number = u32::try_from(made.pools_of[heap].len()).expect("no more than pools");
            made.pools_of[heap].push(pool);
            made.heaps[heap].insert(made.all.ranks[pool as usize], number);
            made.label_of.push((heap, number));
        }
        made
    }

    pub(crate) fn acquire(&mut self, label: &str) -> Option<u32> {
        let heap = *self.by_label.get(label)?;
        let number = self.heaps[heap].first(&[])?;
        let pool = self.pools_of[heap][number as usize];
        let from = self.all.ranks[pool as usize];
        if from.is_full() {
            return None;
        }
        self.all.clock += 1;
        let to = Rank {
            in_flight: from.in_flight + 1,
            recency: self.all.clock,
            ..from
        };
        self.set(pool, from, to);
        Some(pool)
    }

    pub(crate) fn give_back(&mut self, pool: u32) {
        let from = self.all.ranks[pool as usize];
        let to = Rank {
            in_flight: from.in_flight - 1,
            ..from
        };
        self.set(pool, from, to);
    }

    fn set(&mut self, pool: u32, from: Rank, to: Rank) {
        self.all.ranks[pool as usize] = to;
        self.all.order.change(pool, from, to);
        let (heap, number) = self.label_of[pool as usize];
        self.heaps[heap].change(number, from, to);
    }
}
