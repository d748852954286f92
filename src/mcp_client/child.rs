//! A server that runs as a child process: its own group, its stderr kept for error messages, its end.

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How much of the end of stderr is kept, in bytes.
const STDERR_TAIL: usize = 4096;
/// How often the end of the process is looked for while it is asked to end.
const POLL: Duration = Duration::from_millis(20);

/// A running server and everything that it started in its process group.
///
/// Dropping it kills the group. The leader is not reaped before that, so that its id cannot mean another group.
#[derive(Debug)]
pub(super) struct ChildGroup {
    child: Child,
    group: Option<Pid>,
    stderr: Arc<Mutex<VecDeque<u8>>>,
    // Ends with the child; aborted when this is dropped.
    drain: JoinSet<()>,
}

/// The pipes that carry the protocol.
pub(super) type Pipes = (ChildStdout, ChildStdin);

impl ChildGroup {
    /// Starts `argv` in a process group of its own with exactly the environment `env`.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub(super) fn start(
        argv: &[String],
        env: &[(String, String)],
    ) -> std::io::Result<(Self, Pipes)> {
        let (program, arguments) = argv.split_first().ok_or_else(|| {
            std::io::Error::new(std::io::ErrorKind::InvalidInput, "the command is empty")
        })?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let (Some(stdin), Some(stdout), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(std::io::Error::other("the child's pipes are missing"));
        };
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        // std mutex: held for the copy of a few kilobytes, never across an await.
        let stderr = Arc::new(Mutex::new(VecDeque::new()));
        let mut drain = JoinSet::new();
        drain.spawn(keep_tail(errors, Arc::clone(&stderr)));
        let started = Self {
            child,
            group,
            stderr,
            drain,
        };
        Ok((started, (stdout, stdin)))
    }

    /// Returns the end of what the program wrote to stderr before it ended or, if it goes on, before a short wait ends.
    pub(super) async fn last_words(&mut self) -> String {
        // Its pipes break before its last words were read here.
        const WAIT: Duration = Duration::from_millis(500);
        let read = tokio::time::timeout(WAIT, self.drain.join_next()).await;
        if read.is_err() {
            tracing::debug!("the program goes on after it closed its pipes");
        }
        let Ok(tail) = self.stderr.lock() else {
            return String::new();
        };
        let bytes: Vec<u8> = tail.iter().copied().collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    /// Waits for the end of a server whose stdin was closed; after each `grace`, asks with SIGTERM, then kills.
    ///
    /// The order of the MCP specification, "Lifecycle", "Shutdown", "stdio", for the whole group.
    ///
    /// # Cancel safety
    ///
    /// When dropped, the group is killed at once.
    pub(super) async fn end(mut self, grace: Duration) {
        if !self.ended_within(grace).await {
            self.signal(Signal::TERM);
            self.ended_within(grace).await;
        }
        self.kill();
        // The leader is dead or just got SIGKILL; an error means that it is reaped already.
        if let Err(error) = self.child.wait().await {
            tracing::debug!(%error, "the child was already reaped");
        }
    }

    async fn ended_within(&self, grace: Duration) -> bool {
        let deadline = Instant::now() + grace;
        loop {
            if self.has_ended() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Looks without reaping, so that the group's id stays taken.
    fn has_ended(&self) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match self.group {
            Some(leader) => !matches!(waitid(WaitId::Pid(leader), look), Ok(None)),
            None => true,
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group
            && let Err(error) = kill_process_group(group, signal)
        {
            tracing::debug!(%error, "the child's group is gone");
        }
    }

    fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.group = None;
    }
}

impl Drop for ChildGroup {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn keep_tail(mut stream: impl AsyncRead + Unpin, tail: Arc<Mutex<VecDeque<u8>>>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        let Ok(mut tail) = tail.lock() else { return };
        tail.extend(&buffer[..count]);
        let excess = tail.len().saturating_sub(STDERR_TAIL);
        tail.drain(..excess);
    }
}
