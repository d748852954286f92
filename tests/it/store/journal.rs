//! What is written is read back, and costs what it should.

use super::{Engine, at, finish, items, journal, open, prune, record};
use mahavishnu::model::{At, Counts, ItemRecord, ItemState, WorkflowStatus};
use mahavishnu::store::{
    Created, Entry, OwnerState, Retention, Store, StoreError, StoreOptions, WorkflowQuery,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

#[tokio::test]
async fn a_workflow_is_read_back_as_it_was_journaled() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let record = record(&store);
    let items = items(3, ItemState::Queued);
    store
        .create_workflow(record.clone(), items.clone())
        .await
        .expect("journaled");

    let stored = store
        .workflow(record.id)
        .await
        .expect("read")
        .expect("it is there");
    assert_eq!(stored.record, record);
    let (works, states): (Vec<_>, Vec<_>) = items.into_iter().unzip();
    assert_eq!(stored.works, works);
    assert_eq!(stored.items, states);
    assert_eq!(stored.owner, OwnerState::This);

    let summary = store
        .summary(record.id)
        .await
        .expect("read")
        .expect("it is there");
    assert_eq!(summary.revision, stored.revision);
    assert_eq!(
        summary.counts,
        Counts::of([ItemState::Queued, ItemState::Queued, ItemState::Queued])
    );
    let missing = mahavishnu::model::WorkflowId::new();
    assert_eq!(store.workflow(missing).await.expect("read"), None);
    assert_eq!(store.summary(missing).await.expect("read"), None);
}

#[tokio::test]
async fn counts_status_and_revision_follow_the_items() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let id = journal(&store, 2).await;
    let summary = || async { store.summary(id).await.expect("read").expect("there") };

    let before = summary().await;
    assert_eq!(before.counts.status(), WorkflowStatus::Running);
    store
        .begin_attempt(id, at(0, 1, ItemState::Running))
        .await
        .expect("begun");
    let begun = summary().await;
    assert_eq!((begun.counts.queued, begun.counts.running), (1, 1));
    assert_eq!(begun.revision, before.revision + 1);

    let both = vec![at(0, 1, ItemState::Succeeded), at(1, 0, ItemState::Failed)];
    store.save_items(id, both).await.expect("saved");
    let ended = summary().await;
    assert_eq!(ended.counts.status(), WorkflowStatus::Partial);
    assert_eq!(ended.revision, begun.revision + 1);
    assert_eq!(
        store.item(id, 1).await.expect("read"),
        Some(at(1, 0, ItemState::Failed))
    );
}

#[tokio::test]
async fn an_ended_attempt_never_begins_again_and_stays_readable() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let id = journal(&store, 1).await;
    store
        .begin_attempt(id, at(0, 1, ItemState::Running))
        .await
        .expect("begun");
    store
        .save_items(id, vec![at(0, 1, ItemState::Failed)])
        .await
        .expect("saved");
    let again = store.begin_attempt(id, at(0, 1, ItemState::Running)).await;
    assert!(
        matches!(
            again,
            Err(StoreError::Ended {
                item: 0,
                attempt: 1,
                ..
            })
        ),
        "{again:?}"
    );

    // Resumed: it waits under its old number, then the next attempt begins.
    store
        .save_items(id, vec![at(0, 1, ItemState::Queued)])
        .await
        .expect("saved");
    let first = store.attempt(id, 0, 1).await.expect("read").expect("kept");
    assert_eq!(first.status, ItemState::Failed);
    store
        .begin_attempt(id, at(0, 2, ItemState::Running))
        .await
        .expect("begun");
    store
        .save_items(id, vec![at(0, 2, ItemState::Succeeded)])
        .await
        .expect("saved");
    let first = store.attempt(id, 0, 1).await.expect("read").expect("kept");
    assert_eq!(first.status, ItemState::Failed);
    let second = store.attempt(id, 0, 2).await.expect("read").expect("there");
    assert_eq!(second.status, ItemState::Succeeded);
    assert_eq!(store.attempt(id, 0, 3).await.expect("read"), None);
    assert_eq!(store.attempt(id, 0, 0).await.expect("read"), None);
}

#[tokio::test]
async fn an_end_and_the_wait_for_another_attempt_are_one_write() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let id = journal(&store, 1).await;
    let begun = store.begin_attempt(id, at(0, 1, ItemState::Running)).await;
    let before = begun.expect("begun");
    let ends = vec![at(0, 1, ItemState::Failed), at(0, 1, ItemState::Queued)];
    // Written twice, as where the first write was told as failed.
    for round in 1..=2 {
        let written = finish(&store, id, ends.clone(), Vec::new()).await;
        assert_eq!(written.expect("written").0, before + round, "one revision");
        let now = store.item(id, 0).await.expect("read").expect("there");
        assert_eq!(now.status, ItemState::Queued);
        let first = store.attempt(id, 0, 1).await.expect("read").expect("there");
        assert_eq!(first.status, ItemState::Failed);
    }
    let workflow = store.workflow(id).await.expect("read").expect("there");
    let items = workflow.works.into_iter().zip(workflow.items).collect();
    let restarted = store.restart(workflow.record, items).await;
    assert!(
        matches!(restarted, Err(StoreError::Unfinished { item: 0, .. })),
        "{restarted:?}"
    );
    assert_eq!(store.give_up(id).await.expect("written"), 1);
    let now = store.item(id, 0).await.expect("read").expect("there");
    assert_eq!(now.status, ItemState::Interrupted);
}

#[tokio::test]
async fn an_attempt_that_is_taken_back_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let id = journal(&store, 1).await;
    let begin = async |attempt| {
        let begun = store
            .begin_attempt(id, at(0, attempt, ItemState::Running))
            .await;
        begun.expect("begun")
    };
    begin(1).await;
    let waits = ItemRecord::unstarted(0, "/repos/r0", ItemState::Queued);
    finish(&store, id, vec![waits.clone()], Vec::new())
        .await
        .expect("written");
    let now = store.item(id, 0).await.expect("read").expect("there");
    assert_eq!(now, waits);
    assert_eq!(store.attempt(id, 0, 1).await.expect("read"), None);
    let counts = store
        .summary(id)
        .await
        .expect("read")
        .expect("there")
        .counts;
    assert_eq!((counts.queued, counts.running), (1, 0));
    // Begun again it is the same attempt, whose end is the only one that is kept.
    begin(1).await;
    let ends = vec![at(0, 1, ItemState::Failed), at(0, 1, ItemState::Queued)];
    finish(&store, id, ends, Vec::new()).await.expect("written");
    begin(2).await;
    let again = at(0, 1, ItemState::Queued);
    finish(&store, id, vec![again], Vec::new())
        .await
        .expect("written");
    let first = store.attempt(id, 0, 1).await.expect("read").expect("there");
    assert_eq!(first.status, ItemState::Failed);
    assert_eq!(store.attempt(id, 0, 2).await.expect("read"), None);
}

#[tokio::test]
async fn entries_of_several_items_are_one_step() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let id = journal(&store, 2).await;
    let entry = |item, state| Entry::of(vec![at(item, 1, state)]);
    let begins = vec![entry(0, ItemState::Running), entry(1, ItemState::Running)];
    let (first, _) = store
        .journal(id, Arc::new(begins), None)
        .await
        .expect("written");
    let ends = Arc::new(vec![
        entry(0, ItemState::Succeeded),
        entry(1, ItemState::Failed),
    ]);
    let (second, _) = store.journal(id, ends, None).await.expect("written");
    assert_eq!(second, first + 1);
    // One that may not be written keeps the others from being written, too.
    let mixed = Arc::new(vec![
        entry(1, ItemState::Queued),
        entry(0, ItemState::Running),
    ]);
    let refused = store.journal(id, mixed, None).await;
    assert!(
        matches!(refused, Err(StoreError::Ended { item: 0, .. })),
        "{refused:?}"
    );
    let other = store.item(id, 1).await.expect("read").expect("there");
    assert_eq!(other.status, ItemState::Failed);
}

#[tokio::test]
async fn an_idempotency_key_makes_one_workflow() {
    let dir = tempfile::tempdir().expect("a folder");
    let (one, two) = (open(dir.path()), open(dir.path()));
    let mut tries = JoinSet::new();
    for store in [one.clone(), two.clone(), one.clone(), two.clone()] {
        tries.spawn(async move {
            let record = mahavishnu::model::WorkflowRecord {
                idempotency_key: Some("nightly".to_owned()),
                ..record(&store)
            };
            let created = store
                .create_workflow(record.clone(), items(2, ItemState::Queued))
                .await
                .expect("answered");
            (record.id, created)
        });
    }
    let tries = tries.join_all().await;
    let new: Vec<_> = tries
        .iter()
        .filter(|(_, created)| *created == Created::New)
        .collect();
    assert_eq!(new.len(), 1, "{tries:?}");
    for (_, created) in &tries {
        if let Created::Existing(existing) = created {
            assert_eq!(existing.id, new[0].0);
        }
    }
    let all = one
        .workflows(WorkflowQuery {
            limit: 9,
            ..WorkflowQuery::default()
        })
        .await;
    assert_eq!(all.expect("read").len(), 1);
}

#[tokio::test]
async fn a_batch_with_an_unknown_item_writes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let id = journal(&store, 1).await;
    let before = store.summary(id).await.expect("read");
    let batch = vec![
        at(0, 1, ItemState::Succeeded),
        at(7, 1, ItemState::Succeeded),
    ];
    let refused = store.save_items(id, batch).await;
    assert!(
        matches!(refused, Err(StoreError::NoItem { item: 7, .. })),
        "{refused:?}"
    );
    assert_eq!(store.summary(id).await.expect("read"), before);
}

#[tokio::test]
async fn the_list_is_filtered_and_paged_newest_first() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let mut ids = Vec::new();
    for count in 1..=4 {
        ids.push(journal(&store, count).await);
        tokio::time::sleep(Duration::from_millis(2)).await; // Ids of one millisecond are in no order.
    }
    store
        .save_items(
            ids[1],
            vec![
                at(0, 1, ItemState::Succeeded),
                at(1, 1, ItemState::Succeeded),
            ],
        )
        .await
        .expect("saved");
    let list = |query: WorkflowQuery| {
        let store = store.clone();
        async move {
            let found = store.workflows(query).await.expect("read");
            found
                .into_iter()
                .map(|found| found.record.id)
                .collect::<Vec<_>>()
        }
    };
    let all = WorkflowQuery {
        limit: 10,
        ..WorkflowQuery::default()
    };
    assert_eq!(list(all.clone()).await, [ids[3], ids[2], ids[1], ids[0]]);
    assert_eq!(
        list(WorkflowQuery {
            limit: 2,
            ..all.clone()
        })
        .await,
        [ids[3], ids[2]]
    );
    let page = WorkflowQuery {
        before: Some(ids[2]),
        ..all.clone()
    };
    assert_eq!(list(page).await, [ids[1], ids[0]]);
    let done = WorkflowQuery {
        status: vec![WorkflowStatus::Succeeded],
        ..all.clone()
    };
    assert_eq!(list(done).await, [ids[1]]);
    for repo in ["/repos/r2", "r2"] {
        let query = WorkflowQuery {
            repo: Some(repo.to_owned()),
            ..all.clone()
        };
        assert_eq!(list(query).await, [ids[3], ids[2]], "{repo}");
    }
    for repo in ["/repos", "2", "%", "/repos/r%"] {
        let query = WorkflowQuery {
            repo: Some(repo.to_owned()),
            ..all.clone()
        };
        assert!(list(query).await.is_empty(), "{repo}");
    }
    let later = WorkflowQuery {
        since: Some(At::from_unix_ms(At::now().unix_ms() + 60_000)),
        ..all
    };
    assert!(list(later).await.is_empty());
}

#[tokio::test]
async fn ten_thousand_items_are_journaled_and_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let id = journal(&store, 10_000).await;
    let stored = store.workflow(id).await.expect("read").expect("there");
    assert_eq!((stored.items.len(), stored.works.len()), (10_000, 10_000));
    assert!(
        stored
            .items
            .windows(2)
            .all(|pair| pair[0].item + 1 == pair[1].item)
    );

    let ended = (0..10_000)
        .map(|item| at(item, 1, ItemState::Succeeded))
        .collect();
    store.save_items(id, ended).await.expect("saved");
    let summary = store.summary(id).await.expect("read").expect("there");
    assert_eq!(summary.counts.succeeded, 10_000);
    assert_eq!(summary.counts.status(), WorkflowStatus::Succeeded);
    let health = store.integrity().await.expect("checked");
    assert!(health.ok && health.complete, "{health:?}");
    assert_eq!(health.workflows, 1);
    assert!(health.file_bytes + health.wal_bytes > 1 << 20, "{health:?}");
}

#[tokio::test]
async fn a_long_task_is_stored_once_for_all_items() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let record = record(&store);
    let id = record.id;
    let prompt = "x".repeat(100_000);
    let mut items = items(200, ItemState::Queued);
    for (work, _) in &mut items {
        work.work = mahavishnu::model::Work::Task(prompt.clone());
    }
    store
        .create_workflow(record, items)
        .await
        .expect("journaled");
    let health = store.integrity().await.expect("checked");
    assert!(health.file_bytes + health.wal_bytes < 1 << 20, "{health:?}");
    let stored = store.workflow(id).await.expect("read").expect("there");
    assert!(
        stored
            .works
            .iter()
            .all(|work| work.work == mahavishnu::model::Work::Task(prompt.clone()))
    );
}

#[tokio::test]
async fn notices_are_delivered_once_and_in_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let (one, two) = (open(dir.path()), open(dir.path()));
    let id = journal(&one, 1).await;
    one.add_notice("first".into(), Some(id))
        .await
        .expect("kept");
    two.add_notice("second".into(), None).await.expect("kept");
    let taken = two.take_notices().await.expect("taken");
    let seen: Vec<_> = taken
        .iter()
        .map(|notice| (notice.text.as_str(), notice.workflow))
        .collect();
    assert_eq!(seen, [("first", Some(id)), ("second", None)]);
    assert!(one.take_notices().await.expect("taken").is_empty());
}

#[tokio::test]
async fn retention_removes_only_what_it_names() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let running = journal(&store, 1).await;
    let done = journal(&store, 1).await;
    let precious = journal(&store, 1).await;
    store
        .save_items(done, vec![at(0, 1, ItemState::Succeeded)])
        .await
        .expect("saved");
    let mut with_worktree = at(0, 1, ItemState::Failed);
    with_worktree.worktree = Some("/state/worktrees/w".to_owned());
    store
        .save_items(precious, vec![with_worktree])
        .await
        .expect("saved");
    tokio::time::sleep(Duration::from_millis(5)).await;

    let tomorrow = At::now().plus(Duration::from_secs(24 * 60 * 60));
    let nothing = prune(&store, Retention::default(), tomorrow).await;
    assert!(nothing.workflows.is_empty());
    let days = Retention {
        workflows: Some(Duration::from_secs(48 * 60 * 60)),
        ..Retention::default()
    };
    let nothing = prune(&store, days, tomorrow).await;
    assert!(nothing.workflows.is_empty());
    let all = Retention {
        workflows: Some(Duration::ZERO),
        ..Retention::default()
    };
    assert_eq!(prune(&store, all, tomorrow).await.workflows, [done]);
    assert_eq!(store.workflow(done).await.expect("read"), None);
    assert_eq!(store.item(done, 0).await.expect("read"), None);
    for kept in [running, precious] {
        assert!(store.workflow(kept).await.expect("read").is_some());
    }
}

#[tokio::test]
async fn a_closed_store_has_written_everything_and_refuses_more() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let id = journal(&store, 50).await;
    let mut writes = JoinSet::new();
    for item in 0..50 {
        let store = store.clone();
        writes.spawn(async move {
            store
                .begin_attempt(id, at(item, 1, ItemState::Running))
                .await
        });
    }
    let begun = writes
        .join_all()
        .await
        .into_iter()
        .filter(Result::is_ok)
        .count();
    store.close().await;
    let refused = store
        .save_items(id, vec![at(0, 1, ItemState::Failed)])
        .await;
    assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");
    assert_eq!(begun, 50);
    assert!(
        !dir.path()
            .join("mahavishnu.db-wal")
            .metadata()
            .is_ok_and(|log| log.len() > 0)
    );

    let next = open(dir.path());
    assert_eq!(
        next.summary(id)
            .await
            .expect("read")
            .expect("there")
            .counts
            .running,
        50
    );
}

#[tokio::test]
async fn opening_returns_before_the_file_is_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = StoreOptions {
        dir: dir.path().join("a/b"),
        durability: mahavishnu::store::Durability::Full,
    };
    let store = Store::open(options).expect("opened");
    assert_eq!(
        store.state_dir(),
        dir.path().canonicalize().expect("real").join("a/b")
    );
    assert!(store.integrity().await.expect("checked").ok);
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = store.state_dir().join(name);
        path.metadata().expect("there").permissions().mode() & 0o777
    };
    assert_eq!(mode(""), 0o700);
    assert_eq!(mode("locks"), 0o700);
    for file in ["mahavishnu.db", "mahavishnu.db-wal", "mahavishnu.db-shm"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    let lock = format!("locks/server-{}.lock", store.server_id());
    assert_eq!(mode(&lock), 0o600);
}
