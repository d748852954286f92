//! The memory tools with the real Session-Buddy: forwarded, found there, cached, and found again after a loss.

use super::real::{self, Profile, Server};
use crate::memory::{Bench, PEER, pool, words};
use mahavishnu::api::{
    AggregateMemory, ClearCache, CrossPoolSearch, Forwarding, Matched, SourceStatus,
};
use mahavishnu::model::{MemoryKind, NewMemory, PeerName, PoolName};
use mahavishnu::orchestrator::memory::{BuddyPool, Collect, PoolNames};
use mahavishnu::session_buddy::Outgoing;
use std::sync::Arc;

#[tokio::test]
async fn memories_are_forwarded_and_found_on_both_sides() {
    for profile in Profile::BOTH {
        let Some(server) = real::shared(profile) else {
            return real::skipped("memories_are_forwarded_and_found_on_both_sides");
        };
        let bench = Bench::new(Some(real::buddy(server.port())));
        let word = format!("potoroo{}", mahavishnu::model::MemoryId::new()).to_lowercase();
        let kept = bench
            .remember(&format!("the {word} builds with make"))
            .await;
        assert_eq!(kept.forwarding, Forwarding::Pending);
        let call = AggregateMemory {
            wait_s: Some(45.0),
            ..AggregateMemory::default()
        };
        let sum = bench.aggregate(call).await;
        assert_eq!(
            (sum.new, sum.forwarded, sum.outbox_pending, sum.forwarding),
            (1, 1, 0, Forwarding::Ok),
            "{profile:?}: {sum:?}"
        );
        // Another writer's memory, which only the peer has.
        let foreign: Outgoing = real::outgoing(&format!("the {word} eats truffles"));
        let peer = real::buddy(server.port());
        peer.store(&foreign, real::soon())
            .await
            .expect("it is stored");
        let found = bench.search(words(&word)).await;
        assert_eq!(
            found.sources[1].status,
            SourceStatus::Ok,
            "{profile:?}: {found:?}"
        );
        assert_eq!(found.hits.len(), 2, "{profile:?}: {found:?}");
        let ours = found
            .hits
            .iter()
            .find(|hit| hit.id == kept.id)
            .expect("ours, once");
        assert_eq!(ours.matched, [Matched::Fulltext, Matched::Remote]);
        assert_eq!(
            found.hits[0].id, kept.id,
            "found by both, so it comes first"
        );
        let theirs = &found.hits[1];
        assert_eq!(theirs.id, foreign.marker.id.to_string());
        assert_eq!(
            (theirs.source.as_str(), &theirs.matched[..]),
            ("session_buddy", &[Matched::Remote][..])
        );

        let fresh = bench
            .remember(&format!("a moment ago the {word} slept"))
            .await;
        let found = bench.search(words(&word)).await;
        assert_eq!(found.sources[1].status, SourceStatus::Cached);
        assert!(found.sources[1].age_s.is_some());
        assert!(
            found.hits.iter().any(|hit| hit.id == fresh.id),
            "local results are live"
        );
        let refreshed = CrossPoolSearch {
            refresh: true,
            ..words(&word)
        };
        let found = bench.search(refreshed).await;
        assert_eq!(found.sources[1].status, SourceStatus::Ok);
        let narrowed = CrossPoolSearch {
            kind: vec![mahavishnu::model::MemoryKind::Note],
            ..words(&word)
        };
        let found = bench.search(narrowed).await;
        assert!(
            found.hits.iter().all(|hit| hit.kind.is_some()),
            "filters hold for the peer's hits too"
        );
        let stats = bench.tools.clear_cache(&ClearCache::default());
        assert_eq!(
            (stats.entries, stats.hits, stats.misses, stats.cleared),
            (1, 2, 2, 1)
        );
        bench.close().await;
    }
}

#[tokio::test]
async fn what_could_not_be_sent_is_sent_when_the_peer_comes_back() {
    if real::venv().is_none() {
        return real::skipped("what_could_not_be_sent_is_sent_when_the_peer_comes_back");
    }
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut server = Server::start(Profile::Full, home.path());
    let bench = Bench::new(Some(real::buddy(server.port())));
    server.kill();
    for n in 0..10 {
        bench
            .remember(&format!("bettong {n} waits for the peer"))
            .await;
    }
    let call = |wait_s| AggregateMemory {
        wait_s: Some(wait_s),
        ..AggregateMemory::default()
    };
    let sum = bench.aggregate(call(20.0)).await;
    assert_eq!((sum.new, sum.forwarded, sum.pending), (10, 0, 10));
    assert_eq!(sum.forwarding, Forwarding::Down);
    server.restart();
    let deadline = real::soon();
    while bench.aggregate(call(5.0)).await.outbox_pending > 0 {
        assert!(std::time::Instant::now() < deadline, "it is sent by itself");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let forwarder = bench.tools.forwarder().expect("there is a peer");
    let found = forwarder
        .reconcile(real::soon())
        .await
        .expect("the peer answers");
    assert_eq!(found.checked, 10);
    assert!(found.is_clean(), "{found:?}");
    bench.close().await;
}

#[tokio::test]
async fn a_new_server_goes_on_with_what_an_earlier_one_left() {
    let Some(server) = real::shared(Profile::Full) else {
        return real::skipped("a_new_server_goes_on_with_what_an_earlier_one_left");
    };
    let bench = Bench::new(Some(real::buddy(server.port())));
    let left = NewMemory::new(
        MemoryKind::Note,
        "left behind by an earlier server",
        pool("a"),
        "remember",
    );
    let peer = PeerName::new(PEER);
    let stored = bench
        .store
        .insert_memories(vec![left], Some(peer.clone()))
        .await;
    stored.expect("it is stored");
    bench.tools.resume();
    let deadline = real::soon();
    while bench
        .store
        .outbox_counts(peer.clone())
        .await
        .expect("the store works")
        .acked
        < 1
    {
        assert!(
            std::time::Instant::now() < deadline,
            "it is sent without a call"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    bench.close().await;
}

#[tokio::test]
async fn what_others_told_a_session_buddy_is_collected_once() {
    let Some(server) = real::shared(Profile::Default) else {
        return real::skipped("what_others_told_a_session_buddy_is_collected_once");
    };
    let word = format!("dibbler{}", mahavishnu::model::MemoryId::new()).to_lowercase();
    let client = real::client(server.port());
    let arguments =
        serde_json::json!({"content": format!("a {word} hunts insects"), "tags": ["x"]});
    let arguments = arguments.as_object().expect("an object").clone();
    client
        .call("store_reflection", arguments, real::soon())
        .await
        .expect("it is stored");
    let buddy = real::buddy(server.port());
    let pools = BuddyPools(Arc::new(BuddyPool {
        pool: pool("sb"),
        buddy: buddy.clone(),
        source: PEER.to_owned(),
    }));
    let bench = Bench::new(Some(buddy));
    let call = || AggregateMemory {
        wait_s: Some(20.0),
        ..AggregateMemory::default()
    };
    let sum = bench
        .tools
        .aggregate(call(), &bench.caller, &pools)
        .await
        .expect("a collection");
    assert!(sum.new >= 1, "{sum:?}");
    assert_eq!(
        (sum.forwarded, sum.outbox_pending),
        (sum.new, 0),
        "the peer has its own: {sum:?}"
    );
    let again = bench
        .tools
        .aggregate(call(), &bench.caller, &pools)
        .await
        .expect("a collection");
    assert_eq!(
        (again.new, again.duplicate >= sum.new),
        (0, true),
        "{again:?}"
    );
    let found = bench.search(words(&word)).await;
    assert_eq!(
        found.hits.len(),
        1,
        "the same text from both is one: {found:?}"
    );
    assert_eq!(found.hits[0].matched, [Matched::Fulltext, Matched::Remote]);
    bench.close().await;
}

/// One pool that a Session-Buddy serves.
struct BuddyPools(Arc<BuddyPool>);

impl PoolNames for BuddyPools {
    fn exists(&self, name: &str) -> bool {
        name == self.0.pool.as_str()
    }

    fn all(&self) -> Vec<PoolName> {
        vec![self.0.pool.clone()]
    }

    fn collector(&self, _: &PoolName) -> Option<Arc<dyn Collect>> {
        let collector: Arc<dyn Collect> = self.0.clone();
        Some(collector)
    }
}
