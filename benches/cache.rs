//! What does the cache cost over `mini-moka` alone, with the key built in both?

use divan::{Bencher, black_box};
use futures_util::FutureExt;
use futures_util::future::join_all;
use mahavishnu::orchestrator::cache::{DEFAULT_TTL, SearchCache};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

fn main() {
    divan::main();
}

type Cache = SearchCache<Key, Vec<u8>, Infallible>;

/// As much as a search's key holds.
type Key = (String, Vec<String>, u32);

const BOUND_BYTES: u64 = 256 << 20;

const ENTRIES: u32 = 1_000;

/// How many identical misses meet in one load.
const WAITERS: usize = 100;

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

fn keys() -> Vec<Key> {
    (0..ENTRIES).map(key).collect()
}

fn cache() -> Cache {
    let weigh = |key: &Key, value: &Vec<u8>| key.0.len() + value.len();
    SearchCache::new(BOUND_BYTES, DEFAULT_TTL, Arc::new(Instant::now), weigh)
}

fn moka() -> mini_moka::sync::Cache<Key, Arc<Vec<u8>>> {
    mini_moka::sync::Cache::builder()
        .max_capacity(BOUND_BYTES)
        .weigher(|key: &Key, value: &Arc<Vec<u8>>| {
            u32::try_from(key.0.len() + value.len()).expect("a kilobyte")
        })
        .build()
}

/// Calls `one` with each key in turn.
fn in_turn<'a, T>(keys: &'a [Key], mut one: impl FnMut(&'a Key) -> T) -> impl FnMut() -> T {
    let mut turn = 0;
    move || {
        turn = (turn + 1) % keys.len();
        one(&keys[turn])
    }
}

#[divan::bench]
fn hit(bencher: Bencher<'_, '_>) {
    let (cache, keys) = (cache(), keys());
    for key in &keys {
        cache.insert(key.clone(), value());
    }
    bencher.bench_local(in_turn(&keys, |key| {
        cache.get(black_box(key)).expect("it was inserted")
    }));
}

#[divan::bench]
fn hit_of_mini_moka(bencher: Bencher<'_, '_>) {
    let (cache, keys) = (moka(), keys());
    for key in &keys {
        cache.insert(key.clone(), Arc::new(value()));
    }
    bencher.bench_local(in_turn(&keys, |key| {
        cache.get(black_box(key)).expect("it was inserted")
    }));
}

#[divan::bench]
fn miss(bencher: Bencher<'_, '_>) {
    let cache = cache();
    let mut number = 0;
    bencher
        .with_inputs(|| {
            number += 1;
            (key(number), value())
        })
        .bench_local_values(|(key, value)| {
            let load = async { Ok(value) };
            cache
                .get_or_load(key, load)
                .now_or_never()
                .expect("the load is ready")
        });
}

#[divan::bench]
fn miss_of_mini_moka(bencher: Bencher<'_, '_>) {
    let cache = moka();
    let mut number = 0;
    bencher
        .with_inputs(|| {
            number += 1;
            (key(number), value())
        })
        .bench_local_values(|(key, value)| {
            if cache.get(&key).is_none() {
                cache.insert(key, Arc::new(value));
            }
        });
}

/// A hundred calls that meet in one load, all told.
#[divan::bench]
fn coalesced(bencher: Bencher<'_, '_>) {
    let cache = cache();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime can be made");
    let mut number = 0;
    bencher
        .with_inputs(|| {
            number += 1;
            key(number)
        })
        .bench_local_values(|key| {
            let call = |_| {
                cache.get_or_load(key.clone(), async {
                    tokio::task::yield_now().await;
                    Ok(value())
                })
            };
            runtime.block_on(join_all((0..WAITERS).map(call)))
        });
}
