//! A circuit breaker: a peer that keeps failing is left alone for a while, then asked by one call.

use super::Backoff;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Lets calls to one peer through, or refuses them while the peer is known to fail; clones share the state.
///
/// Closed: all calls pass; `threshold` failures in a row open it. Open: all are refused for a delay that grows with each
/// opening. Half-open: exactly one call, the probe, passes; its success closes the breaker, its failure opens it again.
/// (Nygard, *Release It!*, 2007.) A call that takes suspiciously long becomes the probe while it is in flight
/// ([`Pass::suspect`]). The result of a call that passed before the last change of state is ignored, because it does not
/// describe the present. `E` is the failure that is kept for those who are refused.
#[derive(Debug, Clone)]
pub struct Breaker<E>(Arc<Mutex<Inner<E>>>);

#[derive(Debug)]
struct Inner<E> {
    state: State,
    threshold: u32,
    delays: Backoff,
    /// Counts the changes of state.
    generation: u64,
    /// The last failure, while there are failures.
    failure: Option<E>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen,
}

/// The state of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// All calls pass.
    Closed,
    /// No call passes until this instant.
    Open(Instant),
    /// The next call, or one in flight, is the probe.
    HalfOpen,
}

/// A call that was let through. Dropped without a result, it leaves the breaker as it was; a probe makes way for the
/// next one.
#[derive(Debug)]
pub struct Pass<E> {
    breaker: Breaker<E>,
    generation: u64,
    probe: bool,
}

/// A call that was not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused<E> {
    /// How long until the next probe may pass; absent while one is in flight.
    pub retry_in: Option<Duration>,
    /// How the peer failed last; absent where a call only takes suspiciously long.
    pub after: Option<E>,
}

impl<E: Clone> Breaker<E> {
    /// Returns a closed breaker that opens after `threshold` failures in a row (at least 1), for `delays`.
    pub fn new(threshold: u32, delays: Backoff) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            state: State::Closed { failures: 0 },
            threshold: threshold.max(1),
            delays,
            generation: 0,
            failure: None,
        })))
    }

    /// Returns the present state; an opening whose time is over counts as half-open.
    pub fn state(&self) -> BreakerState {
        match self.0.lock().state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until } if now() < until => BreakerState::Open(until),
            State::Open { .. } | State::HalfOpen => BreakerState::HalfOpen,
        }
    }

    /// Lets a call through.
    ///
    /// # Errors
    ///
    /// [`Refused`] while open, and while half-open with the probe in flight.
    pub fn admit(&self) -> Result<Pass<E>, Refused<E>> {
        let mut inner = self.0.lock();
        let retry_in = match inner.state {
            State::Closed { .. } => return Ok(self.pass(inner.generation, false)),
            State::Open { until } => match until.checked_duration_since(now()) {
                Some(left) if !left.is_zero() => Some(left),
                _ => {
                    inner.enter(State::HalfOpen);
                    return Ok(self.pass(inner.generation, true));
                }
            },
            State::HalfOpen => None,
        };
        let after = inner.failure.clone();
        Err(Refused { retry_in, after })
    }

    fn pass(&self, generation: u64, probe: bool) -> Pass<E> {
        Pass {
            breaker: self.clone(),
            generation,
            probe,
        }
    }
}

impl<E> Inner<E> {
    fn enter(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
    }
}

impl<E> Pass<E> {
    /// Returns whether this call decides about the state.
    pub fn is_probe(&self) -> bool {
        self.probe
    }

    /// Makes this call the probe, because it has gone unanswered for long: others are refused until it ends.
    pub fn suspect(&mut self) {
        let mut inner = self.breaker.0.lock();
        if self.generation == inner.generation && !self.probe {
            inner.enter(State::HalfOpen);
            (self.generation, self.probe) = (inner.generation, true);
        }
    }

    /// Notes that the call succeeded.
    pub fn succeeded(self) {
        let mut inner = self.breaker.0.lock();
        if self.generation != inner.generation {
            return;
        }
        inner.failure = None;
        if self.probe {
            inner.delays.reset();
            inner.enter(State::Closed { failures: 0 });
        } else {
            inner.state = State::Closed { failures: 0 };
        }
    }

    /// Notes that the call failed in a way that the peer is responsible for.
    pub fn failed(self, failure: E) {
        let mut inner = self.breaker.0.lock();
        if self.generation != inner.generation {
            return;
        }
        inner.failure = Some(failure);
        match inner.state {
            State::Closed { failures } if failures + 1 < inner.threshold => {
                inner.state = State::Closed {
                    failures: failures + 1,
                };
            }
            _ => {
                let until = now() + inner.delays.next_delay();
                inner.enter(State::Open { until });
            }
        }
    }
}

impl<E> Drop for Pass<E> {
    fn drop(&mut self) {
        let mut inner = self.breaker.0.lock();
        // After a result the generation of a probe has passed.
        if self.probe && self.generation == inner.generation {
            inner.enter(State::Open { until: now() });
        }
    }
}

/// Returns the monotonic clock, the paused one in tests.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const DELAY: Duration = Duration::from_secs(1);

    fn breaker() -> Breaker<&'static str> {
        Breaker::new(3, Backoff::new(DELAY, DELAY * 8, 1))
    }

    fn pass(breaker: &Breaker<&'static str>) -> Pass<&'static str> {
        breaker.admit().expect("it lets one through")
    }

    fn open(breaker: &Breaker<&'static str>) {
        for _ in 0..3 {
            pass(breaker).failed("down");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn opens_only_after_failures_in_a_row() {
        let breaker = breaker();
        for _ in 0..5 {
            pass(&breaker).failed("down");
            pass(&breaker).failed("down");
            pass(&breaker).succeeded();
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        open(&breaker);
        let refused = breaker.admit().expect_err("it is open");
        assert!(refused.retry_in <= Some(DELAY));
        assert_eq!(refused.after, Some("down"));
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_passes_and_its_success_closes() {
        let breaker = breaker();
        open(&breaker);
        advance(DELAY).await;
        let probe = pass(&breaker);
        assert!(probe.is_probe());
        assert_eq!(
            breaker.admit().expect_err("a probe is in flight").retry_in,
            None
        );
        probe.succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert!(!pass(&breaker).is_probe());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_probe_opens_it_for_longer() {
        let breaker = breaker();
        open(&breaker);
        let mut waits = Vec::new();
        for _ in 0..4 {
            let BreakerState::Open(until) = breaker.state() else {
                panic!("not open");
            };
            waits.push(until - now());
            advance(until - now()).await;
            pass(&breaker).failed("down");
        }
        assert!(waits.windows(2).all(|pair| pair[1] >= pair[0]), "{waits:?}");
        assert!(waits[3] > waits[0]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_probe_makes_way_for_the_next() {
        let breaker = breaker();
        open(&breaker);
        advance(DELAY).await;
        drop(pass(&breaker));
        assert!(pass(&breaker).is_probe());
    }

    #[tokio::test(start_paused = true)]
    async fn results_from_before_the_opening_change_nothing() {
        let breaker = breaker();
        let (early, late) = (pass(&breaker), pass(&breaker));
        open(&breaker);
        early.succeeded();
        assert!(matches!(breaker.state(), BreakerState::Open(_)));
        advance(DELAY).await;
        let probe = pass(&breaker);
        late.failed("late");
        probe.succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspected_call_holds_others_back_until_it_ends() {
        let breaker = breaker();
        let (mut slow, other) = (pass(&breaker), pass(&breaker));
        slow.suspect();
        assert_eq!(breaker.admit().expect_err("one is suspected").after, None);
        other.succeeded();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        slow.failed("too late");
        assert!(matches!(breaker.state(), BreakerState::Open(_)));
        advance(DELAY).await;
        let mut slow = pass(&breaker);
        slow.suspect();
        slow.succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
