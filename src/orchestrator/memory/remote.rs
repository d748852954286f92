//! Searching the peer through the cache: one search at a time for each query, late answers kept for the next call.

use super::cache::{Hit, How, SearchCache};
use crate::api::{SourceAnswer, SourceStatus};
use crate::error::{ErrorKind, Problem};
use crate::model::{At, PeerName};
use crate::resilience::BreakerState;
use crate::session_buddy::{PeerHit, SessionBuddy};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// The cache of the peer's answers, by the query as it is sent. Filters are applied here, so they are no part of the key.
pub(super) type Cache = SearchCache<String, Vec<PeerHit>, Problem>;

/// How many hits the peer is asked for; pages are taken from these.
const ASKED: usize = 50;

/// The deadline of a request to the peer. It outlives the call, and its answer is cached for the next one.
const LONGEST: Duration = Duration::from_secs(45);

/// How long a call waits for a peer that lately failed or did not answer.
const BRIEF: Duration = Duration::from_millis(250);

/// The most bytes of a query that are sent to the peer and kept as the cache's key.
const KEY_BYTES: usize = 600;

/// What a cached answer weighs, in bytes.
#[expect(clippy::ptr_arg, reason = "the cache's key type is String")]
pub(super) fn weigh(key: &String, hits: &Vec<PeerHit>) -> usize {
    let texts: usize = hits.iter().map(|hit| hit.text.len()).sum();
    key.len() + texts + hits.len() * size_of::<PeerHit>()
}

/// One peer that is searched.
#[derive(Clone)]
pub(super) struct Remote {
    pub(super) name: PeerName,
    pub(super) buddy: SessionBuddy,
    pub(super) cache: Arc<Cache>,
    pub(super) tasks: TaskTracker,
    /// How long a call waits for the answer.
    pub(super) patience: Duration,
    // Copied in and out.
    pub(super) failing_since: Arc<Mutex<Option<At>>>,
}

/// The peer's hits, and its row in `sources`.
pub(super) struct Told {
    pub(super) hits: Arc<Vec<PeerHit>>,
    pub(super) source: SourceAnswer,
}

impl Remote {
    /// Returns the cached answer, where there is one.
    pub(super) fn cached(&self, query: &str) -> Option<Told> {
        self.cache.get(&key_of(query)).map(|hit| self.answered(hit))
    }

    /// Searches the peer for `query`, or returns the cached answer unless `refresh`. Never fails: the row has the error.
    ///
    /// # Cancel safety
    ///
    /// The request continues in the background and its answer is cached.
    pub(super) async fn search(&self, query: &str, refresh: bool) -> Told {
        let key = key_of(query);
        if refresh {
            self.cache.invalidate(&key);
        }
        if let Some(hit) = self.cache.get(&key) {
            return self.answered(hit);
        }
        let asked = self.clone();
        let patience = match self.buddy.breaker().state() {
            BreakerState::Closed => self.patience,
            // A late answer is cached for the next search.
            BreakerState::Open(_) | BreakerState::HalfOpen => self.patience.min(BRIEF),
        };
        // In its own task, so that an answer too late for this call is cached for the next.
        let question = self.tasks.spawn(async move {
            let deadline = std::time::Instant::now() + LONGEST;
            let search = asked.buddy.search(&key, ASKED, deadline);
            let search = asked.buddy.guarded(asked.patience, search);
            let load = async { search.await.map_err(Problem::from) };
            asked.cache.get_or_load(key.clone(), load).await
        });
        match tokio::time::timeout(patience, question).await {
            Ok(Ok(Ok(hit))) => self.answered(hit),
            Ok(Ok(Err(problem))) => self.failed(SourceStatus::Failed, problem),
            Ok(Err(joined)) => {
                let problem =
                    Problem::new(ErrorKind::Internal, format!("asking it ended: {joined}"));
                self.failed(SourceStatus::Failed, problem)
            }
            Err(_) => {
                let message = format!("no answer within {} s", patience.as_secs_f64());
                let problem = Problem::new(ErrorKind::TimedOut, message).with_hint(
                    "the local hits are complete; the same search later uses its answer",
                );
                self.failed(SourceStatus::Late, problem)
            }
        }
    }

    fn answered(&self, hit: Hit<Vec<PeerHit>>) -> Told {
        let cached = hit.how == How::Hit;
        let status = if cached {
            SourceStatus::Cached
        } else {
            *self.failing_since.lock() = None;
            SourceStatus::Ok
        };
        Told {
            hits: hit.value,
            source: SourceAnswer {
                age_s: cached.then(|| (hit.age.as_secs_f64() * 10.0).round() / 10.0),
                ..SourceAnswer::new(self.name.to_string(), status)
            },
        }
    }

    fn failed(&self, status: SourceStatus, mut problem: Problem) -> Told {
        const MESSAGE_BYTES: usize = 400;
        let since = *self.failing_since.lock().get_or_insert_with(At::now);
        problem
            .message
            .truncate(problem.message.floor_char_boundary(MESSAGE_BYTES));
        problem
            .message
            .push_str(&format!(" (failing since {since})"));
        Told {
            hits: Arc::default(),
            source: SourceAnswer {
                error: Some(problem),
                ..SourceAnswer::new(self.name.to_string(), status)
            },
        }
    }
}

/// Returns the query as it is sent: whitespace folded, cut to [`KEY_BYTES`].
fn key_of(query: &str) -> String {
    let mut key = String::new();
    for word in query.split(|c: char| c.is_whitespace() || c.is_control()) {
        if key.len() >= KEY_BYTES {
            break;
        }
        if !word.is_empty() {
            if !key.is_empty() {
                key.push(' ');
            }
            key.push_str(word);
        }
    }
    key.truncate(key.floor_char_boundary(KEY_BYTES));
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_folded_and_bounded() {
        assert_eq!(key_of("  a\n\tb  c "), "a b c");
        assert_eq!(key_of(&"é".repeat(1 << 20)).len(), KEY_BYTES);
        assert!(key_of(&"word ".repeat(1 << 18)).len() <= KEY_BYTES);
        assert_ne!(
            key_of("A b"),
            key_of("a b"),
            "the default front door minds letter case"
        );
    }
}
