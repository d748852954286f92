//! Short calls: a program whose output is an answer, held in memory.

use super::child::{read_end, write_end};
use super::ladder::KILL_LIMIT;
use super::run::DRAIN_LIMIT;
use super::{Ended, Processes, Program, SpawnError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// What a call wrote, and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    /// How it ended.
    pub(crate) end: Ended,
    /// The beginning of its stdout.
    pub(crate) stdout: Vec<u8>,
    /// The end of its stderr as text, without blanks around it.
    pub(crate) stderr: String,
}

/// A program to call. What it writes beyond the given sizes is read and dropped.
#[derive(Debug)]
pub(crate) struct Call {
    /// The program.
    pub(crate) program: Program,
    /// What it reads; `None` is an empty stdin.
    pub(crate) stdin: Option<Vec<u8>>,
    /// The most bytes that are kept of the beginning of stdout.
    pub(crate) stdout_bytes: u64,
    /// The most bytes that are kept of the end of stderr.
    pub(crate) stderr_bytes: usize,
}

impl Processes {
    /// Runs a program to its end and returns what it wrote; none where `stop` came first, after which it is killed.
    ///
    /// # Errors
    ///
    /// It was not started: the guardian or the pipes cannot be had.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the program and its process group, without waiting for its end.
    pub(crate) async fn output(
        &self,
        call: Call,
        stop: impl Future<Output = ()>,
    ) -> Result<Option<Output>, SpawnError> {
        let mut theirs = Vec::with_capacity(3);
        let stdin = match call.stdin {
            Some(bytes) => Some((write_end(&mut theirs)?, bytes)),
            None => None,
        };
        let (stdout, stderr) = (read_end(&mut theirs)?, read_end(&mut theirs)?);
        let mut child = self.start(call.program, theirs)?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let over = Notify::new();
        let streams = async {
            tokio::select! {
                _ = async { tokio::join!(
                    write(stdin),
                    keep_start(stdout, call.stdout_bytes, &mut out),
                    keep_tail(stderr, call.stderr_bytes, &mut err),
                ) } => {}
                // Only a process that left the group can hold them then.
                () = async { over.notified().await; sleep(DRAIN_LIMIT).await } => {}
            }
        };
        let end = async {
            let end = child.ended().await;
            over.notify_one();
            end
        };
        let end = tokio::select! {
            (end, ()) = async { tokio::join!(end, streams) } => Some(end),
            () = stop => None,
        };
        let Some(end) = end else {
            child.kill();
            if !child.has_ended() && timeout(KILL_LIMIT, child.ended()).await.is_err() {
                tracing::warn!("a program did not end when it was killed");
            }
            return Ok(None);
        };
        Ok(Some(Output {
            end,
            stdout: out,
            stderr: String::from_utf8_lossy(&err).trim().to_owned(),
        }))
    }
}

/// Writes all of `stdin` and closes the pipe. A program need not read its stdin, so that a closed pipe is no error.
async fn write(stdin: Option<(pipe::Sender, Vec<u8>)>) {
    if let Some((mut pipe, bytes)) = stdin {
        let _ = pipe.write_all(&bytes).await;
    }
}

/// Reads to the end and keeps the first `max` bytes. A pipe's read does not fail; where it does, that is its end.
async fn keep_start(mut from: pipe::Receiver, max: u64, kept: &mut Vec<u8>) {
    let _ = (&mut from).take(max).read_to_end(kept).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
}

/// Reads to the end and keeps the last `max` bytes.
async fn keep_tail(mut from: pipe::Receiver, max: usize, kept: &mut Vec<u8>) {
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..read]);
        kept.drain(..kept.len().saturating_sub(max));
    }
}
