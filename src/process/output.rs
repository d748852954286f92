//! Short calls: a program whose output is an answer, held in memory.

use super::child::{read_end, write_end};
use super::{Ended, Processes, Program, SpawnError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

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

/// How much of a call's output is kept; the rest is read and dropped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    /// The most bytes of the beginning of stdout.
    pub(crate) stdout_bytes: u64,
    /// The most bytes of the end of stderr.
    pub(crate) stderr_bytes: usize,
}

impl Processes {
    /// Runs a program to its end, writes `stdin` to it and returns what it wrote.
    ///
    /// # Errors
    ///
    /// It was not started: the guardian or the pipes cannot be had.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the program and its process group, before any program that is started after it.
    pub(crate) async fn output(
        &self,
        program: Program,
        stdin: Option<Vec<u8>>,
        kept: Kept,
    ) -> Result<Output, SpawnError> {
        let mut theirs = Vec::with_capacity(3);
        let input = stdin
            .is_some()
            .then(|| write_end(&mut theirs))
            .transpose()?;
        let (stdout, stderr) = (read_end(&mut theirs)?, read_end(&mut theirs)?);
        let mut child = self.start(program, theirs)?;
        let (end, (), stdout, stderr) = tokio::join!(
            child.ended(),
            write(input, stdin),
            read_start(stdout, kept.stdout_bytes),
            read_end_of(stderr, kept.stderr_bytes),
        );
        Ok(Output {
            end,
            stdout,
            stderr,
        })
    }
}

/// Writes all of `bytes` and closes the pipe. A program need not read its stdin, so that a closed pipe is no error.
async fn write(to: Option<pipe::Sender>, bytes: Option<Vec<u8>>) {
    if let (Some(mut to), Some(bytes)) = (to, bytes) {
        let _ = to.write_all(&bytes).await;
    }
}

/// Reads to the end and keeps the first `max` bytes. A pipe's read does not fail; where it does, that is its end.
async fn read_start(mut from: impl AsyncRead + Unpin, max: u64) -> Vec<u8> {
    let mut kept = Vec::new();
    let _ = (&mut from).take(max).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    kept
}

/// Reads to the end and keeps the last `max` bytes, as text.
async fn read_end_of(mut from: impl AsyncRead + Unpin, max: usize) -> String {
    let mut kept: Vec<u8> = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..read]);
        kept.drain(..kept.len().saturating_sub(max));
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}
