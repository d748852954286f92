//! One program from its pipes to its exit: a single loop reads both outputs, feeds stdin, waits for the end and keeps
//! the times, because waiting for the end alone deadlocks on a full pipe.

use super::capture::Capture;
use super::child::{Child, read_end, write_end};
use super::ladder::Ladder;
use super::{Ended, Exit, Job, Processes, SpawnError, StopReason, Stream};
use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long the pipes are read after the program's end; only a process that left its group can hold them then.
pub(super) const DRAIN_LIMIT: Duration = Duration::from_millis(500);
const READ_BYTES: usize = 64 << 10;
/// The reads of one stream before the others get their turn.
const READS_IN_A_ROW: usize = 8;

thread_local! {
    /// One buffer per runtime thread instead of one per stream; it is filled and emptied without an await between.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

type OnOutput<'a> = &'a mut (dyn FnMut(Stream, &[u8]) + Send);

impl Processes {
    /// Runs `job` to its end and hands its output to `on_output` as it comes.
    ///
    /// `cancel`, the job's deadline and its stall limit send SIGTERM to its process group, and SIGKILL after the job's
    /// grace; its output is read meanwhile. Nothing that can go wrong is an error here: it is part of the [`Exit`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the process group at once; what was not yet logged of its output is lost.
    pub async fn run(
        &self,
        job: Job,
        on_output: &mut (dyn FnMut(Stream, &[u8]) + Send),
        cancel: &CancellationToken,
    ) -> Exit {
        let late = job
            .deadline
            .is_some_and(|deadline| deadline <= std::time::Instant::now());
        let stopped_by = if cancel.is_cancelled() {
            Some(StopReason::Cancelled)
        } else {
            late.then_some(StopReason::Deadline)
        };
        if stopped_by.is_some() {
            return Exit::not_spawned(SpawnError::Stopped, stopped_by);
        }
        match Running::start(self, job) {
            Ok(running) => running.finish(on_output, cancel).await,
            Err(error) => Exit::not_spawned(error, None),
        }
    }
}

struct Running {
    child: Child,
    stdout: Output,
    stderr: Output,
    stdin: Option<Input>,
    ladder: Ladder,
}

impl Running {
    fn start(processes: &Processes, job: Job) -> Result<Self, SpawnError> {
        let mut pipes = Vec::with_capacity(3);
        let stdin = Input::open(job.stdin, &mut pipes)?;
        let mut output = |stream, log| {
            let capture = Capture::new(log, job.log_cap_bytes, job.tail_bytes, job.context_bytes);
            Output::open(stream, capture, &mut pipes)
        };
        Ok(Self {
            stdout: output(Stream::Stdout, job.stdout_log)?,
            stderr: output(Stream::Stderr, job.stderr_log)?,
            stdin,
            ladder: Ladder::new(job.deadline, job.stall, job.grace),
            child: processes.start(job.program, pipes)?,
        })
    }

    async fn finish(mut self, on_output: OnOutput<'_>, cancel: &CancellationToken) -> Exit {
        let end = self.run_to_end(on_output, cancel).await;
        self.stdin = None;
        if !matches!(end, Ended::Unkillable) {
            self.drain(on_output).await;
        }
        let ended_by_itself =
            !self.child.was_signalled() && matches!(end, Ended::Exited(_) | Ended::Signalled(_));
        Exit {
            end,
            stopped_by: match ended_by_itself {
                true => None,
                false => self.ladder.stopped_by(),
            },
            pipe_held_open: self.stdout.is_open() || self.stderr.is_open(),
            stdout: self.stdout.capture.finish().await,
            stderr: self.stderr.capture.finish().await,
        }
    }

    /// Waits for the program's end, which `cancel` and the times of the job bring about where it does not end by itself.
    async fn run_to_end(&mut self, on_output: OnOutput<'_>, cancel: &CancellationToken) -> Ended {
        let mut cancelled = pin!(cancel.cancelled());
        let mut asked = false;
        let mut grace = self.ladder.grace().changes();
        loop {
            let due = self.ladder.next();
            tokio::select! {
                end = self.child.ended() => return end,
                () = self.stdout.readable() => self.read(Stream::Stdout, on_output),
                () = self.stderr.readable() => self.read(Stream::Stderr, on_output),
                () = feed(&mut self.stdin) => self.stdin = None,
                () = &mut cancelled, if !asked => {
                    asked = true;
                    self.ladder.stop(StopReason::Cancelled, &self.child);
                }
                // The next turn of the loop waits for the new end of the grace; the sender lives in the ladder.
                Ok(()) = grace.changed(), if asked => {}
                () = until(due) => {
                    // Where this process did not run for a while, there may be output that is read late.
                    self.read(Stream::Stdout, on_output);
                    self.read(Stream::Stderr, on_output);
                    if self.ladder.tick(Instant::now(), &self.child) {
                        return Ended::Unkillable;
                    }
                }
            }
        }
    }

    /// Reads what an ended program has left in its pipes.
    async fn drain(&mut self, on_output: OnOutput<'_>) {
        let mut limit = Instant::now() + DRAIN_LIMIT;
        while self.stdout.is_open() || self.stderr.is_open() {
            tokio::select! {
                () = self.stdout.readable() => self.read(Stream::Stdout, on_output),
                () = self.stderr.readable() => self.read(Stream::Stderr, on_output),
                () = sleep_until(limit) => {
                    if self.stdout.capture.has_room() && self.stderr.capture.has_room() {
                        // On a busy machine it may be this side that is late.
                        self.read(Stream::Stdout, on_output);
                        self.read(Stream::Stderr, on_output);
                        return;
                    }
                    // The disk is late.
                    limit = Instant::now() + DRAIN_LIMIT;
                }
            }
        }
    }

    /// Reads what is there of one stream, up to a fair share.
    fn read(&mut self, stream: Stream, on_output: OnOutput<'_>) {
        let output = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if BUFFER.with_borrow_mut(|buffer| output.read(buffer, on_output)) {
            self.ladder.output();
        }
    }
}

/// Waits until `due`; for ever, where there is no such time.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The end of a pipe that a program writes to.
struct Output {
    stream: Stream,
    pipe: Option<pipe::Receiver>,
    capture: Capture,
}

impl Output {
    fn open(
        stream: Stream,
        capture: Capture,
        theirs: &mut Vec<OwnedFd>,
    ) -> Result<Self, SpawnError> {
        Ok(Self {
            stream,
            pipe: Some(read_end(theirs)?),
            capture,
        })
    }

    fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Waits until there is output, or the end of it, and room for it. For ever, once the pipe is closed.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    async fn readable(&mut self) {
        loop {
            let has_room = self.capture.has_room();
            let Some(pipe) = &self.pipe else {
                self.capture.written().await;
                continue;
            };
            tokio::select! {
                // An error shows again, and is handled, in the read.
                _ = pipe.readable(), if has_room => return,
                () = self.capture.written() => {}
            }
        }
    }

    /// Reads what is there, up to a fair share; returns whether there was output.
    fn read(&mut self, buffer: &mut [u8], on_output: OnOutput<'_>) -> bool {
        let mut got = false;
        for _ in 0..READS_IN_A_ROW {
            let Some(pipe) = &self.pipe else { break };
            match pipe.try_read(buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    got = true;
                    self.capture.push(&buffer[..count]);
                    on_output(self.stream, &buffer[..count]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A pipe's read fails in no other way; an end of it is all that is left to take it for.
                Err(_) => self.pipe = None,
            }
        }
        got
    }
}

/// The end of a pipe that a program reads from, and what is not written yet.
struct Input {
    pipe: pipe::Sender,
    bytes: Vec<u8>,
    written: usize,
}

impl Input {
    fn open(bytes: Option<Vec<u8>>, theirs: &mut Vec<OwnedFd>) -> Result<Option<Self>, SpawnError> {
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else {
            return Ok(None);
        };
        Ok(Some(Self {
            pipe: write_end(theirs)?,
            bytes,
            written: 0,
        }))
    }
}

/// Writes until all is written or the pipe is closed, which is no error: a program need not read its stdin. For ever,
/// where there is nothing to write. Loses nothing when dropped.
async fn feed(input: &mut Option<Input>) {
    let Some(input) = input else {
        return std::future::pending().await;
    };
    while input.written < input.bytes.len() {
        if input.pipe.writable().await.is_err() {
            return;
        }
        match input.pipe.try_write(&input.bytes[input.written..]) {
            Ok(count) => input.written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
