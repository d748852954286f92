//! A running attempt, as seen from outside.

use super::stop::Stop;
use crate::model::ItemRecord;
use crate::process::Grace;
use crate::redact::Redacted;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A running attempt as others see it: what it is doing, and the means to stop it.
pub(super) struct LiveAttempt {
    pub(super) cancel: CancellationToken,
    pub(super) started: Instant,
    /// How long its programs may take to end; stopping it may still change that.
    pub(super) grace: Grace,
    /// Milliseconds after `started` at which it last wrote something.
    alive_ms: AtomicU64,
    // Held to replace or clone a short text.
    doing: Mutex<Redacted>,
    // Held to compare and replace a reason.
    stop: Mutex<Option<Stop>>,
}

impl LiveAttempt {
    pub(super) fn new(grace: Duration) -> Self {
        Self {
            cancel: CancellationToken::new(),
            started: Instant::now(),
            grace: Grace::new(grace),
            alive_ms: AtomicU64::new(0),
            doing: Mutex::new("starting".into()),
            stop: Mutex::new(None),
        }
    }

    /// Notes that it wrote something just now.
    pub(super) fn alive(&self) {
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.alive_ms.store(ms, Ordering::Relaxed);
    }

    /// Notes what it is doing now.
    pub(super) fn doing(&self, what: impl Into<Redacted>) {
        *self.doing.lock() = what.into();
    }

    /// Returns the strongest reason to stop it that was given.
    pub(super) fn stopped(&self) -> Option<Stop> {
        *self.stop.lock()
    }

    /// Stops it. The first stop may set any grace, a later one only a shorter one.
    pub(super) fn stop(&self, why: Stop, grace: Option<Duration>) {
        let mut stop = self.stop.lock();
        let first = stop.is_none();
        *stop = (*stop).max(Some(why));
        if let Some(grace) = grace.filter(|grace| first || *grace < self.grace.get()) {
            self.grace.set(grace);
        }
        drop(stop);
        self.cancel.cancel();
    }

    /// Fills in the fields that are known only while it runs.
    pub(super) fn overlay(&self, record: &mut ItemRecord) {
        let elapsed = self.started.elapsed();
        let alive = Duration::from_millis(self.alive_ms.load(Ordering::Relaxed));
        record.duration_ms = u64::try_from(elapsed.as_millis()).ok();
        let idle = elapsed.saturating_sub(alive).as_secs_f64();
        record.idle_s = Some((idle * 10.0).round() / 10.0);
        let doing = self.doing.lock();
        record.doing = Some(doing.clone());
    }
}
