//! Delivery under a paused clock, over a peer and an outbox in memory.

use super::*;
use crate::mcp_client::{ClientError, NotSent, Unclear};
use crate::model::{Memory, MemoryKind, OutboxEntry};
use crate::orchestrator::delivery::DeliveryStatus;
use crate::session_buddy::{Marker, Outgoing, Stored};
use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant as TokioInstant;
use tokio_util::sync::CancellationToken;

#[derive(Clone)]
struct Row {
    entry: OutboxEntry,
    due: TokioInstant,
    resting: bool,
    leased: bool,
}

#[derive(Default)]
struct Book {
    rows: BTreeMap<MemoryId, Row>,
    acked: Vec<MemoryId>,
    dead: Vec<(MemoryId, String)>,
    rests: Vec<Duration>,
    /// How many each call gave back.
    given_back: Vec<usize>,
}

#[derive(Clone, Default)]
struct MemoryOutbox(Arc<Mutex<Book>>);

impl MemoryOutbox {
    fn with(count: usize) -> Self {
        let outbox = Self::default();
        for n in 0..count {
            outbox.add(n, false);
        }
        outbox
    }

    fn add(&self, n: usize, ask_first: bool) -> MemoryId {
        let memory = Memory {
            id: MemoryId::new(),
            kind: MemoryKind::Note,
            text: format!("memory {n}"),
            pool: "p".parse().expect("a pool name"),
            repo: None,
            workflow: None,
            item: None,
            attempt: None,
            worker: None,
            commit: None,
            source: "remember".to_owned(),
            tags: Vec::new(),
            created_at: At::now(),
            aggregated: true,
        };
        let id = memory.id;
        let entry = OutboxEntry {
            memory,
            ask_first,
            attempts: 0,
        };
        let row = Row {
            entry,
            due: TokioInstant::now(),
            resting: false,
            leased: false,
        };
        self.book().rows.insert(id, row);
        id
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.0.lock().expect("no test panics with the lock")
    }
}

impl Outbox for MemoryOutbox {
    async fn take(&self, limit: u32) -> Result<Vec<OutboxEntry>, Problem> {
        let now = TokioInstant::now();
        let mut book = self.book();
        let free = book.rows.values_mut().filter(|row| !row.leased);
        let mut due: Vec<_> = free.filter(|row| row.due <= now).collect();
        // As the store does.
        due.sort_by_key(|row| row.due);
        Ok(due
            .into_iter()
            .take(limit as usize)
            .map(|row| {
                row.leased = true;
                row.entry.clone()
            })
            .collect())
    }

    async fn next_due(&self) -> Result<Option<Duration>, Problem> {
        let now = TokioInstant::now();
        let book = self.book();
        let open = book.rows.values().filter(|row| !row.leased);
        Ok(open.map(|row| row.due.saturating_duration_since(now)).min())
    }

    async fn ack(&self, ids: Vec<MemoryId>) -> Result<(), Problem> {
        let mut book = self.book();
        for id in ids {
            assert!(book.rows.remove(&id).is_some_and(|row| row.leased));
            book.acked.push(id);
        }
        Ok(())
    }

    async fn fail(&self, id: MemoryId, why: Undelivered) -> Result<(), Problem> {
        let mut book = self.book();
        if let Undelivered::Rest(rest, _) = &why {
            book.rests.push(*rest);
        }
        let row = book.rows.get_mut(&id).expect("the entry was leased");
        assert!(row.leased);
        row.leased = false;
        match why {
            Undelivered::Rest(rest, _) => {
                row.due = TokioInstant::now() + rest;
                row.resting = true;
                row.entry.ask_first = true;
            }
            Undelivered::Retry(wait, _) => row.due = TokioInstant::now() + wait,
            Undelivered::Dead(error) => {
                book.rows.remove(&id);
                book.dead.push((id, error));
            }
        }
        Ok(())
    }

    async fn give_back(&self, ids: Vec<MemoryId>) -> Result<(), Problem> {
        let now = TokioInstant::now();
        let mut book = self.book();
        book.given_back.push(ids.len());
        for id in ids {
            let row = book.rows.get_mut(&id).expect("the entry was leased");
            assert!(row.leased);
            row.leased = false;
            row.due = now;
        }
        Ok(())
    }

    async fn wake(&self) -> Result<(), Problem> {
        let now = TokioInstant::now();
        for row in self.book().rows.values_mut().filter(|row| row.resting) {
            row.due = now;
        }
        Ok(())
    }
}

/// What the peer does with a store.
#[derive(Clone, Copy, PartialEq)]
enum Act {
    Store,
    StoreSilently,
    LoseUnstored,
    Refuse,
    RefuseForGood,
    Down,
    Locked,
    NotABuddy,
    Hang,
    Panic,
}

type Plan = Arc<dyn Fn(u64, &str) -> Act + Send + Sync>;

#[derive(Clone)]
struct FakePeer {
    plan: Plan,
    room: Arc<Semaphore>,
    work: Duration,
    has: Arc<Mutex<Vec<MemoryId>>>,
    stores: Arc<AtomicU64>,
    questions: Arc<AtomicU64>,
    /// How many questions it does not understand at first.
    refused_questions: u64,
    restarts: Arc<AtomicU64>,
    most: Arc<AtomicUsize>,
    now_in: Arc<AtomicUsize>,
}

impl FakePeer {
    fn new(capacity: usize, plan: impl Fn(u64, &str) -> Act + Send + Sync + 'static) -> Self {
        Self {
            plan: Arc::new(plan),
            room: Arc::new(Semaphore::new(capacity)),
            work: Duration::from_millis(100),
            has: Arc::default(),
            stores: Arc::default(),
            questions: Arc::default(),
            refused_questions: 0,
            restarts: Arc::default(),
            most: Arc::default(),
            now_in: Arc::default(),
        }
    }

    fn has(&self) -> Vec<MemoryId> {
        self.has
            .lock()
            .expect("no test panics with the lock")
            .clone()
    }

    fn assert_holds_each_once(&self, count: usize) {
        let has = self.has();
        let distinct: HashSet<_> = has.iter().collect();
        assert_eq!((has.len(), distinct.len()), (count, count));
    }

    async fn work(&self, item: &Outgoing) -> Result<Stored, PeerError> {
        let call = self.stores.fetch_add(1, Ordering::SeqCst);
        let act = (self.plan)(call, &item.text);
        if act == Act::Down {
            return Err(down());
        }
        let _room = self.room.acquire().await.expect("never closed");
        tokio::time::sleep(self.work).await;
        if matches!(act, Act::Store | Act::StoreSilently) {
            self.has.lock().expect("no panic").push(item.marker.id);
        }
        match act {
            Act::Store => Ok(Stored {
                peer_id: None,
                cut: false,
            }),
            Act::StoreSilently | Act::LoseUnstored => Err(unclear()),
            Act::Refuse => Err(PeerError::Retry("not now".into())),
            Act::RefuseForGood => Err(PeerError::Permanent("never".into())),
            Act::Locked => Err(PeerError::Locked("held".into())),
            Act::NotABuddy => Err(PeerError::NotSessionBuddy("other tools".into())),
            Act::Hang => std::future::pending().await,
            Act::Panic => panic!("a defect"),
            Act::Down => Err(down()),
        }
    }
}

fn down() -> PeerError {
    PeerError::Down(ClientError::NotSent {
        peer: "fake".into(),
        cause: NotSent::Connect("refused".into()),
    })
}

fn unclear() -> PeerError {
    PeerError::Unclear(ClientError::Unclear {
        peer: "fake".into(),
        what: "store".into(),
        cause: Unclear::Broken("cut".into()),
    })
}

impl Peer for FakePeer {
    async fn store(&self, item: Outgoing, _: Instant) -> Result<Stored, PeerError> {
        let inside = self.now_in.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        let result = self.work(&item).await;
        self.now_in.fetch_sub(1, Ordering::SeqCst);
        result
    }

    async fn is_there(&self, marker: Marker, _: Instant) -> Result<bool, PeerError> {
        if self.questions.fetch_add(1, Ordering::SeqCst) < self.refused_questions {
            return Err(PeerError::Permanent("unknown argument".into()));
        }
        Ok(self.has().contains(&marker.id))
    }

    fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::SeqCst)
    }
}

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
    let slowest = Duration::ZERO;
    let delivery = Delivery::new(
        outbox.clone(),
        peer.clone(),
        settings,
        link.clone(),
        slowest,
    );
    let mut tasks = JoinSet::new();
    tasks.spawn(delivery.run());
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
    for (capacity, slack) in [(1, 1.01), (8, 1.15), (500, 8.0)] {
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
    assert!((1..=4).contains(&leased), "{leased}");
    assert_eq!(book.rows.len(), 9);
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
