//! What a server costs that has just started, and what it costs to have much in flight.

use crate::client::{Client, Link, World, remote_pool};
use crate::figure::{Bench, each, skip};
use crate::linux;
use crate::peers::{Build, builds, start_bare};
use crate::record::{Goal, Unit};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const MB: f64 = 1e6;

const START: &str = "cold start to the first tool's answer";
const IDLE: &str = "idle memory";
const IN_FLIGHT: &str = "memory with items in flight";

pub(crate) fn measure(bench: &Bench) {
    if bench.wants(START) {
        cold_start(bench);
    }
    if bench.wants(IDLE) {
        idle(bench);
    }
    if bench.wants(IN_FLIGHT) {
        in_flight(bench);
    }
}

fn started(world: &World, build: &Build) -> Client {
    let mut server = Client::start(world.server(build), Link::Pipes);
    server.call("list_pools", json!({}));
    server
}

/// From the start of the process to the answer of the first tool call. The end of the process is not counted.
fn cold_start(bench: &Bench) {
    let starts = bench.size(10, 1);
    let world = World::new("");
    let timed = |start: &dyn Fn() -> Client| -> Vec<f64> {
        let one = |_| {
            let mut open = None;
            let took = each(1, || open = Some(start()));
            drop(open);
            took[0]
        };
        (0..starts).map(one).collect()
    };
    bench
        .figure(START, Unit::Nanoseconds)
        .builds(&builds(), |build| {
            // The first start of all makes the state folder.
            drop(started(&world, build));
            let (build, world, timed) = (build.clone(), &world, &timed);
            move || timed(&|| started(world, &build))
        })
        .add("bare rmcp", || {
            timed(&|| {
                let mut server = start_bare();
                server.answer("answer", &json!({}));
                server
            })
        })
        .goal(Goal::AtMost(5.0))
        .run();
}

/// Resident memory after one call.
fn idle(bench: &Bench) {
    let world = World::new("");
    let bare = start_bare();
    if linux::memory(bare.pid()).is_none() {
        return skip(IDLE, "only Linux counts it");
    }
    let resident = |pid| move || vec![linux::memory(pid).expect("it runs")];
    let servers: Vec<Client> = builds()
        .iter()
        .map(|build| started(&world, build))
        .collect();
    let mut pids = servers.iter().map(Client::pid);
    bench
        .figure(IDLE, Unit::Bytes)
        .rounds(1)
        .builds(&builds(), |_| resident(pids.next().expect("one for each")))
        .limit("the limit", 25.0 * MB)
        .goal(Goal::AtMost(1.0))
        .add("bare rmcp", resident(bare.pid()))
        .run();
}

/// Resident memory while as many items run as there are slots, each a call of another server's tool.
fn in_flight(bench: &Bench) {
    const TASK_MS: usize = 120_000;
    let items: usize = bench.size(10_000, 10);
    let world = World::new(&remote_pool(items, TASK_MS));
    world.make_repos(items);
    if linux::memory(std::process::id()).is_none() {
        return skip(IN_FLIGHT, "only Linux counts it");
    }
    bench
        .figure(IN_FLIGHT, Unit::Bytes)
        .of(items)
        .rounds(1)
        .builds(&builds(), |build| {
            let command = world.server(build);
            let mut command = Some(command);
            move || {
                let command = command.take().expect("one round");
                let mut server = Client::start(command, Link::Pipes);
                run_all(&mut server, items, Duration::from_millis(TASK_MS as u64));
                let bytes = linux::memory(server.pid()).expect("it runs");
                server.kill();
                vec![bytes]
            }
        })
        .limit("the limit", 150.0 * MB)
        .goal(Goal::AtMost(1.0))
        .run();
}

/// Starts a workflow over `items` repositories and returns once all of them run.
fn run_all(server: &mut Client, items: usize, patience: Duration) -> Value {
    let arguments = json!({"repos": ["r*"], "task": "wait", "isolation": "in_place", "wait_s": 0});
    let mut state = server.call("execute_workflow_parallel", arguments);
    let started = Instant::now();
    while state["counts"]["running"] != items {
        assert!(
            started.elapsed() < patience,
            "not all run at once: {state:#}"
        );
        let next =
            json!({"workflow_id": state["workflow_id"], "wait_for": "change", "wait_s": 0.2});
        state = server.call("get_workflow", next);
    }
    state
}
