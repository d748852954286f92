//! The handle: finds out which front door answers, calls its tools, and reads its refusals.

use super::content::{fold, prepare};
use super::default_door::{self, Freshness};
use super::door::{Door, PeerInfo};
use super::error::PeerError;
use super::item::{Outgoing, PeerItem};
use super::preview::Preview;
use crate::mcp_client::{CallReply, McpClient};
use crate::resilience::{Backoff, Breaker};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// A handle to a Session-Buddy; clones share one session and one breaker.
#[derive(Debug, Clone)]
pub struct SessionBuddy {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    client: McpClient,
    breaker: Breaker<PeerError>,
    fresh: Freshness,
    /// Copied in and out, never held across an await.
    known: Mutex<Option<Known>>,
    restarts: AtomicU64,
    /// Whether a full listing failed where searches did not: it is too large to be had in one piece.
    pub(super) unlistable: AtomicBool,
}

/// Who answered when last asked.
#[derive(Debug, Clone)]
struct Known {
    /// The client's count of lost sessions then: a server that restarted may have become the other one.
    losses: u64,
    door: Door,
    at: Instant,
}

/// The tool of both front doors that returns how long the server is up.
const LIVENESS: &str = "get_liveness";

/// How many failures in a row open the breaker.
const FAILURES: u32 = 3;

/// The first and the longest rest of an open breaker.
const REST: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

impl SessionBuddy {
    /// Returns a handle over `client`; `seed` decides where the walk around the peer's stale search cache begins, and
    /// the breaker's jitter.
    pub fn new(client: McpClient, seed: u64) -> Self {
        let (first, longest) = REST;
        Self::with_rest(client, seed, first, longest)
    }

    /// Returns a handle as [`Self::new`] does, whose open breaker rests for `first` to `longest`.
    pub fn with_rest(client: McpClient, seed: u64, first: Duration, longest: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                client,
                breaker: Breaker::new(FAILURES, Backoff::new(first, longest, seed)),
                fresh: Freshness::new(seed),
                known: Mutex::new(None),
                restarts: AtomicU64::new(0),
                unlistable: AtomicBool::new(false),
            }),
        }
    }

    /// Returns the MCP client below.
    pub fn client(&self) -> &McpClient {
        &self.shared.client
    }

    /// Returns the breaker, which all background traffic and searches share. The methods of this handle do not ask it:
    /// their callers know whether a failure counts and whether a person asked.
    pub fn breaker(&self) -> &Breaker<PeerError> {
        &self.shared.breaker
    }

    /// Makes a call through the breaker. One without an answer after `patience` holds back all others until it ends, so
    /// that a peer which accepts and never answers is waited for once.
    ///
    /// # Errors
    ///
    /// [`PeerError::Resting`] without a call, else the call's own.
    ///
    /// # Cancel safety
    ///
    /// As safe as `call`; the breaker ignores a call that was dropped.
    pub async fn guarded<T>(
        &self,
        patience: Duration,
        call: impl Future<Output = Result<T, PeerError>>,
    ) -> Result<T, PeerError> {
        let mut pass = match self.breaker().admit() {
            Ok(pass) => Some(pass),
            // A peer that refuses memories may still answer questions.
            Err(refused) if matches!(refused.after, Some(PeerError::Retry(_))) => None,
            Err(refused) => return Err(refused.into()),
        };
        let mut call = pin!(call);
        let result = match timeout(patience, &mut call).await {
            Ok(result) => result,
            Err(_late) => {
                if let Some(pass) = &mut pass {
                    pass.suspect();
                }
                call.await
            }
        };
        match (pass, &result) {
            (Some(pass), Err(error)) if error.is_about_the_peer() => pass.failed(error.clone()),
            (Some(pass), _) => pass.succeeded(),
            (None, _) => {}
        }
        result
    }

    /// Returns how often the server is known to have restarted, which ended whatever it was doing. A session that it
    /// only forgot does not count.
    pub fn restarts(&self) -> u64 {
        self.shared.restarts.load(Ordering::Acquire)
    }

    /// Asks who is there.
    ///
    /// # Errors
    ///
    /// [`PeerError::Down`] or [`PeerError::Unclear`] when nobody answers, [`PeerError::NotSessionBuddy`] when what
    /// answers has no tools to store memories with.
    pub async fn probe(&self, deadline: Instant) -> Result<PeerInfo, PeerError> {
        let client = &self.shared.client;
        let tools = client.list_tools(deadline).await?;
        let has = |name: &str| tools.iter().any(|tool| tool.name == name);
        let Some(door) = Door::of(has) else {
            let text = format!("none of its {} tools stores memories", tools.len());
            return Err(PeerError::NotSessionBuddy(text));
        };
        self.note(door, has(LIVENESS), deadline).await;
        Ok(PeerInfo {
            door,
            tools: tools.len(),
            version: client.server_version(),
        })
    }

    /// Connects where there is no connection, and makes sure that a server answers that stores memories. Sends nothing
    /// where both are known.
    ///
    /// # Errors
    ///
    /// Those of [`SessionBuddy::probe`], none of them unclear.
    pub async fn connect(&self, deadline: Instant) -> Result<(), PeerError> {
        self.door(deadline).await.map(drop)
    }

    /// Keeps who answers; where the session was lost since the last time, finds out whether the server restarted.
    async fn note(&self, door: Door, has_uptime: bool, deadline: Instant) {
        let losses = self.shared.client.losses();
        let before = self.shared.known.lock().clone();
        if let Some(before) = before
            && before.losses != losses
            && has_uptime
        {
            let up = self.uptime(deadline).await;
            if up.is_some_and(|up| up < before.at.elapsed()) {
                self.shared.restarts.fetch_add(1, Ordering::AcqRel);
            }
        }
        *self.shared.known.lock() = Some(Known {
            losses,
            door,
            at: Instant::now(),
        });
    }

    /// Returns how long the server is up; none where it does not say.
    async fn uptime(&self, deadline: Instant) -> Option<Duration> {
        let reply = self.call(LIVENESS, Map::new(), deadline).await.ok()?;
        let seconds = reply.structured?.get("uptime_seconds")?.as_f64()?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Stores one memory, the beginning of it where it is long.
    ///
    /// # Errors
    ///
    /// [`PeerError`], whose variant says whether it may have been stored all the same.
    pub async fn store(&self, item: &Outgoing, deadline: Instant) -> Result<(), PeerError> {
        let door = self.door(deadline).await?;
        let content = prepare(&item.marker, &item.text);
        let (tool, arguments) = door.store(&content, &item.marker, &item.tags);
        let reply = self.call(tool, arguments, deadline).await?;
        match door.is_stored(&reply) {
            true => Ok(()),
            false => Err(self.refusal(&reply)),
        }
    }

    /// Lists what the peer has: on the default front door everything with its whole content; on the full one, which
    /// has no listing, the beginnings of our newest 100.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; nothing is changed by asking.
    pub async fn list_all(&self, deadline: Instant) -> Result<Vec<PeerItem>, PeerError> {
        match self.door(deadline).await? {
            Door::Default => {
                let arguments = default_door::list_arguments();
                let reply = self.call(default_door::LIST, arguments, deadline).await?;
                default_door::listing(&reply).ok_or_else(|| self.refusal(&reply))
            }
            door @ Door::Full => {
                let found = self.ask(door, "[mv:", door.most(), deadline).await?;
                Ok(found.into_iter().filter_map(Preview::into_item).collect())
            }
        }
    }

    /// Searches for one text as the front door does it.
    pub(super) async fn ask(
        &self,
        door: Door,
        text: &str,
        limit: usize,
        deadline: Instant,
    ) -> Result<Vec<Preview>, PeerError> {
        let (tool, arguments) = door.search(text, limit, &self.shared.fresh);
        let reply = self.call(tool, arguments, deadline).await?;
        door.previews(&reply).ok_or_else(|| self.refusal(&reply))
    }

    async fn call(
        &self,
        tool: &str,
        arguments: Map<String, Value>,
        deadline: Instant,
    ) -> Result<CallReply, PeerError> {
        Ok(self.shared.client.call(tool, arguments, deadline).await?)
    }

    /// Returns the front door that answers; asks where the session was lost since it was last known.
    pub(super) async fn door(&self, deadline: Instant) -> Result<Door, PeerError> {
        let losses = self.shared.client.losses();
        let known = self.shared.known.lock().clone();
        match known {
            Some(known) if known.losses == losses => Ok(known.door),
            // Listing tools changes nothing, so whatever was to follow it was not sent.
            _ => match self.probe(deadline).await {
                Err(PeerError::Unclear(error)) => Err(PeerError::Down(error)),
                probed => Ok(probed?.door),
            },
        }
    }

    /// Returns what an answer means that is no success.
    fn refusal(&self, reply: &CallReply) -> PeerError {
        let structured = reply.structured.as_ref();
        let message = structured.and_then(|body| body.get("message")?.as_str());
        let text = message.unwrap_or(&reply.text);
        let said: String = fold(text).chars().take(300).collect();
        let has = |part: &str| text.contains(part);
        if has("Unknown tool") {
            // The other front door may have taken this one's place.
            *self.shared.known.lock() = None;
            return PeerError::Retry(said);
        }
        let permanent = reply.is_error
            && (has("Memory guard blocked write") || has("validation error"))
            || has("❌ Content too short")
            || has("❌ Validation error");
        if permanent {
            PeerError::Permanent(said)
        } else if has("Could not set lock") || has("Conflicting lock") {
            PeerError::Locked(said)
        } else {
            PeerError::Retry(said)
        }
    }
}
