//! What does the cache cost over `mini-moka` alone, with the key built in both?

mod harness;

use futures_util::FutureExt;
use futures_util::future::join_all;
use harness::{Bench, Goal, Unit, each, pieces};
use mahavishnu::orchestrator::memory::cache::{DEFAULT_TTL, SearchCache};
use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

type Cache = SearchCache<Key, Vec<u8>, Infallible>;
type Moka = mini_moka::sync::Cache<Key, Arc<Vec<u8>>>;

/// As much as a search's key holds.
type Key = (String, Vec<String>, u32);

const BOUND_BYTES: u64 = 256 << 20;

const ENTRIES: u32 = 1_000;

/// Hits in a piece: one takes about as long as reading the clock.
const PIECE: usize = 100;

/// How many identical misses meet in one load.
const WAITERS: usize = 100;

fn main() {
    let bench = Bench::new("cache");
    hit(&bench);
    miss(&bench);
    coalesced(&bench);
}

fn key(number: u32) -> Key {
    (
        format!("how did query {number} go"),
        vec!["local".into()],
        10,
    )
}

fn value() -> Vec<u8> {
    vec![7; 1_000]
}

fn cache() -> Cache {
    let weigh = |key: &Key, value: &Vec<u8>| key.0.len() + value.len();
    SearchCache::new(BOUND_BYTES, DEFAULT_TTL, Arc::new(Instant::now), weigh)
}

fn moka() -> Moka {
    mini_moka::sync::Cache::builder()
        .max_capacity(BOUND_BYTES)
        .weigher(|key: &Key, value: &Arc<Vec<u8>>| {
            u32::try_from(key.0.len() + value.len()).expect("a kilobyte")
        })
        .build()
}

fn hit(bench: &Bench) {
    let (cache, moka) = (cache(), moka());
    let keys: Vec<Key> = (0..ENTRIES).map(key).collect();
    for key in &keys {
        cache.insert(key.clone(), value());
        moka.insert(key.clone(), Arc::new(value()));
    }
    let count = bench.size(200, 1);
    let mut next = keys.iter().cycle();
    let mut moka_next = keys.iter().cycle();
    bench
        .figure("hit", Unit::Nanoseconds)
        .add("mahavishnu", move || {
            let mut get = || cache.get(black_box(next.next()?));
            assert!(get().is_some(), "it was inserted");
            pieces(count, PIECE, get)
        })
        .add("mini-moka", move || {
            let mut get = || moka.get(black_box(moka_next.next()?));
            assert!(get().is_some(), "it was inserted");
            pieces(count, PIECE, get)
        })
        .goal(Goal::AtMost(1.2))
        .run();
}

/// Misses that load at once. Keys and values are made before the clock runs.
fn miss(bench: &Bench) {
    let (cache, moka) = (cache(), moka());
    let count = bench.size(20_000, 10);
    let mut numbers = 0..;
    let mut moka_numbers = 0..;
    bench
        .figure("miss", Unit::Nanoseconds)
        .add("mahavishnu", move || {
            let mut made = fresh(&mut numbers, count);
            each(count, || {
                let (key, value) = made.next().expect("one for each");
                let load = async { Ok(value) };
                let loaded = cache.get_or_load(key, load).now_or_never();
                loaded.expect("the load is ready")
            })
        })
        .add("mini-moka", move || {
            let mut made = fresh(&mut moka_numbers, count);
            each(count, || {
                let (key, value) = made.next().expect("one for each");
                if moka.get(&key).is_none() {
                    moka.insert(key, Arc::new(value));
                }
            })
        })
        .run();
}

/// Returns `count` keys that were not seen before, with values.
fn fresh(
    numbers: &mut impl Iterator<Item = u32>,
    count: usize,
) -> impl Iterator<Item = (Key, Vec<u8>)> {
    let made: Vec<_> = numbers.take(count).map(|n| (key(n), value())).collect();
    made.into_iter()
}

/// A hundred calls that meet in one load, all told; beside as many that find their value.
fn coalesced(bench: &Bench) {
    let (cache, moka) = (cache(), moka());
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime can be made");
    let count = bench.size(500, 2);
    let mut numbers = 0..;
    moka.insert(key(0), Arc::new(value()));
    bench
        .figure("coalesced misses", Unit::Nanoseconds)
        .of(WAITERS)
        .add("mahavishnu", move || {
            let mut keys = fresh(&mut numbers, count);
            each(count, || {
                let (key, _) = keys.next().expect("one for each");
                let call = |_| {
                    cache.get_or_load(key.clone(), async {
                        tokio::task::yield_now().await;
                        Ok(value())
                    })
                };
                runtime.block_on(join_all((0..WAITERS).map(call)))
            })
        })
        .add("mini-moka, hits", move || {
            each(count, || {
                let key = key(0);
                (0..WAITERS)
                    .map(|_| moka.get(&key.clone()))
                    .collect::<Vec<_>>()
            })
        })
        .run();
}
