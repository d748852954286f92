//! The guardian: the process tree between the server and its programs (`mahavishnu guardian`).
//!
//! It is started with the server's socket as stdin and the server's ownership lock (or `/dev/null`) as stdout, and
//! keeps both to its end, so that the lock is free only when every program is dead. It is single-threaded, leads its
//! own session and is deaf to INT, TERM, HUP and QUIT, which it hands on to nobody: handlers, unlike ignored signals,
//! are reset by `execve`.
//!
//! The **keeper** starts the **spawner** and waits. Both are child subreapers: should the spawner be killed, all that
//! it had started comes to the keeper, which kills it; should the keeper be killed, a pipe that only it holds tells the
//! spawner to end everything. (The server is no subreaper: it could not tell what it adopts then from the children of
//! its own libraries, and would have to reap both.) Elsewhere than on Linux there is no keeper.

mod children;
mod image;
#[cfg(not(target_os = "linux"))]
mod portable;
mod spawner;
#[cfg(target_os = "linux")]
mod vfork;

use children::Children;
#[cfg(not(target_os = "linux"))]
use portable::Starter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use spawner::Spawner;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
#[cfg(target_os = "linux")]
use vfork::Starter;

/// The subcommand by which the server starts the guardian.
pub(super) const SUBCOMMAND: &str = "guardian";
/// The further argument by which the keeper starts the spawner.
const SPAWNER: &str = "spawner";
/// How long the killing of what is left goes on; longer only for what hangs in the kernel, which can run no code of
/// its own any more, or belongs to another user.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How often what is left is looked for again while it dies.
const END_PAUSE: Duration = Duration::from_millis(20);

/// Runs the guardian to its end. To be called before anything else of the program: before threads and the runtime.
///
/// Its failures are its exit code alone; the server takes its end, however it comes, as "the guardian is lost".
pub fn main() -> ExitCode {
    let is_spawner = std::env::args_os().nth(2).is_some_and(|arg| arg == SPAWNER);
    let ended = if is_spawner || !cfg!(target_os = "linux") {
        spawn_for_the_server()
    } else {
        keep()
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn keep() -> io::Result<()> {
    let signals = Signals::new()?;
    let inherited = Inherited::take()?;
    become_subreaper()?;
    let (life, _held_to_the_end) = io::pipe()?;
    // The running file itself, also when an update has replaced it on disk.
    let mut spawner = Command::new("/proc/self/exe");
    spawner
        .arg0(SUBCOMMAND)
        .args([SUBCOMMAND, SPAWNER])
        .stdin(inherited.socket.try_clone()?)
        .stdout(inherited.lock.try_clone()?)
        .stderr(life);
    let spawner = spawner.spawn()?;
    let spawner = Pid::from_raw(spawner.id().cast_signed()).ok_or(io::ErrorKind::Other)?;
    loop {
        signals.wait(None)?;
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, _))) if pid == spawner => {
                    end_all(&[], &mut Children::new(), &signals);
                    return Ok(());
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn spawn_for_the_server() -> io::Result<()> {
    let signals = Signals::new()?;
    let inherited = Inherited::take()?;
    become_subreaper()?;
    let mut spawner = Spawner::new(inherited, signals, Starter::new()?);
    let served = spawner.serve();
    spawner.end_all();
    served
}

fn become_subreaper() -> io::Result<()> {
    // Fails where it leads a group already; its group is its own then.
    let _ = rustix::process::setsid();
    std::env::set_current_dir("/")?;
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    Ok(())
}

/// What the guardian gets as its three standard streams, moved to where no program inherits it.
struct Inherited {
    socket: OwnedFd,
    lock: OwnedFd,
    /// Hangs up when the keeper dies.
    life: OwnedFd,
}

impl Inherited {
    fn take() -> io::Result<Self> {
        let taken = Self {
            socket: io::stdin().as_fd().try_clone_to_owned()?,
            lock: io::stdout().as_fd().try_clone_to_owned()?,
            life: io::stderr().as_fd().try_clone_to_owned()?,
        };
        let null = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        // What the server's own parent left open for it is no program's business either.
        close_fds::set_fds_cloexec(3, &[]);
        Ok(taken)
    }
}

/// Tells of SIGCHLD by a descriptor, and makes deaf to what would end the process.
struct Signals {
    child: UnixStream,
}

impl Signals {
    fn new() -> io::Result<Self> {
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
            signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
        }
        let (child, handler) = UnixStream::pair()?;
        child.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(SIGCHLD, handler)?;
        Ok(Self { child })
    }

    /// Waits for a child's end, at most for `limit`.
    fn wait(&self, limit: Option<Duration>) -> io::Result<()> {
        let limit = limit.map(|limit| Timespec {
            tv_sec: limit.as_secs().cast_signed(),
            tv_nsec: limit.subsec_nanos().into(),
        });
        match poll(
            &mut [PollFd::new(&self.child, PollFlags::IN)],
            limit.as_ref(),
        ) {
            Ok(_) => self.take(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// Takes what was told so far. Children are looked for after this, so that a later end tells again.
    fn take(&self) {
        let mut told = [0; 256];
        while matches!((&self.child).read(&mut told), Ok(count) if count == told.len()) {}
    }
}

/// Kills `groups` and every child, and what comes to this process when those die, until none is left.
fn end_all(groups: &[Pid], children: &mut Children, signals: &Signals) {
    let give_up = Instant::now() + END_LIMIT;
    // The leaders are not reaped yet, so no other process can have their group's number.
    for &group in groups {
        let _ = kill_process_group(group, Signal::KILL);
    }
    loop {
        for child in children.list() {
            let _ = kill_process(child, Signal::KILL);
        }
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        if Instant::now() >= give_up || signals.wait(Some(END_PAUSE)).is_err() {
            return;
        }
    }
}
