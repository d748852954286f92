//! Two servers on one file, and a server that is no more.

use super::{Engine, at, journal, open};
use mahavishnu::error::{ErrorKind, Problem};
use mahavishnu::model::{ItemState, WorkflowStatus};
use mahavishnu::store::{Adopted, OwnerRequest, OwnerState, StoreError};
use tokio::task::JoinSet;

#[tokio::test]
async fn two_servers_write_their_own_runs_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let (one, two) = (open(dir.path()), open(dir.path()));
    let mut runs = JoinSet::new();
    for store in [one.clone(), two.clone()] {
        runs.spawn(async move {
            let id = journal(&store, 100).await;
            for item in 0..100 {
                store
                    .begin_attempt(id, at(item, 1, ItemState::Running))
                    .await
                    .expect("begun");
                store
                    .save_items(id, vec![at(item, 1, ItemState::Succeeded)])
                    .await
                    .expect("saved");
            }
            (store, id)
        });
    }
    let runs = runs.join_all().await;
    for ((mine, id), (other, _)) in [(&runs[0], &runs[1]), (&runs[1], &runs[0])] {
        let seen = other.summary(*id).await.expect("read").expect("there");
        assert_eq!(seen.owner, OwnerState::Other);
        assert_eq!(seen.counts.status(), WorkflowStatus::Succeeded);
        assert_eq!(
            mine.summary(*id).await.expect("read").expect("there").owner,
            OwnerState::This
        );
        let refused = other.begin_attempt(*id, at(0, 2, ItemState::Running)).await;
        assert!(
            matches!(refused, Err(StoreError::NotOwner { .. })),
            "{refused:?}"
        );
        let refused = other
            .save_items(*id, vec![at(0, 1, ItemState::Failed)])
            .await;
        assert!(
            matches!(refused, Err(StoreError::NotOwner { .. })),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_dead_servers_items_are_interrupted_once_and_only_when_its_guardian_is_gone() {
    let dir = tempfile::tempdir().expect("a folder");
    let dead = open(dir.path());
    let id = journal(&dead, 3).await;
    dead.begin_attempt(id, at(0, 1, ItemState::Running))
        .await
        .expect("begun");
    dead.begin_attempt(id, at(1, 1, ItemState::Running))
        .await
        .expect("begun");
    dead.save_items(id, vec![at(1, 1, ItemState::Succeeded)])
        .await
        .expect("saved");
    let guardian = dead.ownership_lock().expect("a second descriptor");
    dead.close().await;
    let lock = dir
        .path()
        .join(format!("locks/server-{}.lock", dead.server_id()));

    let (one, two) = (open(dir.path()), open(dir.path()));
    assert!(
        one.recover().await.expect("looked").is_empty(),
        "the guardian still holds the lock"
    );
    assert_eq!(
        one.summary(id).await.expect("read").expect("there").owner,
        OwnerState::Other
    );
    assert_eq!(
        one.adopt(id).await.expect("asked"),
        Adopted::OwnedBy(dead.server_id())
    );
    assert!(lock.exists());

    drop(guardian);
    let (first, second) = tokio::join!(one.recover(), two.recover());
    let mut recovered = first.expect("recovered");
    recovered.extend(second.expect("recovered"));
    assert_eq!(recovered.len(), 1, "{recovered:?}");
    assert_eq!((recovered[0].id, recovered[0].interrupted), (id, 2));
    assert_eq!(recovered[0].title, "cargo test");
    let notices = one.take_notices().await.expect("taken");
    assert!(
        matches!(&notices[..], [notice] if notice.text.contains("2 item(s)")),
        "{notices:?}"
    );
    assert!(!lock.exists());

    let stored = one.workflow(id).await.expect("read").expect("there");
    assert_eq!(stored.owner, OwnerState::Dead);
    let states: Vec<_> = stored.items.iter().map(|item| item.status).collect();
    assert_eq!(
        states,
        [
            ItemState::Interrupted,
            ItemState::Succeeded,
            ItemState::Interrupted
        ]
    );
    assert_eq!(one.adopt(id).await.expect("adopted"), Adopted::Ours);
    assert_eq!(
        two.adopt(id).await.expect("asked"),
        Adopted::Ours,
        "nothing is unfinished"
    );
    one.adopt(id).await.expect("adopted");
    one.save_items(id, vec![at(0, 1, ItemState::Queued)])
        .await
        .expect("queued again");
    assert_eq!(
        two.adopt(id).await.expect("asked"),
        Adopted::OwnedBy(one.server_id())
    );
    one.begin_attempt(id, at(0, 2, ItemState::Running))
        .await
        .expect("begun");
    let again = one.begin_attempt(id, at(1, 1, ItemState::Running)).await;
    assert!(matches!(again, Err(StoreError::Ended { .. })), "{again:?}");
}

#[tokio::test]
async fn a_dead_servers_workflow_is_adopted_once_it_is_interrupted() {
    let dir = tempfile::tempdir().expect("a folder");
    let dead = open(dir.path());
    let id = journal(&dead, 2).await;
    dead.begin_attempt(id, at(0, 1, ItemState::Running))
        .await
        .expect("begun");
    let cancel = OwnerRequest::Cancel {
        items: vec![0],
        grace_ms: 1,
    };
    dead.ask_owner(id, cancel).await.expect("asked");
    dead.close().await;
    let next = open(dir.path());
    assert_eq!(
        next.adopt(id).await.expect("asked"),
        Adopted::OwnedBy(dead.server_id()),
        "it is not marked as interrupted yet"
    );
    assert_eq!(next.recover().await.expect("recovered").len(), 1);
    assert_eq!(next.adopt(id).await.expect("adopted"), Adopted::Ours);
    let summary = next.summary(id).await.expect("read").expect("there");
    assert_eq!(
        (summary.counts.interrupted, summary.owner),
        (2, OwnerState::This)
    );
    assert!(
        next.take_requests().await.expect("taken").is_empty(),
        "meant for the old run"
    );
    assert_eq!(
        next.adopt(mahavishnu::model::WorkflowId::new())
            .await
            .expect("asked"),
        Adopted::Missing
    );
}

#[tokio::test]
async fn requests_reach_the_owner_once_and_are_noticed() {
    let dir = tempfile::tempdir().expect("a folder");
    let (owner, other) = (open(dir.path()), open(dir.path()));
    let id = journal(&owner, 2).await;
    let before = owner.version().await.expect("asked");
    assert_eq!(owner.version().await.expect("asked"), before);

    let requests = [
        OwnerRequest::Cancel {
            items: vec![1],
            grace_ms: 500,
        },
        OwnerRequest::Resume {
            json: "{}".to_owned(),
        },
    ];
    for request in requests.clone() {
        other.ask_owner(id, request).await.expect("asked");
    }
    assert_ne!(owner.version().await.expect("asked"), before);
    assert!(
        other.take_requests().await.expect("taken").is_empty(),
        "not its workflow"
    );
    let taken = owner.take_requests().await.expect("taken");
    let what: Vec<_> = taken.iter().map(|asked| asked.request.clone()).collect();
    assert_eq!(what, requests);
    assert!(taken.iter().all(|asked| asked.id == id));
    assert!(owner.take_requests().await.expect("taken").is_empty());
    for (asked, answer) in taken
        .iter()
        .zip([Ok(()), Err(Problem::new(ErrorKind::Conflict, "it runs"))])
    {
        assert_eq!(other.answer_to(asked.number).await.expect("read"), None);
        let told = owner
            .answer_request(asked.number, answer.clone().map_err(Into::into))
            .await;
        told.expect("written");
        let told = other.answer_to(asked.number).await.expect("read");
        assert_eq!(told, Some(answer));
        other.withdraw_request(asked.number).await.expect("written");
        let gone = other.answer_to(asked.number).await.expect("read");
        assert!(matches!(gone, Some(Err(_))), "{gone:?}");
    }
    let missing = mahavishnu::model::WorkflowId::new();
    let refused = other.ask_owner(missing, requests[0].clone()).await;
    assert!(
        matches!(refused, Err(StoreError::NoWorkflow { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_other_live_servers_run_is_counted_by_pool() {
    let dir = tempfile::tempdir().expect("a folder");
    let (one, two) = (open(dir.path()), open(dir.path()));
    let id = journal(&two, 3).await;
    for item in 0..2 {
        two.begin_attempt(id, at(item, 1, ItemState::Running))
            .await
            .expect("begun");
    }
    let mine = journal(&one, 1).await;
    one.begin_attempt(mine, at(0, 1, ItemState::Running))
        .await
        .expect("begun");
    let seen = one.in_flight_elsewhere().await.expect("counted");
    assert_eq!(seen.get("local"), Some(&2));
    two.close().await;
    assert!(
        one.in_flight_elsewhere().await.expect("counted").is_empty(),
        "the dead run nothing"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_server_leaves_others_their_turn() {
    let dir = tempfile::tempdir().expect("a folder");
    let (busy, other) = (open(dir.path()), open(dir.path()));
    let id = journal(&busy, 64).await;
    let mut callers = JoinSet::new();
    for item in 0..64 {
        let store = busy.clone();
        callers.spawn(async move {
            for attempt in 1.. {
                let running = at(item, attempt, ItemState::Running);
                store.begin_attempt(id, running).await.expect("begun");
            }
        });
    }
    for _ in 0..50 {
        journal(&other, 1).await;
    }
    let begun = busy.item(id, 0).await.expect("read").expect("there");
    assert!(begun.attempt > 0, "it was not busy");
    callers.shutdown().await;
}
