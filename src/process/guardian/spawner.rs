//! The parent of every program: starts, signals, reaps and reports them, one thing at a time.

use super::children::{Children, MARK, Strays};
use super::end;
use super::session::Inherited;
use super::signals::Signals;
use super::start::{Started, start};
use crate::process::wire::{Force, Inbox, Report, Request, Spawn, encode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send,
};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, kill_process_group, waitid,
    waitpid,
};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::CString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

/// A spawn frame with arguments and environment of usual size comes in one piece.
const RECEIVE_BYTES: usize = 64 << 10;

/// A program that runs.
#[derive(Debug)]
struct Program {
    /// The server's number for it.
    id: u64,
    started: Started,
    /// Whether it was sent a signal.
    signalled: bool,
}

pub(super) struct Spawner {
    inherited: Inherited,
    signals: Signals,
    descriptors: VecDeque<OwnedFd>,
    receive: Vec<u8>,
    reports: Vec<u8>,
    programs: HashMap<Pid, Program>,
    pids: BTreeMap<u64, Pid>,
    /// The highest number of a program that was started.
    newest: u64,
    children: Children,
    strays: Strays,
    /// What the marks of this spawner's programs begin with.
    mark: String,
}

impl Spawner {
    pub(super) fn new(inherited: Inherited, signals: Signals, mark: String) -> Self {
        Self {
            inherited,
            signals,
            descriptors: VecDeque::new(),
            receive: vec![0; RECEIVE_BYTES],
            reports: Vec::new(),
            programs: HashMap::new(),
            pids: BTreeMap::new(),
            newest: 0,
            children: Children::new(),
            strays: Strays::default(),
            mark,
        }
    }

    /// Serves until the server's end of the socket is closed, or the keeper is dead.
    pub(super) fn serve(&mut self) -> io::Result<()> {
        const NOW: Timespec = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let mut inbox = Inbox::default();
        loop {
            let limit = inbox.has_frame().then_some(&NOW);
            let mut watched = [
                PollFd::new(&self.inherited.socket, PollFlags::IN),
                PollFd::new(&self.signals.child, PollFlags::IN),
                PollFd::new(&self.inherited.life, PollFlags::empty()),
            ];
            match poll(&mut watched, limit) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let [socket, child, life] = watched.map(|fd| fd.revents());
            if life.contains(PollFlags::HUP) {
                return Ok(());
            }
            if !child.is_empty() {
                self.signals.clear();
                self.reap()?;
            }
            if !socket.is_empty() && !inbox.has_frame() && self.receive(&mut inbox)?.is_none() {
                return Ok(());
            }
            // One at a time: an end must not wait for a queue of starts.
            if let Some(request) = inbox.next()? {
                match request {
                    Request::Spawn(spawn) => self.spawn(&spawn)?,
                    Request::Signal { id, force } => self.signal(id, force),
                }
            }
            self.send_reports()?;
        }
    }

    pub(super) fn end_all(&mut self) -> io::Result<()> {
        let groups: Vec<Pid> = self.programs.keys().copied().collect();
        end::end_all(&groups, &mut self.children, &self.signals)
    }

    /// Receives once; `None` at the end of the stream.
    fn receive(&mut self, inbox: &mut Inbox) -> io::Result<Option<()>> {
        #[cfg(target_os = "linux")]
        const FLAGS: RecvFlags = RecvFlags::CMSG_CLOEXEC.union(RecvFlags::DONTWAIT);
        #[cfg(not(target_os = "linux"))]
        const FLAGS: RecvFlags = RecvFlags::DONTWAIT;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = match recvmsg(
            &self.inherited.socket,
            &mut [IoSliceMut::new(&mut self.receive)],
            &mut control,
            FLAGS,
        ) {
            Ok(received) => received,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(Some(())),
            Err(Errno::CONNRESET) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        // Descriptors were lost, so those of later frames would go to the wrong program.
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(Errno::MFILE.into());
        }
        #[cfg(not(target_os = "linux"))]
        for descriptor in &self.descriptors {
            rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC)?;
        }
        inbox.push(&self.receive[..received.bytes]);
        Ok((received.bytes > 0).then_some(()))
    }

    fn spawn(&mut self, spawn: &Spawn) -> io::Result<()> {
        let mut descriptor = || {
            self.descriptors
                .pop_front()
                .ok_or(io::ErrorKind::InvalidData)
        };
        let stdin = spawn.has_stdin.then(&mut descriptor).transpose()?;
        let outputs = [descriptor()?, descriptor()?];
        let mark = CString::new(format!("{MARK}={}:{}", self.mark, spawn.id))?;
        let started = match start(spawn, &mark, stdin, outputs) {
            Ok(started) => started,
            Err(error) => {
                let code = error.raw_os_error().unwrap_or(Errno::AGAIN.raw_os_error());
                return self.report(spawn.id, Err(code), false);
            }
        };
        self.newest = self.newest.max(spawn.id);
        self.pids.insert(spawn.id, started.pid);
        self.programs.insert(
            started.pid,
            Program {
                id: spawn.id,
                started,
                signalled: false,
            },
        );
        Ok(())
    }

    /// Signals a program's group. Its leader is not reaped yet, so the number is still its own.
    fn signal(&mut self, id: u64, force: Force) {
        let Some(&group) = self.pids.get(&id) else {
            return;
        };
        let Some(program) = self.programs.get_mut(&group) else {
            return;
        };
        let signal = match force {
            Force::Ask => {
                program.started.await_exec();
                Signal::TERM
            }
            Force::Kill => Signal::KILL,
        };
        // One that has ended already was not ended by this.
        program.signalled |= !has_ended(group);
        let _ = kill_process_group(group, signal);
    }

    /// Ends what the ended programs left behind, reaps and reports them.
    fn reap(&mut self) -> io::Result<()> {
        while let Some(pid) = self.next_ended()? {
            if self.programs.contains_key(&pid) {
                // Before the leader is reaped, while no other group can have its number.
                let _ = kill_process_group(pid, Signal::KILL);
            }
            let Ok(Some((_, status))) = waitpid(Some(pid), WaitOptions::NOHANG) else {
                continue;
            };
            if let Some(mut program) = self.programs.remove(&pid) {
                self.pids.remove(&program.id);
                let end = match program.started.failure() {
                    Some(code) => Err(code),
                    None => Ok(status.as_raw()),
                };
                self.report(program.id, end, program.signalled)?;
            }
        }
        self.kill_strays();
        Ok(())
    }

    fn kill_strays(&mut self) {
        let adopted: Vec<Pid> = self
            .children
            .list()
            .into_iter()
            .filter(|pid| !self.programs.contains_key(pid))
            .collect();
        let running = &self.pids;
        let doomed = self.strays.doomed(
            &adopted,
            &self.mark,
            |id| running.contains_key(&id),
            running.keys().next().copied(),
            self.newest,
        );
        for pid in doomed {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Returns a child that has ended and leaves it to be reaped.
    fn next_ended(&self) -> io::Result<Option<Pid>> {
        #[cfg(target_os = "linux")]
        {
            use nix::sys::wait::{Id, WaitPidFlag};
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            match nix::sys::wait::waitid(Id::All, flags) {
                Ok(status) => return Ok(status.pid().and_then(|pid| Pid::from_raw(pid.as_raw()))),
                Err(nix::errno::Errno::ECHILD) => return Ok(None),
                // A signal that nix has no name for (a real-time one): found below.
                Err(_) => {}
            }
        }
        self.next_ended_of_each()
    }

    /// The same, by asking for each child.
    fn next_ended_of_each(&self) -> io::Result<Option<Pid>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let adopted = Children::new().list();
        for &pid in self.programs.keys().chain(&adopted) {
            match waitid(WaitId::Pid(pid), options) {
                Ok(Some(_)) => return Ok(Some(pid)),
                Ok(None) | Err(Errno::CHILD | Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(None)
    }

    fn report(&mut self, id: u64, end: Result<i32, i32>, signalled: bool) -> io::Result<()> {
        let report = Report { id, end, signalled };
        encode(&report, &mut self.reports)
    }

    /// Sends all reports. It may block, but never for long: the server always reads, or is gone.
    fn send_reports(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.reports.len() {
            let rest = &self.reports[sent..];
            match send(&self.inherited.socket, rest, SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.reports.clear();
        Ok(())
    }
}

/// Returns whether a child has ended; it is left to be reaped.
fn has_ended(pid: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::Pid(pid), options), Ok(Some(_)))
}
