//! What does a choice of the least-loaded pool cost, and how does it grow with the number of pools?
//!
//! Beside a linear scan, a `BTreeSet` and a plain indexed binary heap, all with the router's exact order. Each
//! iteration is one route and one release, in one of two states: `idle` (every slot free; the slot just taken comes
//! back) and `busy` (some slots of every pool taken, at random; a random one comes back).

mod peers;

#[path = "../harness/mod.rs"]
mod harness;

use harness::{Bench, Goal, Unit, pieces};
use mahavishnu::model::Filter;
use mahavishnu::orchestrator::routing::{PoolKey, PoolSpec, Router};
use peers::{BinaryHeap, Labelled, LinearScan, Order, OrderedSet};
use std::hint::black_box;
use std::sync::Mutex;
use std::time::Instant;

fn main() {
    let bench = Bench::new("router");
    let sizes: &[u32] = bench.size(&[10, 1_000, 100_000, 1_000_000], &[10, 1_000]);
    for &pools in sizes {
        for state in [State::Idle, State::Busy] {
            unlabelled(&bench, state, pools);
            labelled(&bench, state, pools);
        }
        two_threads(&bench, pools);
        changes(&bench, pools);
    }
}

/// Slots of each pool.
const SLOTS: u32 = 64;

/// Slots taken in each pool on average while busy; so far below `SLOTS` that chance fills no pool.
const TAKEN: u32 = 3;

/// Iterations in a piece: enough that reading the clock weighs nothing.
const PIECE: usize = 500;

/// The most pools that are scanned one by one.
const SCANNED: u32 = 1_000;

/// In how many groups the labels divide the pools.
const LABELS: u32 = 10;

/// What is compared: choose the least-loaded pool and take its slot; give a slot back.
trait Balancer {
    type Key: Copy;
    fn with(pools: u32) -> Self;
    fn route(&mut self) -> Self::Key;
    fn release(&mut self, key: Self::Key);
}

impl<O: Order> Balancer for peers::Pools<O> {
    type Key = u32;

    fn with(pools: u32) -> Self {
        Self::new(pools, SLOTS)
    }

    fn route(&mut self) -> u32 {
        self.acquire().expect("there is room")
    }

    fn release(&mut self, key: u32) {
        self.give_back(key);
    }
}

impl Balancer for Router {
    type Key = PoolKey;

    fn with(pools: u32) -> Self {
        router(pools, |_| Vec::new())
    }

    fn route(&mut self) -> PoolKey {
        self.acquire(&Filter::default()).expect("there is room")
    }

    fn release(&mut self, key: PoolKey) {
        Router::release(self, key);
    }
}

/// The router, asked for one label of ten, round robin.
struct ByLabel<B> {
    inner: B,
    filters: Vec<Filter>,
    turn: usize,
}

impl<B> ByLabel<B> {
    fn new(inner: B) -> Self {
        let filter = |number| Filter {
            labels: vec![label(number)],
            ..Filter::default()
        };
        Self {
            inner,
            filters: (0..LABELS).map(filter).collect(),
            turn: 0,
        }
    }

    fn next(&mut self) -> usize {
        self.turn = (self.turn + 1) % self.filters.len();
        self.turn
    }
}

impl Balancer for ByLabel<Router> {
    type Key = PoolKey;

    fn with(pools: u32) -> Self {
        Self::new(router(pools, |number| vec![label(number % LABELS)]))
    }

    fn route(&mut self) -> PoolKey {
        let turn = self.next();
        self.inner
            .acquire(&self.filters[turn])
            .expect("there is room")
    }

    fn release(&mut self, key: PoolKey) {
        self.inner.release(key);
    }
}

impl Balancer for ByLabel<Labelled> {
    type Key = u32;

    fn with(pools: u32) -> Self {
        Self::new(Labelled::new(pools, SLOTS, |number| label(number % LABELS)))
    }

    fn route(&mut self) -> u32 {
        let turn = self.next();
        let label = &self.filters[turn].labels[0];
        self.inner.acquire(label).expect("there is room")
    }

    fn release(&mut self, key: u32) {
        self.inner.give_back(key);
    }
}

/// The router, asked for two labels: one of ten and one of two.
struct ByTwoLabels(ByLabel<Router>);

impl Balancer for ByTwoLabels {
    type Key = PoolKey;

    fn with(pools: u32) -> Self {
        let labels = |number: u32| {
            vec![
                label(number % LABELS),
                format!("half-{}", number / LABELS % 2),
            ]
        };
        let mut inner = ByLabel::new(router(pools, labels));
        for filter in &mut inner.filters {
            filter.labels.push("half-0".into());
        }
        Self(inner)
    }

    fn route(&mut self) -> PoolKey {
        self.0.route()
    }

    fn release(&mut self, key: PoolKey) {
        self.0.inner.release(key);
    }
}

fn label(number: u32) -> String {
    format!("label-{number}")
}

fn spec(number: u32, labels: Vec<String>) -> PoolSpec {
    PoolSpec {
        name: format!("p{number}").parse().expect("a pool name"),
        worker: "command".into(),
        max_workers: SLOTS,
        queue: 0,
        labels,
    }
}

fn router(pools: u32, labels: impl Fn(u32) -> Vec<String>) -> Router {
    let mut router = Router::default();
    for number in 0..pools {
        let added = router.insert(spec(number, labels(number)));
        added.expect("the names are distinct");
    }
    router
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

/// How full the pools are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Busy,
}

/// Returns a turn: pieces of one route and one release each.
fn turn<B: Balancer>(bench: &Bench, state: State, pools: u32) -> impl FnMut() -> Vec<f64> + use<B> {
    let count = bench.size(200, 2);
    let mut balancer = B::with(pools);
    let mut random = Random(42);
    let taken = if state == State::Idle {
        0
    } else {
        pools * TAKEN
    };
    let mut taken: Vec<B::Key> = (0..taken).map(|_| balancer.route()).collect();
    for _ in 0..taken.len() {
        let at = random.below(taken.len());
        balancer.release(taken[at]);
        taken[at] = balancer.route();
    }
    move || {
        pieces(count, PIECE, || {
            let key = balancer.route();
            let old = match taken.len() {
                0 => key,
                taken_len => {
                    let at = random.below(taken_len);
                    std::mem::replace(&mut taken[at], key)
                }
            };
            balancer.release(old);
        })
    }
}

fn unlabelled(bench: &Bench, state: State, pools: u32) {
    let mut figure = bench
        .figure(format!("route and release, {state:?}"), Unit::Nanoseconds)
        .of(pools)
        .add("router", turn::<Router>(bench, state, pools))
        .add("binary heap", turn::<BinaryHeap>(bench, state, pools))
        .goal(Goal::AtMost(1.0))
        .add("BTreeSet", turn::<OrderedSet>(bench, state, pools));
    if pools <= SCANNED {
        figure = figure.add("linear scan", turn::<LinearScan>(bench, state, pools));
    }
    figure.run();
}

fn labelled(bench: &Bench, state: State, pools: u32) {
    bench
        .figure(
            format!("route and release by label, {state:?}"),
            Unit::Nanoseconds,
        )
        .of(pools)
        .add("router", turn::<ByLabel<Router>>(bench, state, pools))
        .add(
            "binary heaps",
            turn::<ByLabel<Labelled>>(bench, state, pools),
        )
        .goal(Goal::AtMost(1.0))
        .run();
    bench
        .figure(
            format!("route and release by two labels, {state:?}"),
            Unit::Nanoseconds,
        )
        .of(pools)
        .add("router", turn::<ByTwoLabels>(bench, state, pools))
        .run();
}

/// Route and release behind a mutex, all threads together.
fn threads<B>(bench: &Bench, pools: u32, threads: usize) -> impl FnMut() -> Vec<f64> + use<B>
where
    B: Balancer + Send,
{
    let balancer = Mutex::new(B::with(pools));
    let each = bench.size(200_000, 100);
    move || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..each {
                        let key = balancer.lock().expect("no panic").route();
                        balancer.lock().expect("no panic").release(key);
                    }
                });
            }
        });
        vec![(threads * each) as f64 / start.elapsed().as_secs_f64()]
    }
}

fn two_threads(bench: &Bench, pools: u32) {
    bench
        .figure(
            "route and release behind a mutex, 2 threads",
            Unit::PerSecond,
        )
        .of(pools)
        .add("router", threads::<Router>(bench, pools, 2))
        .add("router, 1 thread", threads::<Router>(bench, pools, 1))
        .goal(Goal::AtLeast(1.0))
        .add(
            "binary heap, 2 threads",
            threads::<BinaryHeap>(bench, pools, 2),
        )
        .run();
}

/// Reads and changes that are no routing.
fn changes(bench: &Bench, pools: u32) {
    let count = bench.size(200, 2);
    let mut router = <ByLabel<Router> as Balancer>::with(pools);
    let mut keys: Vec<PoolKey> = router.inner.keys_after("").collect();
    let mut random = Random(42);
    let any = Filter::default();
    let figure = |name: &str| bench.figure(name, Unit::Nanoseconds).of(pools);
    figure("peek")
        .add("router", || {
            pieces(count, PIECE, || router.inner.peek(black_box(&any)))
        })
        .run();
    figure("explain ten candidates")
        .add("router", || {
            pieces(count, PIECE / 10, || {
                router.inner.explain(black_box(&router.filters[3]), 10)
            })
        })
        .run();
    figure("rescale")
        .add("router", || {
            pieces(count, PIECE, || {
                let key = keys[random.below(keys.len())];
                let slots = u32::try_from(1 + random.below(16)).expect("at most 16");
                router.inner.rescale(key, slots);
            })
        })
        .run();
    figure("remove and add")
        .add("router", || {
            pieces(count, PIECE, || {
                let at = random.below(keys.len());
                let old = router.inner.spec(keys[at]).expect("live").clone();
                router.inner.remove(keys[at]);
                keys[at] = router.inner.insert(old).expect("its name is free again");
            })
        })
        .run();
}
