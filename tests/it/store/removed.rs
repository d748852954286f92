//! Files that are taken away from under a running server, or that are not the store's own: noticed, refused, and nothing
//! acknowledged is lost.

use super::{Engine, at, clean, journal, open};
use mahavishnu::error::{ErrorKind, Fault};
use mahavishnu::model::{ItemState, MemoryId, MemoryKind, NewMemory, WorkflowId};
use mahavishnu::store::{Adopted, OwnerState, Store, StoreError};
use std::path::Path;
use std::time::Duration;

fn note(text: &str) -> NewMemory {
    NewMemory::new(
        MemoryKind::Note,
        clean(text),
        "local".parse().expect("a name"),
        "remember",
    )
}

async fn remember(store: &Store, text: &str) -> Result<MemoryId, StoreError> {
    let report = store.insert_memories(vec![note(text)], None).await?;
    Ok(report.ids[0])
}

/// Asserts that `store` acknowledges nothing more and names `file`.
async fn assert_refuses(store: &Store, file: &str) {
    let refused = remember(store, "too late").await.expect_err("refused");
    assert!(
        matches!(&refused, StoreError::Removed { path } if path.to_string_lossy().contains(file)),
        "{refused:?}"
    );
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(
        refused
            .hint()
            .is_some_and(|hint| hint.contains("start again"))
    );
    let read = store.summary(WorkflowId::new()).await;
    assert!(matches!(read, Err(StoreError::Removed { .. })), "{read:?}");
}

#[tokio::test]
async fn a_removed_log_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let mut acknowledged = Vec::new();
    for number in 0..20 {
        acknowledged.push(
            remember(&store, &format!("n{number}"))
                .await
                .expect("stored"),
        );
    }
    std::fs::remove_file(dir.path().join("mahavishnu.db-wal")).expect("removed");
    assert_refuses(&store, "mahavishnu.db-wal").await;
    store.close().await;
    drop(store);

    let next = open(dir.path());
    for id in acknowledged {
        assert!(next.memory(id).await.expect("read").is_some());
    }
}

#[tokio::test]
async fn a_replaced_log_or_a_removed_index_of_it_is_refused() {
    for (file, replaced) in [("mahavishnu.db-wal", true), ("mahavishnu.db-shm", false)] {
        let dir = tempfile::tempdir().expect("a folder");
        let store = open(dir.path());
        remember(&store, "before").await.expect("stored");
        let path = dir.path().join(file);
        std::fs::rename(&path, dir.path().join("aside")).expect("moved");
        if replaced {
            std::fs::write(&path, "").expect("written");
        }
        assert_refuses(&store, file).await;
        // Back in its place it is the open one again.
        std::fs::rename(dir.path().join("aside"), &path).expect("moved back");
        remember(&store, "after").await.expect("stored");
    }
}

#[tokio::test]
async fn a_renamed_state_directory_is_refused_until_it_is_back() {
    let home = tempfile::tempdir().expect("a folder");
    let (dir, aside) = (home.path().join("state"), home.path().join("aside"));
    let store = open(&dir);
    let before = remember(&store, "before").await.expect("stored");
    std::fs::rename(&dir, &aside).expect("renamed");
    assert_refuses(&store, "mahavishnu.db").await;
    assert!(!dir.exists(), "nothing was made anew");
    // Another store in its place is not taken for the old one.
    let other = open(&dir);
    remember(&other, "elsewhere").await.expect("stored");
    assert_refuses(&store, "mahavishnu.db").await;
    other.close().await;
    std::fs::remove_dir_all(&dir).expect("removed");
    std::fs::rename(&aside, &dir).expect("renamed back");
    // A reader that could not open the file tries again after a moment.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let kept = loop {
        match store.memory(before).await {
            Ok(kept) => break kept,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(kept.is_some());
}

#[tokio::test]
async fn removed_locks_let_no_second_server_take_over() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = open(dir.path());
    let id = journal(&first, 2).await;
    let running = at(0, 1, ItemState::Running);
    first.begin_attempt(id, running).await.expect("begun");
    let locks = dir.path().join("locks");
    std::fs::remove_dir_all(&locks).expect("removed");

    let second = open(dir.path());
    assert!(second.recover().await.expect("looked").is_empty());
    let seen = second.summary(id).await.expect("read").expect("there");
    assert_eq!((seen.counts.running, seen.owner), (1, OwnerState::Other));
    let adopted = second.adopt(id).await.expect("asked");
    assert_eq!(adopted, Adopted::OwnedBy(first.server_id()));
    let health = second.integrity().await.expect("checked");
    assert!(!health.ok, "{health:?}");
    assert!(health.problems[0].contains(&first.server_id().to_string()));
    // The first one starts nothing more either.
    let begun = first.begin_attempt(id, at(1, 1, ItemState::Running)).await;
    assert!(
        matches!(&begun, Err(StoreError::Removed { path }) if path.starts_with(&locks)),
        "{begun:?}"
    );

    // The way out that the check names.
    first.close().await;
    let file = locks.join(format!("server-{}.lock", first.server_id()));
    assert!(health.problems[0].contains(file.to_str().expect("UTF-8")));
    std::fs::write(file, "").expect("made");
    assert_eq!(second.recover().await.expect("recovered").len(), 1);
}

#[tokio::test]
async fn a_link_in_place_of_the_database_is_refused_and_left() {
    let home = tempfile::tempdir().expect("a folder");
    let other = home.path().join("other");
    let store = open(&other);
    remember(&store, "theirs").await.expect("stored");
    store.close().await;
    let database = other.join("mahavishnu.db");
    let dangling = home.path().join("unmounted/mahavishnu.db");
    for target in [&dangling, &database] {
        let dir = tempfile::tempdir().expect("a folder");
        let link = dir.path().join("mahavishnu.db");
        std::os::unix::fs::symlink(target, &link).expect("linked");
        assert_misplaced(dir.path(), "symbolic link").await;
        assert_eq!(std::fs::read_link(&link).expect("a link still"), *target);
    }
    assert!(!dangling.exists());

    let dir = tempfile::tempdir_in(home.path()).expect("a folder");
    std::fs::hard_link(&database, dir.path().join("mahavishnu.db")).expect("linked");
    assert_misplaced(dir.path(), "another name").await;
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("mahavishnu.db")).expect("made");
    assert_misplaced(dir.path(), "not a file").await;
}

async fn assert_misplaced(dir: &Path, what: &str) {
    let store = open(dir);
    let refused = remember(&store, "x").await.expect_err("refused");
    assert!(
        matches!(refused, StoreError::Misplaced { .. }),
        "{refused:?}"
    );
    assert!(refused.to_string().contains(what), "{refused}");
    assert!(
        refused
            .hint()
            .is_some_and(|hint| hint.contains("--state-dir"))
    );
    store.close().await;
}

#[tokio::test]
async fn two_paths_to_one_state_directory_are_one_store() {
    let home = tempfile::tempdir().expect("a folder");
    let (dir, link) = (home.path().join("state"), home.path().join("link"));
    let one = open(&dir);
    std::os::unix::fs::symlink(&dir, &link).expect("linked");
    let two = open(&link);
    assert_eq!(one.state_dir(), two.state_dir());
    let id = journal(&one, 1).await;
    let seen = two.summary(id).await.expect("read").expect("there");
    assert_eq!(seen.owner, OwnerState::Other);
}

/// Runs a statement on the store's file in another process, which then ends.
fn elsewhere(dir: &Path, statement: &str) {
    let program = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute(sys.argv[2])
db.close()";
    let status = std::process::Command::new("python3")
        .args(["-c", program])
        .arg(dir.join("mahavishnu.db"))
        .arg(statement)
        .status();
    assert!(status.expect("python3 starts").success());
}

#[tokio::test]
async fn another_process_that_closes_the_file_leaves_the_log() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    remember(&store, "one").await.expect("stored");
    // Opens further connections, each of which looks at the file.
    for _ in 0..3 {
        assert!(store.integrity().await.expect("checked").ok);
    }
    elsewhere(dir.path(), "UPDATE memories SET aggregated = 1");
    remember(&store, "two")
        .await
        .expect("stored, because the log is still there");
}

#[tokio::test]
async fn a_newer_release_that_migrates_the_file_in_use_is_noticed() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    remember(&store, "one").await.expect("stored");
    elsewhere(dir.path(), "PRAGMA user_version = 99");
    let refused = remember(&store, "two").await.expect_err("refused");
    assert!(
        matches!(refused, StoreError::Newer { found: 99, .. }),
        "{refused:?}"
    );
    let read = store.summary(WorkflowId::new()).await;
    assert!(matches!(read, Err(StoreError::Newer { .. })), "{read:?}");
}

#[tokio::test]
async fn the_log_of_a_quiet_store_is_emptied() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    for batch in 0..30 {
        let notes = (0..10).map(|n| note(&format!("memory {batch} {n} {}", "word ".repeat(600))));
        let stored = store.insert_memories(notes.collect(), None).await;
        assert_eq!(stored.expect("stored").new, 10);
    }
    let log = dir.path().join("mahavishnu.db-wal");
    let size = || log.metadata().expect("there").len();
    assert!(size() < 8 << 20, "{} bytes", size());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while size() > 0 {
        assert!(tokio::time::Instant::now() < deadline, "{} bytes", size());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    remember(&store, "after").await.expect("stored");
}
