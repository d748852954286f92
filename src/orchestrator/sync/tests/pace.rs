//! The pace in simulated time.

use super::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

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

fn unknown() -> Pace {
    Pace::new((1, 512), None)
}

fn settled(limits: &[usize]) -> f64 {
    let tail = &limits[limits.len() / 2..];
    tail.iter().sum::<usize>() as f64 / tail.len() as f64
}

#[test]
fn a_peer_of_500_is_filled_in_four_rounds() {
    let (time, limits) = simulate(&mut unknown(), 512, 500, |_| 100);
    assert_eq!(time, Duration::from_millis(400));
    assert!(limits.iter().any(|limit| *limit >= 256));
}

#[test]
fn a_peer_of_8_is_kept_full_with_few_more_calls() {
    let (time, limits) = simulate(&mut unknown(), 8, 4_000, |_| 100);
    let ideal = Duration::from_millis(4_000 / 8 * 100);
    assert!(time.as_secs_f64() <= ideal.as_secs_f64() * 1.03, "{time:?}");
    let settled = settled(&limits);
    assert!((7.5..=15.0).contains(&settled), "{settled}");
}

#[test]
fn any_capacity_is_found_fast_and_a_known_one_faster() {
    for capacity in [2, 3, 5, 9, 20, 50, 100, 200, 400] {
        let rounds = 40;
        let ideal = 0.1 * f64::from(rounds);
        let calls = rounds as usize * capacity;
        let (time, _) = simulate(&mut unknown(), capacity, calls, |_| 100);
        let ratio = time.as_secs_f64() / ideal;
        assert!(ratio <= 1.15, "{capacity}: {ratio}");
        let mut pace = Pace::new((1, 512), Some(capacity));
        let (time, limits) = simulate(&mut pace, capacity, calls, |_| 100);
        let ratio = time.as_secs_f64() / ideal;
        assert!(ratio <= 1.1, "{capacity}: {ratio}");
        assert!(limits.iter().all(|limit| *limit <= 3 * capacity));
    }
}

#[test]
fn a_peer_that_works_on_one_call_at_a_time_gets_few() {
    let (time, limits) = simulate(&mut unknown(), 1, 2_000, |_| 300);
    assert_eq!(time, Duration::from_secs(600));
    assert!(settled(&limits) <= 2.0, "{}", settled(&limits));
    assert!(limits.iter().all(|limit| *limit <= 8));
}

#[test]
fn a_slow_peer_never_gets_so_many_that_calls_time_out() {
    let (_, limits) = simulate(&mut unknown(), 512, 2_000, |_| 20_000);
    assert!(limits[..20].iter().all(|limit| *limit <= 4));
    let (_, limits) = simulate(
        &mut unknown(),
        1,
        200,
        |call| {
            if call < 4 { 100 } else { 4_000 }
        },
    );
    assert!(limits.iter().all(|limit| *limit <= 8));
}

#[test]
fn calls_of_very_different_sizes_keep_the_peer_busy() {
    let work = |call: usize| [10, 900, 40, 300, 120, 700][call * 7 % 6];
    for (capacity, at_most) in [(1, 1.01), (8, 1.25), (50, 1.6)] {
        let calls = 500 * capacity;
        let (time, _) = simulate(&mut unknown(), capacity, calls, work);
        let total: u64 = (0..calls).map(work).sum();
        let ideal = Duration::from_millis(total / capacity as u64);
        assert!(
            time.as_secs_f64() <= ideal.as_secs_f64() * at_most,
            "{capacity}: {time:?} of {ideal:?}"
        );
    }
}

#[test]
fn a_peer_that_becomes_slower_keeps_its_calls() {
    let mut pace = unknown();
    simulate(&mut pace, 8, 1_000, |_| 100);
    let (time, limits) = simulate(&mut pace, 8, 2_000, |_| 300);
    let ideal = Duration::from_millis(2_000 / 8 * 300);
    assert!(time.as_secs_f64() <= ideal.as_secs_f64() * 1.05, "{time:?}");
    assert!(settled(&limits) >= 8.0, "{}", settled(&limits));
}

#[test]
fn it_stays_within_its_bounds_and_failures_halve_it_once_a_round() {
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
fn too_little_to_do_changes_nothing() {
    let mut pace = unknown();
    let now = Instant::now();
    for step in 0..50 {
        let ticket = pace.started(now);
        pace.finished(ticket, now + Duration::from_millis(step), false);
    }
    assert_eq!((pace.limit(), pace.found()), (1, None));
}

#[test]
fn one_long_call_alone_changes_nothing() {
    let mut pace = unknown();
    simulate(&mut pace, 512, 500, |_| 100);
    assert_eq!(pace.limit(), 512);
    let now = Instant::now();
    let long = pace.started(now);
    pace.finished(long, now + Duration::from_millis(400), false);
    assert_eq!(pace.limit(), 512);
}

#[test]
fn a_first_call_that_fails_does_not_end_fast_growth() {
    let mut pace = unknown();
    let first = pace.started(Instant::now());
    pace.failed(first);
    let (time, _) = simulate(&mut pace, 512, 500, |_| 100);
    assert_eq!(time, Duration::from_millis(400));
}

#[test]
fn fast_growth_after_a_reset_ends_at_the_last_good_limit() {
    let mut pace = unknown();
    simulate(&mut pace, 512, 500, |_| 100);
    for most in [512, 256] {
        assert_eq!(pace.limit(), most);
        let ticket = pace.started(Instant::now());
        pace.failed(ticket);
        pace.reset();
        assert_eq!(pace.limit(), 1);
        let (_, limits) = simulate(&mut pace, 512, 200, |_| 100);
        assert!(limits.iter().all(|limit| *limit <= most / 2), "{most}");
    }
}
