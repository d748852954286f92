//! A circuit breaker: a peer that keeps failing is left alone for a while, then asked by one call.

use super::Backoff;
use std::time::{Duration, Instant};

/// Lets calls through, or refuses them while the peer is known to fail.
///
/// Closed: all calls pass; `threshold` failures in a row open it. Open: all are refused for a delay that grows with each
/// opening. Half-open: exactly one call, the probe, passes; its success closes the breaker, its failure opens it again.
/// A result of a call that was let through before the last change of state says nothing about the present and is
/// ignored. (Nygard, *Release It!*, 2007.)
#[derive(Debug)]
pub struct Breaker {
    state: State,
    threshold: u32,
    delays: Backoff,
    generation: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen,
}

/// Which state a breaker is in, for status reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// All calls pass.
    Closed,
    /// No call passes until this instant.
    Open(Instant),
    /// One call is on its way to find out.
    HalfOpen,
}

/// A call that was let through; its result is to be told with [`Breaker::succeeded`], [`Breaker::failed`] or
/// [`Breaker::abandoned`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a probe whose result is never told keeps the breaker half-open"]
pub struct Permit {
    generation: u64,
    probe: bool,
}

impl Permit {
    /// Returns whether this call is the one that decides.
    pub fn is_probe(&self) -> bool {
        self.probe
    }
}

/// A call that was not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// How long until the next probe may pass; absent while one is on its way.
    pub retry_in: Option<Duration>,
}

impl Breaker {
    /// Returns a closed breaker that opens after `threshold` failures in a row (at least 1), for `delays`.
    pub fn new(threshold: u32, delays: Backoff) -> Self {
        Self {
            state: State::Closed { failures: 0 },
            threshold: threshold.max(1),
            delays,
            generation: 0,
        }
    }

    /// Returns the state at `now`; an opening whose time is over counts as half-open.
    pub fn state(&self, now: Instant) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open(until),
            State::Open { .. } | State::HalfOpen => BreakerState::HalfOpen,
        }
    }

    /// Lets a call through.
    ///
    /// # Errors
    ///
    /// [`Refused`] while open, and while half-open with the probe on its way.
    pub fn admit(&mut self, now: Instant) -> Result<Permit, Refused> {
        match self.state {
            State::Closed { .. } => Ok(self.permit(false)),
            State::Open { until } if now < until => Err(Refused {
                retry_in: Some(until - now),
            }),
            State::Open { .. } => {
                self.enter(State::HalfOpen);
                Ok(self.permit(true))
            }
            State::HalfOpen => Err(Refused { retry_in: None }),
        }
    }

    /// Takes note that the call succeeded.
    pub fn succeeded(&mut self, permit: Permit) {
        if permit.generation != self.generation {
            return;
        }
        if permit.probe {
            self.delays.reset();
            self.enter(State::Closed { failures: 0 });
        } else {
            self.state = State::Closed { failures: 0 };
        }
    }

    /// Takes note that the call failed in a way that tells against the peer.
    pub fn failed(&mut self, permit: Permit, now: Instant) {
        if permit.generation != self.generation {
            return;
        }
        match self.state {
            State::Closed { failures } if failures + 1 < self.threshold => {
                self.state = State::Closed {
                    failures: failures + 1,
                };
            }
            _ => {
                let until = now + self.delays.next_delay();
                self.enter(State::Open { until });
            }
        }
    }

    /// Takes note that the call ended without telling anything, because its caller went away.
    pub fn abandoned(&mut self, permit: Permit, now: Instant) {
        if permit.probe && permit.generation == self.generation {
            self.enter(State::Open { until: now });
        }
    }

    fn permit(&self, probe: bool) -> Permit {
        Permit {
            generation: self.generation,
            probe,
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(1);

    fn breaker() -> Breaker {
        Breaker::new(3, Backoff::new(DELAY, DELAY * 8, 1))
    }

    fn open(breaker: &mut Breaker, now: Instant) {
        for _ in 0..3 {
            let permit = breaker.admit(now).expect("closed");
            breaker.failed(permit, now);
        }
    }

    #[test]
    fn opens_after_failures_in_a_row_only() {
        let now = Instant::now();
        let mut breaker = breaker();
        for _ in 0..5 {
            for _ in 0..2 {
                let permit = breaker.admit(now).expect("closed");
                breaker.failed(permit, now);
            }
            let permit = breaker.admit(now).expect("closed");
            breaker.succeeded(permit);
        }
        assert_eq!(breaker.state(now), BreakerState::Closed);
        open(&mut breaker, now);
        assert!(breaker.admit(now).expect_err("open").retry_in <= Some(DELAY));
    }

    #[test]
    fn lets_one_probe_through_and_its_success_closes() {
        let now = Instant::now();
        let mut breaker = breaker();
        open(&mut breaker, now);
        let later = now + DELAY;
        let probe = breaker.admit(later).expect("its time is over");
        assert!(probe.is_probe());
        assert_eq!(breaker.admit(later), Err(Refused { retry_in: None }));
        breaker.succeeded(probe);
        assert_eq!(breaker.state(later), BreakerState::Closed);
        let permit = breaker.admit(later).expect("closed");
        assert!(!permit.is_probe());
        breaker.succeeded(permit);
    }

    #[test]
    fn a_failed_probe_opens_for_longer() {
        let mut now = Instant::now();
        let mut breaker = breaker();
        open(&mut breaker, now);
        let mut waits = Vec::new();
        for _ in 0..4 {
            let BreakerState::Open(until) = breaker.state(now) else {
                panic!("not open");
            };
            waits.push(until - now);
            now = until;
            let probe = breaker.admit(now).expect("its time is over");
            breaker.failed(probe, now);
        }
        assert!(waits.windows(2).all(|pair| pair[1] >= pair[0]), "{waits:?}");
        assert!(waits[3] > waits[0]);
    }

    #[test]
    fn an_abandoned_probe_makes_way_for_the_next() {
        let now = Instant::now();
        let mut breaker = breaker();
        open(&mut breaker, now);
        let later = now + DELAY;
        let probe = breaker.admit(later).expect("its time is over");
        breaker.abandoned(probe, later);
        assert!(breaker.admit(later).is_ok_and(|next| next.is_probe()));
    }

    #[test]
    fn results_from_before_the_opening_change_nothing() {
        let now = Instant::now();
        let mut breaker = breaker();
        let early = breaker.admit(now).expect("closed");
        let late = breaker.admit(now).expect("closed");
        open(&mut breaker, now);
        breaker.succeeded(early);
        assert!(matches!(breaker.state(now), BreakerState::Open(_)));
        let probe = breaker.admit(now + DELAY).expect("its time is over");
        breaker.failed(late, now + DELAY);
        breaker.succeeded(probe);
        assert_eq!(breaker.state(now + DELAY), BreakerState::Closed);
    }
}
