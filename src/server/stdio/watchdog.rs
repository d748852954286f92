//! Ends the process when its host is gone, whatever the rest of it does.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::time::{Duration, Instant};

/// How long the orderly end may take after the host closed stdin: the drain of the front (5.5 s), that of the workers and
/// a margin.
const ORDERLY_END_WITHIN: Duration = Duration::from_secs(20);

/// Starts a plain thread that waits for the host to hang up and then ends the process if nothing else did.
///
/// It needs no runtime, so that it covers a stuck one. Workers die with the process by their guardian.
pub(super) fn start() -> io::Result<()> {
    std::thread::Builder::new()
        .name("watchdog".into())
        .spawn(|| {
            if hang_up() {
                rest(ORDERLY_END_WITHIN);
                tracing::error!("the host is gone and the orderly end is stuck: ending now");
                std::process::exit(0);
            }
        })
        .map(drop)
}

/// Waits until the other end of stdin is closed. Returns false where that cannot be told.
fn hang_up() -> bool {
    let stdin = io::stdin();
    loop {
        // No event is asked for: a hang-up is told in any case, and input that nobody reads wakes nobody.
        let mut fds = [PollFd::new(&stdin, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(_) if fds[0].revents().contains(PollFlags::HUP) => return true,
            Err(Errno::INTR) => {}
            _ => return false,
        }
    }
}

/// Lets this thread rest; `poll` without descriptors is the sleep that no lint has to be told about.
fn rest(duration: Duration) {
    let end = Instant::now() + duration;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let timeout = Timespec::try_from(left).ok();
        // An interrupted wait goes round again with what is left.
        let _ = poll(&mut [], timeout.as_ref());
    }
}
