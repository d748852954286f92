//! The keeper: the spawner's parent, which continues it when it is stopped and ends what it leaves behind.

use super::children::Children;
use super::end::{END_LIMIT, end_all};
use super::session::{Inherited, SPAWNER, SUBCOMMAND, stand_apart};
use super::signals::{Signals, timespec};
use crate::process::cgroup::Cgroup;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the spawner may take after the server's end; a little above what it takes for the killing.
const SPAWNER_LIMIT: Duration = END_LIMIT.saturating_add(Duration::from_secs(1));

/// Starts the spawner and returns after its end, when everything that it left is dead.
///
/// # Errors
///
/// The spawner cannot be started or waited for, or it failed.
pub(super) fn keep(mark: &str, cgroup: Option<Cgroup>) -> io::Result<()> {
    let signals = Signals::new()?;
    let inherited = Inherited::take()?;
    stand_apart()?;
    let (life, _held_to_the_end) = io::pipe()?;
    // The running file itself, also when an update has replaced it on disk.
    let spawner = Command::new("/proc/self/exe")
        .arg0("mahavishnu")
        .args([SUBCOMMAND, mark])
        .arg(cgroup.as_ref().map_or(Path::new(""), Cgroup::folder))
        .arg(SPAWNER)
        .stdin(inherited.socket.try_clone()?)
        .stdout(inherited.lock.try_clone()?)
        .stderr(life)
        .spawn()?;
    let spawner = Pid::from_raw(spawner.id().cast_signed()).ok_or(io::ErrorKind::Other)?;
    // Set by the server's end.
    let mut deadline: Option<Instant> = None;
    while reap(spawner)? {
        let mut watched = vec![PollFd::new(&signals.child, PollFlags::IN)];
        if deadline.is_none() {
            watched.push(PollFd::new(&inherited.socket, PollFlags::RDHUP));
        }
        let left = deadline.map(|at| timespec(at.saturating_duration_since(Instant::now())));
        let ready = match poll(&mut watched, left.as_ref()) {
            Err(Errno::INTR) => continue,
            ready => ready?,
        };
        let server_ended = watched.get(1).is_some_and(|fd| !fd.revents().is_empty());
        signals.clear();
        if server_ended {
            let _ = kill_process(spawner, Signal::CONT);
            deadline = Some(Instant::now() + SPAWNER_LIMIT);
        } else if ready == 0 {
            // Its programs die with it, and what they had started is reparented to this process.
            let _ = kill_process(spawner, Signal::KILL);
            deadline = Some(Instant::now() + SPAWNER_LIMIT);
        }
    }
    let ended = end_all(&[], &mut Children::new(), &signals);
    match cgroup {
        // It is proof of more: of what cannot be waited for too.
        Some(cgroup) if cgroup.end() => Ok(()),
        _ => ended,
    }
}

/// Reaps what has ended and continues the spawner where it was stopped; returns whether the spawner lives.
fn reap(spawner: Pid) -> io::Result<bool> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            Ok(Some((pid, status))) if pid == spawner => {
                if !status.stopped() {
                    return Ok(false);
                }
                let _ = kill_process(spawner, Signal::CONT);
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}
