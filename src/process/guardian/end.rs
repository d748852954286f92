//! Killing everything that is left, until none is.

use super::children::Children;
use super::signals::Signals;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group};
use std::io;
use std::time::{Duration, Instant};

/// How long the killing of what is left goes on; longer only for what hangs in the kernel, which can run no code of
/// its own any more, or belongs to another user.
pub(super) const END_LIMIT: Duration = Duration::from_secs(10);
/// How often what is left is looked for again while it dies.
pub(super) const END_PAUSE: Duration = Duration::from_millis(20);

/// Kills `groups` and every child, and what is reparented to this process when those die, until none is left.
///
/// # Errors
///
/// `TimedOut` where some are left after [`END_LIMIT`].
pub(super) fn end_all(
    groups: &[Pid],
    children: &mut Children,
    signals: &Signals,
) -> io::Result<()> {
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
