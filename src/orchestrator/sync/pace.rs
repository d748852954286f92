//! How many calls to keep in flight to a peer whose capacity is unknown.

use std::time::Instant;

/// Finds about the fewest calls in flight that keep a peer busy: additive increase, multiplicative decrease.
///
/// It learns in rounds, each of the calls started since the last change of the limit. While calls take about as long as
/// one alone, the limit grows: [`FAST`] times per round at first (slow start, RFC 5681), by an eighth per round after
/// that. Calls that take longer wait for each other, and the limit falls to the peer's rate times the time of a call
/// alone (Little's law). Where fewer calls in flight turn out not to be shorter, the peer itself became slower: the limit
/// is restored, and the longer time is the measure from then on. A failed call halves the limit. After a [`Pace::reset`]
/// fast growth ends at the last limit.
///
/// Pure: no clock, no task.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bounds: (usize, usize),
    limit: usize,
    /// Where fast growth ends; none once it has ended.
    fast_until: Option<usize>,
    in_flight: usize,
    /// How long a call takes that waits for no other one, in seconds.
    alone: Option<f64>,
    /// The limit before the last decrease and how long a call took then, in seconds.
    before: Option<(usize, f64)>,
    /// The number of the round, whose calls are those started since the limit was set.
    round: u64,
    /// How many calls of the round are to end, how many have, and how long those took in all and at the longest, in seconds.
    calls: usize,
    ended: usize,
    sum: f64,
    longest: f64,
}

/// A call in flight: in which round it was started, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64, Instant);

/// How much a round of fast growth adds: 512 calls are reached in three rounds, while a peer that works on one call at a
/// time never gets more than 8.
const FAST: usize = 8;
/// How many times as long as alone a call may take before it counts as having waited for others.
const WAITED: f64 = 1.75;
/// How many more calls than the peer works on keep it from waiting for the next.
const SPARE: f64 = 1.25;
/// How long a call may wait at a peer that turns out to do no more than before, in seconds: well below a call's
/// deadline, so that growth never makes a call unclear.
const LONGEST_WAIT: f64 = 15.0;
/// The fewest calls by which a limit is judged, apart from fast growth.
const FEWEST: usize = 8;

impl Pace {
    /// Returns a pace within `bounds`, both at least 1, that begins at the lower one; fast growth ends at the limit that
    /// an earlier sender settled at (`known`), else at the upper bound.
    pub(super) fn new(bounds: (usize, usize), known: Option<usize>) -> Self {
        let mut pace = Self {
            bounds,
            limit: bounds.0,
            fast_until: Some(known.unwrap_or(bounds.1)),
            ..Self::default()
        };
        pace.begin_round();
        pace
    }

    /// Returns how many calls may be in flight.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Returns the limit once fast growth has ended.
    pub(super) fn found(&self) -> Option<usize> {
        self.fast_until.is_none().then_some(self.limit)
    }

    /// Notes that a call is started.
    pub(super) fn started(&mut self, now: Instant) -> Ticket {
        self.in_flight += 1;
        Ticket(self.round, now)
    }

    /// Notes that a call ended whose work the peer did. `busy`: there was always another one to start; without that, the
    /// limit is not in use and cannot be judged.
    pub(super) fn finished(&mut self, ticket: Ticket, now: Instant, busy: bool) {
        self.abandoned();
        if !busy {
            return self.begin_round();
        }
        if ticket.0 == self.round {
            self.ended += 1;
            let took = now.saturating_duration_since(ticket.1).as_secs_f64();
            self.sum += took;
            self.longest = self.longest.max(took);
            if self.ended == self.calls {
                self.judge();
                self.begin_round();
            }
        }
    }

    /// Notes that a call ended that shows nothing about the peer's speed.
    pub(super) fn abandoned(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Notes that a call failed in a way that may be the peer's overload.
    pub(super) fn failed(&mut self, ticket: Ticket) {
        self.abandoned();
        // All failures of one round count once, and a single call is no overload.
        if ticket.0 == self.round && self.limit > 1 {
            self.fast_until = None;
            self.set(self.limit / 2);
            self.begin_round();
        }
    }

    /// Begins with the lower bound again, because the peer was away and may have changed.
    pub(super) fn reset(&mut self) {
        self.fast_until.get_or_insert(self.limit);
        self.set(self.bounds.0);
        self.begin_round();
    }

    fn begin_round(&mut self) {
        self.calls = match self.fast_until {
            // The calls in flight belong to the round before.
            Some(_) => self.limit.saturating_sub(self.in_flight).max(1),
            None => self.limit.max(FEWEST),
        };
        (self.round, self.ended) = (self.round + 1, 0);
        (self.sum, self.longest) = (0.0, 0.0);
    }

    /// Sets the next limit by how long the calls of the round took.
    fn judge(&mut self) {
        let took = match self.fast_until {
            // The calls of a fast round start together, so that only the last one waits for all others.
            Some(_) => self.longest,
            None => self.sum / self.ended as f64,
        };
        let took = took.max(1e-6);
        let limit = self.limit as f64;
        if let Some((before, longer)) = self.before.take()
            && took / longer > (1.0 + limit / before as f64) / 2.0
        {
            self.alone = Some(took);
            return self.set(before);
        }
        let alone = self.alone.filter(|_| self.limit > 1);
        let alone = alone.map_or(took, |alone| alone.min(took));
        self.alone = Some(alone);
        if took > alone * WAITED {
            self.before = Some((self.limit, took));
            self.fast_until = None;
            let needed = (limit * alone / took * SPARE).ceil() as usize;
            self.set(needed.min(self.limit - 1));
        } else {
            let safe = (limit * LONGEST_WAIT / took) as usize;
            let more = match self.fast_until {
                Some(_) => self.limit * FAST,
                None => self.limit + (self.limit / 8).max(1),
            };
            let more = more.min(self.fast_until.take_if(|end| more >= *end).unwrap_or(more));
            self.set(more.min(safe).max(self.limit));
        }
    }

    fn set(&mut self, limit: usize) {
        self.limit = limit.clamp(self.bounds.0, self.bounds.1);
    }
}

#[cfg(test)]
#[path = "tests/pace.rs"]
mod tests;
