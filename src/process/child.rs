//! A program that runs, as the server holds it: its pipes, its end, its process group.

use super::channel::{Channel, Frame};
use super::wire::{Force, Report};
use super::{Ended, Processes, Program, SpawnError};
use rustix::fs::{OFlags, fcntl_setfl};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

/// A program's standard streams.
#[derive(Debug)]
pub struct Pipes {
    /// The program's stdin.
    pub stdin: pipe::Sender,
    /// The program's stdout.
    pub stdout: pipe::Receiver,
    /// The program's stderr.
    pub stderr: pipe::Receiver,
}

/// A program that runs in a process group of its own; dropping this kills the group.
#[derive(Debug)]
pub struct Child {
    channel: Arc<Channel>,
    id: u64,
    end: oneshot::Receiver<Report>,
    program: Program,
    ended: bool,
    signalled: bool,
}

impl Processes {
    /// Starts a program and returns its pipes. Like every other it ends with this process at the latest, however this
    /// process ends.
    ///
    /// # Errors
    ///
    /// The guardian or the pipes cannot be had. A program that cannot be executed closes its pipes at once;
    /// [`Child::ended`] returns why.
    pub fn talk(&self, program: Program) -> Result<(Child, Pipes), SpawnError> {
        let mut theirs = Vec::with_capacity(3);
        let pipes = Pipes {
            stdin: write_end(&mut theirs)?,
            stdout: read_end(&mut theirs)?,
            stderr: read_end(&mut theirs)?,
        };
        Ok((self.start(program, theirs)?, pipes))
    }

    /// Starts a program with the given ends of its pipes: stdin where there are three, stdout, stderr.
    pub(super) fn start(&self, program: Program, pipes: Vec<OwnedFd>) -> Result<Child, SpawnError> {
        if !program.program.is_absolute() {
            return Err(SpawnError::Relative {
                program: program.program,
            });
        }
        let channel = self.channel()?;
        let id = channel.next_id();
        let frame = Frame::spawn(id, &program, pipes)?;
        let end = channel.start(id, frame);
        Ok(Child {
            channel,
            id,
            end,
            program,
            ended: false,
            signalled: false,
        })
    }
}

impl Child {
    /// Waits for the program's end; with it its group is gone.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost; once it was ready, it must not be called again.
    pub async fn ended(&mut self) -> Ended {
        let end = (&mut self.end).await;
        self.ended = true;
        let Ok(report) = end else {
            return match self.channel.left_none() {
                true => Ended::GuardianLost,
                false => Ended::Unkillable,
            };
        };
        self.signalled = report.signalled;
        match report.end.map(ExitStatus::from_raw) {
            Err(code) => Ended::NotSpawned(SpawnError::diagnose(&self.program, code)),
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Ended::Exited(code),
                (None, signal) => Ended::Signalled(signal.unwrap_or_default()),
            },
        }
    }

    /// Returns whether [`Self::ended`] was ready.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Returns whether the program was sent a signal from here before it ended.
    pub(super) fn was_signalled(&self) -> bool {
        self.signalled
    }

    /// Sends SIGTERM to the program's group.
    pub fn ask_to_end(&self) {
        self.channel.signal(self.id, Force::Ask);
    }

    /// Sends SIGKILL to the program's group.
    pub fn kill(&self) {
        self.channel.signal(self.id, Force::Kill);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            self.channel.abandon(self.id);
        }
    }
}

/// Makes a pipe that a program writes to: returns our end, adds the program's to `theirs`.
pub(super) fn read_end(theirs: &mut Vec<OwnedFd>) -> Result<pipe::Receiver, SpawnError> {
    let receiver = || {
        let (reader, writer) = io::pipe()?;
        let reader = OwnedFd::from(reader);
        fcntl_setfl(&reader, OFlags::NONBLOCK)?;
        theirs.push(writer.into());
        pipe::Receiver::from_owned_fd_unchecked(reader)
    };
    pipe_of(receiver)
}

/// Makes a pipe that a program reads from: returns our end, adds the program's to `theirs`.
pub(super) fn write_end(theirs: &mut Vec<OwnedFd>) -> Result<pipe::Sender, SpawnError> {
    let sender = || {
        let (reader, writer) = io::pipe()?;
        let writer = OwnedFd::from(writer);
        fcntl_setfl(&writer, OFlags::NONBLOCK)?;
        theirs.push(reader.into());
        pipe::Sender::from_owned_fd_unchecked(writer)
    };
    pipe_of(sender)
}

fn pipe_of<T>(make: impl FnOnce() -> io::Result<T>) -> Result<T, SpawnError> {
    make().map_err(SpawnError::Pipes)
}
