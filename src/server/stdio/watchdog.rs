//! Ends the process when its host is gone, even where the rest of it is stuck.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io;
use std::time::Duration;

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
                #[expect(
                    clippy::disallowed_methods,
                    reason = "a thread of its own, not the runtime's"
                )]
                std::thread::sleep(ORDERLY_END_WITHIN);
                tracing::error!("the host is gone and the orderly end is stuck: ending now");
                std::process::exit(0);
            }
        })
        .map(drop)
}

/// Waits until the other end of stdin is closed. Returns false where stdin cannot hang up, such as a file.
fn hang_up() -> bool {
    let stdin = io::stdin();
    loop {
        // No event is asked for: a hang-up is always reported, and unread input wakes nobody.
        let mut fds = [PollFd::new(&stdin, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(_) if fds[0].revents().contains(PollFlags::HUP) => return true,
            Err(Errno::INTR) => {}
            _ => return false,
        }
    }
}
