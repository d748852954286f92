//! The server's end of the guardian's socket: one owner task, and a one-shot per running program.

use super::wire::{Force, Inbox, Report, Request, Spawn, encode};
use super::{Program, SpawnError};
use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, sendmsg, shutdown,
};
use std::collections::{HashMap, VecDeque};
use std::ffi::{CString, OsStr};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};

/// Pause before descriptors are sent again that the system had too many of in flight.
const RETRY_PAUSE: Duration = Duration::from_millis(2);

/// The socket to one guardian, shared by its owner task and the handles of its programs.
#[derive(Debug)]
pub(super) struct Channel {
    socket: UnixStream,
    /// The frames that the socket had no room for. The lock is held for a push and a send that does not block. Bounded by
    /// the programs that run: at most one start and three signals each.
    unsent: Mutex<VecDeque<Frame>>,
    /// Wakes the owner task where something was left unsent.
    left: Notify,
    /// The receivers of the programs' ends; `None` once the guardian is lost. Each use of the lock is one map operation.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Report>>>>,
    /// Whether all programs of the lost guardian were seen dead.
    left_none: AtomicBool,
    ids: AtomicU64,
}

/// A frame with the descriptors that go with its first byte.
#[derive(Debug)]
pub(super) struct Frame {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

impl Frame {
    /// Returns the frame that starts `program` as `id` with the ends of its pipes; the first is stdin's where there are
    /// three.
    ///
    /// # Errors
    ///
    /// [`SpawnError::TooLong`] for more than any system would take, [`SpawnError::Nul`].
    pub(super) fn spawn(
        id: u64,
        program: &Program,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Self, SpawnError> {
        let text = |parts: &[&OsStr]| {
            let bytes: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
            CString::new(bytes.concat()).map_err(|_| SpawnError::Nul)
        };
        let words = std::iter::once(program.program.as_os_str())
            .chain(program.args.iter().map(AsRef::as_ref));
        let env = program.env.iter();
        let request = Request::Spawn(Spawn {
            id,
            has_stdin: descriptors.len() == 3,
            cwd: text(&[program.cwd.as_os_str()])?,
            argv: words.map(|word| text(&[word])).collect::<Result<_, _>>()?,
            env: env
                .map(|(name, value)| text(&[name, OsStr::new("="), value]))
                .collect::<Result<_, _>>()?,
        });
        Self::new(&request, descriptors).map_err(|_| SpawnError::TooLong)
    }

    /// # Errors
    ///
    /// `E2BIG` where the request is longer than any system would take.
    fn new(request: &Request, descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let mut bytes = Vec::with_capacity(4096);
        encode(request, &mut bytes)?;
        Ok(Self {
            bytes,
            sent: 0,
            descriptors,
        })
    }
}

/// What sending waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// A frame.
    Idle,
    /// Room in the socket.
    Blocked,
    /// Fewer descriptors in flight in the whole system.
    TooManyDescriptors,
}

impl Channel {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            unsent: Mutex::default(),
            left: Notify::new(),
            waiting: Mutex::new(Some(HashMap::new())),
            left_none: AtomicBool::new(false),
            ids: AtomicU64::new(0),
        }
    }

    /// Returns a number for a program that no other of this guardian has.
    pub(super) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends the start of program `id` and returns the receiver of its end; an error there is the guardian's loss.
    pub(super) fn start(&self, id: u64, frame: Frame) -> oneshot::Receiver<Report> {
        let (sender, end) = oneshot::channel();
        let lives = match &mut *self.waiting.lock() {
            Some(waiting) => waiting.insert(id, sender).is_none(),
            None => false,
        };
        if lives {
            self.push(frame);
        }
        end
    }

    /// Signals the group of program `id`.
    pub(super) fn signal(&self, id: u64, force: Force) {
        let request = Request::Signal { id, force };
        let frame = Frame::new(&request, Vec::new()).expect("a signal is a few bytes");
        self.push(frame);
    }

    /// Kills the group of program `id` and drops its end.
    pub(super) fn abandon(&self, id: u64) {
        if let Some(waiting) = &mut *self.waiting.lock() {
            waiting.remove(&id);
        }
        self.signal(id, Force::Kill);
    }

    /// Sends a frame now if there is room, which saves waking the owner task; else leaves it to that.
    fn push(&self, frame: Frame) {
        let mut unsent = self.unsent.lock();
        unsent.push_back(frame);
        if self.flush(&mut unsent) != Sending::Idle {
            self.left.notify_one();
        }
    }

    fn flush(&self, unsent: &mut VecDeque<Frame>) -> Sending {
        while let Some(frame) = unsent.front_mut() {
            let sent = self
                .socket
                .try_io(Interest::WRITABLE, || send(self.socket.as_fd(), frame));
            match sent {
                Ok(count) => {
                    frame.sent += count;
                    // They went with the first byte; only the program keeps its ends of the pipes open now.
                    frame.descriptors.clear();
                    if frame.sent == frame.bytes.len() {
                        unsent.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Sending::Blocked,
                Err(error) if error.raw_os_error() == Some(Errno::TOOMANYREFS.raw_os_error()) => {
                    return Sending::TooManyDescriptors;
                }
                // The guardian is lost; the owner task reads it from the socket too, after the last reports.
                Err(_) => unsent.clear(),
            }
        }
        Sending::Idle
    }

    /// Closes the socket for sending, or for both directions.
    pub(super) fn hang_up(&self, how: Shutdown) {
        self.unsent.lock().clear();
        // Fails only where the guardian is gone already.
        let _ = shutdown(&self.socket, how);
    }

    /// Returns whether the guardian still takes programs.
    pub(super) fn is_open(&self) -> bool {
        self.waiting.lock().is_some()
    }

    /// Fails everything that still waits for a program's end. `left_none`: all programs were seen dead.
    pub(super) fn fail_all(&self, left_none: bool) {
        self.left_none.store(left_none, Ordering::Release);
        self.waiting.lock().take();
    }

    /// Returns, after the guardian's loss, whether all its programs were seen dead.
    pub(super) fn left_none(&self) -> bool {
        self.left_none.load(Ordering::Acquire)
    }

    /// Owns the socket until the guardian closes it.
    pub(super) async fn exchange(&self) -> io::Result<()> {
        let mut inbox = Inbox::default();
        loop {
            let sending = self.flush(&mut self.unsent.lock());
            tokio::select! {
                ready = self.socket.readable() => {
                    ready?;
                    if self.receive(&mut inbox)?.is_none() {
                        return Ok(());
                    }
                }
                ready = self.socket.writable(), if sending == Sending::Blocked => ready?,
                () = tokio::time::sleep(RETRY_PAUSE), if sending == Sending::TooManyDescriptors => {}
                () = self.left.notified() => {}
            }
        }
    }

    /// Hands on what has come in; `None` at the end of the stream.
    fn receive(&self, inbox: &mut Inbox) -> io::Result<Option<()>> {
        let mut bytes = [0; 4096];
        match self.socket.try_read(&mut bytes) {
            Ok(0) => return Ok(None),
            Ok(count) => inbox.push(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error),
        }
        while let Some(report) = inbox.next::<Report>()? {
            let mut waiting = self.waiting.lock();
            let waiter = waiting.as_mut().and_then(|it| it.remove(&report.id));
            if let Some(waiter) = waiter {
                // The program's handle may have been dropped just now.
                let _ = waiter.send(report);
            }
        }
        Ok(Some(()))
    }
}

fn send(socket: BorrowedFd<'_>, frame: &Frame) -> io::Result<usize> {
    let descriptors: Vec<BorrowedFd<'_>> = frame.descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let bytes = [IoSlice::new(&frame.bytes[frame.sent..])];
    Ok(sendmsg(socket, &bytes, &mut control, SendFlags::NOSIGNAL)?)
}
