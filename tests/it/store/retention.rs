//! What a wrong clock may not delete.

use super::{open, prune};
use mahavishnu::model::{At, MemoryId, MemoryKind, NewMemory};
use mahavishnu::store::{Retention, Store};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const KEEP: Retention = Retention {
    workflows: None,
    outcomes: None,
    lessons_and_notes: Some(Duration::from_secs(90 * 24 * 60 * 60)),
};

async fn note(store: &Store) -> MemoryId {
    let pool = "local".parse().expect("a name");
    let note = NewMemory::new(MemoryKind::Note, "a note of today", pool, "remember");
    let stored = store.insert_memories(vec![note], None).await;
    stored.expect("stored").ids[0]
}

/// Looks as a server that starts at `now` does; returns how many memories that removed.
async fn start(store: &Store, now: At) -> u64 {
    store.prune(KEEP, now).await.expect("looked").memories
}

#[tokio::test]
async fn a_clock_ahead_for_some_starts_deletes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let id = note(&store).await;
    let today = At::now();
    for day in 0..5 {
        assert_eq!(start(&store, today.plus(DAY * day)).await, 0);
    }
    // Several servers at once, with a look on the next wrong day too.
    let ahead = today.plus(DAY * 400);
    for wrong in [ahead, ahead, ahead.plus(DAY)] {
        assert_eq!(start(&store, wrong).await, 0);
    }
    // The clock is right again, and wrong days do not add up.
    for day in 5..8 {
        assert_eq!(start(&store, today.plus(DAY * day)).await, 0);
        assert_eq!(start(&store, today.plus(DAY * (400 + day))).await, 0);
    }
    assert!(store.memory(id).await.expect("read").is_some());
}

#[tokio::test]
async fn a_clock_behind_deletes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    note(&store).await;
    for year in 1..6 {
        assert_eq!(
            start(&store, At::from_unix_ms(0).plus(DAY * 365 * year)).await,
            0
        );
    }
    assert_eq!(start(&store, At::now().plus(DAY * 400)).await, 0);
}

#[tokio::test]
async fn a_long_absence_only_delays_what_is_due() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let id = note(&store).await;
    let pruned = prune(&store, KEEP, At::now().plus(DAY * 400)).await;
    assert_eq!(pruned.memories, 1);
    assert_eq!(store.memory(id).await.expect("read"), None);
}
