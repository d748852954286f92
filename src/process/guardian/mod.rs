//! The guardian: the processes between the server and its programs (`mahavishnu guardian MARK CGROUP`).
//!
//! Two processes. The **keeper** starts the **spawner** and waits for its end; the spawner starts the programs. Both hold
//! the server's socket (their stdin) and the server's ownership lock (their stdout) to their end, so that the lock is free
//! only when every program is dead. Both have one thread, lead their own session and do not react to INT, TERM, HUP and
//! QUIT; programs do, because `execve` resets handlers.
//!
//! What ends the programs, whichever process is killed or stopped:
//!
//! - the server ends: its socket closes, and the spawner kills every group and everything that was reparented to it;
//! - the spawner is killed: the kernel kills every program (`PR_SET_PDEATHSIG`), and what those had started is reparented
//!   to the keeper, a child subreaper, which kills it;
//! - the keeper is killed: a pipe that only it holds closes, and the spawner ends everything;
//! - both are killed: the kernel kills the programs; the server, or the next one, kills what those had started: the
//!   control group around them, where there is one, else what carries their mark;
//! - the spawner is stopped (SIGSTOP): the keeper continues it, and kills it where it does not end in time. A stopped
//!   keeper, or a stopped spawner without one, is continued by the kernel when its parent dies.
//!
//! (The server itself is no subreaper: it could not tell what it adopts from the children of its own libraries.) Other
//! systems than Linux have no keeper.

mod children;
#[cfg(target_os = "linux")]
mod keeper;
mod signals;
mod spawner;
mod start;

use super::cgroup::Cgroup;
use children::Children;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group};
use signals::Signals;
use spawner::Spawner;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The subcommand by which the server starts the guardian.
pub(super) const SUBCOMMAND: &str = "guardian";
/// The argument by which the keeper starts the spawner.
const SPAWNER: &str = "spawner";
/// How long the killing of what is left goes on; longer only for what hangs in the kernel, which can run no code of
/// its own any more, or belongs to another user.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How often what is left is looked for again while it dies.
const END_PAUSE: Duration = Duration::from_millis(20);

/// Runs the guardian to its end. To be called before anything else of the program: before threads and the runtime.
///
/// Success means that no program is left. Any other end is taken by the server as "the guardian is lost".
pub fn main() -> ExitCode {
    let mut args = std::env::args().skip(2);
    let mark = args.next().unwrap_or_default();
    let cgroup = args.next().and_then(|folder| Cgroup::at(&folder));
    let ended = match args.next().as_deref() {
        #[cfg(target_os = "linux")]
        None => keeper::keep(&mark, cgroup),
        _ => spawn_for_the_server(mark, cgroup),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn spawn_for_the_server(mark: String, cgroup: Option<Cgroup>) -> io::Result<()> {
    if let Some(cgroup) = cgroup {
        cgroup.enter();
    }
    let signals = Signals::new()?;
    let inherited = Inherited::take()?;
    stand_apart()?;
    let mut spawner = Spawner::new(inherited, signals, mark);
    let served = spawner.serve();
    spawner.end_all().and(served)
}

/// Leaves the server's session, adopts orphaned descendants, and is continued by the kernel when the parent dies.
fn stand_apart() -> io::Result<()> {
    // Fails where it leads a group already; its group is its own then.
    let _ = rustix::process::setsid();
    std::env::set_current_dir("/")?;
    #[cfg(target_os = "linux")]
    {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        // Of the parent's thread, to be exact; one SIGCONT too many does no harm.
        rustix::process::set_parent_process_death_signal(Some(Signal::CONT))?;
    }
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
        // What the server's own parent left open must not reach the programs either.
        close_fds::set_fds_cloexec(3, &[]);
        Ok(taken)
    }
}

/// Kills `groups` and every child, and what is reparented to this process when those die, until none is left.
///
/// # Errors
///
/// `TimedOut` where some are left after [`END_LIMIT`].
fn end_all(groups: &[Pid], children: &mut Children, signals: &Signals) -> io::Result<()> {
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
                Err(Errno::CHILD) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
        if Instant::now() >= give_up {
            return Err(io::ErrorKind::TimedOut.into());
        }
        signals.wait(Some(END_PAUSE))?;
    }
}
