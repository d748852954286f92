//! Real programs through a real guardian: every way a program, its children, the guardian and the server can end.

mod ends;
mod git;
mod guardian;
mod lost;
mod start;
mod strays;
mod streams;

use mahavishnu::error::{ErrorKind, Fault};
use mahavishnu::process::{
    Ended, Exit, Hold, Job, Options, Processes, Program, SpawnError, StopReason, Stream,
};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Far above what anything here takes; only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);
const GUARDIAN: &str = env!("CARGO_BIN_EXE_mahavishnu");

fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().expect("a path");
    path.pop();
    path.pop();
    let path = path.join("examples").join(name);
    assert!(
        path.exists(),
        "build it with `cargo build --examples`: {}",
        path.display()
    );
    path
}

struct Bench {
    dir: TempDir,
    processes: Processes,
}

impl Bench {
    fn new() -> Self {
        Self::holding(None)
    }

    fn holding(hold: Option<Hold>) -> Self {
        Self {
            dir: tempfile::tempdir().expect("tempdir"),
            processes: Processes::new(Options {
                guardian_program: GUARDIAN.into(),
                hold,
            }),
        }
    }

    fn job(&self, verbs: &str) -> Job {
        Job {
            program: self.program(verbs),
            stdin: None,
            stdout_log: self.dir.path().join("logs/stdout"),
            stderr_log: self.dir.path().join("logs/stderr"),
            log_cap_bytes: 1 << 20,
            tail_bytes: 4096,
            context_bytes: 0,
            deadline: None,
            stall: None,
            grace: HANG.into(),
        }
    }

    fn program(&self, verbs: &str) -> Program {
        Program {
            program: example("fake_worker"),
            args: verbs.split_whitespace().map(Into::into).collect(),
            cwd: self.dir.path().canonicalize().expect("exists"),
            env: [("PATH".into(), "/usr/bin:/bin".into())].into(),
        }
    }

    /// Returns a job of a shell script.
    fn script(&self, script: &str) -> Job {
        let mut job = self.job("");
        job.program.program = "/bin/sh".into();
        job.program.args = vec!["-c".into(), script.into()];
        job
    }

    async fn run(&self, job: Job) -> Exit {
        self.run_until(job, &CancellationToken::new()).await
    }

    async fn run_until(&self, job: Job, cancel: &CancellationToken) -> Exit {
        timeout(HANG, self.processes.run(job, &mut |_, _| {}, cancel))
            .await
            .expect("no hang")
    }

    /// Starts a job and returns its first lines of output as they come, and its end.
    fn start(&self, job: Job, cancel: &CancellationToken) -> Started {
        let (tell, lines) = mpsc::channel(1024);
        let (processes, cancel) = (self.processes.clone(), cancel.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut rest = String::new();
            let mut split = |_: Stream, bytes: &[u8]| {
                rest.push_str(&String::from_utf8_lossy(bytes));
                while let Some((line, after)) = rest.split_once('\n') {
                    let _ = tell.try_send(line.to_owned());
                    rest = after.to_owned();
                }
            };
            processes.run(job, &mut split, &cancel).await
        });
        Started { task, lines }
    }
}

struct Started {
    task: JoinSet<Exit>,
    lines: mpsc::Receiver<String>,
}

impl Started {
    /// Returns what follows `word` in the first line that begins with it.
    async fn line(&mut self, word: &str) -> String {
        timeout(HANG, async {
            loop {
                let line = self
                    .lines
                    .recv()
                    .await
                    .expect("the job ended before it said so");
                if let Some(rest) = line.strip_prefix(word) {
                    return rest.trim().to_owned();
                }
            }
        })
        .await
        .expect("no hang")
    }

    async fn pid(&mut self, word: &str) -> Pid {
        to_pid(&self.line(word).await)
    }

    async fn exit(&mut self) -> Exit {
        let ended = timeout(HANG, self.task.join_next()).await.expect("no hang");
        ended.expect("one task").expect("no panic")
    }
}

fn to_pid(text: &str) -> Pid {
    Pid::from_raw(text.parse().expect("a pid")).expect("not zero")
}

/// Returns field `index` of what follows the name in a process's record: 0 the state, 1 the parent, 3 the session.
fn stat(pid: Pid, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    Some(
        stat.rsplit_once(')')?
            .1
            .split_ascii_whitespace()
            .nth(index)?
            .to_owned(),
    )
}

fn parent(pid: Pid) -> Pid {
    to_pid(&stat(pid, 1).expect("it lives"))
}

fn lives(pid: Pid) -> bool {
    stat(pid, 0).is_some_and(|state| state != "Z" && state != "X")
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + HANG;
    while !holds() {
        assert!(Instant::now() < end, "not within {HANG:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn gone(pid: Pid) {
    until(&format!("process {pid:?} is gone"), || !lives(pid)).await;
}

fn refused(exit: Exit) -> SpawnError {
    match exit.end {
        Ended::NotSpawned(error) => error,
        other => panic!("{other:?}"),
    }
}
