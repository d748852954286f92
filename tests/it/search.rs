//! The search cache through the tool, against a peer that counts what it is asked.

use crate::mcp_client::scripted::{Answer, Request, Scripted, json_answer};
use crate::memory::{Names, PEER, note, words};
use crate::proxy::{Fault, Proxy};
use crate::support::{HANG, say};
use mahavishnu::api::{
    AggregateMemory, Caller, ClearCache, CrossPoolSearch, CrossPoolSearchResult, SourceStatus,
};
use mahavishnu::config::CacheConfig;
use mahavishnu::mcp_client::{ClientSettings, Endpoint, McpClient};
use mahavishnu::model::{MemoryId, PeerName};
use mahavishnu::orchestrator::memory::{Memories, Parts, forget};
use mahavishnu::orchestrator::sync::DeliverySettings;
use mahavishnu::session_buddy::SessionBuddy;
use mahavishnu::store::{Durability, Store, StoreOptions};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A stand-in with the full front door: keeps what is stored, finds what has any of the words.
struct Stub {
    server: Scripted,
    kept: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    async fn start() -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let shelf = Arc::clone(&kept);
        let server = Scripted::mcp_with(move |request| answer(request, &shelf)).await;
        Self { server, kept }
    }

    fn tell(&self, content: &str) {
        let mut kept = self.kept.lock().expect("nothing panics with it");
        kept.push(content.to_owned());
    }

    /// How often it was searched for something that begins with `query`.
    fn asked(&self, query: &str) -> usize {
        let calls = self.server.seen("tools/call");
        let searches = calls.iter().filter(|call| {
            let params = &call.body["params"];
            let asked = params["arguments"]["query"].as_str().unwrap_or_default();
            params["name"] == "search_conversations" && asked.starts_with(query)
        });
        searches.count()
    }
}

fn answer(request: &Request, kept: &Mutex<Vec<String>>) -> Answer {
    let params = &request.body["params"];
    let result = match (request.method(), params["name"].as_str()) {
        ("tools/list", _) => {
            let tools = ["store_conversation", "search_conversations"];
            let tools = tools.map(|name| json!({"name": name, "inputSchema": {"type": "object"}}));
            json!({"tools": tools})
        }
        (_, Some("store_conversation")) => {
            let content = params["arguments"]["content"].as_str().expect("a text");
            let mut kept = kept.lock().expect("nothing panics with it");
            kept.push(content.to_owned());
            said(
                "✅ Conversation stored successfully!\n\n📝 Conversation ID: e21970401dbe9d4b58cd415a2adc2430",
            )
        }
        _ => said(&found(&params["arguments"], kept)),
    };
    json_answer(
        200,
        &json!({"jsonrpc": "2.0", "id": request.body["id"], "result": result}),
    )
}

fn said(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

fn found(arguments: &Value, kept: &Mutex<Vec<String>>) -> String {
    let query = arguments["query"].as_str().expect("a text").to_lowercase();
    let limit = arguments["limit"].as_u64().expect("a number") as usize;
    let kept = kept.lock().expect("nothing panics with it");
    let fits = |text: &&String| {
        let text = text.to_lowercase();
        query.split_whitespace().any(|word| text.contains(word))
    };
    let hits: Vec<&String> = kept.iter().rev().filter(fits).take(limit).collect();
    if hits.is_empty() {
        return format!("🔍 No conversations found matching: \"{query}\"");
    }
    let mut text = format!(
        "🔍 Search Results for: '{query}'\n{}\nFound {} conversations\n\n",
        "=".repeat(50),
        hits.len()
    );
    for (at, hit) in hits.iter().enumerate() {
        let shown: String = hit.chars().take(200).collect();
        let cut = if shown.len() < hit.len() { "..." } else { "" };
        text.push_str(&format!(
            "{}. Score: 0.0%\n   📁 Project: p\n   🕐 2026-11-23 22:47:23\n   📝 {shown}{cut}\n\n",
            at + 1
        ));
    }
    text
}

/// The tools over a store of their own and a clock that the test steps.
struct Desk {
    tools: Memories,
    store: Store,
    clock: Arc<AtomicU64>,
    closing: CancellationToken,
    tasks: TaskTracker,
    _dir: TempDir,
}

const TTL: Duration = Duration::from_secs(300);

impl Desk {
    fn new(port: u16, patience: Duration) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(StoreOptions {
            dir: dir.path().to_owned(),
            durability: Durability::Normal,
        });
        let store = store.expect("the folder is writable");
        let endpoint = Endpoint::Http {
            url: format!("http://127.0.0.1:{port}/mcp"),
            headers: Vec::new(),
        };
        let client = McpClient::new(endpoint, ClientSettings::new(PEER));
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        let clock = Arc::new(AtomicU64::new(0));
        let (hand, begin) = (Arc::clone(&clock), Instant::now());
        let tools = Memories::new(Parts {
            store: store.clone(),
            peer: Some((PeerName::new(PEER), SessionBuddy::new(client, 1))),
            delivery: DeliverySettings::default(),
            cache: CacheConfig {
                ttl: TTL,
                ..CacheConfig::default()
            },
            collect_deadline: patience,
            clock: Arc::new(move || begin + Duration::from_millis(hand.load(Ordering::Relaxed))),
            tasks: tasks.clone(),
            closing: closing.clone(),
        });
        Self {
            tools,
            store,
            clock,
            closing,
            tasks,
            _dir: dir,
        }
    }

    fn step(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).expect("it is short");
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    async fn search(&self, call: CrossPoolSearch) -> CrossPoolSearchResult {
        self.tools
            .search(call, None, &Names)
            .await
            .expect("a search")
    }

    async fn remote(&self, call: CrossPoolSearch) -> SourceStatus {
        self.search(call).await.sources[1].status
    }

    async fn aggregate(&self) -> mahavishnu::api::AggregateMemoryResult {
        let caller = Caller::new(None, Caller::DEFAULT_WAIT_CAP);
        let call = AggregateMemory {
            wait_s: Some(30.0),
            ..AggregateMemory::default()
        };
        let sum = self.tools.aggregate(call, &caller, &Names).await;
        sum.expect("a collection")
    }

    async fn close(self) {
        self.closing.cancel();
        self.tasks.close();
        let ended = tokio::time::timeout(HANG, self.tasks.wait()).await;
        ended.expect("background work ends with the server");
        self.store.close().await;
    }
}

fn refreshed(query: &str) -> CrossPoolSearch {
    CrossPoolSearch {
        refresh: true,
        ..words(query)
    }
}

#[tokio::test]
async fn a_hundred_identical_searches_at_once_ask_the_peer_once() {
    let stub = Stub::start().await;
    stub.tell("the numbat eats termites");
    let desk = Desk::new(stub.server.port, HANG);
    let searches = (0..100).map(|_| desk.search(words("numbat")));
    for found in futures_util::future::join_all(searches).await {
        assert_eq!(found.hits.len(), 1, "{found:?}");
    }
    assert_eq!(stub.asked(""), 1);
    let stats = desk.tools.clear_cache(&ClearCache { stats_only: true });
    assert_eq!(
        (stats.misses, stats.hits + stats.coalesced, stats.entries),
        (1, 99, 1)
    );
    desk.close().await;
}

#[tokio::test]
async fn an_answer_expires_is_refreshed_on_request_and_cleared() {
    let stub = Stub::start().await;
    let desk = Desk::new(stub.server.port, HANG);
    assert_eq!(desk.remote(words("numbat")).await, SourceStatus::Ok);
    stub.tell("the numbat eats termites");
    desk.step(TTL - Duration::from_millis(1));
    let found = desk.search(words("numbat")).await;
    assert_eq!(
        (found.hits.len(), found.sources[1].status),
        (0, SourceStatus::Cached)
    );
    assert_eq!(found.sources[1].age_s, Some(300.0));
    let stats = desk.tools.clear_cache(&ClearCache { stats_only: true });
    assert_eq!(stats.oldest_age_s, Some(300.0));
    let found = desk.search(refreshed("numbat")).await;
    assert_eq!(
        (found.hits.len(), found.sources[1].status),
        (1, SourceStatus::Ok)
    );
    assert_eq!(desk.remote(words("numbat")).await, SourceStatus::Cached);
    desk.step(TTL);
    assert_eq!(desk.remote(words("numbat")).await, SourceStatus::Ok);
    let stats = desk.tools.clear_cache(&ClearCache::default());
    assert_eq!((stats.cleared, stats.oldest_age_s), (1, Some(0.0)));
    assert_eq!(desk.remote(words("numbat")).await, SourceStatus::Ok);
    assert_eq!(stub.asked("numbat"), 4);
    desk.close().await;
}

#[tokio::test]
async fn an_answer_that_comes_too_late_is_there_for_the_next_search() {
    let stub = Stub::start().await;
    stub.tell("the numbat eats termites");
    let proxy = Proxy::start(stub.server.port).await;
    let desk = Desk::new(proxy.port(), Duration::from_millis(200));
    let kept = desk
        .tools
        .remember(note("a numbat, seen here"), None, &Names)
        .await;
    kept.expect("it is stored");
    proxy.set(Fault::Delay(Duration::from_millis(600)));
    let found = desk.search(words("numbat")).await;
    assert_eq!(found.sources[1].status, SourceStatus::Late, "{found:?}");
    let error = found.sources[1].error.as_ref().expect("it says why");
    assert!(
        error.message.contains("failing since") && error.retryable,
        "{error:?}"
    );
    assert_eq!(found.hits.len(), 1, "what is here is found all the same");
    let deadline = Instant::now() + HANG;
    while desk
        .tools
        .clear_cache(&ClearCache { stats_only: true })
        .entries
        == 0
    {
        assert!(Instant::now() < deadline, "the late answer never came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    proxy.set(Fault::None);
    let found = desk.search(words("numbat")).await;
    assert_eq!(found.sources[1].status, SourceStatus::Cached);
    assert!(found.hits.iter().any(|hit| hit.source == PEER), "{found:?}");
    desk.close().await;
}

#[tokio::test]
async fn a_forgotten_memory_stays_away_though_the_peer_and_the_cache_have_it() {
    let stub = Stub::start().await;
    let desk = Desk::new(stub.server.port, HANG);
    let kept = desk
        .tools
        .remember(note("the numbat key is on the hook"), None, &Names)
        .await;
    let id: MemoryId = kept.expect("it is stored").id.parse().expect("an id");
    assert_eq!(desk.aggregate().await.forwarded, 1);
    assert_eq!(desk.search(words("numbat")).await.hits.len(), 1);
    let gone = forget(&desk.store, id)
        .await
        .expect("forgotten")
        .expect("was there");
    assert_eq!(gone.peers, [PeerName::new(PEER)]);
    let cached = desk.search(words("numbat")).await;
    assert_eq!(
        (cached.hits.len(), cached.sources[1].status),
        (0, SourceStatus::Cached)
    );
    let asked = desk.search(refreshed("numbat")).await;
    assert_eq!(
        (asked.hits.len(), asked.sources[1].status),
        (0, SourceStatus::Ok)
    );
    desk.close().await;
}

#[tokio::test]
async fn a_bound_on_the_time_keeps_out_what_has_no_time() {
    let stub = Stub::start().await;
    stub.tell("the numbat eats termites");
    let desk = Desk::new(stub.server.port, HANG);
    let call = |since: Option<&str>, until: Option<&str>| CrossPoolSearch {
        since: since.map(str::to_owned),
        until: until.map(str::to_owned),
        ..words("numbat")
    };
    for (call, hits) in [
        (call(None, None), 1),
        (call(Some("7d"), None), 0),
        (call(None, Some("1h")), 0),
    ] {
        assert_eq!(desk.search(call).await.hits.len(), hits);
    }
    // Later pages are bounded by the first one's time, which is no bound of the caller's.
    for n in 0..3 {
        stub.tell(&format!("numbat number {n}"));
    }
    let first = CrossPoolSearch {
        limit: Some(2),
        ..refreshed("numbat")
    };
    let page = desk.search(first.clone()).await;
    let rest = CrossPoolSearch {
        cursor: page.cursor.clone(),
        ..first
    };
    assert_eq!(
        (page.hits.len(), desk.search(rest).await.hits.len()),
        (2, 2)
    );
    desk.close().await;
}

#[tokio::test]
async fn no_memory_comes_twice_however_far_down_the_peer_found_it() {
    const KEPT: usize = 130;
    let stub = Stub::start().await;
    let desk = Desk::new(stub.server.port, HANG);
    let repo = |n: usize| Some(format!("/repos/r{n}"));
    for n in 0..KEPT {
        let text = format!("numbat {} number {n}", "and more words ".repeat(n));
        let kept = desk.tools.remember(note(&text), repo(n), &Names).await;
        kept.expect("it is stored");
    }
    assert_eq!(desk.aggregate().await.outbox_pending, 0);
    let mut call = CrossPoolSearch {
        limit: Some(20),
        ..words("numbat")
    };
    let mut seen = std::collections::BTreeSet::new();
    let mut remote = 0;
    loop {
        let page = desk.search(call.clone()).await;
        let bytes = serde_json::to_string(&page).expect("JSON").len();
        assert!(bytes < 9_000, "an answer of {bytes} bytes");
        for hit in page.hits {
            remote += usize::from(hit.matched.contains(&mahavishnu::api::Matched::Remote));
            assert!(seen.insert(hit.id.clone()), "{} came twice", hit.id);
        }
        match page.cursor {
            Some(cursor) => call.cursor = Some(cursor),
            None => break,
        }
    }
    assert_eq!((seen.len(), remote), (KEPT, 50));
    desk.close().await;
}

#[tokio::test]
async fn what_the_peer_refuses_is_counted_as_failed_and_sent_again_on_request() {
    let refusing = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (shelf, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::clone(&refusing));
    let server = Scripted::mcp_with(move |request| {
        let params = &request.body["params"];
        let content = params["arguments"]["content"].as_str().unwrap_or_default();
        if gate.load(Ordering::Relaxed) && content.contains("bad") {
            let result = json!({"isError": true, "content": [{"type": "text",
                "text": "Memory guard blocked write: it is bad"}]});
            let id = &request.body["id"];
            return json_answer(200, &json!({"jsonrpc": "2.0", "id": id, "result": result}));
        }
        answer(request, &shelf)
    })
    .await;
    let desk = Desk::new(server.port, HANG);
    for n in 0..12 {
        let sort = if n % 3 == 0 { "bad" } else { "good" };
        let mut memory = note(&format!("a {sort} memory, number {n}"));
        memory.pool = Some(crate::memory::pool(if n < 6 { "a" } else { "b" }));
        desk.tools
            .remember(memory, None, &Names)
            .await
            .expect("it is stored");
    }
    let sum = desk.aggregate().await;
    assert_eq!(
        (sum.new, sum.forwarded, sum.pending, sum.failed),
        (12, 8, 0, 4),
        "{sum:?}"
    );
    assert_eq!(
        (sum.outbox_pending, sum.outbox_failed, sum.resent),
        (0, 4, None)
    );
    for row in &sum.pools {
        assert_eq!(
            (row.new, row.forwarded, row.pending, row.failed),
            (6, 4, 0, 2),
            "{row:?}"
        );
    }
    let letters = desk
        .store
        .dead_letters(PeerName::new(PEER), 9)
        .await
        .expect("read");
    assert!(
        letters
            .iter()
            .all(|letter| letter.error.contains("it is bad")),
        "{letters:?}"
    );
    refusing.store(false, Ordering::Relaxed);
    let again = AggregateMemory {
        resend_failed: true,
        wait_s: Some(30.0),
        ..AggregateMemory::default()
    };
    let caller = Caller::new(None, Caller::DEFAULT_WAIT_CAP);
    let sum = desk
        .tools
        .aggregate(again.clone(), &caller, &Names)
        .await
        .expect("a collection");
    assert_eq!(
        (sum.resent, sum.outbox_pending, sum.outbox_failed),
        (Some(4), 0, 0),
        "{sum:?}"
    );
    let off = AggregateMemory {
        forward: Some(false),
        ..again
    };
    let refused = desk
        .tools
        .aggregate(off, &caller, &Names)
        .await
        .expect_err("nobody to send to");
    assert_eq!(refused.field.as_deref(), Some("resend_failed"));
    desk.close().await;
}

/// A pool whose own server never answers.
struct Hanging;

impl mahavishnu::orchestrator::memory::Collect for Hanging {
    fn collect(
        &self,
        _: Option<mahavishnu::model::At>,
        _: tokio::time::Instant,
    ) -> futures_util::future::BoxFuture<
        '_,
        Result<Vec<mahavishnu::model::NewMemory>, mahavishnu::error::Problem>,
    > {
        Box::pin(std::future::pending())
    }
}

impl mahavishnu::orchestrator::memory::PoolNames for Hanging {
    fn exists(&self, name: &str) -> bool {
        name == "a"
    }

    fn all(&self) -> Vec<mahavishnu::model::PoolName> {
        vec![crate::memory::pool("a")]
    }

    fn collector(
        &self,
        _: &mahavishnu::model::PoolName,
    ) -> Option<Arc<dyn mahavishnu::orchestrator::memory::Collect>> {
        Some(Arc::new(Hanging))
    }
}

#[tokio::test]
async fn a_late_pool_counts_what_it_gave_and_a_pool_that_is_gone_is_collected_from() {
    const KEPT: usize = 1_200;
    let stub = Stub::start().await;
    let desk = Desk::new(stub.server.port, Duration::from_secs(3));
    let memories = (0..KEPT).map(|n| {
        let pool = crate::memory::pool(if n < 1_100 { "a" } else { "gone" });
        let kind = mahavishnu::model::MemoryKind::Lesson;
        mahavishnu::model::NewMemory::new(
            kind,
            mahavishnu::redact::redact(&format!("lesson {n}")),
            pool,
            "worker",
        )
    });
    let stored = desk.store.insert_memories(memories.collect(), None).await;
    assert_eq!(stored.expect("stored").new, KEPT as u32);
    let caller = Caller::new(None, Caller::DEFAULT_WAIT_CAP);
    let call = AggregateMemory {
        forward: Some(false),
        ..AggregateMemory::default()
    };
    let sum = desk
        .tools
        .aggregate(call, &caller, &Hanging)
        .await
        .expect("a collection");
    let row = |name: &str| sum.pools.iter().find(|row| row.pool.as_str() == name);
    let late = row("a").expect("a row");
    assert_eq!(late.status, mahavishnu::api::PoolOutcome::Late);
    assert_eq!(
        (late.collected, late.new, late.pending),
        (1_100, 1_100, 1_100)
    );
    assert_eq!(row("gone").map(|row| row.new), Some(100), "{sum:?}");
    assert_eq!(
        (sum.new, sum.pending, sum.outbox_pending),
        (1_200, 1_200, 0)
    );
    let named = |name: &str| AggregateMemory {
        pools: vec![crate::memory::pool(name)],
        forward: Some(false),
        ..AggregateMemory::default()
    };
    let sum = desk.tools.aggregate(named("gone"), &caller, &Names).await;
    assert_eq!(sum.expect("a gone pool is known").new, 0);
    let refused = desk.tools.aggregate(named("never"), &caller, &Names).await;
    assert_eq!(
        refused.expect_err("it never was").field.as_deref(),
        Some("pools")
    );
    desk.close().await;
}

/// Draws queries by Zipf(1.0): the n-th most frequent 1/n as often as the first.
struct Zipf {
    sums: Vec<f64>,
    state: u64,
}

impl Zipf {
    fn new(count: usize) -> Self {
        let mut total = 0.0;
        let sums = (1..=count).map(|rank| {
            total += 1.0 / rank as f64;
            total
        });
        Self {
            sums: sums.collect(),
            state: 0x9E37_79B9_7F4A_7C15,
        }
    }

    fn draw(&mut self) -> usize {
        // Xorshift: any even spread will do.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let share = (self.state >> 11) as f64 / (1_u64 << 53) as f64;
        let wanted = share * self.sums.last().expect("there are ranks");
        self.sums.partition_point(|&sum| sum < wanted)
    }
}

#[tokio::test]
async fn ten_thousand_zipf_searches_mostly_need_no_peer_while_memories_are_written() {
    const SEARCHES: usize = 10_000;
    const QUERIES: usize = 1_000;
    /// Ten searches a second by the core's clock, so that answers expire three times over.
    const PACE: Duration = Duration::from_millis(100);
    let stub = Stub::start().await;
    let desk = Desk::new(stub.server.port, HANG);
    let mut zipf = Zipf::new(QUERIES);
    let mut written = 0;
    for n in 0..SEARCHES {
        let query = zipf.draw();
        if n % 10 == 0 {
            let text = format!("memory {n} of topic{query}");
            let kept = desk.tools.remember(note(&text), None, &Names).await;
            let id = kept.expect("it is stored").id;
            written += 1;
            let found = desk.search(words(&format!("topic{query}"))).await;
            let newest = found.hits.iter().any(|hit| hit.id == id);
            assert!(
                newest || found.cursor.is_some(),
                "stored a moment ago: {found:?}"
            );
        } else {
            desk.search(words(&format!("topic{query}"))).await;
        }
        desk.step(PACE);
    }
    let stats = desk.tools.clear_cache(&ClearCache { stats_only: true });
    say(&format!(
        "MEASURED: cache, {SEARCHES} searches by Zipf(1.0) over {QUERIES} queries, {written} memories written meanwhile, answers kept {} s at 10 searches a second: hit rate {:.1}%, {} calls to the peer",
        TTL.as_secs(),
        stats.hit_rate * 100.0,
        stub.asked("topic")
    ));
    assert_eq!(stats.hits + stats.misses, SEARCHES as u64);
    assert_eq!(
        stub.asked("topic") as u64,
        stats.misses,
        "a miss is a call, a hit is none"
    );
    assert!(stats.hit_rate >= 0.6, "{stats:?}");
    desk.close().await;
}

#[tokio::test]
async fn a_peer_that_never_answers_is_waited_for_once() {
    // Accepted by the kernel, read by nobody.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let port = silent.local_addr().expect("it is bound").port();
    let desk = Desk::new(port, Duration::from_secs(2));
    let kept = desk
        .tools
        .remember(note("the numbat eats termites"), None, &Names)
        .await;
    let kept = kept.expect("it is kept");
    let begun = Instant::now();
    assert_eq!(desk.remote(words("first numbat")).await, SourceStatus::Late);
    assert!(begun.elapsed() >= Duration::from_secs(2));
    let begun = Instant::now();
    for n in 0..12 {
        let found = desk.search(words(&format!("numbat {n}"))).await;
        assert_eq!(found.hits[0].id, kept.id.to_string());
        let source = &found.sources[1];
        assert_ne!(source.status, SourceStatus::Ok);
        let error = source.error.as_ref().expect("it says why");
        assert!(error.message.contains("failing since"), "{error:?}");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    drop(silent);
}
