//! How long a tool call over stdio takes, beside a bare rmcp server that answers the same bytes from a constant.
//!
//! One thin client drives them all, in turns: one call out with client and server on one core, and 64 calls out on all
//! cores. The bare server (`benches/peers/bare_server.rs`) gets mahavishnu's own answer, recorded before. A FastMCP server
//! is measured where `FASTMCP_PYTHON` names an interpreter that has `fastmcp`.

use crate::client::{Client, Link, World, tool_call};
use crate::figure::{Bench, each, rate, skip};
use crate::linux;
use crate::peers::{Build, bare_server, builds, session_buddy, write_listing};
use crate::record::{Goal, Unit};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;

/// Calls out at once where many are.
const MANY: usize = 64;

/// Pools of the server.
const POOLS: usize = 10;

/// Notes that a search finds some of.
const NOTES: usize = 100;

pub(crate) fn measure(bench: &Bench) {
    let names = ["list_pools", "cached search"];
    if !names
        .iter()
        .any(|name| Case::titles(name).iter().any(|title| bench.wants(title)))
    {
        return;
    }
    let pools = pools_world();
    Case::new(names[0], &pools, "list_pools", json!({})).measure(bench);
    let search = search_world();
    let arguments = json!({"query": "quokka locking"});
    Case::new(names[1], &search, "cross_pool_search", arguments).measure(bench);
}

/// Ten pools, each of which has run something.
fn pools_world() -> World {
    let pool = |n| {
        format!(
            "[[pools]]\nname = \"p{n}\"\nworker = \"command\"\nmax_workers = 4\nlabels = [\"fast\"]\n"
        )
    };
    let pools: String = (0..POOLS).map(pool).collect();
    World::new(&format!("{pools}[workers.command]\nallow = [\"*\"]\n"))
}

/// A hundred notes in each build's store, and a stand-in for Session-Buddy that always finds ten others.
fn search_world() -> World {
    let world = World::new("");
    for build in builds() {
        let mut server = Client::start(world.server(&build), Link::Pipes);
        for number in 0..NOTES {
            let text =
                format!("note {number}: the quokka held the locking order in module {number}");
            server.call("remember", json!({"text": text}));
        }
    }
    let command = session_buddy(world.path(), "peer.json", &[]);
    write_listing(&world.path().join("peer.json"), None);
    world.add_config(&format!("[session_buddy]\ncommand = {command:?}\n"));
    world
}

/// One tool call and the answer that all servers give to it.
struct Case<'a> {
    name: &'static str,
    world: &'a World,
    tool: &'static str,
    arguments: Value,
    /// The tool result, in a file.
    answer: PathBuf,
}

impl<'a> Case<'a> {
    fn new(name: &'static str, world: &'a World, tool: &'static str, arguments: Value) -> Self {
        let case = Self {
            name,
            world,
            tool,
            arguments,
            answer: world.path().join("answer.json"),
        };
        let mut server = case.mahavishnu(&builds()[0], Link::Pipes);
        let bytes = server.answer(tool, &case.arguments);
        std::fs::write(&case.answer, &bytes).expect("it can be written");
        let same = case.bare(Link::Pipes).answer("answer", &json!({}));
        let parsed = |bytes| serde_json::from_slice::<Value>(bytes).expect("an answer is JSON");
        assert_eq!(same.len(), bytes.len());
        assert_eq!(
            parsed(&same),
            parsed(&bytes),
            "the bare server answers the same"
        );
        case
    }

    /// Returns the titles of its figures: one call out, then many over each kind of stream.
    fn titles(name: &str) -> [String; 3] {
        [
            format!("{name}, one call out"),
            format!("{name}, {MANY} calls out, pipes"),
            format!("{name}, {MANY} calls out, sockets"),
        ]
    }

    fn mahavishnu(&self, build: &Build, link: Link) -> Client {
        let mut server = Client::start(self.world.server(build), link);
        // The first call fills the caches; it is not measured.
        server.call(self.tool, self.arguments.clone());
        let known = server.call(self.tool, self.arguments.clone());
        if let Some(sources) = known["sources"].as_array() {
            let statuses: Vec<_> = sources.iter().map(|source| &source["status"]).collect();
            assert_eq!(statuses, ["ok", "cached"], "{known:#}");
        }
        server
    }

    fn bare(&self, link: Link) -> Client {
        let mut command = Command::new(bare_server());
        command.arg("--answer").arg(&self.answer);
        Client::start(command, link)
    }

    fn measure(&self, bench: &Bench) {
        let [one, pipes, sockets] = Self::titles(self.name);
        if bench.wants(&one) {
            self.one_out(bench, one);
        }
        for (title, link) in [(pipes, Link::Pipes), (sockets, Link::Sockets)] {
            if bench.wants(&title) {
                self.many_out(bench, title, link);
            }
        }
    }

    /// One call out over pipes, all on one core.
    fn one_out(&self, bench: &Bench, title: String) {
        let calls = bench.size(2_000, 5);
        if !linux::pin("0") {
            skip("pinning to one core", "no `taskset`");
        }
        let turn = |mut server: Client, line: String| {
            move || {
                each(calls, || {
                    server.send(line.as_bytes());
                    assert_eq!(server.lines(), 1);
                })
            }
        };
        let answer = || tool_call(1, "answer", &json!({}));
        let mut figure = bench
            .figure(title, Unit::Nanoseconds)
            .builds(&builds(), |build| {
                let line = tool_call(1, self.tool, &self.arguments);
                turn(self.mahavishnu(build, Link::Pipes), line)
            })
            .add("bare rmcp", turn(self.bare(Link::Pipes), answer()))
            .goal(Goal::AtMost(2.0));
        if let Some(fastmcp) = self.fastmcp() {
            figure = figure
                .add("FastMCP", turn(fastmcp, answer()))
                .goal(Goal::AtMost(0.125));
        }
        figure.run();
        linux::pin("0-1023");
    }

    /// Many calls out, on all cores.
    fn many_out(&self, bench: &Bench, title: String, link: Link) {
        let calls = bench.size(20_000, 2 * MANY);
        let turn = |mut server: Client, lines: Vec<String>| {
            move || rate(calls, || window(&mut server, &lines))
        };
        let lines = |tool: &str, arguments: &Value| -> Vec<String> {
            (0..calls)
                .map(|id| tool_call(id + 1, tool, arguments))
                .collect()
        };
        bench
            .figure(title, Unit::PerSecond)
            .builds(&builds(), |build| {
                let lines = lines(self.tool, &self.arguments);
                turn(self.mahavishnu(build, link), lines)
            })
            .add(
                "bare rmcp",
                turn(self.bare(link), lines("answer", &json!({}))),
            )
            .goal(Goal::AtLeast(0.6))
            .run();
    }

    fn fastmcp(&self) -> Option<Client> {
        let Some(python) = std::env::var_os("FASTMCP_PYTHON") else {
            skip(
                "FastMCP",
                "FASTMCP_PYTHON names no interpreter with `fastmcp`; benches/compare.sh sets it",
            );
            return None;
        };
        let program = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/benches/peers/fastmcp_server.py"
        );
        let mut command = Command::new(python);
        command.arg(program).arg(&self.answer);
        Some(Client::start(command, Link::Pipes))
    }
}

/// Keeps [`MANY`] calls out until all are answered. Each has an id of its own: rmcp drops an answer whose id is in use
/// again.
fn window(server: &mut Client, lines: &[String]) {
    let calls = lines.len();
    let mut next = lines.iter();
    let mut send = |server: &mut Client, count: usize| {
        let batch: String = next.by_ref().take(count).map(String::as_str).collect();
        server.send(batch.as_bytes());
    };
    let mut sent = MANY.min(calls);
    send(server, sent);
    let mut answered = 0;
    while answered < calls {
        let came = server.lines();
        answered += came;
        let more = came.min(calls - sent);
        if more > 0 {
            send(server, more);
            sent += more;
        }
    }
}
