//! From the real store to the real Session-Buddy: everything arrives, whatever happens to the peer.

use super::real::{self, Profile, Server};
use crate::support::say;
use mahavishnu::model::{MemoryKind, NewMemory, PeerName};
use mahavishnu::orchestrator::sync::{DeliverySettings, DeliveryStatus, Forwarder, Link};
use mahavishnu::redact::redact;
use mahavishnu::session_buddy::SessionBuddy;
use mahavishnu::store::{Durability, Store, StoreOptions};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(super) fn peer() -> PeerName {
    PeerName::new("session-buddy")
}

pub(super) fn open(dir: &Path) -> Store {
    Store::open(StoreOptions {
        dir: dir.to_owned(),
        durability: Durability::Normal,
    })
    .expect("the folder is writable")
}

pub(super) fn forwarder(store: &Store, buddy: SessionBuddy) -> Forwarder {
    Forwarder {
        store: store.clone(),
        peer: peer(),
        buddy,
        settings: DeliverySettings {
            // The peer's death is certain here, so nothing is gained by a long rest.
            unclear_rest: Duration::from_secs(3),
            ..DeliverySettings::default()
        },
        link: Link {
            enqueued: Arc::new(Notify::new()),
            stop: CancellationToken::new(),
            status: Arc::new(watch::channel(DeliveryStatus::default()).0),
        },
    }
}

pub(super) fn memories(count: usize) -> Vec<NewMemory> {
    let text = |n| format!("dunnart {n}: {}", "what was learned of it. ".repeat(20));
    (0..count)
        .map(|n| {
            let pool = "it".parse().expect("a pool name");
            NewMemory::new(MemoryKind::Note, redact(&text(n)), pool, "remember")
        })
        .collect()
}

async fn acked(store: &Store) -> u64 {
    store
        .outbox_counts(peer())
        .await
        .expect("the store works")
        .acked
}

pub(super) async fn wait_for_acked(store: &Store, count: u64) {
    let deadline = Instant::now() + Duration::from_secs(300);
    while acked(store).await < count {
        let counts = store.outbox_counts(peer()).await;
        assert!(Instant::now() < deadline, "{counts:?} of {count}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn everything_arrives_once_although_the_peer_is_killed() {
    for profile in Profile::BOTH {
        if real::venv().is_none() {
            return real::skipped("everything_arrives_once_although_the_peer_is_killed");
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let home = tempfile::tempdir().expect("a temporary folder");
        let mut server = Server::start(profile, home.path());
        let store = open(folder.path());
        let forwarder = forwarder(&store, real::buddy(server.port()));
        let mut tasks = JoinSet::new();
        let sender = forwarder.clone();
        tasks.spawn(async move { sender.run().await });
        store
            .insert_memories(memories(30), Some(peer()))
            .await
            .expect("they are stored");
        forwarder.link.enqueued.notify_one();
        for kill_at in [6, 15] {
            wait_for_acked(&store, kill_at).await;
            server.kill();
            server.restart();
        }
        wait_for_acked(&store, 30).await;
        let found = forwarder
            .reconcile(real::soon())
            .await
            .expect("the peer answers");
        assert_eq!(found.checked, 30);
        assert!(found.is_clean(), "{found:?}");
        forwarder.link.stop.cancel();
        tasks
            .join_next()
            .await
            .expect("it ran")
            .expect("it did not panic");
        store.close().await;
    }
}

#[tokio::test]
async fn what_the_peer_lost_is_found_and_sent_again() {
    if real::venv().is_none() {
        return real::skipped("what_the_peer_lost_is_found_and_sent_again");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = open(folder.path());
    let inserted = store
        .insert_memories(memories(5), Some(peer()))
        .await
        .expect("they are stored");
    // A peer that acknowledged everything and then came back empty.
    let taken = store
        .take_outbox(peer(), 100)
        .await
        .expect("the store works");
    assert_eq!(taken.len(), 5);
    store
        .ack_outbox(peer(), inserted.ids)
        .await
        .expect("the store works");
    let server = real::shared(Profile::Full).expect("installed");
    let forwarder = forwarder(&store, real::buddy(server.port()));
    let found = forwarder
        .reconcile(real::soon())
        .await
        .expect("the peer answers");
    assert_eq!((found.checked, found.lost), (5, 5));
    let mut tasks = JoinSet::new();
    let sender = forwarder.clone();
    tasks.spawn(async move { sender.run().await });
    wait_for_acked(&store, 5).await;
    let found = forwarder
        .reconcile(real::soon())
        .await
        .expect("the peer answers");
    assert!(found.is_clean(), "{found:?}");
    forwarder.link.stop.cancel();
    tasks
        .join_next()
        .await
        .expect("it ran")
        .expect("it did not panic");
    store.close().await;
}

#[tokio::test]
async fn forwarding_keeps_up_with_a_bare_loop() {
    for (profile, count) in [(Profile::Default, 30), (Profile::Full, 400)] {
        let Some(server) = real::shared(profile) else {
            return real::skipped("forwarding_keeps_up_with_a_bare_loop");
        };
        let buddy = real::buddy(server.port());
        buddy.probe(real::soon()).await.expect("it answers");
        let batch = memories(count);
        let mut bare = 0.0_f64;
        for at_once in [1, 4, 16] {
            bare = bare.max(bare_rate(&buddy, &batch, at_once).await);
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = open(folder.path());
        store
            .insert_memories(batch, Some(peer()))
            .await
            .expect("they are stored");
        let forwarder = forwarder(&store, buddy);
        let mut tasks = JoinSet::new();
        let sender = forwarder.clone();
        let began = Instant::now();
        tasks.spawn(async move { sender.run().await });
        wait_for_acked(&store, count as u64).await;
        let ours = count as f64 / began.elapsed().as_secs_f64();
        let limit = forwarder.link.status.borrow().limit;
        say(&format!(
            "MEASURED: {profile:?}: forwarding {ours:.1}/s, best bare loop {bare:.1}/s, {limit} in flight at the end"
        ));
        forwarder.link.stop.cancel();
        tasks
            .join_next()
            .await
            .expect("it ran")
            .expect("it did not panic");
        store.close().await;
    }
}

/// Stores `batch` in a plain loop with `at_once` calls in flight; returns stores per second.
async fn bare_rate(buddy: &SessionBuddy, batch: &[NewMemory], at_once: usize) -> f64 {
    let began = Instant::now();
    let mut calls = JoinSet::new();
    for memory in batch {
        if calls.len() >= at_once {
            calls
                .join_next()
                .await
                .expect("one is in flight")
                .expect("no panic");
        }
        let (buddy, item) = (buddy.clone(), real::outgoing(&memory.text));
        calls.spawn(async move {
            buddy
                .store(&item, real::soon())
                .await
                .expect("it is stored");
        });
    }
    calls.join_all().await;
    let rate = batch.len() as f64 / began.elapsed().as_secs_f64();
    say(&format!(
        "MEASURED: bare loop, {at_once} at once: {rate:.1}/s"
    ));
    rate
}
