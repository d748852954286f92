//! The pace in simulated time.

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
fn a_peer_that_takes_500_at_once_is_reached_in_two_rounds() {
    let mut pace = Pace::new((1, 512), None);
    pace.connected();
    let (time, limits) = simulate(&mut pace, 512, 500, |_| 100);
    assert_eq!(time, Duration::from_millis(300));
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
fn a_first_call_that_is_unusually_short_is_no_measure_of_the_others() {
    let work = |call: usize| [10, 900, 40, 300, 120, 700][call * 7 % 6];
    for (capacity, at_most) in [(8, 1.25), (50, 1.6), (500, 3.2)] {
        let mut pace = Pace::new((1, 512), None);
        pace.connected();
        let (time, _) = simulate(&mut pace, capacity, 500, work);
        let total: u64 = (0..500).map(work).sum();
        let ideal = (total as f64 / capacity as f64 / 1e3).max(0.9);
        let ratio = time.as_secs_f64() / ideal;
        assert!(ratio <= at_most, "{capacity}: {ratio}");
    }
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
fn too_little_to_do_teaches_only_how_long_a_call_takes() {
    let mut pace = Pace::new((1, 512), None);
    let now = Instant::now();
    for step in 0..50 {
        let ticket = pace.started(now);
        pace.finished(ticket, now + Duration::from_millis(step), false);
    }
    assert_eq!(pace.limit(), RAMP_FACTOR);
    assert_eq!(pace.found(), None);
}

#[test]
fn a_peer_that_is_full_at_once_is_not_idle_and_then_given_what_it_works_on() {
    for capacity in [8, 16, 30] {
        let mut pace = Pace::new((1, 512), None);
        pace.connected();
        let (time, limits) = simulate(&mut pace, capacity, 60 * capacity, |_| 100);
        // At best it takes 6 s; the first two rounds cannot fill the peer.
        assert!(time <= Duration::from_millis(6_300), "{capacity}: {time:?}");
        let found = capacity as f64 * SPARE;
        assert_eq!(limits[capacity * 5], found.ceil() as usize, "{capacity}");
    }
}

#[test]
fn a_ramp_waits_for_another_call_in_the_place_of_one_that_told_nothing() {
    let mut pace = Pace::new((1, 512), None);
    let began = Instant::now();
    let ended = began + Duration::from_millis(100);
    pace.connected();
    let told_nothing = pace.started(began);
    pace.abandoned(told_nothing);
    let alone = pace.started(began);
    pace.finished(alone, ended, true);
    assert_eq!(pace.limit(), RAMP_FACTOR);
    let mut tickets: Vec<_> = (0..RAMP_FACTOR).map(|_| pace.started(began)).collect();
    pace.abandoned(tickets.remove(0));
    tickets.push(pace.started(began));
    for ticket in tickets {
        assert_eq!(pace.limit(), RAMP_FACTOR);
        pace.finished(ticket, ended, true);
    }
    assert_eq!(pace.limit(), 512);
}

#[test]
fn a_single_long_call_does_not_end_a_ramp() {
    let mut pace = Pace::new((1, 512), None);
    pace.connected();
    simulate(&mut pace, 512, 1 + RAMP_FACTOR, |_| 100);
    assert_eq!(pace.limit(), 512);
    let now = Instant::now();
    let long = pace.started(now);
    pace.finished(long, now + Duration::from_millis(400), false);
    assert_eq!(pace.limit(), 512);
    assert_eq!(pace.found(), None);
}

#[test]
fn a_first_call_that_fails_does_not_end_the_ramp() {
    let mut pace = Pace::new((1, 512), None);
    pace.connected();
    let first = pace.started(Instant::now());
    pace.failed(first);
    simulate(&mut pace, 512, 1 + RAMP_FACTOR, |_| 100);
    assert_eq!(pace.limit(), 512);
}

#[test]
fn what_was_too_much_is_not_tried_again_by_a_later_ramp() {
    let mut pace = Pace::new((1, 512), None);
    pace.connected();
    simulate(&mut pace, 512, 1 + RAMP_FACTOR, |_| 100);
    let now = Instant::now();
    for most in [512, 64] {
        assert_eq!(pace.limit(), most);
        let ticket = pace.started(now);
        pace.failed(ticket);
        pace.reset();
        let before = pace.started(now);
        pace.reset();
        pace.finished(before, now, true);
        assert_eq!(pace.limit(), 1, "that it is back is not known");
        pace.connected();
        simulate(&mut pace, 512, 1 + RAMP_FACTOR, |_| 100);
    }
    assert_eq!(pace.limit(), 32);
}
