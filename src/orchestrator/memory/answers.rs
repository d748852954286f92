//! Whole answers of `cross_pool_search`, reused while they are still valid: no process has committed to the store since,
//! and the peer's hits are the ones that its cache holds.

use super::remote::{Remote, Told};
use crate::api::{CrossPoolSearch, CrossPoolSearchResult, SourceStatus};
use crate::session_buddy::PeerHit;
use mini_moka::sync::Cache;
use std::sync::Arc;

/// The most answers that are kept; each is at most 9,000 bytes, the limit of an answer.
const KEPT: u64 = 128;

/// The kept answers.
pub(super) struct Answers(Cache<String, Arc<Kept>>);

struct Kept {
    /// The store's version just before it was read for this answer.
    version: i64,
    /// The peer's hits in the answer, if a peer was asked.
    told: Option<Arc<Vec<PeerHit>>>,
    answer: CrossPoolSearchResult,
}

impl Answers {
    pub(super) fn new() -> Self {
        Self(Cache::new(KEPT))
    }

    /// Returns the key of a search; none if its answer depends on the time of the call or on which pools exist.
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

    /// Returns the kept answer if a new search would return the same.
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

    /// Keeps an answer, unless a peer was asked and did not answer.
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
