//! One program from its pipes to its exit: a single loop reads both outputs, feeds stdin, waits for the end and keeps
//! the times, because waiting for the end alone deadlocks on a full pipe.

use super::capture::Capture;
use super::link::{Channel, Frame, Processes};
use super::wire::{End, Force};
use super::{Ended, Exit, Grace, Job, Program, SpawnError, StopReason, Stream};
use rustix::fs::{OFlags, fcntl_setfl};
use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long a program may take to end after SIGKILL; longer takes only what hangs in the kernel or runs as another user.
pub(super) const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long the pipes are read after the program's end; only a process that left its group can hold them then.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);
const READ_BYTES: usize = 64 << 10;
/// The reads of one stream before the others get their turn.
const READS_IN_A_ROW: usize = 8;

thread_local! {
    /// One buffer per runtime thread instead of one per stream; it is filled and emptied without an await between.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

type OnOutput<'a> = &'a mut (dyn FnMut(Stream, &[u8]) + Send);

pub(super) async fn run(
    processes: &Processes,
    job: Job,
    on_output: OnOutput<'_>,
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
    match Running::start(processes, job) {
        Ok(running) => running.finish(on_output, cancel).await,
        Err(error) => Exit::not_spawned(error, None),
    }
}

struct Running {
    stdout: Output,
    stderr: Output,
    stdin: Option<Input>,
    end: oneshot::Receiver<End>,
    group: Group,
    ladder: Ladder,
    program: Program,
}

impl Running {
    fn start(processes: &Processes, job: Job) -> Result<Self, SpawnError> {
        if !job.program.is_absolute() {
            return Err(SpawnError::Relative {
                program: job.program,
            });
        }
        let channel = processes.channel()?;
        let mut descriptors = Vec::with_capacity(3);
        let stdin = Input::open(job.stdin, &mut descriptors).map_err(SpawnError::Pipes)?;
        let mut output = |stream, log| {
            let capture = Capture::new(log, job.log_cap_bytes, job.tail_bytes, job.context_bytes);
            Output::open(stream, capture, &mut descriptors).map_err(SpawnError::Pipes)
        };
        let stdout = output(Stream::Stdout, job.stdout_log)?;
        let stderr = output(Stream::Stderr, job.stderr_log)?;
        let id = channel.next_id();
        let program = Program {
            program: job.program,
            args: job.args,
            cwd: job.cwd,
            env: job.env,
        };
        let frame = Frame::spawn(id, &program, descriptors)?;
        let end = channel.start(id, frame);
        Ok(Self {
            stdout,
            stderr,
            stdin,
            end,
            group: Group::new(channel, id),
            ladder: Ladder::new(job.deadline, job.stall, job.grace),
            program,
        })
    }

    async fn finish(mut self, on_output: OnOutput<'_>, cancel: &CancellationToken) -> Exit {
        let mut ended: Option<Ended> = None;
        let mut drained_at: Option<Instant> = None;
        let mut cancelled = pin!(cancel.cancelled());
        let mut alarm = pin!(sleep_until(Instant::now()));
        let mut armed: Option<Instant> = None;
        let mut asked = false;
        let mut grace = self.ladder.grace.changes();
        while ended.is_none() || self.stdout.is_open() || self.stderr.is_open() {
            // A later time than the armed one is looked at when the alarm comes: output moves the stall limit all the time.
            let next = if ended.is_none() {
                self.ladder.next()
            } else {
                drained_at
            };
            if let Some(at) = next.filter(|at| armed.is_none_or(|armed| *at < armed)) {
                alarm.as_mut().reset(at);
                armed = Some(at);
            }
            tokio::select! {
                () = self.stdout.readable() => self.hear(Stream::Stdout, on_output),
                () = self.stderr.readable() => self.hear(Stream::Stderr, on_output),
                () = feed(&mut self.stdin) => self.stdin = None,
                end = &mut self.end, if ended.is_none() => {
                    ended = Some(self.ended(end.ok()));
                    self.stdin = None;
                    drained_at = Some(Instant::now() + DRAIN_LIMIT);
                    armed = None;
                }
                () = &mut cancelled, if !asked && ended.is_none() => {
                    asked = true;
                    self.ladder.stop(StopReason::Cancelled, &self.group);
                }
                // The next turn of the loop sees when the grace ends now; the sender lives in the ladder.
                Ok(()) = grace.changed(), if asked && ended.is_none() => {}
                () = &mut alarm, if armed.is_some() => {
                    armed = None;
                    let now = Instant::now();
                    if drained_at.is_some_and(|at| at <= now) {
                        if self.stdout.capture.has_room() && self.stderr.capture.has_room() {
                            // On a busy machine it may be this side that is late with what was written in time.
                            self.hear(Stream::Stdout, on_output);
                            self.hear(Stream::Stderr, on_output);
                            break;
                        }
                        // It is the disk that is late.
                        drained_at = Some(now + DRAIN_LIMIT);
                    }
                    if ended.is_none() && self.ladder.tick(now, &self.group) == Rung::GivenUp {
                        ended = Some(Ended::Unkillable);
                        break;
                    }
                }
            }
        }
        let pipe_held_open = self.stdout.is_open() || self.stderr.is_open();
        Exit {
            end: ended.expect("the loop goes on until there is one"),
            stopped_by: self.ladder.stopped_by,
            stdout: self.stdout.capture.finish().await,
            stderr: self.stderr.capture.finish().await,
            pipe_held_open,
        }
    }

    fn hear(&mut self, stream: Stream, on_output: &mut (dyn FnMut(Stream, &[u8]) + Send)) {
        let output = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if BUFFER.with_borrow_mut(|buffer| output.read(buffer, on_output)) {
            self.ladder.heard();
        }
    }

    fn ended(&mut self, end: Option<End>) -> Ended {
        self.group.ended = true;
        match end {
            Some(End::Exited(code)) => Ended::Exited(code),
            Some(End::Signalled(signal)) => Ended::Signalled(signal),
            Some(End::NotSpawned(code)) => {
                Ended::NotSpawned(SpawnError::diagnose(&self.program, code))
            }
            None => Ended::GuardianLost,
        }
    }
}

/// A program's process group; dropping it before its end kills it.
#[derive(Debug)]
pub(super) struct Group {
    channel: Arc<Channel>,
    id: u64,
    pub(super) ended: bool,
}

impl Group {
    pub(super) fn new(channel: Arc<Channel>, id: u64) -> Self {
        Self {
            channel,
            id,
            ended: false,
        }
    }

    pub(super) fn signal(&self, force: Force) {
        self.channel.signal(self.id, force);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            self.channel.abandon(self.id);
        }
    }
}

/// Makes a pipe that a program writes to: returns our end, adds the program's to `theirs`.
pub(super) fn read_end(theirs: &mut Vec<OwnedFd>) -> io::Result<pipe::Receiver> {
    let (reader, writer) = io::pipe()?;
    let reader = OwnedFd::from(reader);
    fcntl_setfl(&reader, OFlags::NONBLOCK)?;
    theirs.push(writer.into());
    pipe::Receiver::from_owned_fd_unchecked(reader)
}

/// Makes a pipe that a program reads from: returns our end, adds the program's to `theirs`.
pub(super) fn write_end(theirs: &mut Vec<OwnedFd>) -> io::Result<pipe::Sender> {
    let (reader, writer) = io::pipe()?;
    let writer = OwnedFd::from(writer);
    fcntl_setfl(&writer, OFlags::NONBLOCK)?;
    theirs.push(reader.into());
    pipe::Sender::from_owned_fd_unchecked(writer)
}

/// The end of a pipe that a program writes to.
struct Output {
    stream: Stream,
    pipe: Option<pipe::Receiver>,
    capture: Capture,
}

impl Output {
    fn open(stream: Stream, capture: Capture, theirs: &mut Vec<OwnedFd>) -> io::Result<Self> {
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
    fn read(
        &mut self,
        buffer: &mut [u8],
        on_output: &mut (dyn FnMut(Stream, &[u8]) + Send),
    ) -> bool {
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
    fn open(bytes: Option<Vec<u8>>, theirs: &mut Vec<OwnedFd>) -> io::Result<Option<Self>> {
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

/// Writes until all is written or nobody reads any more, which is no error: a program need not read its stdin. For ever,
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

/// What a tick of the clock led to.
#[derive(Debug, PartialEq, Eq)]
enum Rung {
    Waiting,
    GivenUp,
}

/// The times of a program and the steps that end it: SIGTERM, the grace, SIGKILL, and a limit to that too.
struct Ladder {
    deadline: Option<Instant>,
    stall: Option<Duration>,
    grace: Grace,
    last_output: Instant,
    stopped_by: Option<StopReason>,
    step: Step,
}

#[derive(Clone, Copy)]
enum Step {
    Running,
    Asked { at: Instant },
    Killed { give_up_at: Instant },
}

impl Ladder {
    fn new(deadline: Option<std::time::Instant>, stall: Option<Duration>, grace: Grace) -> Self {
        Self {
            deadline: deadline.map(Instant::from_std),
            stall,
            grace,
            last_output: Instant::now(),
            stopped_by: None,
            step: Step::Running,
        }
    }

    /// Notes that there was output.
    fn heard(&mut self) {
        if self.stall.is_some() {
            self.last_output = Instant::now();
        }
    }

    fn stalled_at(&self) -> Option<Instant> {
        self.last_output.checked_add(self.stall?)
    }

    /// Returns when [`tick`](Self::tick) is to be called next.
    fn next(&self) -> Option<Instant> {
        match self.step {
            Step::Running => [self.deadline, self.stalled_at()]
                .into_iter()
                .flatten()
                .min(),
            Step::Asked { at } => Some(self.kill_at(at)),
            Step::Killed { give_up_at } => Some(give_up_at),
        }
    }

    /// Asks the program to end; one that was asked already is not given more time.
    fn stop(&mut self, reason: StopReason, group: &Group) {
        self.stopped_by = self.stopped_by.max(Some(reason));
        if matches!(self.step, Step::Running) {
            if self.grace.get().is_zero() {
                return self.kill(group);
            }
            group.signal(Force::Ask);
            self.step = Step::Asked { at: Instant::now() };
        }
    }

    fn kill_at(&self, asked: Instant) -> Instant {
        asked.checked_add(self.grace.get()).unwrap_or(asked)
    }

    fn kill(&mut self, group: &Group) {
        group.signal(Force::Kill);
        self.step = Step::Killed {
            give_up_at: Instant::now() + KILL_LIMIT,
        };
    }

    fn tick(&mut self, now: Instant, group: &Group) -> Rung {
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match self.step {
            Step::Running if passed(self.deadline) => self.stop(StopReason::Deadline, group),
            Step::Running if passed(self.stalled_at()) => self.stop(StopReason::Stall, group),
            Step::Asked { at } if self.kill_at(at) <= now => self.kill(group),
            Step::Killed { give_up_at } if give_up_at <= now => return Rung::GivenUp,
            _ => {}
        }
        Rung::Waiting
    }
}
