//! How many items of `true` does a workflow run in a second, journal on, beside loops that keep nothing?
//!
//! The subject is the real server: one `execute_workflow_parallel` over distinct repositories, from the call until the
//! answer that says it is done. Its peers run the same program as often, with as many at once: a plain tokio loop that
//! reads both outputs, one that reads none, `xargs -P` and GNU parallel.

mod harness;

use harness::client::{Client, Link, World, remote_pool};
use harness::{Bench, Goal, Unit, each, linux, rate, skip};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const PROGRAM: &str = "/bin/true";

/// Slots of the pool, with the goals beside a tokio loop, xargs and GNU parallel.
type Goals = [Option<Goal>; 3];

fn main() {
    let bench = Bench::new("workflows");
    let items = bench.size(1_000, 20);
    let world = World::new("");
    world.make_repos(items);
    let goals = [0.9, 1.5, 8.0].map(|ratio| Some(Goal::AtLeast(ratio)));
    for (slots, goals) in [(2, [None; 3]), (8, goals), (64, [None; 3])] {
        throughput(&bench, &world, items, slots, goals);
    }
    growth(&bench);
    remote_tasks(&bench);
}

fn pool(slots: usize) -> String {
    format!(
        "[[pools]]\nname = \"local\"\nworker = \"command\"\nmax_workers = {slots}\n\
         [workers.command]\nallow = [\"*\"]\n[limits]\nmax_items = 100000\n"
    )
}

fn throughput(bench: &Bench, world: &World, items: usize, slots: usize, goals: Goals) {
    let own = World::new(&pool(slots));
    let mut command = own.server();
    command.arg("--root").arg(world.repos());
    let mut server = Client::start(command, Link::Pipes);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let [tokio, xargs, parallel] = goals;
    let mut figure = bench
        .figure("items of true", Unit::PerSecond)
        .of(slots)
        .rounds(5)
        .add("mahavishnu", || rate(items, || run(&mut server, items)))
        .add("tokio loop, outputs read", || {
            rate(items, || {
                runtime.block_on(spawn_loop(items, slots, Outputs::Read))
            })
        })
        .goal(tokio)
        .add("tokio loop, no outputs", || {
            rate(items, || {
                runtime.block_on(spawn_loop(items, slots, Outputs::Null))
            })
        })
        .add("xargs -P", || {
            rate(items, || feed("xargs", ["-n1", "-P"], items, slots))
        })
        .goal(xargs);
    if has_gnu_parallel() {
        figure = figure
            .add("GNU parallel", || {
                rate(items, || {
                    feed("parallel", ["--will-cite", "-j"], items, slots)
                })
            })
            .goal(parallel);
    } else {
        skip(
            "GNU parallel",
            "no `parallel` of GNU on the PATH (Debian: apt install parallel)",
        );
    }
    figure.run();
}

/// Runs [`PROGRAM`] in the repositories `r*`.
fn run(server: &mut Client, items: usize) {
    let arguments = json!({"repos": ["r*"], "command": [PROGRAM], "wait_s": 45});
    run_as(server, &arguments, items);
}

/// Runs one workflow to its end.
fn run_as(server: &mut Client, arguments: &Value, items: usize) {
    let mut state = server.call("execute_workflow_parallel", arguments.clone());
    while state["status"] == "running" {
        let arguments =
            json!({"workflow_id": state["workflow_id"], "wait_for": "done", "wait_s": 45});
        state = server.call("get_workflow", arguments);
    }
    assert_eq!(state["counts"]["succeeded"], items, "{state:#}");
}

#[derive(Clone, Copy)]
enum Outputs {
    Read,
    Null,
}

async fn spawn_loop(items: usize, slots: usize, outputs: Outputs) {
    let permits = Arc::new(Semaphore::new(slots));
    let mut running = JoinSet::new();
    for _ in 0..items {
        let permit = Arc::clone(&permits).acquire_owned().await;
        running.spawn(async move {
            let mut command = tokio::process::Command::new(PROGRAM);
            command.stdin(Stdio::null());
            let status = match outputs {
                Outputs::Read => command.output().await.map(|output| output.status),
                Outputs::Null => {
                    command.stdout(Stdio::null()).stderr(Stdio::null());
                    command.status().await
                }
            };
            drop(permit);
            status.is_ok_and(|status| status.success())
        });
    }
    while let Some(ended) = running.join_next().await {
        assert!(ended.expect("no panic"), "{PROGRAM} failed");
    }
}

/// Gives `program` a line for each item; it runs [`PROGRAM`] on each.
fn feed(program: &str, flags: [&str; 2], items: usize, slots: usize) {
    let mut child = Command::new(program)
        .args(flags)
        .arg(slots.to_string())
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
    asked.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("GNU parallel"))
}

/// Tasks of 50 ms on the tools of another server, in as many slots as no machine has programs for.
fn remote_tasks(bench: &Bench) {
    const TASK_MS: usize = 50;
    let (slots, items) = bench.size((1_000, 10_000), (10, 20));
    let world = World::new(&remote_pool(slots, TASK_MS));
    world.make_repos(items);
    let mut server = Client::start(world.server(), Link::Pipes);
    let arguments = json!({"repos": ["r*"], "task": "wait", "isolation": "in_place", "wait_s": 45});
    bench
        .figure("tasks of 50 ms on mcp workers", Unit::PerSecond)
        .of(slots)
        .rounds(3)
        .add("mahavishnu", || {
            rate(items, || run_as(&mut server, &arguments, items))
        })
        .add("what the slots allow", || {
            vec![(slots * 1_000 / TASK_MS) as f64]
        })
        .run();
}

/// How a workflow's time grows with its items, and the peak memory of the server and all that it started in the largest.
fn growth(bench: &Bench) {
    const LIMIT_BYTES: f64 = 60e6;
    let sizes: &[usize] = bench.size(&[10, 100, 1_000, 10_000], &[2, 20]);
    let world = World::new(&pool(8));
    let mut server = Client::start(world.server(), Link::Pipes);
    for &items in sizes {
        world.make_repos(items);
        bench
            .figure("a workflow of true, 8 slots", Unit::Nanoseconds)
            .of(items)
            .rounds(if items < 10_000 { 3 } else { 1 })
            .add("mahavishnu", || each(1, || run(&mut server, items)))
            .run();
    }
    drop(server);
    let largest = sizes[sizes.len() - 1];
    let mut server = Client::start(world.server(), Link::Pipes);
    let peak = linux::peak_together(server.pid(), || run(&mut server, largest));
    let Some(peak) = peak else {
        return skip("peak memory", "only Linux tells it");
    };
    bench
        .figure("peak memory meanwhile, guardians included", Unit::Bytes)
        .of(largest)
        .rounds(1)
        .add("mahavishnu", || vec![peak as f64])
        .add("the limit", || vec![LIMIT_BYTES])
        .goal(Goal::AtMost(1.0))
        .run();
}
