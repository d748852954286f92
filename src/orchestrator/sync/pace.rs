//! How many calls to keep in flight to a peer about which nothing is known.

use std::time::{Duration, Instant};

/// Finds the concurrency at which a peer does the most per second, and the smallest such.
///
/// *Ramp*: TCP's slow start (RFC 5681) by eight: a call alone, then rounds of eight times as many for as long as that
/// gets at least a quarter more done. Where all calls of a round take about as long as the one alone, none waits for
/// another, and the next round is as large as may be. The first call that takes longer then has waited, so the peer is
/// full: it is given its rate times the time of a call alone, which is BBR's bound of what is in flight (Cardwell et al.,
/// ACM Queue 14(5), 2016). What is too much by then is worked off while nothing is added, so that the peer is never idle.
/// That calls take as long as each other is not enough: Session-Buddy works on all it has by turns, and four calls end
/// together after three times as long as one. No round is larger than what the peer works off within `LONGEST_WAIT`
/// even if it can do no more than it has shown.
///
/// *Settled*: hill climbing on measured throughput, as calls of very different sizes make latency useless. Rounds at the
/// best known concurrency, between them trials a step above and below it; a step that succeeds is taken again, twice as
/// large, one that fails is halved. Above is taken when it gains half of what it could, below when it loses less than a
/// quarter of what it could, so that in doubt the lower one wins and a peer that works on one call at a time ends near
/// one. A failure halves it, and no later ramp goes beyond that (TCP's slow start threshold).
///
/// Pure: no clock, no task.
#[derive(Debug)]
pub struct Pace {
    bounds: (usize, usize),
    /// Where a ramp ends at the latest.
    ceiling: usize,
    limit: usize,
    phase: Phase,
    climb: Climb,
    round: Round,
    in_flight: usize,
}

/// Which round a call was started in, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    round: u64,
    /// Whether it is one of those that the round waits for. Those that took the place of one that ended are not: the
    /// short ones among them would end the round.
    awaited: bool,
    began: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// One call, which may have to pay for the connection, so that nothing is measured.
    Meeting,
    /// Growing fast; the best round before, where there was one.
    Ramp { best: Option<Shown> },
    /// At the best known concurrency, for `rounds` more rounds.
    Steady { rounds: u32 },
    /// Trying another concurrency beside `base`.
    Trial { base: usize },
}

/// What a ramp round has shown.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shown {
    calls: usize,
    rate: f64,
    /// How long the shortest call took in this round and before.
    alone: Duration,
    /// Whether none of several calls waited for another one.
    unqueued: bool,
}

/// How the next trial is made.
#[derive(Debug, Clone, Copy)]
struct Climb {
    up: bool,
    /// The step as a share of the concurrency.
    stride: f64,
    /// Steady rounds between trials.
    rest: u32,
    /// What the best known concurrency reaches, smoothed over its rounds.
    rate: Option<f64>,
}

#[derive(Debug, Default)]
struct Round {
    number: u64,
    /// Whether calls of the round before may still be in flight, so that nothing is measured yet.
    warming_up: bool,
    /// How many calls are to end before the round, or its warming up, can be over.
    left: usize,
    /// How many of those are not started yet.
    to_start: usize,
    /// The most that were in flight.
    calls: usize,
    /// How long the shortest and the longest took of those that the round waits for.
    took: Option<(Duration, Duration)>,
    window: Window,
}

/// The calls that ended since an instant.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    began: Option<Instant>,
    last: Option<Instant>,
    ended: usize,
}

impl Window {
    fn since(began: Option<Instant>) -> Self {
        Self {
            began,
            last: began,
            ended: 0,
        }
    }

    fn count(&mut self, now: Instant) {
        self.began.get_or_insert(now);
        self.last = self.last.max(Some(now));
        self.ended += 1;
    }

    fn length(&self) -> Duration {
        let length = self.began.zip(self.last);
        length.map_or(Duration::ZERO, |(began, last)| last - began)
    }

    /// Returns whether a call that ends at `now` is no part of a wave: calls that started together often end together,
    /// and a rate over a part of a wave is that of no window.
    fn pauses_before(&self, now: Instant) -> bool {
        let pause = self.last.map_or(Duration::ZERO, |last| now - last);
        pause * 2 * u32::try_from(self.ended).unwrap_or(u32::MAX) > self.length()
    }

    fn rate(&self) -> f64 {
        self.ended as f64 / self.length().as_secs_f64().max(1e-6)
    }
}

/// How many times as long as the shortest a call may take without having waited for another one as long: nearly twice, as
/// many calls at once take a while to be sent and read.
const WAITED: f64 = 1.75;
/// How much larger a ramp round is where nothing shows that calls do not wait for each other, and how much more must be
/// done in it for another one.
const RAMP_FACTOR: usize = 8;
const RAMP_GAIN: f64 = 1.25;
/// How many more calls than are worked on keep a peer from waiting for the next.
const SPARE: f64 = 1.25;
/// How long a call may have to wait at a peer that turns out to do no more than before, in seconds: well below any call's
/// deadline, so that looking for more never makes a call unclear.
const LONGEST_WAIT: f64 = 15.0;
/// The fewest calls that a settled round is judged by.
const MIN_SAMPLE: usize = 16;
/// The smallest and the largest step, as shares of the concurrency; a step is one at least.
const STRIDE: (f64, f64) = (0.125, 1.0);
/// How many steady rounds lie between two trials, at least and at most.
const REST: (u32, u32) = (1, 8);

impl Pace {
    /// Returns a pace that stays within `bounds`, both at least 1; it begins at what was the best for this peer lately
    /// (`known`), else at `bounds.0`.
    pub fn new(bounds: (usize, usize), known: Option<usize>) -> Self {
        let low = bounds.0.max(1);
        let high = bounds.1.max(low);
        let mut pace = Self {
            bounds: (low, high),
            ceiling: high,
            limit: low,
            phase: Phase::Meeting,
            climb: Climb::new(),
            round: Round::default(),
            in_flight: 0,
        };
        if let Some(known) = known {
            pace.climb.stride = STRIDE.0;
            pace.settle_at(known);
        }
        pace.begin_round(None);
        pace
    }

    /// Returns how many calls may be in flight.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Returns whether nothing is known of the peer, so that the next call may have to pay for the connection.
    pub fn is_new(&self) -> bool {
        self.phase == Phase::Meeting
    }

    /// Returns the best concurrency as far as it is known; nothing while it is looked for.
    pub fn found(&self) -> Option<usize> {
        match self.phase {
            Phase::Meeting | Phase::Ramp { .. } => None,
            Phase::Steady { .. } => Some(self.limit),
            Phase::Trial { base } => Some(base),
        }
    }

    /// Takes note that the peer is connected, so that the next call pays for nothing else.
    pub fn connected(&mut self) {
        if self.is_new() {
            self.phase = Phase::Ramp { best: None };
            self.begin_round(None);
        }
    }

    /// Takes note that a call is started.
    pub fn started(&mut self, now: Instant) -> Ticket {
        self.in_flight += 1;
        self.round.calls = self.round.calls.max(self.in_flight);
        if !self.round.warming_up {
            self.round.window.began.get_or_insert(now);
        }
        let awaited = self.round.to_start > 0;
        self.round.to_start = self.round.to_start.saturating_sub(1);
        Ticket {
            round: self.round.number,
            awaited,
            began: now,
        }
    }

    /// Takes note that a call ended with the peer having done its work. `busy`: there was always another one to start.
    pub fn finished(&mut self, ticket: Ticket, now: Instant, busy: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match self.phase {
            // One from before the peer was away does not tell that it is back.
            Phase::Meeting if ticket.round == self.round.number => self.connected(),
            Phase::Meeting => {}
            Phase::Ramp { best } => self.ended_in_ramp(ticket, now, best),
            _ if busy => self.ended_in_round(now),
            // What is measured without enough to do says nothing.
            _ => self.begin_round(None),
        }
    }

    /// A ramp has no time for waves: its round is over when a call shows that the peer is full, or all have ended.
    fn ended_in_ramp(&mut self, ticket: Ticket, now: Instant, best: Option<Shown>) {
        let own = ticket.round == self.round.number;
        let took = now - ticket.began;
        if own
            && let Some(best) = best
            && best.unqueued
            // With no more company than those had, none of which waited, it is just longer.
            && self.round.calls > best.calls
            && is_longer(took, best.alone)
        {
            self.end_full(best);
            return self.begin_round(None);
        }
        self.round.window.count(now);
        if own && ticket.awaited {
            self.round.took(took);
        }
        if self.round.left == 0 || self.in_flight == 0 {
            // Fewer calls than half of what was allowed say nothing about that.
            if let Some(took) = self.round.took
                && self.round.calls * 2 > self.limit
            {
                self.judge_ramp(best, took);
            }
            self.begin_round(None);
        }
    }

    fn ended_in_round(&mut self, now: Instant) {
        let window = self.round.window;
        if self.round.left == 0 && window.pauses_before(now) {
            if self.round.warming_up {
                self.measure_since(window.last);
            } else {
                let before = self.limit;
                self.judge(window.rate());
                self.begin_round((before == self.limit).then_some(window.last).flatten());
            }
        }
        self.round.left = self.round.left.saturating_sub(1);
        self.round.window.count(now);
    }

    /// Takes note that a call failed in a way that may be the peer's overload.
    pub fn failed(&mut self, ticket: Ticket) {
        self.in_flight = self.in_flight.saturating_sub(1);
        // One halving for all that fails of one round.
        if ticket.round == self.round.number {
            let half = self.limit / 2;
            match self.phase {
                // One alone is no overload.
                Phase::Meeting | Phase::Ramp { best: None } => {}
                // Half of a round that was as large as may be can still be far too much.
                Phase::Ramp { best: Some(best) } => {
                    self.fall_to(half.min(best.calls * RAMP_FACTOR))
                }
                Phase::Steady { .. } | Phase::Trial { .. } => self.fall_to(half),
            }
            self.begin_round(None);
        }
    }

    fn fall_to(&mut self, limit: usize) {
        self.ceiling = limit.max(2);
        self.settle_at(limit);
        self.climb = Climb::new();
    }

    /// Takes note that a call ended without telling anything about the peer's speed.
    pub fn abandoned(&mut self, ticket: Ticket) {
        self.in_flight = self.in_flight.saturating_sub(1);
        // The round waits for another one in its place.
        if ticket.awaited && ticket.round == self.round.number {
            self.round.to_start += 1;
        }
    }

    /// Begins anew: the peer was away and may have changed.
    pub fn reset(&mut self) {
        self.limit = self.bounds.0;
        self.phase = Phase::Meeting;
        self.climb = Climb::new();
        self.begin_round(None);
    }

    /// Begins a round; `goes_on` when nothing changed, so that measuring goes on from that instant.
    fn begin_round(&mut self, goes_on: Option<Instant>) {
        self.round = Round {
            number: self.round.number + 1,
            calls: self.in_flight,
            ..Round::default()
        };
        if matches!(self.phase, Phase::Ramp { .. }) || goes_on.is_some() {
            return self.measure_since(goes_on);
        }
        // What is in flight at a change ends at the old pace.
        self.round.warming_up = true;
        self.round.left = self.in_flight.max(self.limit);
    }

    fn measure_since(&mut self, began: Option<Instant>) {
        self.round.warming_up = false;
        self.round.window = Window::since(began);
        self.round.left = match self.phase {
            Phase::Ramp { .. } => self.limit.saturating_sub(self.in_flight).max(1),
            _ => (2 * self.limit).max(MIN_SAMPLE),
        };
        self.round.to_start = self.round.left;
    }

    /// Judges a settled round.
    fn judge(&mut self, rate: f64) {
        match self.phase {
            Phase::Meeting | Phase::Ramp { .. } => {}
            Phase::Steady { rounds } => {
                self.climb.learn(rate);
                match rounds.checked_sub(1) {
                    Some(left) if left > 0 => self.phase = Phase::Steady { rounds: left },
                    _ => self.try_step(),
                }
            }
            Phase::Trial { base } => self.judge_trial(rate, base),
        }
    }

    /// Judges a ramp round whose shortest and longest call took as long.
    fn judge_ramp(&mut self, best: Option<Shown>, (shortest, longest): (Duration, Duration)) {
        let rate = self.round.window.rate();
        // Where several get much less done than a call alone, that one was unusually short and no measure of others.
        let best = best.filter(|best| best.calls > 1 || rate > best.rate / 2.0);
        if let Some(best) = best
            && rate < best.rate * RAMP_GAIN
        {
            // Either it is full or the calls differ too much to tell; the climb that follows finds out which.
            return self.settle_at((best.calls as f64 * SPARE).ceil() as usize);
        }
        let alone = best.map_or(shortest, |best| best.alone.min(shortest));
        let shown = Shown {
            calls: self.round.calls,
            rate,
            alone,
            unqueued: self.round.calls > 1 && !is_longer(longest, alone),
        };
        let safe = (rate * LONGEST_WAIT) as usize;
        let next = match shown.unqueued {
            true => safe,
            false => safe.min(shown.calls * RAMP_FACTOR),
        };
        let next = next.min(self.ceiling);
        if next <= self.limit {
            return self.end_ramp(self.limit, rate);
        }
        self.phase = Phase::Ramp { best: Some(shown) };
        self.set(next);
    }

    /// Settles at as many calls as the full peer works on, of which the best round before had no more.
    fn end_full(&mut self, best: Shown) {
        let rate = self.round.window.rate().max(best.rate);
        let needed = (rate * best.alone.as_secs_f64() * SPARE).ceil() as usize;
        self.end_ramp(needed.clamp(best.calls.min(self.limit), self.limit), rate);
    }

    fn end_ramp(&mut self, limit: usize, rate: f64) {
        self.climb.rate = Some(rate);
        self.climb.stride = STRIDE.0;
        self.settle_at(limit);
    }

    fn judge_trial(&mut self, rate: f64, base: usize) {
        let reached = self.climb.rate.unwrap_or(rate);
        // What a peer would do that has exactly this many calls' worth of room.
        let linear = self.limit as f64 / base as f64 - 1.0;
        let wanted = reached * (1.0 + linear * if self.climb.up { 0.5 } else { 0.25 });
        if rate >= wanted {
            self.climb.succeeded(rate);
            self.try_step();
        } else {
            self.climb.failed();
            self.settle_at(base);
        }
    }

    fn try_step(&mut self) {
        let base = self.limit;
        let room = self
            .climb
            .rate
            .map_or(usize::MAX, |rate| (rate * LONGEST_WAIT) as usize);
        let stride = ((base as f64 * self.climb.stride) as usize)
            .min(room.saturating_sub(base))
            .max(1);
        // A step down never goes below half.
        let down = stride.min(base.div_ceil(2));
        self.set(if self.climb.up {
            base + stride
        } else {
            base.saturating_sub(down)
        });
        if self.limit == base {
            self.climb.failed();
            self.settle_at(base);
        } else {
            self.phase = Phase::Trial { base };
        }
    }

    fn settle_at(&mut self, limit: usize) {
        self.set(limit);
        self.phase = Phase::Steady {
            rounds: self.climb.rest,
        };
    }

    fn set(&mut self, limit: usize) {
        self.limit = limit.clamp(self.bounds.0, self.bounds.1);
    }
}

impl Round {
    fn took(&mut self, took: Duration) {
        self.left = self.left.saturating_sub(1);
        let (shortest, longest) = self.took.unwrap_or((took, took));
        self.took = Some((shortest.min(took), longest.max(took)));
    }
}

/// Returns whether a call that took `took` has waited for others, where one takes `alone` that did not.
fn is_longer(took: Duration, alone: Duration) -> bool {
    took > alone.mul_f64(WAITED)
}

impl Climb {
    fn new() -> Self {
        Self {
            up: true,
            stride: STRIDE.1,
            rest: REST.0,
            rate: None,
        }
    }

    fn learn(&mut self, rate: f64) {
        self.rate = Some(self.rate.map_or(rate, |known| (known + rate) / 2.0));
    }

    fn succeeded(&mut self, rate: f64) {
        self.rate = Some(rate);
        self.stride = (self.stride * 2.0).min(STRIDE.1);
        self.rest = REST.0;
    }

    fn failed(&mut self) {
        self.up = !self.up;
        self.stride = (self.stride / 2.0).max(STRIDE.0);
        self.rest = (self.rest * 2).min(REST.1);
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
