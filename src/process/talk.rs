//! A program that is talked to: its three pipes are handed out, and its group ends with the handle at the latest.

use super::link::{Frame, Processes};
use super::run::{Group, read_end, write_end};
use super::wire::{End, Force};
use super::{Program, SpawnError};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

/// A program's standard streams.
#[derive(Debug)]
pub struct Pipes {
    /// What it reads.
    pub stdin: pipe::Sender,
    /// What it writes.
    pub stdout: pipe::Receiver,
    /// What it complains.
    pub stderr: pipe::Receiver,
}

/// A program that runs; dropping this kills its process group.
#[derive(Debug)]
pub struct Talking {
    group: Group,
    end: oneshot::Receiver<End>,
    started: Program,
}

impl Processes {
    /// Starts a program and hands out its pipes. Like every other it ends with this process at the latest, however this
    /// process ends.
    ///
    /// # Errors
    ///
    /// The guardian or the pipes cannot be had. A program that cannot be executed closes its pipes at once;
    /// [`Talking::ended`] then says why.
    pub fn talk(&self, program: Program) -> Result<(Talking, Pipes), SpawnError> {
        let channel = self.channel()?;
        let mut theirs = Vec::with_capacity(3);
        let pipes = Pipes {
            stdin: write_end(&mut theirs).map_err(SpawnError::Pipes)?,
            stdout: read_end(&mut theirs).map_err(SpawnError::Pipes)?,
            stderr: read_end(&mut theirs).map_err(SpawnError::Pipes)?,
        };
        let id = channel.next_id();
        let frame = Frame::spawn(id, &program, theirs)?;
        let end = channel.start(id, frame);
        let talking = Talking {
            group: Group::new(channel, id),
            end,
            started: program,
        };
        Ok((talking, pipes))
    }
}

impl Talking {
    /// Waits for the program's end, which with its group is then gone.
    ///
    /// # Errors
    ///
    /// It never ran.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost; once it was ready, it is not to be called again.
    pub async fn ended(&mut self) -> Result<(), SpawnError> {
        let end = (&mut self.end).await;
        self.group.ended = true;
        match end {
            Ok(End::NotSpawned(code)) => Err(SpawnError::diagnose(&self.started, code)),
            // Without a guardian everything that it had started is dead.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Sends SIGTERM to the program's group.
    pub fn ask_to_end(&self) {
        self.group.signal(Force::Ask);
    }

    /// Sends SIGKILL to the program's group.
    pub fn kill(&self) {
        self.group.signal(Force::Kill);
    }
}
