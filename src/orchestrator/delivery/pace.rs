//! How many calls to keep in flight to a peer about which nothing is known.

use std::time::{Duration, Instant};

/// Finds the concurrency at which a peer does the most per second, and the smallest such.
///
/// Hill climbing on measured throughput, in rounds of calls. Latency is not looked at: calls of very different sizes make
/// it useless, while their throughput still shows whether more in flight gets more done.
///
/// *Ramp*: eight times as many each round for as long as that gets at least a quarter more done; a peer that takes
/// 500 at once is reached in four rounds. It ends at as many calls as, at the pace of a call that waits for no other, do
/// the most that was reached (Little's law). *Settled*: rounds at the best known concurrency, between them trials a step
/// above and below it; a step that succeeds is taken again, twice as large, one that fails is halved. Above is taken when
/// it gains half of what it could, below when it loses less than a quarter of what it could, so that in doubt the lower
/// one wins and a peer that works on one call at a time ends near one. A failure halves it.
///
/// Pure: no clock, no task.
#[derive(Debug)]
pub struct Pace {
    bounds: (usize, usize),
    limit: usize,
    phase: Phase,
    climb: Climb,
    /// The largest ramp round in which no call waited for another: its calls and what it reached.
    unqueued: Option<(usize, f64)>,
    round: Round,
    in_flight: usize,
}

/// Which round a call was started in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket(u64);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Growing fast; what the round before reached, where there was one.
    Ramp { before: Option<(usize, f64)> },
    /// At the best known concurrency, for `rounds` more rounds.
    Steady { rounds: u32 },
    /// Trying another concurrency beside `base`.
    Trial { base: usize },
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

#[derive(Debug)]
struct Round {
    number: u64,
    /// Whether calls of the round before may still be in flight, so that nothing is measured yet.
    warming_up: bool,
    /// How many calls are to end before the round, or its warming up, can be over.
    left: usize,
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
        self.last = Some(now);
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

/// What makes another ramp round worth it: eight times the calls, at least this much more done.
const RAMP_FACTOR: usize = 8;
const RAMP_GAIN: f64 = 1.25;
/// Which share of the gain that more calls could bring must be there for them not to wait for each other.
const UNQUEUED: f64 = 0.75;
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
        let mut pace = Self {
            bounds: (low, bounds.1.max(low)),
            limit: low,
            phase: Phase::Ramp { before: None },
            climb: Climb::new(),
            unqueued: None,
            round: Round {
                number: 0,
                warming_up: false,
                left: 0,
                window: Window::default(),
            },
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

    /// Takes note that a call is started.
    pub fn started(&mut self, now: Instant) -> Ticket {
        self.in_flight += 1;
        if !self.round.warming_up {
            self.round.window.began.get_or_insert(now);
        }
        Ticket(self.round.number)
    }

    /// Takes note that a call ended with the peer having done its work. `busy`: there was always another one to start.
    pub fn finished(&mut self, ticket: Ticket, now: Instant, busy: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if !busy {
            return self.ended_unfed(now);
        }
        match self.phase {
            Phase::Ramp { .. } => self.ended_in_ramp(ticket, now),
            _ => self.ended_in_round(now),
        }
    }

    /// A ramp has no time for waves: its round is over when the calls it added have ended.
    fn ended_in_ramp(&mut self, ticket: Ticket, now: Instant) {
        if self.round.warming_up {
            return self.measure_since(Some(now));
        }
        self.round.window.count(now);
        if ticket.0 == self.round.number {
            self.round.left = self.round.left.saturating_sub(1);
        }
        if self.round.left == 0 {
            self.judge(self.round.window.rate());
            self.begin_round(None);
        }
    }

    /// What is measured without enough to do says nothing, except how the last calls of a ramp went when they are over.
    fn ended_unfed(&mut self, now: Instant) {
        if let Phase::Ramp { before: Some(best) } = self.phase {
            self.round.window.count(now);
            if self.in_flight > 0 {
                return;
            }
            let rate = self.round.window.rate();
            if rate < best.1 * RAMP_GAIN {
                self.end_ramp(best, rate.max(best.1));
            }
        }
        self.begin_round(None);
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
        if ticket.0 == self.round.number {
            self.settle_at(self.limit / 2);
            self.climb = Climb::new();
            self.begin_round(None);
        }
    }

    /// Takes note that a call ended without telling anything about the peer's speed.
    pub fn abandoned(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Begins anew: the peer was away and may have changed.
    pub fn reset(&mut self) {
        self.limit = self.bounds.0;
        self.phase = Phase::Ramp { before: None };
        self.climb = Climb::new();
        self.unqueued = None;
        self.begin_round(None);
    }

    /// Begins a round; `goes_on` when nothing changed, so that measuring goes on from that instant.
    fn begin_round(&mut self, goes_on: Option<Instant>) {
        self.round.number += 1;
        let first = self.phase == Phase::Ramp { before: None };
        let ramp = matches!(self.phase, Phase::Ramp { .. });
        if (ramp && !first) || goes_on.is_some() {
            return self.measure_since(goes_on);
        }
        // What is in flight at a change ends at the old pace, and the first call of all pays for the connection.
        self.round.warming_up = true;
        self.round.left = self.in_flight.max(self.limit);
        self.round.window = Window::default();
    }

    fn measure_since(&mut self, began: Option<Instant>) {
        self.round.warming_up = false;
        self.round.window = Window::since(began);
        self.round.left = match self.phase {
            Phase::Ramp { .. } => self.limit.saturating_sub(self.in_flight).max(1),
            _ => (2 * self.limit).max(MIN_SAMPLE),
        };
    }

    fn judge(&mut self, rate: f64) {
        match self.phase {
            Phase::Ramp { before } => self.judge_ramp(rate, before),
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

    fn judge_ramp(&mut self, rate: f64, before: Option<(usize, f64)>) {
        let round = (self.limit, rate);
        let scaled = |(calls, reached): (usize, f64)| {
            let gain = self.limit as f64 / calls as f64;
            rate >= reached * gain * UNQUEUED
        };
        if self.unqueued.is_none_or(scaled) {
            self.unqueued = Some(round);
        }
        match before {
            Some(best) if rate < best.1 * RAMP_GAIN => self.end_ramp(best, rate.max(best.1)),
            _ if self.limit == self.bounds.1 => self.end_ramp(round, rate),
            _ if (self.limit * RAMP_FACTOR) as f64 > rate * LONGEST_WAIT => {
                self.end_ramp(round, rate);
            }
            _ => {
                self.phase = Phase::Ramp {
                    before: Some(round),
                };
                self.set(self.limit * RAMP_FACTOR);
            }
        }
    }

    /// Settles at as many calls as reach `rate` without waiting for each other. Where the first calls were not like the
    /// others that is off, so at no less than half of the round that was worth it.
    fn end_ramp(&mut self, worth: (usize, f64), rate: f64) {
        let (calls, reached) = self.unqueued.unwrap_or(worth);
        let needed = (rate / reached * calls as f64 * SPARE).ceil() as usize;
        self.climb.rate = Some(rate);
        self.climb.stride = STRIDE.0;
        self.settle_at(needed.clamp(worth.0.div_ceil(2), self.limit));
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
mod tests {
    use super::*;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    /// Sends `count` calls to a peer that does `capacity` at once, each `work` long, in simulated time; returns the time
    /// and the limits along the way.
    fn simulate(
        pace: &mut Pace,
        capacity: usize,
        count: usize,
        work: impl Fn(usize) -> u64,
    ) -> (Duration, Vec<usize>) {
        let origin = Instant::now();
        let at = |ms: u64| origin + Duration::from_millis(ms);
        let mut now = 0;
        let mut slots: BinaryHeap<Reverse<u64>> = (0..capacity).map(|_| Reverse(0)).collect();
        let mut flying: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
        let mut tickets = Vec::new();
        let mut limits = Vec::new();
        while limits.len() < count {
            while tickets.len() < count && flying.len() < pace.limit() {
                let Reverse(free) = slots.pop().expect("capacity is at least one");
                let end = free.max(now) + work(tickets.len());
                slots.push(Reverse(end));
                flying.push(Reverse((end, tickets.len())));
                tickets.push(pace.started(at(now)));
            }
            let Reverse((end, call)) = flying.pop().expect("something is in flight");
            now = end;
            pace.finished(tickets[call], at(now), tickets.len() < count);
            limits.push(pace.limit());
        }
        (Duration::from_millis(now), limits)
    }

    fn settled(limits: &[usize]) -> f64 {
        let tail = &limits[limits.len() / 2..];
        tail.iter().sum::<usize>() as f64 / tail.len() as f64
    }

    #[test]
    fn a_peer_that_takes_500_at_once_is_reached_in_a_few_rounds() {
        let mut pace = Pace::new((1, 512), None);
        let (time, limits) = simulate(&mut pace, 512, 500, |_| 100);
        assert!(time <= Duration::from_millis(500), "{time:?}");
        assert!(limits.iter().any(|limit| *limit >= 256));
    }

    #[test]
    fn a_peer_that_takes_8_at_once_is_kept_full_and_little_more() {
        let mut pace = Pace::new((1, 512), None);
        let (time, limits) = simulate(&mut pace, 8, 4_000, |_| 100);
        let ideal = Duration::from_millis(4_000 / 8 * 100);
        assert!(time.as_secs_f64() <= ideal.as_secs_f64() * 1.03, "{time:?}");
        let settled = settled(&limits);
        assert!((7.5..=12.0).contains(&settled), "{settled}");
    }

    #[test]
    fn any_capacity_is_met_at_once_and_a_known_one_without_looking_for_it() {
        for capacity in [2, 3, 5, 9, 20, 50, 100, 200, 400] {
            let rounds = 40;
            let ideal = 0.1 * f64::from(rounds);
            let calls = rounds as usize * capacity;
            let mut pace = Pace::new((1, 512), None);
            let (time, _) = simulate(&mut pace, capacity, calls, |_| 100);
            let ratio = time.as_secs_f64() / ideal;
            assert!(ratio <= 1.2, "{capacity}: {ratio}");
            let mut pace = Pace::new((1, 512), Some(capacity));
            let (time, limits) = simulate(&mut pace, capacity, calls, |_| 100);
            let ratio = time.as_secs_f64() / ideal;
            assert!(ratio <= 1.1, "{capacity}: {ratio}");
            assert!(limits.iter().all(|limit| *limit <= 2 * capacity));
        }
    }

    #[test]
    fn a_peer_that_works_on_one_call_at_a_time_gets_few() {
        let mut pace = Pace::new((1, 512), None);
        let (time, limits) = simulate(&mut pace, 1, 2_000, |_| 300);
        assert_eq!(time, Duration::from_secs(600));
        assert!(settled(&limits) <= 2.0, "{}", settled(&limits));
        assert!(limits.iter().all(|limit| *limit <= 8));
    }

    #[test]
    fn a_slow_peer_is_never_given_so_many_that_calls_would_time_out() {
        let mut pace = Pace::new((1, 512), None);
        let (_, limits) = simulate(&mut pace, 512, 2_000, |_| 20_000);
        assert!(
            limits[..20].iter().all(|limit| *limit <= 4),
            "{:?}",
            &limits[..20]
        );
        let mut pace = Pace::new((1, 512), None);
        let (_, limits) = simulate(&mut pace, 1, 200, |call| if call < 4 { 100 } else { 4_000 });
        assert!(limits.iter().all(|limit| *limit <= 64));
    }

    #[test]
    fn calls_of_very_different_sizes_do_not_lead_it_astray() {
        let mut pace = Pace::new((1, 512), None);
        let work = |call: usize| [10, 900, 40, 300, 120, 700][call * 7 % 6];
        let (time, _) = simulate(&mut pace, 8, 4_000, work);
        let total: u64 = (0..4_000).map(work).sum();
        let ideal = Duration::from_millis(total / 8);
        assert!(
            time.as_secs_f64() <= ideal.as_secs_f64() * 1.25,
            "{time:?} of {ideal:?}"
        );
    }

    #[test]
    fn it_never_leaves_its_bounds_and_failures_halve_it_once_a_round() {
        let mut pace = Pace::new((1, 100), None);
        let (_, limits) = simulate(&mut pace, 1_000, 3_000, |_| 100);
        assert!(limits.iter().all(|limit| (1..=100).contains(limit)));
        let before = pace.limit();
        let tickets: Vec<_> = (0..10).map(|_| pace.started(Instant::now())).collect();
        for ticket in tickets {
            pace.failed(ticket);
        }
        assert_eq!(pace.limit(), before / 2);
        pace.reset();
        assert_eq!(pace.limit(), 1);
    }

    #[test]
    fn too_little_to_do_teaches_nothing() {
        let mut pace = Pace::new((1, 512), None);
        let now = Instant::now();
        for step in 0..50 {
            let ticket = pace.started(now);
            pace.finished(ticket, now + Duration::from_millis(step), false);
        }
        assert_eq!(pace.limit(), 1);
    }
}
