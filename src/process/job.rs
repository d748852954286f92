//! A program to run to its end, and the result.

use super::error::SpawnError;
use super::program::Program;
use super::stop::{Grace, StopReason};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// One program to run to its end.
#[derive(Debug, Clone)]
pub struct Job {
    /// The program.
    pub program: Program,
    /// What it reads on stdin; `None` is an empty stdin.
    pub stdin: Option<Vec<u8>>,
    /// Where its stdout is logged; the file and its folder are made at the first byte.
    pub stdout_log: PathBuf,
    /// Where its stderr is logged, likewise.
    pub stderr_log: PathBuf,
    /// The most bytes that are logged of each stream; the rest is read and dropped, and a closing line in the log names the cap.
    pub log_cap_bytes: u64,
    /// The most bytes that are kept in memory of the end of each stream.
    pub tail_bytes: usize,
    /// How many bytes before that end are kept too, so that a secret which the cut splits can be recognised.
    pub context_bytes: usize,
    /// When it is out of time.
    pub deadline: Option<Instant>,
    /// The longest it may write nothing on either stream.
    pub stall: Option<Duration>,
    /// How long it may take to end after SIGTERM; zero sends SIGKILL at once. Read when it is asked to end and whenever it
    /// changes after that.
    pub grace: Grace,
}

/// One of a program's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a program ended.
#[derive(Debug)]
pub enum Ended {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
    /// It never ran.
    NotSpawned(SpawnError),
    /// The guardian died, and everything it had started was killed.
    GuardianLost,
    /// SIGKILL was sent and it did not end within 10 s: it hangs in the kernel, or runs as another user. It is killed
    /// again when the server ends.
    Unkillable,
}

/// What is left of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// The end of the stream as text, not cut within a character.
    pub tail: String,
    /// What came right before it, as far as it was kept.
    pub before_tail: String,
    /// How many bytes came before the tail.
    pub left_out_bytes: u64,
    /// The bytes that were read.
    pub total_bytes: u64,
    /// The bytes of the stream that are in the log.
    pub logged_bytes: u64,
    /// Why the log is not whole, other than by its cap (a full disk).
    pub log_error: Option<String>,
}

/// What is left of a job.
#[derive(Debug)]
pub struct Exit {
    /// How it ended.
    pub end: Ended,
    /// Why it was asked to stop, where it was asked before it ended.
    pub stopped_by: Option<StopReason>,
    /// Its standard output.
    pub stdout: Captured,
    /// Its standard error.
    pub stderr: Captured,
    /// Whether another process still held one of its pipes open when reading was given up.
    pub pipe_held_open: bool,
}

impl Exit {
    /// Returns the exit of a job that never ran.
    pub(super) fn not_spawned(error: SpawnError, stopped_by: Option<StopReason>) -> Self {
        Self {
            end: Ended::NotSpawned(error),
            stopped_by,
            stdout: Captured::default(),
            stderr: Captured::default(),
            pipe_held_open: false,
        }
    }

    /// Returns whether the program exited by itself with code 0.
    pub fn succeeded(&self) -> bool {
        matches!(self.end, Ended::Exited(0)) && self.stopped_by.is_none()
    }
}
