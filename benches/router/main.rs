//! What does a choice of the least-loaded pool cost, and how does it grow with the number of pools?
//!
//! Beside a linear scan, a `BTreeSet` and a plain indexed binary heap, all with the router's exact order. Each
//! iteration is one route and one release, in one of two states: `idle` (every slot free; the slot just taken comes
//! back) and `busy` (some slots of every pool taken, at random; a random one comes back).

mod peers;

use divan::Bencher;
use divan::counter::ItemsCount;
use mahavishnu::model::Filter;
use mahavishnu::orchestrator::router::{PoolKey, PoolSpec, Router};
use peers::{BinaryHeap, Labelled, LinearScan, Order, OrderedSet};
use std::sync::Mutex;

fn main() {
    divan::main();
}

/// Slots of each pool.
const SLOTS: u32 = 64;

/// Slots taken in each pool on average while busy; so far below `SLOTS` that chance fills no pool.
const TAKEN: u32 = 3;

/// Iterations in a sample: enough that the timer and a cold start weigh nothing.
const SAMPLE: u32 = 2_000;

/// In how many groups the labels divide the pools.
const LABELS: u32 = 10;

fn sizes() -> &'static [u32] {
    if std::env::args().any(|arg| arg == "--bench") {
        &[10, 1_000, 100_000, 1_000_000]
    } else {
        &[10, 1_000]
    }
}

fn sizes_to_scan() -> &'static [u32] {
    &[10, 1_000]
}

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

#[divan::bench(
    types = [Router, BinaryHeap, OrderedSet, ByLabel<Router>, ByLabel<Labelled>, ByTwoLabels],
    args = sizes(),
    sample_size = SAMPLE,
)]
fn idle<B: Balancer>(bencher: Bencher<'_, '_>, pools: u32) {
    let mut balancer = B::with(pools);
    bencher.bench_local(|| {
        let key = balancer.route();
        balancer.release(key);
    });
}

#[divan::bench(
    types = [Router, BinaryHeap, OrderedSet, ByLabel<Router>, ByLabel<Labelled>, ByTwoLabels],
    args = sizes(),
    sample_size = SAMPLE,
)]
fn busy<B: Balancer>(bencher: Bencher<'_, '_>, pools: u32) {
    run_busy::<B>(bencher, pools);
}

#[divan::bench(types = [LinearScan], args = sizes_to_scan(), sample_size = SAMPLE)]
fn busy_scan<B: Balancer>(bencher: Bencher<'_, '_>, pools: u32) {
    run_busy::<B>(bencher, pools);
}

fn run_busy<B: Balancer>(bencher: Bencher<'_, '_>, pools: u32) {
    let mut balancer = B::with(pools);
    let mut random = Random(42);
    let mut taken: Vec<B::Key> = (0..pools * TAKEN).map(|_| balancer.route()).collect();
    for _ in 0..taken.len() {
        let at = random.below(taken.len());
        balancer.release(taken[at]);
        taken[at] = balancer.route();
    }
    bencher.bench_local(|| {
        let key = balancer.route();
        let at = random.below(taken.len());
        let old = std::mem::replace(&mut taken[at], key);
        balancer.release(old);
    });
}

#[divan::bench(types = [Router, BinaryHeap], args = sizes(), threads = [1, 2], sample_size = SAMPLE)]
fn behind_a_mutex<B>(bencher: Bencher<'_, '_>, pools: u32)
where
    B: Balancer + Send,
{
    let balancer = Mutex::new(B::with(pools));
    bencher.counter(ItemsCount::new(1_u32)).bench(|| {
        let key = balancer.lock().expect("no panic while locked").route();
        balancer.lock().expect("no panic while locked").release(key);
    });
}

#[divan::bench(args = sizes(), sample_size = SAMPLE)]
fn peek(bencher: Bencher<'_, '_>, pools: u32) {
    let router = Router::with(pools);
    let any = Filter::default();
    bencher.bench_local(|| router.peek(divan::black_box(&any)));
}

#[divan::bench(args = sizes(), sample_size = SAMPLE)]
fn rescale(bencher: Bencher<'_, '_>, pools: u32) {
    let mut router = Router::with(pools);
    let keys: Vec<PoolKey> = router.iter().map(|(key, _)| key).collect();
    let mut random = Random(42);
    bencher.bench_local(|| {
        let key = keys[random.below(keys.len())];
        let slots = u32::try_from(1 + random.below(16)).expect("at most 16");
        router.rescale(key, slots);
    });
}

#[divan::bench(args = sizes(), sample_size = SAMPLE)]
fn remove_and_add(bencher: Bencher<'_, '_>, pools: u32) {
    let mut router = Router::with(pools);
    let mut keys: Vec<PoolKey> = router.iter().map(|(key, _)| key).collect();
    let mut random = Random(42);
    bencher.bench_local(|| {
        let at = random.below(keys.len());
        let old = router.spec(keys[at]).expect("live");
        router.remove(keys[at]);
        keys[at] = router.insert(old).expect("its name is free again");
    });
}

#[divan::bench(args = sizes(), sample_size = SAMPLE)]
fn explain_ten(bencher: Bencher<'_, '_>, pools: u32) {
    let router = ByLabel::<Router>::with(pools);
    bencher.bench_local(|| {
        router
            .inner
            .explain(divan::black_box(&router.filters[3]), 10)
    });
}
