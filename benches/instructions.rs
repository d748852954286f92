//! How many instructions do the hot paths take, and is that more than it was?
//!
//! Counted by valgrind, each case on one thread, so that a run says the same on a busy machine. A case fails above its
//! bound: the count that is written beside it and a tenth more, as compilers differ. A count is lowered with what makes its
//! path shorter, and raised only with the reason for it.
//!
//! `cargo bench --bench instructions --features internals`, with `gungraun-runner` of the same version on the PATH.

#![expect(missing_docs, reason = "the macros make public modules")]

use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use mahavishnu::api::{ListPools, ListPoolsResult};
use mahavishnu::error::Problem;
use mahavishnu::model::Filter;
use mahavishnu::orchestrator::cache::{DEFAULT_TTL, SearchCache};
use mahavishnu::orchestrator::router::{PoolSpec, Router};
use mahavishnu::process::Program;
use mahavishnu::process::internals::{framed, program};
use mahavishnu::server::internals::{decode_list_pools, encode_list_pools, pools};
use mahavishnu::store::internals::words;
use rmcp::model::JsonObject;
use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// Returns the bound of a case that took so many instructions.
fn measured(instructions: u64) -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::default();
    callgrind.hard_limits([(EventKind::Ir, instructions + instructions / 10)]);
    LibraryBenchmarkConfig::default().tool(callgrind).clone()
}

fn router(count: u32) -> (Router, Filter) {
    let mut router = Router::default();
    for number in 0..count {
        let spec = PoolSpec {
            name: format!("p{number}").parse().expect("a pool's name"),
            worker: "command".into(),
            max_workers: 8,
            queue: 0,
            labels: vec![format!("label-{}", number % 10)],
        };
        router.insert(spec).expect("the names are distinct");
    }
    (router, Filter::default())
}

fn labelled(count: u32) -> (Router, Filter) {
    let (router, mut filter) = router(count);
    filter.labels.push("label-3".into());
    (router, filter)
}

// Five routes and their releases, ten times.
#[library_benchmark]
#[bench::ten(args = (10), setup = router, config = measured(70_952))]
#[bench::ten_by_label(args = (10), setup = labelled, config = measured(65_787))]
#[bench::many(args = (100_000), setup = router, config = measured(62_202))]
#[bench::many_by_label(args = (100_000), setup = labelled, config = measured(51_193))]
fn route((mut router, filter): (Router, Filter)) -> Router {
    for _ in 0..10 {
        let key = [(); 5].map(|()| router.acquire(black_box(&filter)));
        for key in key.into_iter().flatten() {
            router.release(key);
        }
    }
    router
}

type Cache = SearchCache<String, Vec<u8>, Infallible>;

fn cache() -> (Cache, String) {
    let weigh = |key: &String, value: &Vec<u8>| key.len() + value.len();
    let cache = Cache::new(1 << 20, DEFAULT_TTL, Arc::new(Instant::now), weigh);
    let key = "how did the query go".to_owned();
    cache.insert(key.clone(), vec![7; 1_000]);
    (cache, key)
}

#[library_benchmark]
#[bench::hit(setup = cache, config = measured(18_915))]
fn find((cache, key): (Cache, String)) -> (Cache, bool) {
    let hit = (0..10).all(|_| cache.get(black_box(&key)).is_some());
    (cache, hit)
}

fn arguments() -> JsonObject {
    // The tools' table is made by the first call of all.
    black_box(decode_list_pools(JsonObject::new()).is_ok());
    let value = serde_json::json!({"pools": ["p1", "p2"], "detail": "full"});
    value.as_object().cloned().unwrap_or_default()
}

#[library_benchmark]
#[bench::list_pools(setup = arguments, config = measured(4_891))]
fn decode(arguments: JsonObject) -> Result<ListPools, Problem> {
    decode_list_pools(black_box(arguments))
}

// From the result to the bytes that are sent.
#[library_benchmark]
#[bench::list_pools(args = (10), setup = pools, config = measured(98_851))]
fn encode(result: ListPoolsResult) -> Vec<u8> {
    encode_list_pools(black_box(result))
}

#[library_benchmark]
#[bench::words(args = ("how did the \"borrow checker\" take carg* AND what failed"), config = measured(7_136))]
fn parse(query: &str) -> impl Sized + use<> {
    words(black_box(query))
}

// The whole way from what is to run to the frame.
#[library_benchmark]
#[bench::twenty_variables(args = (20), setup = program, config = measured(13_441))]
fn send(program: Program) -> (Program, usize) {
    let bytes = framed(black_box(&program));
    (program, bytes)
}

library_benchmark_group!(
    name = hot_paths,
    benchmarks = [route, find, decode, encode, parse, send]
);
main!(library_benchmark_groups = hot_paths);
