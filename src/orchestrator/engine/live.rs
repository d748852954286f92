//! A running attempt, as seen from outside, and the reasons to stop one.

use crate::error::{ErrorKind, Problem};
use crate::model::{ItemRecord, ItemState};
use crate::process::Grace;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

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
    /// Somebody asked for it.
    Requested,
    /// The server ends.
    Closing,
}

impl Stop {
    /// Returns whether it ends what runs, too, and not only what waits.
    pub(crate) fn ends_running(self) -> bool {
        !matches!(self, Self::MaxFailures | Self::NoPool)
    }

    /// Returns the state and the problem of an item that was stopped for this reason.
    pub(crate) fn verdict(self) -> (ItemState, Problem) {
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

/// A running attempt, as seen from outside.
pub(crate) struct Live {
    pub(crate) cancel: CancellationToken,
    pub(crate) started: Instant,
    /// How long its programs may take to end; who stops it may still say.
    pub(crate) grace: Grace,
    /// Milliseconds after `started` at which it last wrote something.
    alive_ms: AtomicU64,
    // A std mutex: held to replace or clone a short text.
    doing: Mutex<String>,
    // A std mutex: held to compare and replace a reason.
    stop: Mutex<Option<Stop>>,
}

impl Live {
    pub(crate) fn new(grace: Duration) -> Self {
        Self {
            cancel: CancellationToken::new(),
            started: Instant::now(),
            grace: Grace::new(grace),
            alive_ms: AtomicU64::new(0),
            doing: Mutex::new("starting".to_owned()),
            stop: Mutex::new(None),
        }
    }

    pub(crate) fn alive(&self) {
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.alive_ms.store(ms, Ordering::Relaxed);
    }

    pub(crate) fn doing(&self, what: impl Into<String>) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
    }

    pub(crate) fn stopped(&self) -> Option<Stop> {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops it. The first one who stops it may give it any grace, a later one only a shorter one.
    pub(crate) fn stop(&self, why: Stop, grace: Option<Duration>) {
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        let first = stop.is_none();
        *stop = (*stop).max(Some(why));
        if let Some(grace) = grace.filter(|grace| first || *grace < self.grace.get()) {
            self.grace.set(grace);
        }
        drop(stop);
        self.cancel.cancel();
    }

    /// Fills in what is only known while it runs.
    pub(crate) fn overlay(&self, record: &mut ItemRecord) {
        let elapsed = self.started.elapsed();
        let alive = Duration::from_millis(self.alive_ms.load(Ordering::Relaxed));
        record.duration_ms = u64::try_from(elapsed.as_millis()).ok();
        let idle = elapsed.saturating_sub(alive).as_secs_f64();
        record.idle_s = Some((idle * 10.0).round() / 10.0);
        let doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner);
        record.doing = Some(doing.clone());
    }
}
