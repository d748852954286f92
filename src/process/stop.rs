//! Why a program is asked to stop, and how long it may take to end.

use std::time::Duration;
use tokio::sync::watch;

/// Why a program was asked to stop; a stronger reason replaces a weaker one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StopReason {
    /// It wrote nothing for too long.
    Stall,
    /// Its deadline passed.
    Deadline,
    /// It was cancelled.
    Cancelled,
}

/// How long a program may take to end after SIGTERM. It may change while the program runs, even while it ends; cloning
/// shares it.
#[derive(Debug, Clone)]
pub struct Grace(watch::Sender<Duration>);

impl Grace {
    /// Returns a grace of `time`; zero means SIGKILL at once.
    pub fn new(time: Duration) -> Self {
        Self(watch::Sender::new(time))
    }

    /// Returns the grace as it is now.
    pub fn get(&self) -> Duration {
        *self.0.borrow()
    }

    /// Sets the grace, counted from when the program was asked to end.
    pub fn set(&self, time: Duration) {
        self.0.send_replace(time);
    }

    /// Returns a receiver of every change.
    pub(super) fn changes(&self) -> watch::Receiver<Duration> {
        self.0.subscribe()
    }
}

impl From<Duration> for Grace {
    fn from(time: Duration) -> Self {
        Self::new(time)
    }
}
