//! Answers of `cross_pool_search` that still hold: nothing was committed to the store since, by anybody, and the peer's part
//! is the one that its cache still has.

use super::remote::{Remote, Told};
use crate::api::{CrossPoolSearch, CrossPoolSearchResult, SourceStatus};
use crate::session_buddy::PeerHit;
use mini_moka::sync::Cache;
use std::sync::Arc;

/// The most answers that are kept; each has at most what one answer may have, some 9,000 bytes.
const KEPT: u64 = 128;

/// The answers that are kept.
pub(super) struct Answers(Cache<String, Arc<Kept>>);

struct Kept {
    /// The store's version before it was read for this answer.
    version: i64,
    /// The peer's hits that are in it, where a peer was asked.
    told: Option<Arc<Vec<PeerHit>>>,
    answer: CrossPoolSearchResult,
}

impl Answers {
    pub(super) fn new() -> Self {
        Self(Cache::new(KEPT))
    }

    /// Returns by what a search is known again; nothing for one whose answer depends on the time of the call or on pools.
    pub(super) fn key(call: &CrossPoolSearch, repo: Option<&str>) -> Option<String> {
        let lasting = call.pools.is_empty()
            && call.ids.is_empty()
            && call.since.is_none()
            && call.until.is_none()
            && call.cursor.is_none()
            && !call.refresh;
        let key = || serde_json::to_string(&(call, repo)).ok();
        lasting.then(key).flatten()
    }

    /// Returns the kept answer where it is what a new search would find.
    pub(super) fn holding(
        &self,
        key: &String,
        version: i64,
        remote: Option<&Remote>,
        query: &str,
    ) -> Option<CrossPoolSearchResult> {
        let kept = self.0.get(key)?;
        if kept.version != version {
            return None;
        }
        let mut answer = kept.answer.clone();
        if let Some(told) = &kept.told {
            let now = remote?.cached(query)?;
            if !Arc::ptr_eq(told, &now.hits) {
                return None;
            }
            *answer.sources.last_mut()? = now.source;
        }
        Some(answer)
    }

    /// Keeps an answer, where the peer answered if it was asked.
    pub(super) fn keep(
        &self,
        key: String,
        version: i64,
        told: Option<&Told>,
        answer: &CrossPoolSearchResult,
    ) {
        let answered =
            |told: &Told| matches!(told.source.status, SourceStatus::Ok | SourceStatus::Cached);
        if told.is_none_or(answered) {
            let kept = Kept {
                version,
                told: told.map(|told| Arc::clone(&told.hits)),
                answer: answer.clone(),
            };
            self.0.insert(key, Arc::new(kept));
        }
    }

    pub(super) fn clear(&self) {
        self.0.invalidate_all();
    }
}
