//! `aggregate_memory`: five pools whose servers list 100 memories each after a second, all of them forwarded to a
//! Session-Buddy that takes 0.1 s for one and some at once.
//!
//! The limit is the slowest pool, then as many rounds of 0.1 s as the peer needs for all memories. "First contact" is a new
//! server's first aggregation, "known peer" a later one.

use crate::client::{Client, Link, World};
use crate::figure::{Bench, each};
use crate::peers::{Build, builds, session_buddy, write_listing};
use crate::record::{Goal, Unit};
use serde_json::json;
use std::cell::Cell;
use std::time::Duration;

/// How long the peer takes for one memory.
const INSERT: Duration = Duration::from_millis(100);

const POOLS: usize = 5;

pub(crate) fn measure(bench: &Bench) {
    for &at_once in bench.size(&[8, 500][..], &[8]) {
        let aggregation = Aggregation::new(bench, at_once);
        let title = format!("aggregation 5 x 100, peer of {at_once} at once");
        let known = format!("{title}, known");
        if bench.wants(&known) {
            bench
                .figure(known, Unit::Nanoseconds)
                .rounds(3)
                .builds(&builds(), |build| aggregation.known(build))
                .limit("the limit", aggregation.limit())
                .goal(Goal::AtMost(1.1))
                .run();
        }
        let first = format!("{title}, first contact");
        if bench.wants(&first) {
            bench
                .figure(first, Unit::Nanoseconds)
                .rounds(3)
                .builds(&builds(), |build| aggregation.first_contact(build))
                .limit("the limit", aggregation.limit())
                .goal(Goal::AtMost(1.5))
                .run();
        }
    }
}

struct Aggregation {
    world: World,
    /// Memories of each pool.
    each: usize,
    at_once: usize,
    /// How long each pool's server takes to list its memories.
    latency: Duration,
    /// How many memories were ever listed: each aggregation finds new ones.
    listed: Cell<usize>,
}

impl Aggregation {
    fn new(bench: &Bench, at_once: usize) -> Self {
        let latency = bench.size(Duration::from_secs(1), Duration::from_millis(10));
        let world = World::new("");
        let latency_ms = latency.as_millis().to_string();
        let mut config = String::new();
        for pool in 0..POOLS {
            let command = session_buddy(
                world.path(),
                &listing(pool),
                &["--delay-ms", &latency_ms, "--at-once", "8"],
            );
            config.push_str(&format!(
                "[[pools]]\nname = \"p{pool}\"\nworker = \"w{pool}\"\nmax_workers = 1\n\
                 [workers.w{pool}]\nkind = \"session-buddy\"\nserver.command = {command:?}\n"
            ));
        }
        let (insert_ms, most) = (INSERT.as_millis().to_string(), at_once.to_string());
        let options = ["--delay-ms", &insert_ms, "--at-once", &most];
        let peer = session_buddy(world.path(), "peer.json", &options);
        write_listing(&world.path().join("peer.json"), None);
        world.add_config(&format!("{config}[session_buddy]\ncommand = {peer:?}\n"));
        Self {
            world,
            each: bench.size(100, 3),
            at_once,
            latency,
            listed: Cell::new(0),
        }
    }

    /// Returns the shortest time that the pools and the peer allow, in nanoseconds.
    fn limit(&self) -> f64 {
        let rounds = (POOLS * self.each).div_ceil(self.at_once);
        (self.latency + INSERT * u32::try_from(rounds).expect("few")).as_nanos() as f64
    }

    /// Gives every pool's server new memories.
    fn learn(&self) {
        for pool in 0..POOLS {
            let first = self.listed.replace(self.listed.get() + self.each);
            let memory = |n| {
                (
                    format!("id-{n}"),
                    format!("build w{n} w{} w{}", n * 7, n * 13),
                )
            };
            let memories: Vec<_> = (first..first + self.each).map(memory).collect();
            write_listing(&self.world.path().join(listing(pool)), Some(&memories));
        }
    }

    fn aggregate(&self, server: &mut Client) {
        let result = server.call("aggregate_memory", json!({"wait_s": 45}));
        let new = POOLS * self.each;
        assert_eq!(result["new"], new, "{result:#}");
        assert_eq!(result["forwarded"], new, "{result:#}");
    }

    fn first_contact<'a>(&'a self, build: &Build) -> impl FnMut() -> Vec<f64> + use<'a> {
        let build = build.clone();
        move || {
            self.learn();
            let state = self.world.path().join("state-of-first-contact");
            let command = self.world.server_with_state(&build, &state);
            let mut server = Client::start(command, Link::Pipes);
            let took = each(1, || self.aggregate(&mut server));
            drop(server);
            std::fs::remove_dir_all(state).expect("it is ours");
            took
        }
    }

    fn known<'a>(&'a self, build: &Build) -> impl FnMut() -> Vec<f64> + use<'a> {
        let mut server = Client::start(self.world.server(build), Link::Pipes);
        self.learn();
        self.aggregate(&mut server);
        move || {
            self.learn();
            each(1, || self.aggregate(&mut server))
        }
    }
}

/// Returns the file in the world's folder that holds what a pool's server lists.
fn listing(pool: usize) -> String {
    format!("pool-{pool}.json")
}
