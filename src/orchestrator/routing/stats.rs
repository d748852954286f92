//! A pool's figures: how many attempts succeeded and failed since the start, and how long the latest ones took.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Duration;

/// How many durations the percentiles are taken over.
const WINDOW: usize = 256;

/// Counts and durations of a pool's attempts.
#[derive(Debug, Default)]
// Held for a push or a sort of 256 numbers, never across an await.
pub(crate) struct PoolStats(Mutex<Figures>);

#[derive(Debug, Default)]
struct Figures {
    succeeded: u64,
    failed: u64,
    latest_ms: VecDeque<u64>,
}

/// The figures at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StatsView {
    /// Attempts that ended well.
    pub(crate) succeeded: u64,
    /// Attempts that ended otherwise.
    pub(crate) failed: u64,
    /// Median duration of the latest attempts, in milliseconds.
    pub(crate) p50_ms: Option<u64>,
    /// 95th percentile of the latest attempts' durations, in milliseconds.
    pub(crate) p95_ms: Option<u64>,
}

impl PoolStats {
    /// Counts an attempt that took `duration`.
    pub(crate) fn record(&self, succeeded: bool, duration: Duration) {
        let mut figures = self.0.lock();
        if succeeded {
            figures.succeeded += 1;
        } else {
            figures.failed += 1;
        }
        if figures.latest_ms.len() == WINDOW {
            figures.latest_ms.pop_front();
        }
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        figures.latest_ms.push_back(ms);
    }

    /// Returns the figures now; percentiles by the nearest-rank method.
    pub(crate) fn view(&self) -> StatsView {
        let figures = self.0.lock();
        let mut sorted: Vec<u64> = figures.latest_ms.iter().copied().collect();
        let (succeeded, failed) = (figures.succeeded, figures.failed);
        drop(figures);
        sorted.sort_unstable();
        let rank = |percent: usize| {
            let place = (sorted.len() * percent).div_ceil(100);
            sorted.get(place.saturating_sub(1)).copied()
        };
        StatsView {
            succeeded,
            failed,
            p50_ms: rank(50),
            p95_ms: rank(95),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_latest_attempts() {
        let stats = PoolStats::default();
        assert_eq!(stats.view(), StatsView::default());
        for _ in 0..WINDOW {
            stats.record(false, Duration::from_secs(1000));
        }
        for ms in 1..=WINDOW as u64 {
            stats.record(true, Duration::from_millis(ms));
        }
        let view = stats.view();
        assert_eq!((view.succeeded, view.failed), (256, 256));
        assert_eq!((view.p50_ms, view.p95_ms), (Some(128), Some(244)));
    }
}
