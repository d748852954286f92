//! The memory tools: `remember`, `aggregate_memory`, `cross_pool_search`, `clear_cache`.
//!
//! The store is the truth and always asked; Session-Buddy is a copy that is told in the background and whose search
//! answers are cached. Without one, all of this works and says that it is off. Not responsible for how memories are
//! ranked or kept (`store`), sent (`delivery`) or worded for the peer (`session_buddy`).

mod answers;
pub mod cache;
mod collect;
pub mod collector;
mod forget;
pub mod fusion;
mod health;
mod ids;
mod keep;
mod outcome;
mod page;
mod peer_pool;
mod remote;
pub(crate) mod retention;
mod search;

pub use collect::Collect;
pub use forget::forget;
pub(super) use outcome::outcome;
pub use peer_pool::BuddyPool;

use self::cache::{Clock, SearchCache};
use super::sync::DeliverySettings;
use crate::api::{ClearCache, ClearCacheResult};
use crate::config::CacheConfig;
use crate::error::{ErrorKind, Problem, nearest};
use crate::model::{PeerName, PoolName};
use crate::orchestrator::sync::forwarding::Forwarding;
use crate::session_buddy::SessionBuddy;
use crate::store::Store;
use answers::Answers;
use remote::Remote;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The memory server's name in the store and in answers, whatever its address: where another server answers at a new
/// address, reconciliation finds what that one lacks.
pub const PEER: &str = "session_buddy";

/// What the memory tools are made of.
pub struct Parts {
    /// The store.
    pub store: Store,
    /// The Session-Buddy that memories are forwarded to, and its name in the store; none: forwarding is off.
    pub peer: Option<(PeerName, SessionBuddy)>,
    /// How memories are sent to it.
    pub delivery: DeliverySettings,
    /// The cache of its answers.
    pub cache: CacheConfig,
    /// How long one pool's collection, and one question to the peer, may take.
    pub collect_deadline: Duration,
    /// The clock by which cached answers expire.
    pub clock: Clock,
    /// Where background work is tracked.
    pub tasks: TaskTracker,
    /// Fires when the server ends.
    pub closing: CancellationToken,
}

/// The memory tools' handle; clones share it.
#[derive(Clone)]
pub struct Memories(Arc<Inner>);

struct Inner {
    store: Store,
    collect_deadline: Duration,
    forwarding: Option<Forwarding>,
    remote: Option<Remote>,
    cache: Arc<remote::Cache>,
    answers: Answers,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Memories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memories").finish_non_exhaustive()
    }
}

/// The pools as far as memories are concerned.
pub trait PoolNames: Sync {
    /// Returns whether there is such a pool.
    fn exists(&self, name: &str) -> bool;

    /// Returns all pools, in a stable order; a memory kept by hand belongs to the first unless it says another.
    fn all(&self) -> Vec<PoolName>;

    /// Returns what collects a pool's memories from its own server; none where they are in the store already.
    fn collector(&self, name: &PoolName) -> Option<Arc<dyn Collect>> {
        let _ = name;
        None
    }
}

impl Memories {
    /// Returns the tools over `parts`; nothing runs until [`Self::resume`], or the first collection or
    /// memory that may have to be forwarded.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            store,
            peer,
            delivery,
            cache,
            collect_deadline,
            clock,
            tasks,
            closing,
        } = parts;
        let cache = SearchCache::new(cache.max_bytes, cache.ttl, clock, remote::weigh);
        let cache = Arc::new(cache);
        let remote = peer.clone().map(|(name, buddy)| Remote {
            name,
            buddy,
            cache: Arc::clone(&cache),
            tasks: tasks.clone(),
            patience: collect_deadline,
            failing_since: Arc::default(),
        });
        let forwarding = peer.map(|(name, buddy)| {
            Forwarding::new(store.clone(), name, buddy, delivery, tasks.clone(), closing)
        });
        Self(Arc::new(Inner {
            store,
            collect_deadline,
            forwarding,
            remote,
            cache,
            answers: Answers::new(),
            tasks,
        }))
    }

    /// Returns where memories are forwarded to.
    pub fn forward_to(&self) -> Option<PeerName> {
        Some(self.0.forwarding.as_ref()?.peer().clone())
    }

    /// Begins to forward what there is and what will be there, or to wait for the turn to; does nothing without a peer.
    pub fn resume(&self) {
        if let Some(forwarding) = &self.0.forwarding {
            forwarding.begin();
        }
    }

    /// Tells that memories were stored for the peer; the first time, forwarding begins.
    pub fn stored(&self) {
        if let Some(forwarding) = &self.0.forwarding {
            forwarding.enqueued();
        }
    }

    /// Returns the forwarder, for health checks: its status, dead letters and reconciliation.
    pub fn forwarder(&self) -> Option<&crate::orchestrator::sync::Forwarder> {
        Some(self.0.forwarding.as_ref()?.forwarder())
    }

    /// Answers `clear_cache`; the figures are those before clearing.
    pub fn clear_cache(&self, call: &ClearCache) -> ClearCacheResult {
        let stats = self.0.cache.stats();
        let cleared = if call.stats_only {
            0
        } else {
            self.0.answers.clear();
            self.0.cache.clear()
        };
        ClearCacheResult {
            entries: stats.entries,
            bytes: stats.bytes,
            oldest_age_s: stats
                .oldest
                .map(|age| (age.as_secs_f64() * 10.0).round() / 10.0),
            hits: stats.hits,
            misses: stats.misses,
            coalesced: stats.coalesced,
            hit_rate: stats.hit_rate(),
            cleared,
        }
    }
}

/// Returns the refusal of a pool that does not exist.
fn unknown_pool(field: &str, name: &PoolName, names: &(impl PoolNames + ?Sized)) -> Problem {
    const LISTED: usize = 10;
    let all = names.all();
    let mut allowed: Vec<&str> = all.iter().take(LISTED).map(PoolName::as_str).collect();
    if all.len() > LISTED {
        allowed.push("...");
    }
    let problem = Problem {
        field: Some(field.to_owned()),
        allowed: Some(allowed.join(", ")),
        ..Problem::new(ErrorKind::NotFound, format!("there is no pool {name}"))
    };
    match nearest(name.as_str(), all.iter().map(PoolName::as_str)) {
        Some(near) => problem.with_hint(format!("did you mean {near}? list_pools lists all pools")),
        None => problem.with_hint("list_pools lists all pools"),
    }
}
