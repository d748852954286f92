//! How many items of `true` a workflow runs in a second, journal on, beside tools that keep nothing.
//!
//! The subject is the real server: one `execute_workflow_parallel` over distinct repositories, from the call until the
//! answer that it is done. The peers run the same program as often, with as many at once.

use crate::client::{Client, Link, World};
use crate::figure::{Bench, rate, skip};
use crate::peers::builds;
use crate::record::{Goal, Unit};
use serde_json::json;
use std::io::Write;
use std::process::{Command, Stdio};

const TITLE: &str = "workflow items of true, 8 slots";
const PROGRAM: &str = "/bin/true";
const SLOTS: usize = 8;

pub(crate) fn measure(bench: &Bench) {
    if !bench.wants(TITLE) {
        return;
    }
    let items = bench.size(1_000, 20);
    let world = World::new(&format!(
        "[[pools]]\nname = \"local\"\nworker = \"command\"\nmax_workers = {SLOTS}\n[workers.command]\nallow = [\"*\"]\n"
    ));
    world.make_repos(items);
    let mut figure = bench
        .figure(TITLE, Unit::PerSecond)
        .rounds(5)
        .builds(&builds(), |build| {
            let mut server = Client::start(world.server(build), Link::Pipes);
            move || rate(items, || run(&mut server, items))
        })
        .add("xargs -P8", || {
            rate(items, || feed("xargs", ["-n1", "-P"], items))
        })
        .goal(Goal::AtLeast(0.9));
    if has_gnu_parallel() {
        figure = figure
            .add("GNU parallel", || {
                rate(items, || feed("parallel", ["--will-cite", "-j"], items))
            })
            .goal(Goal::AtLeast(4.0));
    } else {
        skip(
            "GNU parallel",
            "no `parallel` of GNU on the PATH (Debian: apt install parallel)",
        );
    }
    figure.run();
}

/// Runs [`PROGRAM`] in the repositories `r*`, to the end.
fn run(server: &mut Client, items: usize) {
    let arguments = json!({"repos": ["r*"], "command": [PROGRAM], "wait_s": 45});
    let mut state = server.call("execute_workflow_parallel", arguments);
    while state["status"] == "running" {
        let next = json!({"workflow_id": state["workflow_id"], "wait_for": "done", "wait_s": 45});
        state = server.call("get_workflow", next);
    }
    assert_eq!(state["counts"]["succeeded"], items, "{state:#}");
}

/// Gives `program` a line for each item; it runs [`PROGRAM`] on each.
fn feed(program: &str, flags: [&str; 2], items: usize) {
    let mut child = Command::new(program)
        .args(flags)
        .arg(SLOTS.to_string())
        .arg(PROGRAM)
        .stdin(Stdio::piped())
        .spawn()
        .expect("it is installed");
    let mut input = child.stdin.take().expect("it is a pipe");
    for number in 0..items {
        writeln!(input, "r{number}").expect("it reads");
    }
    drop(input);
    assert!(child.wait().expect("it ends").success(), "{program} failed");
}

fn has_gnu_parallel() -> bool {
    let asked = Command::new("parallel").arg("--version").output();
    asked.is_ok_and(|answer| String::from_utf8_lossy(&answer.stdout).contains("GNU parallel"))
}
