//! How memories are sent.

use std::time::Duration;

/// How memories are sent.
#[derive(Debug, Clone)]
pub struct DeliverySettings {
    /// The least and the most calls in flight.
    pub in_flight: (usize, usize),
    /// How long a store and a question may take; a busy Session-Buddy needs tens of seconds.
    pub call_timeout: Duration,
    /// The shortest rest of an entry whose outcome is unclear; twice the slowest store seen where that is longer.
    pub unclear_rest: Duration,
    /// The first and the longest wait before an entry that the peer did not take is sent again.
    pub retry_wait: (Duration, Duration),
    /// How often the peer may refuse an entry for now before that counts as for good.
    pub max_refusals: u32,
    /// How long the calls in flight may go on once delivery is asked to stop; well within what the process's end takes.
    pub drain: Duration,
    /// How often an idle peer is asked whether it has restarted since it acknowledged what it has.
    pub look: Duration,
    /// The seed of the jitter.
    pub seed: u64,
}

impl Default for DeliverySettings {
    fn default() -> Self {
        Self {
            in_flight: (1, 512),
            call_timeout: Duration::from_secs(60),
            unclear_rest: Duration::from_secs(30),
            retry_wait: (Duration::from_secs(1), Duration::from_secs(300)),
            max_refusals: 12,
            drain: Duration::from_secs(1),
            look: Duration::from_secs(60),
            seed: u64::from(std::process::id()),
        }
    }
}

impl DeliverySettings {
    /// Returns how long the entries rest that a dead sender had leased: its calls may still be in progress at the peer,
    /// whose slowest store lately took `slowest`. Where no store is known, the time-out of a call is the measure.
    pub(super) fn rest_after_death(&self, slowest: Duration) -> Duration {
        let longest = if slowest.is_zero() {
            self.call_timeout
        } else {
            slowest * 2
        };
        self.unclear_rest.max(longest)
    }
}
