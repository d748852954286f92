//! The index has the words of all memories and no others, whoever writes and whatever dies.

use super::open;
use mahavishnu::model::{MemoryId, MemoryKind, MemoryQuery, NewMemory};
use mahavishnu::store::Store;
use std::path::Path;

/// Compares the index with the memories, word by word.
pub(super) fn assert_indexed(dir: &Path) {
    let db = rusqlite::Connection::open(dir.join("mahavishnu.db")).expect("opened");
    db.execute_batch("INSERT INTO memories_fts (memories_fts, rank) VALUES ('integrity-check', 1)")
        .expect("the index is that of the memories");
}

fn note(text: &str) -> NewMemory {
    let pool = "local".parse().expect("a name");
    NewMemory::new(MemoryKind::Note, super::clean(text), pool, "worker")
}

/// Returns how many of the first ten are found.
async fn found(store: &Store, text: &str) -> usize {
    let query = MemoryQuery {
        text: text.to_owned(),
        limit: 10,
        ..MemoryQuery::default()
    };
    let page = store.find_memories(query).await;
    page.expect("any text is a search").hits.len()
}

#[tokio::test]
async fn what_is_stored_and_forgotten_in_one_transaction_leaves_no_words() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let many = |text: &str| {
        let text = |n| format!("{text} {n}");
        (0..300).map(|n| note(&text(n))).collect::<Vec<_>>()
    };
    let id = MemoryId::new();
    let gone = NewMemory {
        marker: Some(id),
        ..note("ephemeral")
    };
    // The first one keeps the writing thread until the others wait behind it.
    let (before, stored, forgotten, after) = tokio::join!(
        store.insert_memories(many("before"), None),
        store.insert_memories(vec![gone], None),
        store.forget(id),
        store.insert_memories(many("behind"), None),
    );
    assert_eq!(stored.expect("stored").new_ids, [id]);
    assert!(forgotten.expect("forgotten").is_some());
    assert_eq!(
        before.expect("stored").new + after.expect("stored").new,
        600
    );
    assert!(found(&store, "ephemeral").await == 0);
    for text in ["before 299", "behind 0"] {
        assert_eq!(found(&store, text).await, 1, "{text}");
    }
    assert_indexed(dir.path());
}

#[tokio::test]
async fn two_servers_over_one_file_index_every_word_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let work = |server: u32| {
        let store = open(dir.path());
        async move {
            for round in 0..20 {
                let text = |n| format!("server{server} round{round} number{n}");
                let mut some: Vec<_> = (0..30).map(|n| note(&text(n))).collect();
                // Known to the other one, or not yet.
                some.push(note(&format!("shared{round}")));
                let report = store.insert_memories(some, None).await.expect("stored");
                let newest = store.forget(report.ids[29]).await.expect("forgotten");
                assert!(newest.is_some());
            }
            store
        }
    };
    let (store, other) = tokio::join!(work(1), work(2));
    other.close().await;
    let stored = store.integrity().await.expect("checked").memories;
    assert_eq!(stored, 2 * 20 * 29 + 20);
    for (text, count) in [("server2 round19", 10), ("shared7", 1), ("number29", 0)] {
        assert_eq!(found(&store, text).await, count, "{text}");
    }
    assert_indexed(dir.path());
}

#[tokio::test]
async fn new_ids_are_in_the_order_given() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let some = (0..100).map(|n| note(&n.to_string()));
    let stored = store.insert_memories(some.collect(), None).await;
    let ids = stored.expect("stored").ids;
    assert!(ids.is_sorted(), "{ids:?}");
}
