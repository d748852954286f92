//! How many programs a second run through the guardian, beside plain tokio loops that do less?
//!
//! Each round runs `/bin/true` 1,000 times with 8 in flight, in turn: `null` and `piped` are `tokio::process` with null
//! outputs and with both outputs read to their end; `guardian` is [`Processes::run`] with logs, tails, a deadline and a
//! process group. Reported: the median of the rounds, and the guardian's share of each plain loop's rate.

use mahavishnu::process::{Job, Options, Processes};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const JOBS: usize = 1_000;
const IN_FLIGHT: usize = 8;
const ROUNDS: usize = 7;
const PROGRAM: &str = "/bin/true";

async fn rate<F>(run: impl Fn() -> F) -> f64
where
    F: Future<Output = bool> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut running = JoinSet::new();
    let start = Instant::now();
    for _ in 0..JOBS {
        let permit = Arc::clone(&permits)
            .acquire_owned()
            .await
            .expect("never closed");
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
    JOBS as f64 / start.elapsed().as_secs_f64()
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
        program: PROGRAM.into(),
        args: Vec::new(),
        cwd: "/".into(),
        env: std::env::vars_os().collect(),
        stdin: None,
        stdout_log: "/nonexistent/stdout".into(),
        stderr_log: "/nonexistent/stderr".into(),
        log_cap_bytes: 1 << 20,
        tail_bytes: 4096,
        context_bytes: 0,
        deadline: Some(Instant::now() + Duration::from_secs(600)),
        stall: None,
        grace: Duration::from_secs(5),
    };
    processes
        .run(job, &mut |_, _| {}, &CancellationToken::new())
        .await
        .succeeded()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "a benchmark's report")]
async fn main() {
    let processes = Processes::new(Options {
        guardian_program: env!("CARGO_BIN_EXE_mahavishnu").into(),
        hold: None,
    });
    // One argument names the only loop to run, for `strace -c` and `perf`.
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        if wanted("null") {
            rates[0].push(rate(null).await);
        }
        if wanted("piped") {
            rates[1].push(rate(piped).await);
        }
        if wanted("guardian") {
            rates[2].push(rate(|| guarded(processes.clone())).await);
        }
    }
    processes.close().await;
    let [null, piped, guardian] = rates.map(|rates| {
        if rates.is_empty() {
            f64::NAN
        } else {
            median(rates)
        }
    });
    println!("null {null:.0}/s  piped {piped:.0}/s  guardian {guardian:.0}/s");
    println!(
        "guardian is {:.2} of null, {:.2} of piped",
        guardian / null,
        guardian / piped
    );
}
