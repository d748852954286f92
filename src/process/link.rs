//! The server's end of the guardian: one owner task for the socket, a one-shot per program that runs.

use super::guardian::SUBCOMMAND;
use super::wire::{CStringBuffer, End, Force, Inbox, Report, Request, Spawn, encode};
use super::{Exit, Job, Program, SpawnError, run};
use rustix::io::Errno;
use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, sendmsg, shutdown,
};
use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long [`Processes::close`] waits; a little above what the guardian takes for the killing.
const CLOSE_LIMIT: Duration = Duration::from_secs(12);
/// How many guardians share the starts. One is blocked while its program's `execve` goes on (the price of a vfork), which
/// leaves a core idle where programs are short; a third adds nothing that was measurable.
const GUARDIANS: usize = 2;
/// From how many running programs on a further guardian is started.
const SHARE_FROM: usize = 4;
/// Pause before descriptors are sent again that the system had too many of in flight.
const RETRY_PAUSE: Duration = Duration::from_millis(2);

/// What the processes of one server share.
#[derive(Debug)]
pub struct Options {
    /// The program that runs [`guardian::main`](super::guardian::main) when its first argument is `guardian`; on Linux
    /// best `/proc/self/exe`, which stays the same when an update replaces the file.
    pub guardian_program: PathBuf,
    /// A locked file (`flock`); the guardian holds it too, and no program does, so that the lock is free only after the
    /// server's end and the end of every program.
    pub hold: Option<OwnedFd>,
}

/// The programs of one server: all are started through it, and none outlives it.
#[derive(Debug, Clone)]
pub struct Processes {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    /// A std mutex: held for a look, or for the start of the guardian, and never across an await.
    state: Mutex<State>,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    links: Vec<Link>,
}

impl Processes {
    /// Returns a handle that has started nothing yet; the guardian starts with the first program.
    pub fn new(options: Options) -> Self {
        Self {
            shared: Arc::new(Shared {
                options,
                state: Mutex::default(),
                tasks: TaskTracker::new(),
            }),
        }
    }

    /// Runs `job` to its end and hands its output to `on_output` as it comes.
    ///
    /// `cancel`, the job's deadline and its stall limit send SIGTERM to its process group, and SIGKILL after the job's
    /// grace; its output is read all the while. Nothing that can go wrong is an error here: the [`Exit`] tells it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the process group at once; what was not yet logged of its output is lost.
    pub async fn run(
        &self,
        job: Job,
        on_output: &mut (dyn FnMut(super::Stream, &[u8]) + Send),
        cancel: &CancellationToken,
    ) -> Exit {
        run::run(self, job, on_output, cancel).await
    }

    /// Ends the guardian, and with it every program that still runs; bounded by some seconds. Nothing can be run after.
    pub async fn close(&self) {
        {
            let mut state = self.state();
            state.closed = true;
            state.links.clear();
        }
        self.shared.tasks.close();
        if tokio::time::timeout(CLOSE_LIMIT, self.shared.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                "the guardian did not end within {CLOSE_LIMIT:?}; it goes on killing what is left"
            );
        }
    }

    /// Returns the channel to the guardian that runs the fewest programs; starts one where there is none, or too few.
    pub(super) fn channel(&self) -> Result<Arc<Channel>, SpawnError> {
        let mut state = self.state();
        if state.closed {
            return Err(SpawnError::Closed);
        }
        state.links.retain(|link| link.0.running().is_some());
        let freest = state
            .links
            .iter()
            .filter_map(|link| Some((link.0.running()?, &link.0)))
            .min_by_key(|(running, _)| *running);
        if let Some((running, channel)) = freest
            && (running < SHARE_FROM || state.links.len() == GUARDIANS)
        {
            return Ok(Arc::clone(channel));
        }
        let link = self.start().map_err(|source| SpawnError::Guardian {
            program: self.shared.options.guardian_program.clone(),
            source,
        })?;
        let channel = Arc::clone(&link.0);
        state.links.push(link);
        Ok(channel)
    }

    fn start(&self) -> io::Result<Link> {
        let options = &self.shared.options;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let lock = match &options.hold {
            Some(lock) => Stdio::from(lock.try_clone()?),
            None => Stdio::null(),
        };
        let guardian = tokio::process::Command::new(&options.guardian_program)
            .arg0("mahavishnu")
            .arg(SUBCOMMAND)
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(lock)
            .stderr(Stdio::null())
            .spawn()?;
        let channel = Arc::new(Channel::new(UnixStream::from_std(ours)?));
        self.shared
            .tasks
            .spawn(serve(Arc::clone(&channel), guardian));
        Ok(Link(channel))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a guardian; dropping it ends the guardian.
#[derive(Debug)]
struct Link(Arc<Channel>);

impl Drop for Link {
    fn drop(&mut self) {
        self.0.hang_up(Shutdown::Write);
    }
}

/// What the jobs and the owner task of one guardian share.
#[derive(Debug)]
pub(super) struct Channel {
    socket: UnixStream,
    /// The frames that the socket had no room for. A std mutex: held for a push and a send that does not block. Bounded
    /// by the jobs that run: at most one start and three signals each.
    outbox: Mutex<VecDeque<Frame>>,
    /// Tells the owner task that something was left in the outbox.
    left: Notify,
    /// Who waits for which program's end; `None` once the guardian is lost. A std mutex: each use is one map operation.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<End>>>>,
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
        let (mut words, mut env) = (CStringBuffer::default(), CStringBuffer::default());
        let fixed = [program.cwd.as_os_str(), program.program.as_os_str()];
        for word in fixed
            .into_iter()
            .chain(program.args.iter().map(AsRef::as_ref))
        {
            words.push(&[word]).map_err(|_| SpawnError::Nul)?;
        }
        for (name, value) in &*program.env {
            let parts = [name, OsStr::new("="), value];
            env.push(&parts).map_err(|_| SpawnError::Nul)?;
        }
        let request = Request::Spawn(Spawn {
            id,
            has_stdin: descriptors.len() == 3,
            words: words.strings(),
            env: env.strings(),
        });
        Self::new(&request, descriptors).map_err(|_| SpawnError::TooLong)
    }

    /// # Errors
    ///
    /// `E2BIG` where the request is longer than any system would take.
    fn new(request: &Request<'_>, descriptors: Vec<OwnedFd>) -> io::Result<Self> {
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
    fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            outbox: Mutex::default(),
            left: Notify::new(),
            waiting: Mutex::new(Some(HashMap::new())),
            ids: AtomicU64::new(0),
        }
    }

    /// Returns a name for a program that no other of this guardian has.
    pub(super) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends the start of program `id` and returns what will tell its end; an error there is the guardian's loss.
    pub(super) fn start(&self, id: u64, frame: Frame) -> oneshot::Receiver<End> {
        let (tell, end) = oneshot::channel();
        let lives = match &mut *self.waiting() {
            Some(waiting) => waiting.insert(id, tell).is_none(),
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

    /// Kills the group of program `id`, whose end nobody waits for any more.
    pub(super) fn abandon(&self, id: u64) {
        if let Some(waiting) = &mut *self.waiting() {
            waiting.remove(&id);
        }
        self.signal(id, Force::Kill);
    }

    /// Sends a frame now if there is room, which saves waking the owner task; else leaves it to that.
    fn push(&self, frame: Frame) {
        let mut outbox = self.outbox();
        outbox.push_back(frame);
        if self.flush(&mut outbox) != Sending::Idle {
            self.left.notify_one();
        }
    }

    fn flush(&self, outbox: &mut VecDeque<Frame>) -> Sending {
        while let Some(frame) = outbox.front_mut() {
            let sent = self
                .socket
                .try_io(Interest::WRITABLE, || send(self.socket.as_fd(), frame));
            match sent {
                Ok(count) => {
                    frame.sent += count;
                    // They went with the first byte; only the program keeps its ends of the pipes open now.
                    frame.descriptors.clear();
                    if frame.sent == frame.bytes.len() {
                        outbox.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Sending::Blocked,
                Err(error) if error.raw_os_error() == Some(Errno::TOOMANYREFS.raw_os_error()) => {
                    return Sending::TooManyDescriptors;
                }
                // The guardian is lost; the owner task reads it from the socket too, after the last reports.
                Err(_) => outbox.clear(),
            }
        }
        Sending::Idle
    }

    fn hang_up(&self, how: Shutdown) {
        self.outbox().clear();
        // Fails only where the guardian is gone already.
        let _ = shutdown(&self.socket, how);
    }

    /// Returns how many programs run; `None` once the guardian is lost.
    fn running(&self) -> Option<usize> {
        self.waiting().as_ref().map(HashMap::len)
    }

    fn outbox(&self) -> MutexGuard<'_, VecDeque<Frame>> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<End>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Owns the channel until the guardian has ended, then fails every waiter and reaps it.
async fn serve(channel: Arc<Channel>, mut guardian: tokio::process::Child) {
    if let Err(error) = exchange(&channel).await {
        tracing::warn!(%error, "the guardian is lost");
    }
    // Whatever ended the exchange, the guardian ends by this.
    channel.hang_up(Shutdown::Both);
    channel.waiting().take();
    if let Err(error) = guardian.wait().await {
        tracing::warn!(%error, "the guardian could not be reaped");
    }
}

async fn exchange(channel: &Channel) -> io::Result<()> {
    let socket = &channel.socket;
    let mut inbox = Inbox::default();
    loop {
        let sending = channel.flush(&mut channel.outbox());
        tokio::select! {
            ready = socket.readable() => {
                ready?;
                if receive(socket, &mut inbox, channel)?.is_none() {
                    return Ok(());
                }
            }
            ready = socket.writable(), if sending == Sending::Blocked => ready?,
            () = tokio::time::sleep(RETRY_PAUSE), if sending == Sending::TooManyDescriptors => {}
            () = channel.left.notified() => {}
        }
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

/// Hands on what has come in; `None` at the end of the stream.
fn receive(socket: &UnixStream, inbox: &mut Inbox, channel: &Channel) -> io::Result<Option<()>> {
    let mut bytes = [0; 4096];
    match socket.try_read(&mut bytes) {
        Ok(0) => return Ok(None),
        Ok(count) => inbox.push(&bytes[..count]),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
        Err(error) => return Err(error),
    }
    while let Some(Report { id, end }) = inbox.next()? {
        let waiter = channel
            .waiting()
            .as_mut()
            .and_then(|waiting| waiting.remove(&id));
        if let Some(waiter) = waiter {
            // The job's future may have been dropped just now.
            let _ = waiter.send(end);
        }
    }
    Ok(Some(()))
}
