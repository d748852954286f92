//! A server that runs as a child process: its process group, the tail of its stderr, its end.

use super::error::chain;
use super::throttle::{Allowance, Throttled};
use crate::process::{Child, Ended, Processes, Program, SearchPath, SpawnError, find_program};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How much of the end of stderr is kept, in bytes.
const STDERR_TAIL: usize = 4096;

/// How many bytes of stderr are read at once and each second; a program that writes more blocks meanwhile.
const STDERR_RATE: (i64, i64) = (4 << 20, 1 << 20);

/// Starts the servers that are child processes, so that none outlives this process, however it ends.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// What starts them.
    pub processes: Processes,
    /// The folder they run in, an absolute path; relative program paths begin there.
    pub cwd: PathBuf,
    /// Where their programs are searched, and the PATH that they get, unless the config sets one.
    pub search: SearchPath,
}

/// A running server and everything that it started in its process group.
///
/// Dropping it kills the group.
#[derive(Debug)]
pub(super) struct ChildGroup {
    program: Child,
    stderr: Arc<Mutex<VecDeque<u8>>>,
    // Ends with the child; aborted when this is dropped.
    drain: JoinSet<()>,
}

impl ChildGroup {
    /// Starts `argv` in a process group of its own with the environment `env`.
    ///
    /// # Errors
    ///
    /// The program is not there, or nothing can be started.
    pub(super) async fn start(
        launcher: &Launcher,
        argv: &[String],
        env: &[(String, String)],
    ) -> Result<(Self, (pipe::Receiver, pipe::Sender)), SpawnError> {
        let program = argv.first().map(String::as_str).unwrap_or_default();
        let given = env.iter().find(|(name, _)| name == "PATH");
        let given = given.map(|(_, value)| OsStr::new(value.as_str()));
        let path = match given {
            Some(path) if path != launcher.search.own() => Arc::from(path),
            _ => launcher.search.whole().await,
        };
        let program = find_program(OsStr::new(program), &path, &launcher.cwd)?;
        let text = |part: &String| OsString::from(part);
        let (child, pipes) = launcher.processes.talk(Program {
            program,
            args: argv.iter().skip(1).map(text).collect(),
            cwd: launcher.cwd.clone(),
            env: env
                .iter()
                .filter(|(name, _)| name != "PATH")
                .map(|(name, value)| (text(name), text(value)))
                .chain([("PATH".into(), path.to_os_string())])
                .collect(),
        })?;
        // The lock is held for the copy of a few kilobytes, never across an await.
        let stderr = Arc::new(Mutex::new(VecDeque::new()));
        let limited = Throttled::new(pipes.stderr, Allowance::new(STDERR_RATE.0, STDERR_RATE.1));
        let mut drain = JoinSet::new();
        drain.spawn(keep_tail(limited, Arc::clone(&stderr)));
        let started = Self {
            program: child,
            stderr,
            drain,
        };
        Ok((started, (pipes.stdout, pipes.stdin)))
    }

    /// Returns why the program never ran, or the end of what it wrote to stderr before it ended or, if it goes on, before
    /// a short wait ends.
    pub(super) async fn stderr_tail(mut self) -> String {
        // The pipes break before the rest of stderr has been read.
        const WAIT: Duration = Duration::from_millis(500);
        if let Ok(Ended::NotSpawned(never_ran)) = timeout(WAIT, self.program.ended()).await {
            return chain(&never_ran);
        }
        if timeout(WAIT, self.drain.join_next()).await.is_err() {
            tracing::debug!("the program goes on after it closed its pipes");
        }
        let bytes: Vec<u8> = self.stderr.lock().iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    /// Waits for the end of a server whose stdin was closed; after each `grace`, sends SIGTERM, then SIGKILL.
    ///
    /// The order of the MCP specification, "Lifecycle", "Shutdown", "stdio", for the whole group.
    ///
    /// # Cancel safety
    ///
    /// When dropped, the group is killed at once.
    pub(super) async fn end(mut self, grace: Duration) {
        if timeout(grace, self.program.ended()).await.is_ok() {
            return;
        }
        self.program.ask_to_end();
        if timeout(grace, self.program.ended()).await.is_ok() {
            return;
        }
        self.program.kill();
        if timeout(grace, self.program.ended()).await.is_err() {
            tracing::debug!("the program has not ended yet; its guardian kills it");
        }
    }
}

async fn keep_tail(mut stream: impl AsyncRead + Unpin, tail: Arc<Mutex<VecDeque<u8>>>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let mut tail = tail.lock();
        tail.extend(&buffer[..count]);
        let excess = tail.len().saturating_sub(STDERR_TAIL);
        tail.drain(..excess);
    }
}
