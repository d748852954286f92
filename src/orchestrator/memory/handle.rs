//! The memory tools' handle: what they share.

use super::answers::Answers;
use super::cache::{Clock, SearchCache};
use super::remote::{self, Remote};
use crate::api::{ClearCache, ClearCacheResult};
use crate::config::CacheConfig;
use crate::model::PeerName;
use crate::orchestrator::sync::DeliverySettings;
use crate::orchestrator::sync::forwarding::Forwarding;
use crate::session_buddy::SessionBuddy;
use crate::store::Store;
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
pub struct Memories(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) collect_deadline: Duration,
    pub(super) forwarding: Option<Forwarding>,
    pub(super) remote: Option<Remote>,
    pub(super) cache: Arc<remote::Cache>,
    pub(super) answers: Answers,
    pub(super) tasks: TaskTracker,
}

impl std::fmt::Debug for Memories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memories").finish_non_exhaustive()
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
