//! The reasons to stop items.

use crate::error::{ErrorKind, Problem};
use crate::model::ItemState;

/// Why items are stopped; a stronger reason replaces a weaker one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// `max_failures` items have failed.
    MaxFailures,
    /// No pool is left that the item could go to.
    NoPool,
    /// `run_timeout_s` is over.
    RunTimeout,
    /// The pool was closed.
    PoolClosed,
    /// A caller asked for it.
    Requested,
    /// The server ends.
    Closing,
}

impl Stop {
    /// Returns whether it ends running items too, and not only waiting ones.
    pub(super) fn ends_running(self) -> bool {
        !matches!(self, Self::MaxFailures | Self::NoPool)
    }

    /// Returns the state and the problem of an item that was stopped for this reason.
    pub(super) fn end(self) -> (ItemState, Problem) {
        use ItemState::{Cancelled, Interrupted, TimedOut};
        let (state, kind, message) = match self {
            Self::MaxFailures => (
                Cancelled,
                ErrorKind::Cancelled,
                "not started: max_failures items had failed",
            ),
            Self::NoPool => (
                Cancelled,
                ErrorKind::Cancelled,
                "not started: no pool is left that it could go to",
            ),
            Self::RunTimeout => (
                TimedOut,
                ErrorKind::TimedOut,
                "stopped: the run's run_timeout_s was over",
            ),
            Self::PoolClosed => (
                Cancelled,
                ErrorKind::Cancelled,
                "stopped: its pool was closed",
            ),
            Self::Requested => (Cancelled, ErrorKind::Cancelled, "stopped on request"),
            Self::Closing => (
                Interrupted,
                ErrorKind::Interrupted,
                "interrupted: the server ended",
            ),
        };
        let hint = match self {
            Self::NoPool => "resume_workflow with `pools` runs it there; set_pool makes a pool",
            _ => "resume_workflow runs it again",
        };
        (state, Problem::new(kind, message).with_hint(hint))
    }
}
