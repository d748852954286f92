//! One choice of the least-loaded pool and one release, beside a `BTreeSet` with the same keys.
//!
//! Some slots of every pool are taken, at random; each iteration takes one more and gives a random one back.

use crate::figure::{Bench, pieces};
use crate::record::{Goal, Unit};
use mahavishnu::model::Filter;
use mahavishnu::orchestrator::routing::{PoolKey, PoolSpec, Router};
use std::cmp::Ordering;
use std::collections::BTreeSet;

const TITLE: &str = "route and release";

/// Slots of each pool.
const SLOTS: u32 = 64;

/// Slots taken in each pool on average, far enough below [`SLOTS`] that chance fills no pool.
const TAKEN: u32 = 3;

/// Iterations in a piece: enough that reading the clock weighs nothing.
const PIECE: usize = 500;

pub(crate) fn measure(bench: &Bench) {
    if !bench.wants(TITLE) {
        return;
    }
    for &pools in bench.size(&[1_000, 10_000, 100_000][..], &[10]) {
        bench
            .figure(TITLE, Unit::Nanoseconds)
            .of(pools)
            .add("mahavishnu", turn(bench, router(pools), pools))
            .add("BTreeSet", turn(bench, OrderedPools::new(pools), pools))
            .goal(Goal::AtMost(1.0))
            .run();
    }
}

/// Chooses the least-loaded pool and takes its slot, or gives a slot back.
trait Balancer {
    type Key: Copy;
    fn route(&mut self) -> Self::Key;
    fn release(&mut self, key: Self::Key);
}

impl Balancer for Router {
    type Key = PoolKey;

    fn route(&mut self) -> PoolKey {
        self.acquire(&Filter::default()).expect("there is room")
    }

    fn release(&mut self, key: PoolKey) {
        Router::release(self, key);
    }
}

fn router(pools: u32) -> Router {
    let mut router = Router::default();
    for number in 0..pools {
        let added = router.insert(PoolSpec {
            name: format!("p{number}").parse().expect("a pool name"),
            worker: "command".into(),
            max_workers: SLOTS,
            queue: 0,
            labels: Vec::new(),
        });
        added.expect("the names are distinct");
    }
    router
}

/// A pool's place in the router's order: load, then fewer outstanding, then least recently routed to.
#[derive(Debug, Clone, Copy)]
struct Rank {
    in_flight: u32,
    slots: u32,
    recency: u64,
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        let own = u64::from(self.in_flight) * u64::from(other.slots);
        let others = u64::from(other.in_flight) * u64::from(self.slots);
        own.cmp(&others)
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

/// The same rule over an ordered set, without names, labels, queues or availability.
struct OrderedPools {
    ranks: Vec<Rank>,
    order: BTreeSet<(Rank, u32)>,
    clock: u64,
}

impl OrderedPools {
    fn new(pools: u32) -> Self {
        let rank = |pool| Rank {
            in_flight: 0,
            slots: SLOTS,
            recency: u64::from(pool),
        };
        Self {
            ranks: (0..pools).map(rank).collect(),
            order: (0..pools).map(|pool| (rank(pool), pool)).collect(),
            clock: u64::from(pools),
        }
    }

    fn change(&mut self, pool: u32, change: impl FnOnce(&mut Rank)) {
        let rank = &mut self.ranks[pool as usize];
        self.order.remove(&(*rank, pool));
        change(rank);
        self.order.insert((*rank, pool));
    }
}

impl Balancer for OrderedPools {
    type Key = u32;

    fn route(&mut self) -> u32 {
        let &(_, pool) = self.order.first().expect("there is a pool");
        self.clock += 1;
        let clock = self.clock;
        self.change(pool, |rank| {
            rank.in_flight += 1;
            rank.recency = clock;
        });
        pool
    }

    fn release(&mut self, pool: u32) {
        self.change(pool, |rank| rank.in_flight -= 1);
    }
}

/// Xorshift (Marsaglia, 2003): cheap, and the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * bound as u128) >> 64) as usize
    }
}

fn turn<B: Balancer>(bench: &Bench, mut balancer: B, pools: u32) -> impl FnMut() -> Vec<f64> {
    let count = bench.size(200, 2);
    let mut random = Random(42);
    let mut taken: Vec<B::Key> = (0..pools * TAKEN).map(|_| balancer.route()).collect();
    let mut step = move || {
        let at = random.below(taken.len());
        let old = std::mem::replace(&mut taken[at], balancer.route());
        balancer.release(old);
    };
    // Mixes the loads before anything is measured.
    (0..pools * TAKEN).for_each(|_| step());
    move || pieces(count, PIECE, &mut step)
}
