//! Files that cannot be used: told plainly, never replaced.

use super::{Engine, at, journal, open};
use mahavishnu::error::{ErrorKind, Fault};
use mahavishnu::model::{ItemState, WorkflowId};
use mahavishnu::store::{Durability, Store, StoreError, StoreOptions};
use rusqlite::Connection;
use std::path::Path;

/// Asserts that reading and writing both fail with an error of `kind` that has a hint, and that the file is untouched.
async fn assert_refused(dir: &Path, kind: ErrorKind) -> StoreError {
    let file = dir.join("mahavishnu.db");
    let before = std::fs::read(&file).ok();
    let store = open(dir);
    let read = store.summary(WorkflowId::new()).await.expect_err("refused");
    let write = store
        .add_notice("x".into(), None)
        .await
        .expect_err("refused");
    for error in [&read, &write] {
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{error}");
    }
    store.close().await;
    assert_eq!(std::fs::read(&file).ok(), before, "the file was touched");
    write
}

#[tokio::test]
async fn garbage_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(
        dir.path().join("mahavishnu.db"),
        "no database ".repeat(1_000),
    )
    .expect("written");
    let error = assert_refused(dir.path(), ErrorKind::Unavailable).await;
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn an_empty_file_is_no_new_database() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("mahavishnu.db"), "").expect("written");
    let error = assert_refused(dir.path(), ErrorKind::Unavailable).await;
    assert!(error.to_string().contains("0 bytes"), "{error}");
}

#[tokio::test]
async fn a_truncated_file_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    journal(&store, 1_000).await;
    store.close().await;
    let path = dir.path().join("mahavishnu.db");
    let whole = path.metadata().expect("there").len();
    for kept in [whole - 1, whole / 2, 4_096, 50] {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("writable");
        file.set_len(kept).expect("cut");
        let error = assert_refused(dir.path(), ErrorKind::Unavailable).await;
        assert!(
            matches!(error, StoreError::Damaged { .. }),
            "{kept}: {error}"
        );
    }
}

#[tokio::test]
async fn a_log_without_its_database_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("mahavishnu.db-wal"), "frames").expect("written");
    let error = assert_refused(dir.path(), ErrorKind::Unavailable).await;
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(!dir.path().join("mahavishnu.db").exists());
}

#[tokio::test]
async fn damage_inside_is_found_by_the_check() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let id = journal(&store, 2_000).await;
    store.close().await;
    let path = dir.path().join("mahavishnu.db");
    let mut bytes = std::fs::read(&path).expect("read");
    let middle = bytes.len() / 2 / 4_096 * 4_096;
    bytes[middle..middle + 3 * 4_096].fill(0xAA);
    std::fs::write(&path, bytes).expect("written");
    let store = open(dir.path());
    let health = store.integrity().await.expect("checked");
    assert!(!health.ok && !health.problems.is_empty(), "{health:?}");
    let error = store.workflow(id).await.expect_err("its pages are gone");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    journal(&store, 1).await;
    store.close().await;
    let other = Connection::open(dir.path().join("mahavishnu.db")).expect("opened");
    other.pragma_update(None, "user_version", 999).expect("set");
    other.close().expect("closed");
    let error = assert_refused(dir.path(), ErrorKind::Unavailable).await;
    assert!(
        matches!(error, StoreError::Newer { found: 999, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn an_unreleased_store_is_refused_with_its_unapplied_branches() {
    let dir = tempfile::tempdir().expect("a folder");
    let old = Connection::open(dir.path().join("mahavishnu.db")).expect("opened");
    old.execute_batch(include_str!("unreleased.sql"))
        .expect("made");
    old.close().expect("closed");
    let error = assert_refused(dir.path(), ErrorKind::Unavailable).await;
    let StoreError::Unreleased { branches, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(branches, &["/repos/a: mahavishnu/one"]);
    let text = error.to_string();
    assert!(text.contains("/repos/a: mahavishnu/one"), "{text}");
    let hint = error.hint().expect("a way out");
    assert!(
        hint.contains("apply_changes") && hint.contains("--state-dir"),
        "{hint}"
    );

    let old = Connection::open(dir.path().join("mahavishnu.db")).expect("opened");
    old.execute_batch("DELETE FROM items").expect("deleted");
    old.close().expect("closed");
    let error = assert_refused(dir.path(), ErrorKind::Unavailable).await;
    let hint = error.hint().expect("a way out");
    assert!(!hint.contains("apply_changes"), "{hint}");
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let other = Connection::open(dir.path().join("mahavishnu.db")).expect("opened");
    other
        .execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
        .expect("made");
    other.close().expect("closed");
    let error = assert_refused(dir.path(), ErrorKind::Unavailable).await;
    assert!(error.to_string().contains("another program"), "{error}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("written");
    let refused = Store::open(StoreOptions {
        dir: file.join("state"),
        durability: Durability::Normal,
    });
    let error = refused.expect_err("a file is no folder");
    let problem = error.problem();
    assert_eq!(problem.kind, ErrorKind::Unavailable);
    assert!(problem.message.contains("file/state"), "{problem}");
    assert!(
        problem
            .hint
            .is_some_and(|hint| hint.contains("--state-dir"))
    );
}

#[tokio::test]
async fn a_repaired_file_is_opened_without_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("mahavishnu.db");
    std::fs::write(&path, "").expect("written");
    let store = open(dir.path());
    store
        .add_notice("x".into(), None)
        .await
        .expect_err("refused");
    std::fs::remove_file(&path).expect("removed");
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while store.add_notice("x".into(), None).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "never opened again");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(store.take_notices().await.expect("taken").len(), 1);
}

#[tokio::test]
async fn a_locked_database_is_waited_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let id = journal(&store, 1).await;
    let other = Connection::open(dir.path().join("mahavishnu.db")).expect("opened");
    other.execute_batch("BEGIN EXCLUSIVE").expect("locked");
    let begun = {
        let store = store.clone();
        tokio::task::JoinSet::from_iter([async move {
            store.begin_attempt(id, at(0, 1, ItemState::Running)).await
        }])
    };
    // Readers are never blocked; a writer waits.
    let seen = store.summary(id).await.expect("read").expect("there");
    assert_eq!(seen.counts.queued, 1);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    other.execute_batch("COMMIT").expect("unlocked");
    for result in begun.join_all().await {
        result.expect("written after the wait");
    }
    assert_eq!(
        store
            .summary(id)
            .await
            .expect("read")
            .expect("there")
            .counts
            .running,
        1
    );
}

#[tokio::test]
async fn a_file_that_is_removed_or_replaced_in_use_is_noticed() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let id = journal(&store, 1).await;
    let (path, aside) = (dir.path().join("mahavishnu.db"), dir.path().join("aside"));
    let refused = || async {
        let write = store
            .save_items(id, vec![at(0, 1, ItemState::Failed)])
            .await;
        assert!(
            matches!(write, Err(StoreError::Removed { .. })),
            "{write:?}"
        );
        let read = store.summary(id).await;
        assert!(matches!(read, Err(StoreError::Removed { .. })), "{read:?}");
        let check = store.integrity().await;
        assert!(
            matches!(check, Err(StoreError::Removed { .. })),
            "{check:?}"
        );
    };
    std::fs::rename(&path, &aside).expect("moved");
    refused().await;
    assert!(!path.exists(), "no new file was made in silence");
    std::fs::copy(&aside, &path).expect("copied");
    refused().await;
    std::fs::rename(&aside, &path).expect("moved back");
    store
        .save_items(id, vec![at(0, 1, ItemState::Failed)])
        .await
        .expect("saved");
}
