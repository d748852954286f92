//! How long does a tool call over stdio take, beside a bare rmcp server that answers the same bytes from a constant?
//!
//! One thin client drives them all, in turns: one call out with client and server on one core, and 64 calls out on all
//! cores, over pipes and over sockets. The bare server (`benches/peers/bare_server.rs`) is measured on one thread and on
//! several; it gets mahavishnu's own answer, recorded before. A FastMCP server is measured where `FASTMCP_PYTHON` names
//! an interpreter that has `fastmcp`.

mod harness;

use harness::client::{Client, Link, World, tool_call};
use harness::peers::{bare_server, session_buddy};
use harness::{Bench, Goal, Unit, each, linux, rate, skip};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;

/// Calls out at once where many are.
const MANY: usize = 64;

/// Pools of the server.
const POOLS: usize = 10;

/// Notes that a search finds some of.
const NOTES: usize = 100;

fn main() {
    let bench = Bench::new("roundtrip");
    let pools = pools_world();
    let case = Case::new("list_pools, 10 pools", &pools, "list_pools", json!({}));
    case.measure(&bench);
    let search = search_world();
    let arguments = json!({"query": "quokka locking"});
    Case::new("cached search", &search, "cross_pool_search", arguments).measure(&bench);
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

/// A hundred notes of our own, and a stand-in for Session-Buddy that always finds ten others.
fn search_world() -> World {
    let world = World::new("");
    let mut server = Client::start(world.server(), Link::Pipes);
    for number in 0..NOTES {
        let text = format!("note {number}: the quokka held the locking order in module {number}");
        server.call("remember", json!({"text": text}));
    }
    drop(server);
    let command = session_buddy(world.path(), &[]);
    let config = std::fs::read_to_string(world.path().join("config.toml")).expect("it is there");
    let config = format!("{config}[session_buddy]\ncommand = {command:?}\n");
    std::fs::write(world.path().join("config.toml"), config).expect("it can be written");
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
        let mut case = Self {
            name,
            world,
            tool,
            arguments,
            answer: world.path().join("answer.json"),
        };
        let mut server = case.mahavishnu(Link::Pipes);
        let bytes = server.answer(tool, &case.arguments);
        std::fs::write(&case.answer, &bytes).expect("it can be written");
        let mut bare = case.bare(Link::Pipes, 1);
        let same = bare.answer("answer", &json!({}));
        let parsed = |bytes| serde_json::from_slice::<Value>(bytes).expect("an answer is JSON");
        assert_eq!(same.len(), bytes.len());
        assert_eq!(
            parsed(&same),
            parsed(&bytes),
            "the bare server says the same"
        );
        case.answer = case.answer.canonicalize().expect("it is there");
        case
    }

    fn mahavishnu(&self, link: Link) -> Client {
        let mut server = Client::start(self.world.server(), link);
        // What the first call makes known is not measured.
        server.call(self.tool, self.arguments.clone());
        let known = server.call(self.tool, self.arguments.clone());
        if let Some(sources) = known["sources"].as_array() {
            let statuses: Vec<_> = sources.iter().map(|source| &source["status"]).collect();
            assert_eq!(statuses, ["ok", "cached"], "{known:#}");
        }
        server
    }

    fn bare(&self, link: Link, threads: usize) -> Client {
        let mut command = Command::new(bare_server());
        command.arg("--answer").arg(&self.answer);
        command.args(["--threads", &threads.to_string()]);
        Client::start(command, link)
    }

    fn measure(&self, bench: &Bench) {
        for link in [Link::Pipes, Link::Sockets] {
            self.one_out(bench, link);
            self.many_out(bench, link);
        }
    }

    /// One call out, all on one core.
    fn one_out(&self, bench: &Bench, link: Link) {
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
            .figure(
                format!("{}, 1 out, {link:?}, one core", self.name),
                Unit::Nanoseconds,
            )
            .add(
                "mahavishnu",
                turn(
                    self.mahavishnu(link),
                    tool_call(1, self.tool, &self.arguments),
                ),
            )
            .add("bare rmcp, 1 thread", turn(self.bare(link, 1), answer()))
            .goal(Goal::AtMost(1.3))
            .add("bare rmcp, 2 threads", turn(self.bare(link, 2), answer()));
        if let Some(fastmcp) = self.fastmcp(link) {
            figure = figure
                .add("FastMCP", turn(fastmcp, answer()))
                .goal(Goal::AtMost(0.02));
        }
        let trivial = Client::start(Command::new(bare_server()), link);
        figure
            .add(
                "bare rmcp, 1 thread, trivial answer",
                turn(trivial, answer()),
            )
            .run();
        linux::pin("0-1023");
    }

    /// Many calls out, on all cores.
    fn many_out(&self, bench: &Bench, link: Link) {
        let calls = bench.size(20_000, 2 * MANY);
        let turn = |mut server: Client, lines: Vec<String>| {
            move || rate(calls, || window(&mut server, &lines))
        };
        let lines = |tool: &str, arguments: &Value| -> Vec<String> {
            (0..calls)
                .map(|id| tool_call(id + 1, tool, arguments))
                .collect()
        };
        let answer = || lines("answer", &json!({}));
        bench
            .figure(
                format!("{}, {MANY} out, {link:?}", self.name),
                Unit::PerSecond,
            )
            .add(
                "mahavishnu",
                turn(self.mahavishnu(link), lines(self.tool, &self.arguments)),
            )
            .add("bare rmcp, 1 thread", turn(self.bare(link, 1), answer()))
            .goal(Goal::AtLeast(0.8))
            .add("bare rmcp, 2 threads", turn(self.bare(link, 2), answer()))
            .goal(Goal::AtLeast(0.8))
            .run();
    }

    fn fastmcp(&self, link: Link) -> Option<Client> {
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
        Some(Client::start(command, link))
    }
}

/// Keeps [`MANY`] calls out until all are answered. Each has an id of its own: however late an answer is, rmcp drops one
/// whose id is out again.
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
