//! The parent of every program: starts, signals, reaps and reports them, one thing at a time.

use super::children::{Children, MARK, Strays};
use super::image::Image;
use super::{Inherited, Signals, Starter};
use crate::process::wire::{End, Force, Inbox, Report, Request, Spawn, encode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send,
};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process, kill_process_group, waitid,
};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::CString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

/// A spawn frame with arguments and environment of usual size comes in one piece.
const RECEIVE_BYTES: usize = 64 << 10;

/// A program that runs.
#[derive(Debug)]
struct Program {
    /// The server's name for it.
    id: u64,
    /// Its place in the order of starts here.
    number: u64,
    /// Keeps the ends of its outputs open here, so that the server sees them close together with the report of its end
    /// and is not woken twice. None where the program has a stdin: to whoever talks to it, a closed output says something.
    outputs: Option<[OwnedFd; 2]>,
}

pub(super) struct Spawner {
    inherited: Inherited,
    signals: Signals,
    starter: Starter,
    descriptors: VecDeque<OwnedFd>,
    receive: Vec<u8>,
    reports: Vec<u8>,
    programs: HashMap<Pid, Program>,
    /// The outputs of programs whose ends are not told yet.
    ended: Vec<[OwnedFd; 2]>,
    pids: HashMap<u64, Pid>,
    /// The programs that run by their place in the order of starts.
    order: BTreeMap<u64, Pid>,
    started: u64,
    children: Children,
    strays: Strays,
    mark: String,
}

impl Spawner {
    pub(super) fn new(inherited: Inherited, signals: Signals, starter: Starter) -> Self {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            inherited,
            signals,
            starter,
            descriptors: VecDeque::new(),
            receive: vec![0; RECEIVE_BYTES],
            reports: Vec::new(),
            programs: HashMap::new(),
            ended: Vec::new(),
            pids: HashMap::new(),
            order: BTreeMap::new(),
            started: 0,
            children: Children::new(),
            strays: Strays::default(),
            mark: format!("{}.{}", std::process::id(), since_epoch.as_nanos()),
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
                self.signals.take();
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
            self.tell()?;
        }
    }

    pub(super) fn end_all(&mut self) {
        let groups: Vec<Pid> = self.programs.keys().copied().collect();
        super::end_all(&groups, &mut self.children, &self.signals);
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

    fn spawn(&mut self, spawn: &Spawn<'_>) -> io::Result<()> {
        let mut descriptor = || {
            self.descriptors
                .pop_front()
                .ok_or(io::ErrorKind::InvalidData)
        };
        let stdin = spawn.has_stdin.then(&mut descriptor).transpose()?;
        let outputs = [descriptor()?, descriptor()?];
        let number = self.started + 1;
        let mark = CString::new(format!("{MARK}={}:{number}", self.mark))?;
        let image = Image::new(spawn.words, spawn.env, &mark, stdin, outputs);
        let image = image.ok_or(io::ErrorKind::InvalidData)?;
        let pid = match self.starter.start(&image) {
            Ok(pid) => pid,
            Err(code) => return self.report(spawn.id, End::NotSpawned(code)),
        };
        self.started = number;
        self.order.insert(number, pid);
        self.pids.insert(spawn.id, pid);
        self.programs.insert(
            pid,
            Program {
                id: spawn.id,
                number,
                outputs: (!spawn.has_stdin).then_some(image.outputs),
            },
        );
        Ok(())
    }

    /// Signals a program's group. Its leader is not reaped yet, so the number is still its own.
    fn signal(&self, id: u64, force: Force) {
        if let Some(&group) = self.pids.get(&id) {
            let signal = match force {
                Force::Ask => Signal::TERM,
                Force::Kill => Signal::KILL,
            };
            let _ = kill_process_group(group, signal);
        }
    }

    /// Ends what the ended programs left behind, reaps and reports them.
    fn reap(&mut self) -> io::Result<()> {
        while let Some(pid) = self.next_ended()? {
            if self.programs.contains_key(&pid) {
                // Before the leader is reaped, while no other group can have its number.
                let _ = kill_process_group(pid, Signal::KILL);
            }
            let Ok(Some(status)) = waitid(
                WaitId::Pid(pid),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            ) else {
                continue;
            };
            if let Some(program) = self.programs.remove(&pid) {
                self.order.remove(&program.number);
                self.pids.remove(&program.id);
                self.ended.extend(program.outputs);
                self.report(program.id, end_of(&status))?;
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
        let order = &self.order;
        let doomed = self.strays.doomed(
            &adopted,
            &self.mark,
            |number| order.contains_key(&number),
            order.keys().next().copied(),
            self.started,
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

    fn report(&mut self, id: u64, end: End) -> io::Result<()> {
        encode(&Report { id, end }, &mut self.reports)
    }

    /// Sends all reports. It may block, but never for long: the server always reads, or is gone.
    fn tell(&mut self) -> io::Result<()> {
        self.ended.clear();
        let mut sent = 0;
        while sent < self.reports.len() {
            match send(
                &self.inherited.socket,
                &self.reports[sent..],
                SendFlags::NOSIGNAL,
            ) {
                Ok(count) => sent += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        self.reports.clear();
        Ok(())
    }
}

fn end_of(status: &WaitIdStatus) -> End {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => End::Exited(code),
        (None, signal) => End::Signalled(signal.unwrap_or_default()),
    }
}
