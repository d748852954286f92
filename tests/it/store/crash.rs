//! A server killed in mid-write: what it was told is there, and its items can be taken over.

use super::indexed::assert_indexed;
use super::{Engine, at, clean, items, journal, open, record};
use mahavishnu::error::{ErrorKind, Fault};
use mahavishnu::model::{ItemState, MemoryKind, NewMemory, WorkflowId};
use mahavishnu::store::OwnerState;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use tokio::task::JoinSet;

const DIR: &str = "MAHAVISHNU_TEST_CRASH_DIR";
const WRITERS: u32 = 8;

/// The child's half of the tests below: writes until it is killed, and says on stdout what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the tests of this module"]
async fn writes_until_killed() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let store = open(dir.as_ref());
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let store = store.clone();
        writers.spawn(async move {
            loop {
                let id = journal(&store, 4).await;
                tell(&format!("{id} 0 queued"));
                let memory = NewMemory::new(
                    MemoryKind::Note,
                    clean(format!("began {id}")),
                    "local".parse().expect("a name"),
                    "test",
                );
                let stored = store.insert_memories(vec![memory], None).await;
                stored.expect("stored");
                for item in 0..4 {
                    for state in [ItemState::Running, ItemState::Succeeded] {
                        let record = at(item, 1, state);
                        if state == ItemState::Running {
                            store.begin_attempt(id, record).await.expect("begun");
                        } else {
                            store.save_items(id, vec![record]).await.expect("saved");
                        }
                        tell(&format!("{id} {item} {}", state.as_str()));
                    }
                }
            }
        });
    }
    writers.join_all().await;
}

/// Writes one line at once, past the test harness's own capture.
fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "acked {line}").expect("the parent listens");
    out.flush().expect("the parent listens");
}

fn start(dir: &std::path::Path) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args([
            "--exact",
            "store::crash::writes_until_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(DIR, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("this binary starts")
}

/// Kills the child with SIGKILL after `after` acknowledged writes; returns the last acknowledged state of each item.
fn kill_after(mut child: Child, after: usize) -> BTreeMap<(WorkflowId, u32), ItemState> {
    let mut acked = BTreeMap::new();
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut seen = 0;
    for line in lines.map_while(Result::ok) {
        let Some(line) = line.strip_prefix("acked ") else {
            continue;
        };
        let mut words = line.split(' ');
        let mut word = || words.next();
        // The kill may cut the last line.
        let (Some(id), Some(item), Some(state)) = (word(), word(), word()) else {
            continue;
        };
        let (Ok(id), Ok(item), Some(state)) = (id.parse(), item.parse(), ItemState::parse(state))
        else {
            continue;
        };
        acked.insert((id, item), state);
        seen += 1;
        if seen == after {
            child.kill().expect("it runs");
        }
    }
    let status = child.wait().expect("it ran");
    assert!(
        !status.success() && seen >= after,
        "it ended by itself after {seen} writes"
    );
    acked
}

fn random_below(limit: u64) -> usize {
    use std::hash::{BuildHasher, RandomState};
    usize::try_from(RandomState::new().hash_one(0) % limit).expect("it is small")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_survives_kill_nine() {
    let dir = tempfile::tempdir().expect("a folder");
    for round in 0..6 {
        let after = 1 + random_below(300);
        let acked = kill_after(start(dir.path()), after);
        let store = open(dir.path());
        let health = store.integrity().await.expect("checked");
        assert!(
            health.ok && health.complete,
            "round {round}, after {after}: {health:?}"
        );
        assert_indexed(dir.path());
        for (&(id, item), &state) in &acked {
            let stored = store
                .item(id, item)
                .await
                .expect("read")
                .expect("acknowledged");
            // The next step may have been written without being told any more.
            let written = ItemState::ALL.iter().position(|&s| s == stored.status);
            let told = ItemState::ALL.iter().position(|&s| s == state);
            assert!(
                written >= told,
                "round {round}: {id} {item}: {:?} < {state:?}",
                stored.status
            );
        }

        let unfinished = acked
            .iter()
            .filter(|&(_, &state)| state == ItemState::Running)
            .count();
        let recovered = store.recover().await.expect("recovered");
        let interrupted: usize = recovered.iter().map(|workflow| workflow.interrupted).sum();
        assert!(interrupted + WRITERS as usize >= unfinished);
        assert!(recovered.len() <= WRITERS as usize, "{recovered:?}");
        for workflow in &recovered {
            let stored = store
                .workflow(workflow.id)
                .await
                .expect("read")
                .expect("there");
            assert_eq!(stored.owner, OwnerState::Dead);
            assert!(
                stored.items.iter().all(|item| item.status.is_final()),
                "{stored:?}"
            );
            let told_done = acked
                .iter()
                .filter(|&(&(id, _), &state)| id == workflow.id && state == ItemState::Succeeded);
            for (&(_, item), _) in told_done {
                assert_eq!(stored.items[item as usize].status, ItemState::Succeeded);
            }
        }
        assert!(
            store.recover().await.expect("looked").is_empty(),
            "only once"
        );
        store.close().await;
        let locks = std::fs::read_dir(dir.path().join("locks")).expect("readable");
        let left: Vec<_> = locks
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        assert_eq!(left, ["schema.lock"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_process_keeps_its_items_until_it_is_killed() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let mut child = start(dir.path());
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let id: WorkflowId = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("acked ")?.split(' ').next()?.parse().ok())
        .expect("it journals a workflow");
    assert!(
        store.recover().await.expect("looked").is_empty(),
        "its server lives"
    );
    let summary = store.summary(id).await.expect("read").expect("there");
    assert_eq!(summary.owner, OwnerState::Other);
    child.kill().expect("it runs");
    child.wait().expect("it ran");
    assert!(!store.recover().await.expect("recovered").is_empty());
    assert_eq!(
        store.summary(id).await.expect("read").expect("there").owner,
        OwnerState::Dead
    );
}

/// The child's half of the next test: journals until the disk takes no more.
#[tokio::test]
#[ignore = "started by the tests of this module"]
async fn writes_until_refused() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let store = open(dir.as_ref());
    let mut known = Vec::new();
    let error = loop {
        let record = record(&store);
        let id = record.id;
        match store
            .create_workflow(record, items(100, ItemState::Queued))
            .await
        {
            Ok(_) => {
                tell(&format!("{id} 0 queued"));
                known.push(id);
            }
            Err(error) => break error.problem(),
        }
    };
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error:?}");
    assert!(error.retryable && error.hint.is_some(), "{error:?}");
    // What is there can still be read, and the thread still answers.
    assert!(known.len() > 2, "{error:?}");
    for id in known {
        assert!(store.workflow(id).await.expect("read").is_some());
    }
    store
        .create_workflow(record(&store), items(100, ItemState::Queued))
        .await
        .expect_err("still full");
    tell("refused");
}

#[tokio::test]
async fn a_disk_that_takes_no_more_loses_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    // A limit on the size of files stands in for a full disk; without the trap its signal would end the child.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("this binary"))
        .args([
            "--exact",
            "store::crash::writes_until_refused",
            "--ignored",
            "--nocapture",
        ])
        .env(DIR, dir.path())
        .output()
        .expect("sh starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let told: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("acked "))
        .collect();
    assert_eq!(told.last(), Some(&"refused"), "{output:?}");
    let store = open(dir.path());
    let health = store.integrity().await.expect("checked");
    assert!(health.ok, "{health:?}");
    for line in &told[..told.len() - 1] {
        let id = line
            .split(' ')
            .next()
            .and_then(|id| id.parse().ok())
            .expect("an id");
        let stored = store
            .workflow(id)
            .await
            .expect("read")
            .expect("acknowledged");
        assert_eq!(stored.items.len(), 100);
    }
    assert_eq!(
        health.workflows,
        told.len() as u64 - 1,
        "nothing refused was written"
    );
}
