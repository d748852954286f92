//! How a guardian leaves the server's session, and what it inherits from the server.

use rustix::process::Signal;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The subcommand by which the server starts the guardian.
pub(in crate::process) const SUBCOMMAND: &str = "guardian";
/// The argument by which the keeper starts the spawner.
pub(super) const SPAWNER: &str = "spawner";
/// Leaves the server's session, adopts orphaned descendants, and is continued by the kernel when the parent dies.
pub(super) fn stand_apart() -> io::Result<()> {
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
pub(super) struct Inherited {
    pub(super) socket: OwnedFd,
    pub(super) lock: OwnedFd,
    /// Hangs up when the keeper dies.
    pub(super) life: OwnedFd,
}

impl Inherited {
    pub(super) fn take() -> io::Result<Self> {
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
