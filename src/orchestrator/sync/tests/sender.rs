//! Delivery under a paused clock, over a peer and an outbox in memory.

#[path = "fakes.rs"]
mod fakes;

use super::*;
use crate::orchestrator::sync::status::DeliveryStatus;
use fakes::{Act, FakePeer, MemoryOutbox};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, watch};
use tokio::time::Instant as TokioInstant;
use tokio_util::sync::CancellationToken;

/// A running delivery; stopped and joined by `stop`.
struct Running {
    link: Link,
    tasks: JoinSet<Result<(), Problem>>,
}

fn start(outbox: &MemoryOutbox, peer: &FakePeer) -> Running {
    let (status, _) = watch::channel(DeliveryStatus::default());
    let link = Link {
        enqueued: Arc::new(Notify::new()),
        stop: CancellationToken::new(),
        status: Arc::new(status),
    };
    let settings = DeliverySettings {
        seed: 1,
        ..DeliverySettings::default()
    };
    let unknown = SenderState::default();
    let sender = Sender::new(
        outbox.clone(),
        peer.clone(),
        settings,
        link.clone(),
        &unknown,
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(sender.run());
    Running { link, tasks }
}

impl Running {
    async fn stop(mut self) {
        self.link.stop.cancel();
        let ended = self.tasks.join_next().await.expect("it runs");
        ended.expect("no panic").expect("the outbox works");
    }
}

/// Waits until nothing is left to send; returns how long it took.
async fn emptied(outbox: &MemoryOutbox) -> Duration {
    let began = TokioInstant::now();
    let empty = async {
        while !outbox.book().rows.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let limit = Duration::from_secs(24 * 3600);
    tokio::time::timeout(limit, empty)
        .await
        .expect("it empties");
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn every_memory_arrives_once_at_nearly_the_peers_best_rate() {
    for (capacity, slack) in [(1, 1.01), (8, 1.02), (500, 4.1)] {
        let outbox = MemoryOutbox::with(500);
        let peer = FakePeer::new(capacity, |_, _| Act::Store);
        let running = start(&outbox, &peer);
        let took = emptied(&outbox).await;
        running.stop().await;
        peer.assert_holds_each_once(500);
        let ideal = Duration::from_millis(100)
            * u32::try_from(500_usize.div_ceil(capacity)).expect("small");
        eprintln!(
            "c = {capacity}: {took:?}, at best {ideal:?}, most in flight {}",
            peer.most.load(Ordering::SeqCst)
        );
        assert!(
            took <= ideal.mul_f64(slack),
            "c = {capacity}: {took:?} of {ideal:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_refuses_what_is_too_much_gets_less_and_then_everything() {
    for most in [3, 10, 50, 200] {
        let outbox = MemoryOutbox::with(2_000);
        let mut peer = FakePeer::new(most, |_, _| Act::Store);
        peer.most_taken_in = most;
        let running = start(&outbox, &peer);
        let took = emptied(&outbox).await;
        running.stop().await;
        let ideal = Duration::from_secs(200) / u32::try_from(most).expect("small");
        let limit = ideal * 2 + Duration::from_secs(5);
        assert!(took <= limit, "{most}: {took:?} of {ideal:?}");
        assert!(outbox.book().dead.is_empty());
        peer.assert_holds_each_once(2_000);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unclear_store_rests_is_asked_for_and_is_never_doubled() {
    let outbox = MemoryOutbox::with(60);
    let peer = FakePeer::new(4, |call, _| match call % 7 {
        3 => Act::StoreSilently,
        5 => Act::LoseUnstored,
        _ => Act::Store,
    });
    let running = start(&outbox, &peer);
    let took = emptied(&outbox).await;
    running.stop().await;
    peer.assert_holds_each_once(60);
    assert!(took >= Duration::from_secs(30), "{took:?}");
    let rests = outbox.book().rests.clone();
    assert!(!rests.is_empty() && rests.iter().all(|rest| *rest >= Duration::from_secs(30)));
    assert!(peer.questions.load(Ordering::SeqCst) >= rests.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_rest_is_twice_the_slowest_store_where_that_is_longer() {
    let outbox = MemoryOutbox::with(2);
    let mut peer = FakePeer::new(1, |call, _| {
        if call == 1 {
            Act::StoreSilently
        } else {
            Act::Store
        }
    });
    peer.work = Duration::from_secs(25);
    let running = start(&outbox, &peer);
    emptied(&outbox).await;
    running.stop().await;
    assert_eq!(outbox.book().rests, [Duration::from_secs(50)]);
    peer.assert_holds_each_once(2);
}

#[tokio::test(start_paused = true)]
async fn the_peers_restart_ends_the_rests() {
    let outbox = MemoryOutbox::with(12);
    let peer = FakePeer::new(1, |call, _| {
        if call == 2 {
            Act::LoseUnstored
        } else {
            Act::Store
        }
    });
    let restarts = Arc::clone(&peer.restarts);
    let running = start(&outbox, &peer);
    while outbox.book().rests.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    restarts.fetch_add(1, Ordering::SeqCst);
    let took = emptied(&outbox).await;
    running.stop().await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    peer.assert_holds_each_once(12);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_down_gets_probes_only_and_everything_once_it_is_back() {
    for act in [Act::Down, Act::Locked, Act::NotABuddy, Act::Refuse] {
        let outbox = MemoryOutbox::with(100);
        let back = TokioInstant::now() + Duration::from_secs(600);
        let peer = FakePeer::new(8, move |_, _| {
            if TokioInstant::now() < back {
                act
            } else {
                Act::Store
            }
        });
        let running = start(&outbox, &peer);
        tokio::time::sleep_until(back).await;
        let while_down = peer.stores.load(Ordering::SeqCst);
        // 0.5 s doubling to 30 s, half of it at least: under 60 probes in ten minutes.
        assert!((5..=60).contains(&while_down), "{while_down}");
        assert!(running.link.status.borrow().down_since.is_some());
        let took = emptied(&outbox).await;
        assert!(took <= Duration::from_secs(40), "{took:?}");
        assert_eq!(running.link.status.borrow().down_since, None);
        running.stop().await;
        peer.assert_holds_each_once(100);
        assert!(outbox.book().dead.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_peer_never_takes_becomes_a_dead_letter_and_holds_nothing_up() {
    let outbox = MemoryOutbox::with(50);
    let peer = FakePeer::new(4, |_, text| {
        if text.ends_with('7') {
            Act::RefuseForGood
        } else {
            Act::Store
        }
    });
    let running = start(&outbox, &peer);
    let took = emptied(&outbox).await;
    running.stop().await;
    peer.assert_holds_each_once(45);
    let dead = outbox.book().dead.clone();
    assert_eq!(dead.len(), 5);
    assert!(
        dead.iter().all(|(_, error)| error.contains("never")),
        "{dead:?}"
    );
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_while_others_are_taken_becomes_a_dead_letter_in_the_end() {
    let outbox = MemoryOutbox::with(20);
    let peer = FakePeer::new(4, |_, text| {
        if text == "memory 3" {
            Act::Refuse
        } else {
            Act::Store
        }
    });
    let running = start(&outbox, &peer);
    // Alone it is never given up: the peer may be what is wrong.
    tokio::time::sleep(Duration::from_secs(12 * 3600)).await;
    assert_eq!(peer.has().len(), 19);
    assert!(outbox.book().dead.is_empty());
    assert!(running.link.status.borrow().error.is_some());
    let mut others = 20;
    while outbox.book().dead.is_empty() {
        assert!(others < 40, "the peer takes everything else");
        outbox.add(others, false);
        running.link.enqueued.notify_one();
        others += 1;
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
    running.stop().await;
    peer.assert_holds_each_once(others - 1);
    assert!(others >= 30, "not after a few refusals: {others}");
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_sender_left_is_asked_for_first() {
    let outbox = MemoryOutbox::default();
    let there = outbox.add(0, true);
    outbox.add(1, true);
    let peer = FakePeer::new(1, |_, _| Act::Store);
    peer.has.lock().expect("no panic").push(there);
    let running = start(&outbox, &peer);
    emptied(&outbox).await;
    let status = running.link.status.borrow().clone();
    assert_eq!((status.already_there, status.delivered), (1, 1));
    running.stop().await;
    peer.assert_holds_each_once(2);
    assert_eq!(peer.questions.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn stopping_lets_calls_end_within_the_drain_time_and_gives_the_rest_back() {
    let outbox = MemoryOutbox::with(10);
    let peer = FakePeer::new(4, |call, _| if call == 0 { Act::Store } else { Act::Hang });
    let running = start(&outbox, &peer);
    while outbox.book().acked.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let began = TokioInstant::now();
    running.stop().await;
    assert!(began.elapsed() <= Duration::from_millis(1_200));
    let book = outbox.book();
    assert_eq!(
        book.given_back.len(),
        1,
        "in one step, before the calls end"
    );
    let leased = book.rows.values().filter(|row| row.leased).count();
    // What hangs stays leased, so that the next sender asks for it; what was never sent is free again.
    let hang = peer.now_in.load(Ordering::SeqCst);
    assert!(hang >= 1);
    assert_eq!(leased, hang);
    assert_eq!(book.rows.len(), 9);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_before_the_connection_is_made() {
    let outbox = MemoryOutbox::with(500);
    let refused = Arc::new(AtomicU64::new(2));
    let still = Arc::clone(&refused);
    let mut peer = FakePeer::new(500, move |_, _| match still.load(Ordering::SeqCst) {
        0 => Act::Store,
        _ => Act::RefuseForGood,
    });
    peer.refused_connections = refused;
    let running = start(&outbox, &peer);
    let took = emptied(&outbox).await;
    running.stop().await;
    assert!(took <= Duration::from_millis(1_000), "{took:?}");
    assert!(outbox.book().dead.is_empty());
    peer.assert_holds_each_once(500);
}

#[tokio::test(start_paused = true)]
async fn stopping_while_a_peer_is_connected_to_sends_nothing_and_gives_everything_back() {
    let outbox = MemoryOutbox::with(10);
    let mut peer = FakePeer::new(1, |_, _| Act::Store);
    peer.never_connects = true;
    let running = start(&outbox, &peer);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(outbox.book().rows.values().any(|row| row.leased));
    running.stop().await;
    assert_eq!(peer.stores.load(Ordering::SeqCst), 0);
    assert!(outbox.book().rows.values().all(|row| !row.leased));
}

#[tokio::test(start_paused = true)]
async fn what_is_enqueued_later_is_sent_at_once() {
    let outbox = MemoryOutbox::default();
    let peer = FakePeer::new(1, |_, _| Act::Store);
    let running = start(&outbox, &peer);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    outbox.add(0, false);
    running.link.enqueued.notify_one();
    assert!(emptied(&outbox).await < Duration::from_secs(1));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_ends_while_stopping_is_noted_at_once() {
    let outbox = MemoryOutbox::with(20);
    let mut peer = FakePeer::new(1, |call, _| if call < 9 { Act::Store } else { Act::Hang });
    peer.work = Duration::from_millis(400);
    let running = start(&outbox, &peer);
    while outbox.book().acked.len() < 8 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.link.stop.cancel();
    // Well before the last call, which hangs, is given up.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(outbox.book().acked.len(), 9);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_is_unclear_and_everything_arrives_all_the_same() {
    for first in [0, 2] {
        let outbox = MemoryOutbox::with(20);
        let peer = FakePeer::new(2, move |call, _| match call {
            call if call < first => Act::Store,
            call if call < first + 4 => Act::Panic,
            _ => Act::Store,
        });
        let running = start(&outbox, &peer);
        emptied(&outbox).await;
        running.stop().await;
        peer.assert_holds_each_once(20);
        assert!(outbox.book().rests.len() >= 4);
        assert!(outbox.book().dead.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_refused_makes_no_dead_letter() {
    let outbox = MemoryOutbox::default();
    outbox.add(0, true);
    let mut peer = FakePeer::new(1, |_, _| Act::Store);
    peer.refused_questions = 20;
    let running = start(&outbox, &peer);
    emptied(&outbox).await;
    running.stop().await;
    peer.assert_holds_each_once(1);
    assert!(outbox.book().dead.is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_always_refused_does_not_keep_the_others_from_being_tried() {
    let outbox = MemoryOutbox::with(1);
    let back = TokioInstant::now() + Duration::from_secs(600);
    let peer = FakePeer::new(1, move |_, text| {
        if text == "memory 0" || TokioInstant::now() < back {
            Act::Refuse
        } else {
            Act::Store
        }
    });
    let running = start(&outbox, &peer);
    tokio::time::sleep(Duration::from_secs(300)).await;
    let down = running.link.status.borrow().down_since;
    assert!(down.is_some(), "it takes nothing");
    for n in 1..40 {
        outbox.add(n, false);
    }
    tokio::time::sleep_until(back + Duration::from_secs(120)).await;
    assert_eq!(outbox.book().rows.len(), 1);
    running.stop().await;
    peer.assert_holds_each_once(39);
}

#[tokio::test(start_paused = true)]
async fn a_store_without_an_answer_counts_as_slow() {
    let outbox = MemoryOutbox::with(2);
    let mut peer = FakePeer::new(1, |call, _| match call {
        0 => Act::StoreSilently,
        _ => Act::Store,
    });
    peer.work = Duration::from_secs(40);
    let running = start(&outbox, &peer);
    emptied(&outbox).await;
    assert_eq!(outbox.book().rests, [Duration::from_secs(80)]);
    assert!(running.link.status.borrow().slowest >= Duration::from_secs(39));
    running.stop().await;
    peer.assert_holds_each_once(2);
}

#[test]
fn what_a_dead_sender_left_rests_as_long_as_its_calls_may_take() {
    let settings = DeliverySettings::default();
    for (slowest, rest) in [(0, 60), (2, 30), (40, 80)] {
        let rested = settings.rest_after_death(Duration::from_secs(slowest));
        assert_eq!(rested, Duration::from_secs(rest), "{slowest}");
    }
}
