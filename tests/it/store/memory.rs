//! Memories are kept once, found by any text, and forgotten for good.

use super::{Engine, at, clean, finish, journal, open, prune};
use mahavishnu::error::Fault;
use mahavishnu::model::{
    At, ItemState, MemoryId, MemoryKind, MemoryPage, MemoryQuery, NewMemory, PoolName, WorkflowId,
};
use mahavishnu::store::{Retention, Store, StoreError};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

fn pool(name: &str) -> PoolName {
    name.parse().expect("a name")
}

fn new(kind: MemoryKind, text: &str) -> NewMemory {
    NewMemory::new(kind, clean(text), pool("local"), "worker")
}

async fn keep(store: &Store, memories: Vec<NewMemory>) -> Vec<MemoryId> {
    let report = store.insert_memories(memories, None).await.expect("stored");
    assert_eq!(report.duplicate, 0, "{report:?}");
    report.ids
}

fn words(text: &str) -> MemoryQuery {
    MemoryQuery {
        text: text.to_owned(),
        limit: 10,
        ..MemoryQuery::default()
    }
}

async fn find(store: &Store, query: MemoryQuery) -> MemoryPage {
    store
        .find_memories(query)
        .await
        .expect("any text is a search")
}

fn ids(page: &MemoryPage) -> Vec<MemoryId> {
    page.hits.iter().map(|hit| hit.memory.id).collect()
}

#[tokio::test]
async fn a_memory_is_read_back_whole_and_known_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let outcome = NewMemory {
        repo: Some("/repos/a".to_owned()),
        workflow: Some(WorkflowId::new()),
        item: Some(3),
        attempt: Some(2),
        worker: Some("command".to_owned()),
        commit: Some("c0ffee".to_owned()),
        tags: vec!["rust".into(), "ci".into()],
        created_at: At::from_unix_ms(1_700_000_000_000),
        ..new(MemoryKind::Outcome, "42 tests passed")
    };
    let first = store
        .insert_memories(vec![outcome.clone()], None)
        .await
        .expect("stored");
    assert_eq!((first.new, first.duplicate), (1, 0));
    let memory = store
        .memory(first.ids[0])
        .await
        .expect("read")
        .expect("there");
    assert_eq!(
        (memory.text.as_str(), memory.tags.clone()),
        ("42 tests passed", outcome.tags.clone())
    );
    assert_eq!(
        (memory.workflow, memory.item, memory.attempt),
        (outcome.workflow, Some(3), Some(2))
    );
    assert_eq!(
        (memory.repo.clone(), memory.commit.clone()),
        (outcome.repo.clone(), outcome.commit.clone())
    );
    assert_eq!(
        (memory.created_at, memory.aggregated),
        (outcome.created_at, false)
    );

    let again = store
        .insert_memories(vec![outcome.clone()], None)
        .await
        .expect("answered");
    assert_eq!(
        (again.new, again.duplicate, again.ids.clone()),
        (0, 1, first.ids.clone())
    );
    let redone = NewMemory {
        text: "other words".into(),
        ..outcome.clone()
    };
    let same = store
        .insert_memories(vec![redone], None)
        .await
        .expect("answered");
    assert_eq!(same.ids, first.ids, "one outcome per attempt");
    let next = NewMemory {
        attempt: Some(3),
        ..outcome
    };
    assert_eq!(
        store
            .insert_memories(vec![next], None)
            .await
            .expect("stored")
            .new,
        1
    );
    assert_eq!(store.memory(MemoryId::new()).await.expect("read"), None);
}

#[tokio::test]
async fn identity_is_the_marker_or_the_sources_id_or_the_words() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let note = new(MemoryKind::Note, "words");
    let variants = [
        note.clone(),
        NewMemory {
            pool: pool("other"),
            ..note.clone()
        },
        NewMemory {
            repo: Some("/repos/a".to_owned()),
            ..note.clone()
        },
        NewMemory {
            source_id: Some("1".to_owned()),
            ..note.clone()
        },
        NewMemory {
            source_id: Some("1".to_owned()),
            source: "peer".to_owned(),
            ..note.clone()
        },
        NewMemory {
            source_id: Some("2".to_owned()),
            source: "peer".to_owned(),
            ..note.clone()
        },
    ];
    let known = keep(&store, variants.to_vec()).await;
    assert_eq!(known.iter().collect::<BTreeSet<_>>().len(), variants.len());
    let twice = store
        .insert_memories(variants.to_vec(), None)
        .await
        .expect("answered");
    assert_eq!((twice.duplicate, twice.ids), (6, known.clone()));

    // What comes back from a peer under our marker is what we had sent, whatever the peer made of its text.
    let back = NewMemory {
        marker: Some(known[0]),
        ..new(MemoryKind::Note, "[mv:local:...] words")
    };
    let report = store
        .insert_memories(vec![back.clone(), back], None)
        .await
        .expect("answered");
    assert_eq!(
        (report.new, report.duplicate, report.ids),
        (0, 2, vec![known[0], known[0]])
    );
    let marker = MemoryId::new();
    let lost = NewMemory {
        marker: Some(marker),
        ..new(MemoryKind::Note, "from before")
    };
    let report = store
        .insert_memories(vec![lost.clone(), lost], None)
        .await
        .expect("answered");
    assert_eq!(
        (report.new, report.duplicate, report.ids),
        (1, 1, vec![marker, marker])
    );
}

#[tokio::test]
async fn words_phrases_prefixes_and_accents_find() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let kept = keep(
        &store,
        vec![
            new(
                MemoryKind::Note,
                "The borrow checker refuses two mutable borrows",
            ),
            new(MemoryKind::Note, "checker of the borrow kind"),
            new(MemoryKind::Note, "Ein Café in Zürich"),
            NewMemory {
                tags: vec!["flaky".into()],
                ..new(MemoryKind::Note, "run it twice")
            },
            NewMemory {
                repo: Some("/repos/mahavishnu".to_owned()),
                ..new(MemoryKind::Note, "about a place")
            },
            new(MemoryKind::Note, "日本語 テスト"),
        ],
    )
    .await;
    let found = |text: &'static str| {
        let store = store.clone();
        async move {
            ids(&find(&store, words(text)).await)
                .into_iter()
                .collect::<BTreeSet<_>>()
        }
    };
    let set = |at: &[usize]| at.iter().map(|&at| kept[at]).collect::<BTreeSet<_>>();
    assert_eq!(found("borrow checker").await, set(&[0, 1]));
    assert_eq!(found("\"borrow checker\"").await, set(&[0]));
    assert_eq!(found("mut*").await, set(&[0]));
    assert_eq!(found("mut").await, set(&[]));
    assert_eq!(found("cafe ZURICH").await, set(&[2]));
    assert_eq!(found("flaky").await, set(&[3]));
    assert_eq!(found("mahavishnu").await, set(&[4]));
    assert_eq!(found("テスト").await, set(&[5]));
    assert_eq!(found("borrow AND NOT checker").await, set(&[0, 1]));

    let some = find(&store, words("mutable elephants")).await;
    assert_eq!(ids(&some), [kept[0]]);
    assert!(some.notes[0].contains("some of them"), "{:?}", some.notes);
    let none = find(&store, words("\" * ( - ^")).await;
    assert!(
        none.hits.is_empty() && none.notes[0].contains("no word"),
        "{none:?}"
    );
    let huge = find(&store, words(&"borrow ".repeat(150_000))).await;
    assert_eq!(huge.hits.len(), 2);
    assert!(huge.notes[0].contains("cut"), "{:?}", huge.notes);
    for odd in [
        "\0",
        "text:borrow",
        "NEAR(borrow, 2)",
        "{borrow}",
        "borrow^2",
        "a\"b\"\"c",
        "-borrow",
        "'",
        ";--",
    ] {
        find(&store, words(odd)).await;
    }
}

#[tokio::test]
async fn log_tails_do_not_drown_a_lesson() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let mut memories: Vec<_> = (0..300)
        .map(|n| {
            let log = format!(
                "run {n}: timeout {}",
                "timeout waiting for the port ".repeat(1 + n % 7)
            );
            new(MemoryKind::Outcome, &log)
        })
        .collect();
    memories.insert(
        150,
        new(
            MemoryKind::Lesson,
            "A timeout on the port means that the old server still runs: stop it first",
        ),
    );
    let kept = keep(&store, memories).await;
    let page = find(&store, words("timeout port")).await;
    assert_eq!(page.hits[0].memory.id, kept[150]);
    assert!(
        page.hits
            .windows(2)
            .all(|pair| pair[0].score >= pair[1].score)
    );
    assert!(page.hits.iter().all(|hit| hit.score > 0.0));
}

#[tokio::test]
async fn filters_narrow_with_and_without_words() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let old = At::from_unix_ms(1_000_000_000_000);
    let kept = keep(
        &store,
        vec![
            NewMemory {
                created_at: old,
                ..new(MemoryKind::Lesson, "alpha one")
            },
            NewMemory {
                pool: pool("gpu"),
                ..new(MemoryKind::Note, "alpha two")
            },
            NewMemory {
                repo: Some("/repos/a".to_owned()),
                ..new(MemoryKind::Outcome, "alpha three")
            },
            NewMemory {
                tags: vec!["x".into(), "y".into()],
                ..new(MemoryKind::Note, "alpha four")
            },
        ],
    )
    .await;
    for text in ["alpha", ""] {
        let query = words(text);
        let cases: [(MemoryQuery, &[usize]); 10] = [
            (query.clone(), &[0, 1, 2, 3]),
            (
                MemoryQuery {
                    pools: vec![pool("gpu"), pool("none")],
                    ..query.clone()
                },
                &[1],
            ),
            (
                MemoryQuery {
                    repo: Some("/repos/a".to_owned()),
                    ..query.clone()
                },
                &[2],
            ),
            (
                MemoryQuery {
                    repo: Some("a".to_owned()),
                    ..query.clone()
                },
                &[2],
            ),
            (
                MemoryQuery {
                    kinds: vec![MemoryKind::Lesson, MemoryKind::Outcome],
                    ..query.clone()
                },
                &[0, 2],
            ),
            (
                MemoryQuery {
                    tags: vec!["y".to_owned()],
                    ..query.clone()
                },
                &[3],
            ),
            (
                MemoryQuery {
                    tags: vec!["y".to_owned(), "z".to_owned()],
                    ..query.clone()
                },
                &[],
            ),
            (
                MemoryQuery {
                    until: Some(old),
                    ..query.clone()
                },
                &[0],
            ),
            (
                MemoryQuery {
                    since: Some(At::from_unix_ms(old.unix_ms() + 1)),
                    ..query.clone()
                },
                &[1, 2, 3],
            ),
            (
                MemoryQuery {
                    ids: vec![kept[1], kept[3]],
                    ..query.clone()
                },
                &[1, 3],
            ),
        ];
        for (query, expected) in cases {
            let found: BTreeSet<_> = ids(&find(&store, query.clone()).await)
                .into_iter()
                .collect();
            assert_eq!(
                found,
                expected.iter().map(|&at| kept[at]).collect(),
                "{query:?}"
            );
        }
    }
    let newest = find(&store, words("")).await;
    assert_eq!(ids(&newest).last(), Some(&kept[0]), "newest first");
}

#[tokio::test]
async fn pages_are_disjoint_and_complete_while_others_write() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let texts = (0..95)
        .map(|n| new(MemoryKind::Note, &format!("alpha {}", "beta ".repeat(n))))
        .collect();
    let kept: BTreeSet<_> = keep(&store, texts).await.into_iter().collect();
    for text in ["alpha", ""] {
        let mut seen = Vec::new();
        let mut query = words(text);
        loop {
            let page = find(&store, query.clone()).await;
            assert!(!page.approximate);
            seen.extend(ids(&page));
            keep(
                &store,
                vec![new(
                    MemoryKind::Note,
                    &format!("alpha new {text} {}", seen.len()),
                )],
            )
            .await;
            match page.next {
                Some(next) => query.cursor = Some(next),
                None => break,
            }
        }
        let before: Vec<_> = seen.iter().filter(|id| kept.contains(id)).collect();
        assert_eq!(before.len(), 95, "{text}");
        assert_eq!(
            seen.iter().collect::<BTreeSet<_>>().len(),
            seen.len(),
            "{text}: a hit came twice"
        );
    }
    let odd = MemoryQuery {
        cursor: Some("nonsense".to_owned()),
        ..words("alpha")
    };
    let error = store.find_memories(odd).await.expect_err("refused");
    assert_eq!(error.field().as_deref(), Some("cursor"));
}

#[tokio::test]
async fn equal_texts_are_one_hit_with_all_their_origins() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let memories = (0..30)
        .map(|n| NewMemory {
            repo: Some(format!("/repos/r{n}")),
            ..new(MemoryKind::Outcome, "all tests passed")
        })
        .chain([new(MemoryKind::Outcome, "all tests passed but one")])
        .collect();
    keep(&store, memories).await;
    for text in ["tests passed", ""] {
        let page = find(&store, words(text)).await;
        assert_eq!(page.hits.len(), 2, "{text}");
        let same = page
            .hits
            .iter()
            .find(|hit| hit.also_count > 0)
            .expect("a merged hit");
        assert_eq!((same.also_count, same.also.len()), (29, 20));
        let repos: BTreeSet<_> = same.also.iter().map(|origin| origin.repo.clone()).collect();
        assert!(repos.len() == 20 && !repos.contains(&same.memory.repo));
    }
}

#[tokio::test]
async fn very_many_matches_are_said_to_be_ranked_in_part() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let texts = (0..10_001)
        .map(|n| new(MemoryKind::Note, &format!("alpha n{n}")))
        .collect();
    keep(&store, texts).await;
    let page = find(&store, words("alpha")).await;
    assert!(page.approximate && page.hits.len() == 10);
    let exact = find(&store, words("n77")).await;
    assert!(!exact.approximate && exact.hits.len() == 1);
}

#[tokio::test]
async fn collecting_marks_once_and_forwards_in_the_same_step() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let peer = mahavishnu::model::PeerName::new("session_buddy");
    let kept = keep(
        &store,
        (0..5)
            .map(|n| new(MemoryKind::Outcome, &format!("run {n}")))
            .collect(),
    )
    .await;
    let other = NewMemory {
        pool: pool("gpu"),
        ..new(MemoryKind::Outcome, "elsewhere")
    };
    keep(&store, vec![other]).await;
    let take = || store.collect_memories(pool("local"), None, 0, 3, Some(peer.clone()));
    let (one, two) = tokio::join!(take(), take());
    let mut taken = [one.expect("collected"), two.expect("collected")].map(|batch| batch.new);
    taken.sort();
    assert_eq!(taken[0], kept[..3]);
    assert_eq!(taken[1], kept[3..]);
    assert_eq!(
        store.outbox_counts(peer).await.expect("counted").pending,
        kept.len() as u64
    );
}

#[tokio::test]
async fn an_end_and_its_memory_are_written_together_or_not_at_all() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let id = journal(&store, 2).await;
    let outcome = |text: String| NewMemory {
        workflow: Some(id),
        item: Some(0),
        attempt: Some(1),
        ..new(MemoryKind::Outcome, &text)
    };
    let ended = vec![at(0, 1, ItemState::Succeeded)];
    let (_, report) = finish(&store, id, ended, vec![outcome("done".to_owned())])
        .await
        .expect("written");
    assert_eq!(report.new, 1);
    let same = vec![at(0, 1, ItemState::Succeeded)];
    let again = finish(&store, id, same, Vec::new()).await;
    again.expect("the same end is no other end");
    let other = vec![at(0, 1, ItemState::Failed)];
    let other = finish(&store, id, other, Vec::new()).await;
    assert!(matches!(other, Err(StoreError::Ended { .. })), "{other:?}");
    let too_long = NewMemory {
        item: Some(1),
        ..outcome("x".repeat(10 << 20))
    };
    let refused = finish(
        &store,
        id,
        vec![at(1, 1, ItemState::Succeeded)],
        vec![too_long],
    )
    .await;
    assert!(
        matches!(refused, Err(StoreError::Argument { field: "text", .. })),
        "{refused:?}"
    );
    let item = store.item(id, 1).await.expect("read").expect("there");
    assert_eq!(item.status, ItemState::Queued);
}

/// Returns what stands in the store's files, as text.
fn files(dir: &Path) -> String {
    let read = |name| std::fs::read(dir.join(name)).unwrap_or_default();
    let bytes = [read("mahavishnu.db"), read("mahavishnu.db-wal")].concat();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn what_is_forgotten_is_gone_from_the_file_and_its_index_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    // Enough different words that some of them part the index's pages. The index shares the beginnings of words, so
    // that only the tail of one surely stands there as it is.
    let tail = |n: usize| format!("x{:05}y", n * 7_919 % 100_003);
    let secret = |n: usize| format!("zq{:05}{}", n * 7_919 % 100_003, tail(n));
    let texts = (0..3_000)
        .map(|n| new(MemoryKind::Note, &format!("keep {n} {}", secret(n))))
        .collect();
    let kept = keep(&store, texts).await;
    let long = format!("{} {}", "filler ".repeat(5_000), "overflowsecret");
    let long = keep(&store, vec![new(MemoryKind::Note, &long)]).await[0];
    assert!(files(dir.path()).contains("overflowsecret"));
    assert!(store.forget(long).await.expect("forgotten").is_some());
    assert!(!files(dir.path()).contains("overflowsecret"));

    let forgotten: Vec<_> = (0..3_000).step_by(30).collect();
    let standing = || {
        let files = files(dir.path());
        forgotten
            .iter()
            .filter(|&&n| files.contains(&tail(n)))
            .count()
    };
    assert_eq!(standing(), forgotten.len());
    for &n in &forgotten {
        assert!(store.forget(kept[n]).await.expect("forgotten").is_some());
    }
    let again = store.forget(kept[0]).await.expect("asked");
    assert!(
        again.is_some_and(|again| again.before),
        "it is gone already"
    );
    let never = store.forget(mahavishnu::model::MemoryId::new()).await;
    assert_eq!(never.expect("asked"), None);
    assert_eq!(standing(), 0);
    assert!(find(&store, words(&secret(0))).await.hits.is_empty());
    assert_eq!(ids(&find(&store, words(&secret(1))).await), [kept[1]]);
    assert_eq!(store.memory(kept[0]).await.expect("read"), None);
    let health = store.integrity().await.expect("checked");
    assert!(health.ok && health.memories == 2_900, "{health:?}");
}

#[tokio::test]
async fn forgetting_an_outcome_takes_its_output_out_of_the_journal_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let id = journal(&store, 2).await;
    let mut forget = Vec::new();
    for item in 0..2 {
        let mut failed = at(item, 1, ItemState::Failed);
        failed.output_tail = Some(clean(format!("hunter{item}")));
        let outcome = NewMemory {
            workflow: Some(id),
            item: Some(item),
            attempt: Some(1),
            ..new(MemoryKind::Outcome, &format!("failed: hunter{item}"))
        };
        let report = finish(&store, id, vec![failed.clone()], vec![outcome]).await;
        forget.extend(report.expect("written").1.ids);
        if item == 0 {
            failed.status = ItemState::Queued;
            store
                .save_items(id, vec![failed])
                .await
                .expect("queued again");
        }
    }
    store.forget(forget[0]).await.expect("forgotten");
    assert!(!files(dir.path()).contains("hunter0"));
    assert!(files(dir.path()).contains("hunter1"));
    for (item, tail) in [(0, None), (1, Some("hunter1".into()))] {
        let attempt = store
            .attempt(id, item, 1)
            .await
            .expect("read")
            .expect("there");
        assert_eq!(
            (attempt.status, attempt.output_tail),
            (ItemState::Failed, tail)
        );
    }
}

#[tokio::test]
async fn retention_keeps_lessons_and_what_is_not_forwarded_yet() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let peer = mahavishnu::model::PeerName::new("session_buddy");
    let old = At::from_unix_ms(1_000_000_000_000);
    let aged = |kind, text: &str| NewMemory {
        created_at: old,
        ..new(kind, text)
    };
    let waiting = store
        .insert_memories(vec![aged(MemoryKind::Outcome, "waits")], Some(peer.clone()))
        .await
        .expect("stored")
        .ids;
    let kept = keep(
        &store,
        vec![
            aged(MemoryKind::Outcome, "goes"),
            aged(MemoryKind::Lesson, "stays"),
            new(MemoryKind::Outcome, "young"),
        ],
    )
    .await;
    let hour = Some(Duration::from_secs(3_600));
    let outcomes = Retention {
        outcomes: hour,
        ..Retention::default()
    };
    assert_eq!(prune(&store, outcomes, At::now()).await.memories, 1);
    assert_eq!(store.memory(kept[0]).await.expect("read"), None);
    for id in [waiting[0], kept[1], kept[2]] {
        assert!(store.memory(id).await.expect("read").is_some());
    }
    store
        .ack_outbox(peer, waiting.clone())
        .await
        .expect("noted");
    let third_day = At::now().plus(Duration::from_secs(48 * 60 * 60));
    let pruned = store.prune(outcomes, third_day).await.expect("pruned");
    assert_eq!(pruned.memories, 1);
    assert_eq!(store.memory(waiting[0]).await.expect("read"), None);
}
