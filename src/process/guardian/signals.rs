//! The guardian's signals: what it does not react to, and SIGCHLD as a descriptor that can be polled.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The guardian's signal handlers.
pub(super) struct Signals {
    /// Readable after a child has ended.
    pub(super) child: UnixStream,
}

impl Signals {
    /// Installs handlers that do nothing, unlike ignored signals, which programs would inherit (SIGPIPE is one that Rust
    /// ignores by default), and one that makes SIGCHLD readable.
    pub(super) fn new() -> io::Result<Self> {
        for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE] {
            signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
        }
        let (child, handler) = UnixStream::pair()?;
        child.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(SIGCHLD, handler)?;
        Ok(Self { child })
    }

    /// Waits for a child's end, at most for `limit`.
    pub(super) fn wait(&self, limit: Option<Duration>) -> io::Result<()> {
        let limit = limit.map(timespec);
        let mut watched = [PollFd::new(&self.child, PollFlags::IN)];
        match poll(&mut watched, limit.as_ref()) {
            Ok(_) => self.clear(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// Takes the signals so far. Children are looked for after this, so that a later end is signalled again.
    pub(super) fn clear(&self) {
        let mut taken = [0; 256];
        while matches!((&self.child).read(&mut taken), Ok(count) if count == taken.len()) {}
    }
}

pub(super) fn timespec(limit: Duration) -> Timespec {
    Timespec {
        tv_sec: limit.as_secs().cast_signed(),
        tv_nsec: limit.subsec_nanos().into(),
    }
}
