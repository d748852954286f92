//! What was forgotten is gone from everywhere, and no peer brings it back.

use super::{at, clean, finish, journal, open, prune};
use mahavishnu::model::{
    At, ItemState, MemoryId, MemoryKind, NewMemory, PeerName, Work, WorkflowId,
};
use mahavishnu::store::{Retention, Store};
use std::path::Path;
use std::time::Duration;

fn new(kind: MemoryKind, text: &str) -> NewMemory {
    NewMemory::new(
        kind,
        clean(text),
        "local".parse().expect("a name"),
        "worker",
    )
}

fn peer() -> PeerName {
    PeerName::new("session_buddy")
}

/// Ends an item with an outcome that tells all of it.
async fn end(store: &Store, id: WorkflowId, item: u32, attempt: u32) -> MemoryId {
    let secret = format!("hunter{item}{attempt}");
    let mut failed = at(item, attempt, ItemState::Failed);
    failed.output_tail = Some(clean(&secret));
    failed.cause = Some(clean(format!("cause {secret}")));
    failed.error = Some(
        mahavishnu::error::Problem::new(
            mahavishnu::error::ErrorKind::Failed,
            format!("error {secret}"),
        )
        .into(),
    );
    let outcome = NewMemory {
        workflow: Some(id),
        item: Some(item),
        attempt: Some(attempt),
        ..new(MemoryKind::Outcome, &format!("true failed: {secret}"))
    };
    let report = finish(store, id, vec![failed], vec![outcome]).await;
    report.expect("written").1.ids[0]
}

fn stands_in(dir: &Path, text: &str) -> bool {
    ["mahavishnu.db", "mahavishnu.db-wal"].iter().any(|file| {
        let bytes = std::fs::read(dir.join(file)).unwrap_or_default();
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    })
}

#[tokio::test]
async fn an_outcome_goes_with_its_cause_and_error_and_the_prompt_with_the_last_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let id = journal(&store, 2).await;
    let outcomes = [end(&store, id, 0, 1).await, end(&store, id, 1, 1).await];
    assert!(stands_in(dir.path(), "hunter01") && stands_in(dir.path(), "hunter11"));
    let first = store
        .forget(outcomes[0])
        .await
        .expect("forgotten")
        .expect("was there");
    assert!(
        first.work_stays,
        "item 1 has the same prompt and can be resumed"
    );
    assert!(!stands_in(dir.path(), "hunter01") && stands_in(dir.path(), "hunter11"));
    let workflow = store.workflow(id).await.expect("read").expect("there");
    assert_eq!(workflow.items[0].status, ItemState::Failed);
    assert_eq!(
        (&workflow.items[0].cause, &workflow.items[0].error),
        (&None, &None)
    );
    assert!(!workflow.works[0].work.is_forgotten());

    let alone = journal(&store, 1).await;
    let attempts = [
        end(&store, alone, 0, 1).await,
        end(&store, alone, 0, 2).await,
    ];
    for (outcome, stays) in attempts.into_iter().zip([true, false]) {
        let gone = store
            .forget(outcome)
            .await
            .expect("forgotten")
            .expect("was there");
        assert_eq!(gone.work_stays, stays);
    }
    let workflow = store.workflow(alone).await.expect("read").expect("there");
    assert_eq!(workflow.works[0].work, Work::forgotten());
    assert_eq!(workflow.record.title, Work::FORGOTTEN_TITLE);
    assert!(!stands_in(dir.path(), "hunter02") && !stands_in(dir.path(), "hunter01"));
}

#[tokio::test]
async fn a_peers_listing_does_not_bring_back_what_is_gone() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let ours = new(MemoryKind::Note, "sent to the peer");
    let ours = store
        .insert_memories(vec![ours], Some(peer()))
        .await
        .expect("stored")
        .ids[0];
    store.ack_outbox(peer(), vec![ours]).await.expect("noted");
    let theirs = NewMemory {
        source: peer().to_string(),
        source_id: Some("7".to_owned()),
        ..new(MemoryKind::Note, "told by the peer")
    };
    let old = NewMemory {
        created_at: At::from_unix_ms(1_000),
        source_id: Some("8".to_owned()),
        text: "old and told by the peer".into(),
        ..theirs.clone()
    };
    let stored = store
        .insert_memories(vec![theirs.clone(), old.clone()], None)
        .await;
    let stored = stored.expect("stored").ids;
    for id in [ours, stored[0]] {
        let gone = store
            .forget(id)
            .await
            .expect("forgotten")
            .expect("was there");
        assert_eq!(gone.peers, [peer()]);
    }
    let keep = Retention {
        lessons_and_notes: Some(Duration::from_secs(3_600)),
        ..Retention::default()
    };
    assert_eq!(prune(&store, keep, At::now()).await.memories, 1);

    let copy = NewMemory {
        marker: Some(ours),
        source: peer().to_string(),
        ..new(MemoryKind::Note, "sent to the peer")
    };
    let report = store
        .insert_memories(vec![copy, theirs, old], Some(peer()))
        .await;
    let report = report.expect("read");
    assert_eq!((report.new, report.duplicate), (0, 3), "{report:?}");
    assert_eq!(store.memory(ours).await.expect("read"), None);
    let asked = store
        .forgotten(vec![ours, stored[0], stored[1]])
        .await
        .expect("read");
    assert_eq!(
        asked,
        [ours, stored[0]].into(),
        "the third one only grew old"
    );

    let by_hand = new(MemoryKind::Note, "sent to the peer");
    let again = store
        .insert_memories(vec![by_hand], None)
        .await
        .expect("stored");
    assert_eq!(again.new, 1, "a person may keep it anew");
}

#[tokio::test]
async fn forgetting_waits_for_a_reader_and_is_finished_by_a_second_call() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let report = store
        .insert_memories(vec![new(MemoryKind::Note, "a hunter2 note")], None)
        .await;
    let id = report.expect("stored").ids[0];
    let other = rusqlite::Connection::open(dir.path().join("mahavishnu.db")).expect("opens");
    other.execute_batch("BEGIN").expect("begins");
    let count: i64 = other
        .query_row("SELECT count(*) FROM memories", [], |row| row.get(0))
        .expect("reads");
    assert_eq!(count, 1);
    let mut tasks = tokio::task::JoinSet::new();
    let again = store.clone();
    tasks.spawn(async move { again.forget(id).await });
    while store.memory(id).await.expect("read").is_some() {
        tokio::task::yield_now().await;
    }
    assert!(stands_in(dir.path(), "hunter2"), "the reader still sees it");
    other.execute_batch("COMMIT").expect("ends");
    let forgotten = tasks.join_next().await.expect("one").expect("no panic");
    forgotten.expect("it waited").expect("was there");
    assert!(!stands_in(dir.path(), "hunter2"));
}
