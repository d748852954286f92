//! What does the server cost that does nothing yet, and what does much of anything add?
//!
//! Cold starts beside the bare rmcp server, which gives the floor of any server on this stack; memory beside the limits
//! that it should keep. Memory is as Linux counts it: resident, of the server alone.

mod harness;

use harness::client::{Client, Link, World, remote_pool};
use harness::corpus::memory;
use harness::peers::bare_server;
use harness::{Bench, Goal, Unit, each, linux, skip};
use mahavishnu::orchestrator::routing::{PoolSpec, Router};
use mahavishnu::store::{Durability, Store, StoreOptions};
use serde_json::json;
use std::process::Command;
use std::time::{Duration, Instant};

const MB: f64 = 1e6;

fn main() {
    let bench = Bench::new("footprint");
    // First, while this process is small: it is its own memory that grows.
    many_pools(&bench);
    cold_start(&bench);
    idle(&bench);
    in_flight(&bench);
    many_memories(&bench);
    bench
        .figure("size of the program", Unit::Bytes)
        .rounds(1)
        .add("mahavishnu", || {
            let program = std::fs::metadata(env!("CARGO_BIN_EXE_mahavishnu"));
            vec![program.expect("it is built").len() as f64]
        })
        .add("the limit", || vec![15.0 * MB])
        .goal(Goal::AtMost(1.0))
        .run();
}

/// From the start of the process to its answer to the greeting, and to the first tool call.
fn cold_start(bench: &Bench) {
    let starts = bench.size(10, 1);
    let world = World::new("");
    let bare = || Client::start(Command::new(bare_server()), Link::Pipes);
    let ours = || Client::start(world.server(), Link::Pipes);
    // The state folder is made by the first start ever.
    drop(ours());
    bench
        .figure("cold start to the first answer", Unit::Nanoseconds)
        .add("mahavishnu", || kept_open(starts, ours))
        .add("bare rmcp", || kept_open(starts, bare))
        .goal(Goal::AtMost(3.0))
        .run();
    bench
        .figure("cold start to the first tool's answer", Unit::Nanoseconds)
        .add("mahavishnu", || {
            kept_open(starts, || {
                let mut server = ours();
                server.call("list_pools", json!({}));
                server
            })
        })
        .add("bare rmcp", || {
            kept_open(starts, || {
                let mut server = bare();
                server.answer("answer", &json!({}));
                server
            })
        })
        .goal(Goal::AtMost(3.0))
        .run();
}

/// Times `start` without the end of what it started.
fn kept_open(starts: usize, start: impl Fn() -> Client) -> Vec<f64> {
    let mut open = Vec::new();
    let mut timed = Vec::new();
    for _ in 0..starts {
        timed.extend(each(1, || open.push(start())));
        open.clear();
    }
    timed
}

fn resident(pid: u32) -> Option<f64> {
    linux::memory(pid, "VmRSS").map(|bytes| bytes as f64)
}

fn idle(bench: &Bench) {
    let world = World::new("");
    let mut server = Client::start(world.server(), Link::Pipes);
    server.call("list_pools", json!({}));
    let bare = Client::start(Command::new(bare_server()), Link::Pipes);
    if resident(server.pid()).is_none() {
        return skip("idle memory", "only Linux tells it");
    }
    let of = |pid| move || vec![resident(pid).expect("it lives")];
    bench
        .figure("idle memory", Unit::Bytes)
        .rounds(1)
        .add("mahavishnu", of(server.pid()))
        .add("the limit", || vec![10.0 * MB])
        .goal(Goal::AtMost(1.0))
        .add("bare rmcp", of(bare.pid()))
        .run();
}

/// What the router adds to this process.
fn many_pools(bench: &Bench) {
    let own = std::process::id();
    let Some(before) = resident(own) else {
        return skip("memory of many pools", "only Linux tells it");
    };
    let sizes: &[u32] = bench.size(&[1_000_000], &[1_000]);
    for &pools in sizes {
        let mut router = Router::default();
        bench
            .figure("memory of the router's pools", Unit::Bytes)
            .of(pools)
            .rounds(1)
            .add("router", || {
                for number in 0..pools {
                    let spec = PoolSpec {
                        name: format!("p{number}").parse().expect("a pool's name"),
                        worker: "command".into(),
                        max_workers: 8,
                        queue: 0,
                        labels: vec![format!("label-{}", number % 10)],
                    };
                    router.insert(spec).expect("the names are distinct");
                }
                vec![(resident(own).expect("it lives") - before).max(1.0)]
            })
            .run();
    }
}

/// What each item adds that runs, all at the same time.
fn in_flight(bench: &Bench) {
    const TASK_MS: usize = 60_000;
    let sizes: &[usize] = bench.size(&[100, 1_000, 10_000], &[10]);
    for &items in sizes {
        let world = World::new(&remote_pool(items, TASK_MS));
        world.make_repos(items);
        let mut server = Client::start(world.server(), Link::Pipes);
        let arguments =
            json!({"repos": ["r*"], "task": "wait", "isolation": "in_place", "wait_s": 0});
        let mut state = server.call("execute_workflow_parallel", arguments);
        let started = Instant::now();
        while state["counts"]["running"] != items {
            let late = started.elapsed() > Duration::from_millis(TASK_MS as u64);
            assert!(!late, "not all run at once: {state:#}");
            let id =
                json!({"workflow_id": state["workflow_id"], "wait_for": "change", "wait_s": 0.2});
            state = server.call("get_workflow", id);
        }
        let Some(bytes) = linux::memory(server.pid(), "VmRSS") else {
            return skip("memory of items in flight", "only Linux tells it");
        };
        bench
            .figure("memory with items in flight", Unit::Bytes)
            .of(items)
            .rounds(1)
            .add("mahavishnu", || vec![bytes as f64])
            .run();
        server.kill();
    }
}

/// The peak of a server that searches in many memories.
fn many_memories(bench: &Bench) {
    let sizes: &[usize] = bench.size(&[10_000, 100_000, 1_000_000], &[100]);
    for &count in sizes {
        let world = World::new("");
        fill(&world, count);
        bench
            .figure("peak memory of searches", Unit::Bytes)
            .of(count)
            .rounds(1)
            .add("mahavishnu", || {
                let mut server = Client::start(world.server(), Link::Pipes);
                for query in ["w77", "w77 w78", "build"] {
                    server.call("cross_pool_search", json!({"query": query}));
                }
                vec![linux::memory(server.pid(), "VmHWM").map_or(f64::NAN, |bytes| bytes as f64)]
            })
            .run();
    }
}

fn fill(world: &World, count: usize) {
    const BATCH: usize = 1_000;
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let options = StoreOptions {
            dir: world.path().join("state"),
            durability: Durability::Normal,
        };
        let store = Store::open(options).expect("it is empty");
        let pool = "local".parse().expect("a pool's name");
        for first in (0..count).step_by(BATCH) {
            let batch = (first..count.min(first + BATCH))
                .map(|number| memory(&pool, number))
                .collect();
            store.insert_memories(batch, None).await.expect("stored");
        }
        store.close().await;
    });
}
