//! How many programs a second run through the guardian, beside plain tokio loops that do less?
//!
//! Each turn runs `/bin/true` 1,000 times with 8 in flight: `tokio::process` with null outputs, with both outputs read to
//! their end, and [`Processes::run`] with logs, tails, a deadline and a process group. A word of the figure's name and
//! `strace -c` or `perf` show where the time goes.

mod harness;

use harness::{Bench, Unit};
use mahavishnu::process::{Job, Options, Processes, Program};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const IN_FLIGHT: usize = 8;
const PROGRAM: &str = "/bin/true";

fn main() {
    let bench = Bench::new("spawn");
    let jobs = bench.size(1_000, 16);
    let runtime = Runtime::new().expect("a runtime");
    let processes = Processes::new(Options {
        guardian_program: env!("CARGO_BIN_EXE_mahavishnu").into(),
        hold: None,
    });
    bench
        .figure("programs", Unit::PerSecond)
        .of(IN_FLIGHT)
        .add("guardian", || {
            runtime.block_on(rate(jobs, || guarded(processes.clone())))
        })
        .add("tokio loop, outputs read", || {
            runtime.block_on(rate(jobs, piped))
        })
        .add("tokio loop, no outputs", || {
            runtime.block_on(rate(jobs, null))
        })
        .run();
    runtime.block_on(processes.close());
}

async fn rate<F>(jobs: usize, run: impl Fn() -> F) -> Vec<f64>
where
    F: Future<Output = bool> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut running = JoinSet::new();
    let start = Instant::now();
    for _ in 0..jobs {
        let permit = Arc::clone(&permits).acquire_owned().await;
        let job = run();
        running.spawn(async move {
            let succeeded = job.await;
            drop(permit);
            succeeded
        });
    }
    while let Some(ended) = running.join_next().await {
        assert!(ended.expect("no panic"), "{PROGRAM} failed");
    }
    vec![jobs as f64 / start.elapsed().as_secs_f64()]
}

async fn null() -> bool {
    let mut command = Command::new(PROGRAM);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().await.expect("spawns").success()
}

async fn piped() -> bool {
    let mut command = Command::new(PROGRAM);
    command.stdin(Stdio::null());
    command.output().await.expect("spawns").status.success()
}

async fn guarded(processes: Processes) -> bool {
    let job = Job {
        program: Program {
            program: PROGRAM.into(),
            args: Vec::new(),
            cwd: "/".into(),
            env: std::env::vars_os().collect(),
        },
        stdin: None,
        stdout_log: "/nonexistent/stdout".into(),
        stderr_log: "/nonexistent/stderr".into(),
        log_cap_bytes: 1 << 20,
        tail_bytes: 4096,
        context_bytes: 0,
        deadline: Some(Instant::now() + Duration::from_secs(600)),
        stall: None,
        grace: Duration::from_secs(5).into(),
    };
    processes
        .run(job, &mut |_, _| {}, &CancellationToken::new())
        .await
        .succeeded()
}
