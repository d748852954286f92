//! The memory tools over a real store, with no Session-Buddy and with one that does not answer.

use mahavishnu::api::{
    AggregateMemory, Caller, ClearCache, CrossPoolSearch, Forwarding, Matched, PoolOutcome,
    Remember, SourceStatus,
};
use mahavishnu::config::CacheConfig;
use mahavishnu::error::{ErrorKind, Problem};
use mahavishnu::mcp_client::{ClientSettings, Endpoint, McpClient};
use mahavishnu::model::{At, MemoryId, MemoryKind, NewMemory, PeerName, PoolName};
use mahavishnu::orchestrator::memory::{Collect, Memories, Parts, PoolNames, forget};
use mahavishnu::orchestrator::sync::DeliverySettings;
use mahavishnu::redact::redact;
use mahavishnu::session_buddy::SessionBuddy;
use mahavishnu::store::{Durability, Store, StoreOptions};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tools with what they stand on; the folder goes with them.
pub(crate) struct Bench {
    pub(crate) tools: Memories,
    pub(crate) store: Store,
    pub(crate) caller: Caller,
    closing: CancellationToken,
    tasks: TaskTracker,
    dir: Arc<TempDir>,
}

pub(crate) const PEER: &str = "session_buddy";

impl Bench {
    pub(crate) fn new(buddy: Option<SessionBuddy>) -> Self {
        Self::in_dir(
            tempfile::tempdir().expect("a temporary folder").into(),
            buddy,
        )
    }

    /// The tools of another server on the same state directory.
    pub(crate) fn beside(&self, buddy: Option<SessionBuddy>) -> Self {
        Self::in_dir(Arc::clone(&self.dir), buddy)
    }

    fn in_dir(dir: Arc<TempDir>, buddy: Option<SessionBuddy>) -> Self {
        let store = Store::open(StoreOptions {
            dir: dir.path().to_owned(),
            durability: Durability::Normal,
        })
        .expect("the folder is writable");
        Self::over(dir, store, buddy)
    }

    fn over(dir: Arc<TempDir>, store: Store, buddy: Option<SessionBuddy>) -> Self {
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        let tools = Memories::new(Parts {
            store: store.clone(),
            peer: buddy.map(|buddy| (PeerName::new(PEER), buddy)),
            delivery: DeliverySettings {
                unclear_rest: Duration::from_secs(1),
                look: Duration::from_millis(500),
                ..DeliverySettings::default()
            },
            cache: CacheConfig::default(),
            collect_deadline: Duration::from_secs(20),
            clock: Arc::new(Instant::now),
            tasks: tasks.clone(),
            closing: closing.clone(),
        });
        Self {
            tools,
            store,
            caller: Caller::new(None, Caller::DEFAULT_WAIT_CAP),
            closing,
            tasks,
            dir,
        }
    }

    /// Ends the background work as the server's end does.
    pub(crate) async fn close(self) {
        self.closing.cancel();
        self.tasks.close();
        tokio::time::timeout(super::support::HANG, self.tasks.wait())
            .await
            .expect("background work ends with the server");
        self.store.close().await;
    }

    pub(crate) async fn remember(&self, text: &str) -> mahavishnu::api::RememberResult {
        self.tools
            .remember(note(text), None, &Names)
            .await
            .expect("it is stored")
    }

    pub(crate) async fn search(
        &self,
        call: CrossPoolSearch,
    ) -> mahavishnu::api::CrossPoolSearchResult {
        let answer = self.tools.search(call, None, &Names).await;
        let answer = answer.expect("a search");
        let bytes = serde_json::to_string(&answer).expect("JSON").len();
        assert!(bytes < 9_000, "an answer of {bytes} bytes");
        answer
    }

    pub(crate) async fn aggregate(
        &self,
        call: AggregateMemory,
    ) -> mahavishnu::api::AggregateMemoryResult {
        let answer = self.tools.aggregate(call, &self.caller, &Names).await;
        let sum = answer.expect("a collection");
        assert_eq!(sum.collected, sum.new + sum.duplicate, "{sum:?}");
        assert_eq!(sum.new, sum.forwarded + sum.pending + sum.failed, "{sum:?}");
        if !sum.truncated {
            let over = |of: fn(&mahavishnu::api::PoolCollection) -> u64| {
                sum.pools.iter().map(of).sum::<u64>()
            };
            assert_eq!(sum.collected, over(|row| row.collected));
            assert_eq!(sum.forwarded, over(|row| row.forwarded));
            assert_eq!(sum.pending, over(|row| row.pending));
        }
        sum
    }
}

/// Two pools, `b` first.
pub(crate) struct Names;

impl PoolNames for Names {
    fn exists(&self, name: &str) -> bool {
        ["a", "b"].contains(&name)
    }

    fn all(&self) -> Vec<PoolName> {
        vec![pool("b"), pool("a")]
    }
}

pub(crate) fn pool(name: &str) -> PoolName {
    name.parse().expect("a pool name")
}

pub(crate) fn note(text: &str) -> Remember {
    Remember {
        text: text.to_owned(),
        repo: None,
        tags: Vec::new(),
        pool: None,
        kind: None,
    }
}

pub(crate) fn words(query: &str) -> CrossPoolSearch {
    CrossPoolSearch {
        query: query.to_owned(),
        ..CrossPoolSearch::default()
    }
}

/// A Session-Buddy where nobody listens.
fn nobody() -> SessionBuddy {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    drop(listener);
    let endpoint = Endpoint::Http {
        url: format!("http://127.0.0.1:{port}/mcp"),
        headers: Vec::new(),
    };
    let client = McpClient::new(endpoint, ClientSettings::new(PEER));
    let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
    SessionBuddy::with_rest(client, 1, first, longest)
}

#[tokio::test]
async fn a_memory_is_redacted_stored_once_and_found_at_once() {
    let bench = Bench::new(None);
    let first = bench
        .remember("wombats need TOKEN=abcDEF123456ghi to build")
        .await;
    assert!(first.new);
    assert_eq!(first.forwarding, Forwarding::Off);
    let again = bench
        .remember("wombats need TOKEN=abcDEF123456ghi to build")
        .await;
    assert_eq!((again.new, &again.id), (false, &first.id));
    let found = bench.search(words("wombat*")).await;
    assert_eq!(found.hits.len(), 1);
    let hit = &found.hits[0];
    assert_eq!(hit.id, first.id);
    assert_eq!(
        hit.text,
        "wombats need TOKEN=[REDACTED-ASSIGNED-SECRET] to build"
    );
    assert_eq!(
        (hit.source.as_str(), hit.pool.clone()),
        ("remember", Some(pool("b")))
    );
    assert_eq!(hit.matched, [Matched::Fulltext]);
    let sources: Vec<_> = found.sources.iter().map(|source| source.status).collect();
    assert_eq!(sources, [SourceStatus::Ok, SourceStatus::Off]);
    bench.close().await;
}

#[tokio::test]
async fn a_search_that_was_made_before_sees_what_anybody_wrote_since() {
    let bench = Bench::new(None);
    let other = bench.beside(None);
    let ids = |found: mahavishnu::api::CrossPoolSearchResult| -> Vec<String> {
        let mut ids: Vec<String> = found.hits.into_iter().map(|hit| hit.id).collect();
        ids.sort();
        ids
    };
    let mut known = Vec::new();
    for round in 0..3 {
        for writer in [&bench, &other] {
            let text = format!("quokkas {round} of {:p}", writer);
            known.push(writer.remember(&text).await.id);
            known.sort();
            for _ in 0..2 {
                assert_eq!(ids(bench.search(words("quokkas")).await), known);
                assert_eq!(ids(other.search(words("quokkas")).await), known);
            }
        }
    }
    let two = CrossPoolSearch {
        limit: Some(2),
        ..words("quokkas")
    };
    assert_eq!(bench.search(two.clone()).await.hits.len(), 2);
    let first = bench.search(two.clone()).await;
    let next = CrossPoolSearch {
        cursor: first.cursor.clone(),
        ..two
    };
    assert_ne!(first.hits, bench.search(next).await.hits);
    let gone: MemoryId = known.remove(0).parse().expect("an id");
    let forgotten = forget(&other.store, gone)
        .await
        .expect("it can be forgotten");
    assert!(forgotten.is_some());
    assert_eq!(ids(bench.search(words("quokkas")).await), known);
    other.close().await;
    bench.close().await;
}

#[tokio::test]
async fn a_caller_is_told_that_only_a_part_of_the_matches_was_ranked() {
    let bench = Bench::new(None);
    let wombats = (0..501).map(|n| {
        let text = redact(&format!("wombat number {n}"));
        NewMemory::new(MemoryKind::Note, text, pool("a"), "test")
    });
    let stored = bench.store.insert_memories(wombats.collect(), None).await;
    stored.expect("stored");
    let found = bench.search(words("wombat")).await;
    let local = &found.sources[0];
    assert!(local.approximate && found.cursor.is_some());
    assert!(
        local.notes[0].contains("501 memories match"),
        "{:?}",
        local.notes
    );
    let some = bench.search(words("wombat elephants")).await;
    assert!(
        some.sources[0].notes[0].contains("some of them"),
        "{:?}",
        some.sources[0].notes
    );
    let one = bench.search(words("\"number 77\"")).await;
    assert_eq!(one.hits.len(), 1);
    assert!(!one.sources[0].approximate && one.sources[0].notes.is_empty());
    bench.close().await;
}

#[tokio::test]
async fn bad_arguments_are_refused_by_name() {
    let bench = Bench::new(None);
    let refused =
        |result: Result<mahavishnu::api::RememberResult, Problem>| result.expect_err("refused");
    let remember = |call| bench.tools.remember(call, None, &Names);
    assert_eq!(
        refused(remember(note(" \n")).await).field.as_deref(),
        Some("text")
    );
    assert_eq!(
        refused(remember(note(&"x".repeat(10 << 20))).await)
            .field
            .as_deref(),
        Some("text")
    );
    let tags = Remember {
        tags: vec![String::new()],
        ..note("x")
    };
    assert_eq!(refused(remember(tags).await).field.as_deref(), Some("tags"));
    let lost = Remember {
        pool: Some(pool("nope")),
        ..note("x")
    };
    let problem = refused(remember(lost).await);
    assert_eq!(
        (problem.kind, problem.allowed.as_deref()),
        (ErrorKind::NotFound, Some("b, a"))
    );
    for (field, call) in [
        (
            "limit",
            CrossPoolSearch {
                limit: Some(0),
                ..words("x")
            },
        ),
        (
            "limit",
            CrossPoolSearch {
                limit: Some(1_000_000_000),
                ..words("x")
            },
        ),
        (
            "since",
            CrossPoolSearch {
                since: Some("lately".into()),
                ..words("x")
            },
        ),
        (
            "since",
            CrossPoolSearch {
                since: Some("1d".into()),
                until: Some("2d".into()),
                ..words("x")
            },
        ),
        (
            "pools",
            CrossPoolSearch {
                pools: vec![pool("nope")],
                ..words("x")
            },
        ),
        (
            "ids",
            CrossPoolSearch {
                ids: vec!["nope".into()],
                ..words("")
            },
        ),
        (
            "cursor",
            CrossPoolSearch {
                cursor: Some("abcd".into()),
                ..words("x")
            },
        ),
    ] {
        let problem = bench
            .tools
            .search(call, None, &Names)
            .await
            .expect_err(field);
        assert_eq!(problem.field.as_deref(), Some(field));
        assert!(
            problem.allowed.is_some() || problem.hint.is_some(),
            "{problem:?}"
        );
    }
    for (field, call) in [
        (
            "pools",
            AggregateMemory {
                pools: vec![pool("nope")],
                ..AggregateMemory::default()
            },
        ),
        (
            "since",
            AggregateMemory {
                since: Some("x".into()),
                ..AggregateMemory::default()
            },
        ),
        (
            "wait_s",
            AggregateMemory {
                wait_s: Some(-1.0),
                ..AggregateMemory::default()
            },
        ),
    ] {
        let problem = bench
            .tools
            .aggregate(call, &bench.caller, &Names)
            .await
            .expect_err(field);
        assert_eq!(problem.field.as_deref(), Some(field));
    }
    bench.close().await;
}

#[tokio::test]
async fn any_query_is_a_search() {
    let bench = Bench::new(None);
    bench.remember("the only memory").await;
    for query in [
        "",
        "   ",
        "AND OR NOT",
        "\"",
        "(*^:)",
        "-",
        "NEAR(",
        "é\u{0}\u{1}",
        &"w ".repeat(1 << 19),
    ] {
        bench.search(words(query)).await;
    }
    assert_eq!(
        bench.search(words("")).await.hits.len(),
        1,
        "all that the filters let through"
    );
    bench.close().await;
}

#[tokio::test]
async fn pages_give_each_memory_once_although_more_come_meanwhile() {
    let bench = Bench::new(None);
    let mut expected = BTreeSet::new();
    for n in 0..60 {
        let filler = "numbats eat termites. ".repeat(60);
        expected.insert(bench.remember(&format!("numbat {n}: {filler}")).await.id);
    }
    for query in ["numbat", ""] {
        let mut call = CrossPoolSearch {
            limit: Some(25),
            ..words(query)
        };
        let (mut seen, mut pages) = (Vec::new(), 0);
        loop {
            let page = bench.search(call.clone()).await;
            assert!(!page.hits.is_empty());
            assert!(
                page.hits
                    .iter()
                    .all(|hit| hit.truncated || hit.text.starts_with("a new")),
                "they are longer than a page has room for"
            );
            seen.extend(page.hits.into_iter().map(|hit| hit.id));
            pages += 1;
            // A millisecond later, so that it is not of the first page's instant.
            tokio::time::sleep(Duration::from_millis(2)).await;
            bench
                .remember(&format!("a new numbat {query} of page {pages}"))
                .await;
            match page.cursor {
                Some(cursor) => call.cursor = Some(cursor),
                None => break,
            }
        }
        let unique: BTreeSet<_> = seen.iter().cloned().collect();
        assert_eq!(unique.len(), seen.len(), "{query:?}: none twice");
        assert!(expected.is_subset(&unique), "{query:?}: none missing");
        assert!(pages > 2);
    }
    bench.close().await;
}

#[tokio::test]
async fn ids_give_whole_texts_over_pages() {
    let bench = Bench::new(None);
    let long = format!("start {} end", "quokka\n\"".repeat(4_000));
    let (short, long_id) = (
        bench.remember("short").await.id,
        bench.remember(&long).await.id,
    );
    let mut call = CrossPoolSearch {
        ids: vec![short.clone(), long_id.clone()],
        ..CrossPoolSearch::default()
    };
    let (mut first, mut text) = (None, String::new());
    loop {
        let page = bench.search(call.clone()).await;
        for hit in page.hits {
            match hit.id == short {
                true => first = Some(hit.text),
                false => text.push_str(&hit.text),
            }
        }
        match page.cursor {
            Some(cursor) => call.cursor = Some(cursor),
            None => break,
        }
    }
    assert_eq!(first.as_deref(), Some("short"));
    assert_eq!(text, long);
    let unknown = CrossPoolSearch {
        ids: vec![mahavishnu::model::MemoryId::new().to_string()],
        ..CrossPoolSearch::default()
    };
    let problem = bench
        .tools
        .search(unknown, None, &Names)
        .await
        .expect_err("no such memory");
    assert_eq!(problem.kind, ErrorKind::NotFound);
    bench.close().await;
}

#[tokio::test]
async fn without_a_peer_collecting_counts_and_forwards_nothing() {
    let bench = Bench::new(None);
    for text in ["one", "two", "three"] {
        bench.remember(text).await;
    }
    let sum = bench.aggregate(AggregateMemory::default()).await;
    assert_eq!(
        (sum.new, sum.duplicate, sum.pending, sum.outbox_pending),
        (3, 0, 3, 0)
    );
    assert_eq!(sum.forwarding, Forwarding::Off);
    let order: Vec<_> = sum.pools.iter().map(|row| row.pool.to_string()).collect();
    assert_eq!(order, ["b", "a"], "what gave something comes first");
    let again = bench.aggregate(AggregateMemory::default()).await;
    assert_eq!(again.collected, 0);
    let since = AggregateMemory {
        since: Some("1h".into()),
        ..AggregateMemory::default()
    };
    let since = bench.aggregate(since).await;
    assert_eq!((since.collected, since.duplicate), (3, 3));
    bench.close().await;
}

#[tokio::test]
async fn two_collections_at_once_count_each_memory_once() {
    let bench = Bench::new(None);
    let memories = (0..1_700)
        .map(|n| {
            NewMemory::new(
                MemoryKind::Note,
                redact(&format!("memory {n}")),
                pool("a"),
                "worker",
            )
        })
        .collect();
    bench
        .store
        .insert_memories(memories, None)
        .await
        .expect("stored");
    let (one, two) = tokio::join!(
        bench.aggregate(AggregateMemory::default()),
        bench.aggregate(AggregateMemory::default())
    );
    assert_eq!(one.new + two.new, 1_700);
    bench.close().await;
}

#[tokio::test]
async fn a_peer_that_is_down_is_told_and_loses_nothing() {
    let bench = Bench::new(Some(nobody()));
    let kept = bench.remember("bilbies dig").await;
    assert_eq!(kept.forwarding, Forwarding::Pending);
    let found = bench.search(words("bilbies")).await;
    assert_eq!(
        found.hits.len(),
        1,
        "local results come whatever the peer does"
    );
    assert_eq!(found.sources[1].status, SourceStatus::Failed);
    let error = found.sources[1].error.as_ref().expect("why");
    assert!(
        error.message.contains("failing since") && error.retryable,
        "{error:?}"
    );
    let call = AggregateMemory {
        wait_s: Some(30.0),
        ..AggregateMemory::default()
    };
    let sum = bench.aggregate(call).await;
    assert_eq!(
        (sum.new, sum.forwarded, sum.pending, sum.outbox_pending),
        (1, 0, 1, 1)
    );
    assert_eq!(sum.forwarding, Forwarding::Down);
    assert!(sum.down_since.is_some());
    let stats = bench.tools.clear_cache(&ClearCache::default());
    assert_eq!((stats.entries, stats.hits), (0, 0), "errors are not cached");
    bench.close().await;
}

#[tokio::test]
async fn forwarding_can_be_left_out_and_made_up_for_with_since() {
    let bench = Bench::new(None);
    bench.remember("kept before there was a peer").await;
    bench.aggregate(AggregateMemory::default()).await;
    let Bench {
        store,
        dir,
        closing,
        ..
    } = bench;
    closing.cancel();
    let bench = Bench::over(dir, store, Some(nobody()));
    let forward = |since: Option<&str>, forward| AggregateMemory {
        since: since.map(str::to_owned),
        forward: Some(forward),
        wait_s: Some(0.0),
        ..AggregateMemory::default()
    };
    let off = bench.aggregate(forward(Some("1d"), false)).await;
    assert_eq!(
        (off.duplicate, off.outbox_pending, off.forwarding),
        (1, 0, Forwarding::Off)
    );
    let made_up = bench.aggregate(forward(Some("1d"), true)).await;
    assert_eq!((made_up.duplicate, made_up.outbox_pending), (1, 1));
    bench.close().await;
}

/// A peer that never answers but tells whether anybody came.
fn listening() -> (std::net::TcpListener, SessionBuddy) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    listener.set_nonblocking(true).expect("it can be set");
    let port = listener.local_addr().expect("it is bound").port();
    let endpoint = Endpoint::Http {
        url: format!("http://127.0.0.1:{port}/mcp"),
        headers: Vec::new(),
    };
    let client = McpClient::new(endpoint, ClientSettings::new(PEER));
    (listener, SessionBuddy::new(client, 1))
}

async fn elected(bench: &Bench) {
    bench.tools.resume();
    let forwarder = bench.tools.forwarder().expect("there is a peer");
    let mut status = forwarder.link.status.subscribe();
    let elected = status.wait_for(|status| status.sending).await;
    elected.expect("it becomes the sender");
}

async fn somebody_comes(listener: &std::net::TcpListener) {
    let deadline = Instant::now() + crate::support::HANG;
    while listener.accept().is_err() {
        assert!(Instant::now() < deadline, "nobody came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn nobody_comes(listener: &std::net::TcpListener) {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let came = listener.accept().map(drop).expect_err("nobody came");
    assert_eq!(came.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_peer_that_has_nothing_to_lose_and_gets_nothing_is_asked_nothing() {
    let (listener, buddy) = listening();
    let bench = Bench::new(Some(buddy));
    elected(&bench).await;
    nobody_comes(&listener).await;
    bench.remember("now there is something").await;
    somebody_comes(&listener).await;
    bench.close().await;
}

#[tokio::test]
async fn a_collection_has_the_peer_connected_to_by_the_server_that_sends() {
    let (first, buddy) = listening();
    let sender = Bench::new(Some(buddy));
    elected(&sender).await;
    let (second, buddy) = listening();
    let other = sender.beside(Some(buddy));
    let nothing = other.aggregate(AggregateMemory::default()).await;
    assert_eq!(nothing.collected, 0);
    nobody_comes(&second).await;
    sender.aggregate(AggregateMemory::default()).await;
    somebody_comes(&first).await;
    other.close().await;
    sender.close().await;
}

/// Pools with servers of their own: one answers, one fails, one never does.
struct Servers;

struct Server(&'static str);

impl PoolNames for Servers {
    fn exists(&self, name: &str) -> bool {
        self.all().iter().any(|pool| pool.as_str() == name)
    }

    fn all(&self) -> Vec<PoolName> {
        ["answers", "fails", "silent", "stored"].map(pool).to_vec()
    }

    fn collector(&self, name: &PoolName) -> Option<Arc<dyn Collect>> {
        let kinds = ["answers", "fails", "silent"];
        let kind = kinds.into_iter().find(|kind| *kind == name.as_str())?;
        Some(Arc::new(Server(kind)))
    }
}

impl Collect for Server {
    fn collect(
        &self,
        _since: Option<At>,
        _deadline: tokio::time::Instant,
    ) -> futures_util::future::BoxFuture<'_, Result<Vec<NewMemory>, Problem>> {
        Box::pin(async move {
            match self.0 {
                "fails" => Err(Problem::new(ErrorKind::Unavailable, "it is broken")),
                "silent" => std::future::pending().await,
                _ => Ok((0..3)
                    .map(|n| NewMemory {
                        source_id: Some(n.to_string()),
                        ..NewMemory::new(
                            MemoryKind::Lesson,
                            redact(&format!("lesson {n} PASSWORD=hunter2")),
                            pool("answers"),
                            "elsewhere",
                        )
                    })
                    .collect()),
            }
        })
    }
}

#[tokio::test]
async fn pools_are_collected_at_once_and_one_that_fails_or_is_late_is_a_row() {
    let bench = Bench::new(None);
    let call = || AggregateMemory {
        wait_s: Some(1.0),
        ..AggregateMemory::default()
    };
    let aggregate = || bench.tools.aggregate(call(), &bench.caller, &Servers);
    let sum = aggregate().await.expect("a collection");
    let row = |name: &str| {
        sum.pools
            .iter()
            .find(|row| row.pool.as_str() == name)
            .expect("a row")
    };
    assert_eq!(
        (row("answers").status, row("answers").new),
        (PoolOutcome::Ok, 3)
    );
    assert_eq!(row("fails").status, PoolOutcome::Failed);
    assert_eq!(
        row("fails").error.as_ref().expect("why").message,
        "it is broken"
    );
    assert_eq!(row("silent").status, PoolOutcome::Late);
    assert_eq!(row("stored").status, PoolOutcome::Ok);
    assert_eq!((sum.collected, sum.new), (3, 3));
    let again = aggregate().await.expect("a collection");
    assert_eq!((again.collected, again.new, again.duplicate), (3, 0, 3));
    let found = bench.search(words("lesson")).await;
    assert_eq!(found.hits.len(), 3);
    assert!(
        found
            .hits
            .iter()
            .all(|hit| hit.text.contains("[REDACTED-") && hit.source == "elsewhere")
    );
    bench.close().await;
}
