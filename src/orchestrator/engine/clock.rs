//! Time in which the machine slept, or this server was stopped: what it waited for did not go on either.

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// A sleep that is shorter than this has no effect on what runs.
const SLEPT: Duration = Duration::from_secs(5);

/// How much of a wait is counted at once: of a longer stop no more than this counts.
const BEAT: Duration = Duration::from_secs(1);

/// The clock that goes on while the machine sleeps, as [`Instant`] does not. Not the wall clock: that can be set.
#[cfg(target_os = "linux")]
const WITH_SLEEP: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const WITH_SLEEP: ClockId = ClockId::Monotonic;

/// Both clocks at one moment, from which a later sleep of the machine shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    with_sleep: Duration,
    without: Instant,
}

impl Clocks {
    pub(super) fn now() -> Self {
        let now = clock_gettime(WITH_SLEEP);
        let seconds = Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or(0));
        Self {
            with_sleep: seconds + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0)),
            without: Instant::now(),
        }
    }

    /// Returns whether the machine has slept between these clocks and `later`.
    pub(super) fn slept_until(&self, later: &Self) -> bool {
        let passed = later.with_sleep.saturating_sub(self.with_sleep);
        let awake = later.without.saturating_duration_since(self.without);
        passed.saturating_sub(awake) > SLEPT
    }

    /// Returns these clocks as they are after the machine has slept.
    #[cfg(test)]
    pub(super) fn after_sleep(self, time: Duration) -> Self {
        Self {
            with_sleep: self.with_sleep + time,
            ..self
        }
    }
}

/// Sleeps for `time`, in which time does not count while this process is stopped or the machine sleeps.
///
/// # Cancel safety
///
/// The time that has passed is forgotten.
pub(super) async fn sleep(time: Duration) {
    let mut left = time;
    while !left.is_zero() {
        let step = left.min(BEAT);
        tokio::time::sleep(step).await;
        left -= step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_of_the_machine_shows_and_time_alone_does_not() {
        let start = Clocks::now();
        assert!(!start.slept_until(&Clocks::now()));
        assert!(!start.slept_until(&Clocks::now().after_sleep(SLEPT / 2)));
        assert!(start.slept_until(&Clocks::now().after_sleep(2 * SLEPT)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_of_the_process_is_not_counted() {
        let started = tokio::time::Instant::now();
        let sleeping = sleep(Duration::from_secs(10));
        let stopped = async {
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            tokio::time::advance(Duration::from_secs(60)).await;
        };
        tokio::join!(sleeping, stopped);
        let took = started.elapsed();
        assert!(took >= Duration::from_secs(60 + 7), "{took:?}");
        assert!(took <= Duration::from_secs(60 + 11), "{took:?}");
    }
}
