//! The handle: discovers which front door answers and speaks its language.

use super::content::{Marker, fold, prepare};
use super::default_door::{self, Freshness, Preview};
use super::error::PeerError;
use super::full_door;
use crate::mcp_client::{CallReply, McpClient};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Which of the two servers that Session-Buddy installs is answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// What `session-buddy start` gives: reflections.
    Default,
    /// The full tool profile: conversations.
    Full,
}

/// Who answers, and what it offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// The front door.
    pub door: Door,
    /// How many tools it has.
    pub tools: usize,
    /// The version it gives in the handshake; observed to be that of its framework, not Session-Buddy's own.
    pub version: Option<String>,
}

/// A memory on its way out; its text is redacted already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Which memory it is.
    pub marker: Marker,
    /// What it says, at any length.
    pub text: String,
    /// Its tags.
    pub tags: Vec<String>,
}

/// What the peer made of a memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The peer's own id, where it tells one.
    pub peer_id: Option<String>,
    /// Whether the peer has the beginning of the text only.
    pub cut: bool,
}

/// A memory that a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerHit {
    /// Which of our memories it is; absent for the peer's own.
    pub marker: Option<Marker>,
    /// What it says, as much of it as the peer shows, on one line.
    pub text: String,
    /// The share of the query's words that the shown text holds, 0 to 1; the peer gives no score of its own.
    pub score: Option<f64>,
    /// Whether the text is longer than what is shown.
    pub truncated: bool,
}

/// One item of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerItem {
    /// The peer's id, where the listing tells it.
    pub id: Option<String>,
    /// Its content, marker included.
    pub content: String,
    /// Whether that is the whole content.
    pub whole: bool,
}

/// What the peer lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The items, in the peer's order.
    pub items: Vec<PeerItem>,
    /// Whether these are all.
    pub complete: bool,
}

/// How often the peer has each of the memories asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presence {
    /// Those it does not have.
    pub missing: Vec<Marker>,
    /// Those it has more than once, with their number.
    pub duplicates: Vec<(Marker, usize)>,
}

/// A handle to a Session-Buddy; clones share one session.
#[derive(Debug, Clone)]
pub struct SessionBuddy {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: McpClient,
    fresh: Freshness,
    // std mutex: copied in and out, never held across an await.
    info: Mutex<Option<Known>>,
    restarts: AtomicU64,
    /// Whether a full listing failed where searches did not: it is too large to be had in one piece.
    unlistable: AtomicBool,
}

/// Who answered when last asked.
#[derive(Debug, Clone)]
struct Known {
    /// The client's count of lost sessions then: a server that restarted may have become the other one.
    losses: u64,
    info: PeerInfo,
    at: Instant,
}

/// The tool that tells how long the server is up, on both front doors.
const LIVENESS: &str = "get_liveness";

/// The longest query that is sent, in bytes; the peer would search for a megabyte of text and echo it.
const MAX_QUERY: usize = 500;

impl SessionBuddy {
    /// Returns a handle over `client`; `seed` decides where the walk around the peer's stale search cache begins.
    pub fn new(client: McpClient, seed: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                client,
                fresh: Freshness::new(seed),
                info: Mutex::new(None),
                restarts: AtomicU64::new(0),
                unlistable: AtomicBool::new(false),
            }),
        }
    }

    /// Returns the MCP client below.
    pub fn client(&self) -> &McpClient {
        &self.shared.client
    }

    /// Returns how often the server is known to have restarted: whatever it was doing before is over. A session that it
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
        let door = if has(full_door::SEARCH) && has(full_door::STORE) {
            Door::Full
        } else if has(default_door::SEARCH) && has(default_door::STORE) {
            Door::Default
        } else {
            return Err(PeerError::NotSessionBuddy(format!(
                "none of its {} tools stores memories",
                tools.len()
            )));
        };
        let info = PeerInfo {
            door,
            tools: tools.len(),
            version: client.server_info().map(|server| server.version),
        };
        self.note(info.clone(), has(LIVENESS), deadline).await;
        Ok(info)
    }

    /// Makes sure that there is a connection, and a server that stores memories at its other end; asks nothing where both
    /// are known.
    ///
    /// # Errors
    ///
    /// Those of [`SessionBuddy::probe`], none of them unclear.
    pub async fn meet(&self, deadline: Instant) -> Result<(), PeerError> {
        self.door(deadline).await.map(drop)
    }

    /// Keeps who answers; where the session was lost since it was last asked, finds out whether the server restarted.
    async fn note(&self, info: PeerInfo, tells_uptime: bool, deadline: Instant) {
        let losses = self.shared.client.losses();
        let before = self.known().clone();
        if let Some(before) = before
            && before.losses != losses
            && tells_uptime
        {
            let up = self.uptime(deadline).await;
            if up.is_some_and(|up| up < before.at.elapsed()) {
                self.shared.restarts.fetch_add(1, Ordering::AcqRel);
            }
        }
        *self.known() = Some(Known {
            losses,
            info,
            at: Instant::now(),
        });
    }

    /// Returns how long the server is up; nothing where it does not tell.
    async fn uptime(&self, deadline: Instant) -> Option<Duration> {
        let reply = self.call(LIVENESS, Map::new(), deadline).await.ok()?;
        let seconds = reply.structured?.get("uptime_seconds")?.as_f64()?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// Stores one memory.
    ///
    /// # Errors
    ///
    /// [`PeerError`], which says whether it may have been stored all the same.
    pub async fn store(&self, item: &Outgoing, deadline: Instant) -> Result<Stored, PeerError> {
        let door = self.door(deadline).await?;
        let prepared = prepare(&item.marker, &item.text);
        let (tool, arguments) = match door {
            Door::Default => (
                default_door::STORE,
                default_door::store_arguments(&prepared.content, &item.marker, &item.tags),
            ),
            Door::Full => (
                full_door::STORE,
                full_door::store_arguments(&prepared.content, &item.marker, &item.tags),
            ),
        };
        let reply = self.call(tool, arguments, deadline).await?;
        let peer_id = match door {
            Door::Default => default_door::is_stored(&reply).then_some(None),
            Door::Full => full_door::stored_id(&reply),
        };
        match peer_id {
            Some(peer_id) => Ok(Stored {
                peer_id,
                cut: prepared.cut,
            }),
            None => Err(self.refusal(&reply)),
        }
    }

    /// Searches the peer's memories, ours and its own, and gives the best `limit`.
    ///
    /// The default front door knows one exact substring in the given letter case only; it is asked for all words in
    /// their order and for the longest ones alone.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; nothing is changed by a search.
    pub async fn search(
        &self,
        query: &str,
        limit: usize,
        deadline: Instant,
    ) -> Result<Vec<PeerHit>, PeerError> {
        let folded = fold(query);
        let query = &folded[..folded.floor_char_boundary(MAX_QUERY)];
        if limit == 0 {
            return Ok(Vec::new());
        }
        let found = match self.door(deadline).await? {
            Door::Full if query.is_empty() => Vec::new(),
            Door::Full => self.ask_full(query, full_door::MAX_LIMIT, deadline).await?,
            Door::Default => {
                let asked = default_door::patterns(query);
                let answers = asked
                    .iter()
                    .map(|pattern| self.ask_default(pattern, limit, deadline));
                futures_util::future::try_join_all(answers).await?.concat()
            }
        };
        Ok(ranked(query, found, limit))
    }

    /// Returns whether the peer has the memory.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; nothing is changed by asking.
    pub async fn is_there(&self, marker: &Marker, deadline: Instant) -> Result<bool, PeerError> {
        // Markers inside texts are escaped, so that only the memory itself holds this text; a few more are asked for
        // because a duplicate or another writer's quote may come first.
        const ENOUGH: usize = 20;
        let term = marker.to_string();
        let found = match self.door(deadline).await? {
            Door::Default => self.ask_default(&term, ENOUGH, deadline).await?,
            Door::Full => self.ask_full(&term, ENOUGH, deadline).await?,
        };
        Ok(found
            .iter()
            .any(|item| item.marker.as_ref() == Some(marker)))
    }

    /// Lists what the peer has: on the default front door everything with its whole content; on the full one, which
    /// has no listing, the beginnings of our newest 100.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; nothing is changed by asking.
    pub async fn list_all(&self, deadline: Instant) -> Result<Listing, PeerError> {
        match self.door(deadline).await? {
            Door::Default => {
                let arguments = default_door::list_arguments();
                let reply = self.call(default_door::LIST, arguments, deadline).await?;
                let items = default_door::listing(&reply).ok_or_else(|| self.refusal(&reply))?;
                Ok(Listing {
                    items,
                    complete: true,
                })
            }
            Door::Full => {
                let found = self
                    .ask_full("[mv:", full_door::MAX_LIMIT, deadline)
                    .await?;
                Ok(Listing {
                    complete: found.len() < full_door::MAX_LIMIT,
                    items: found.into_iter().filter_map(as_item).collect(),
                })
            }
        }
    }

    /// Finds out which of `markers` the peer lacks or has more than once: by one listing on the default front door, by
    /// as few searches as possible on the full one and where the listing is too large to be had.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; nothing is changed by asking.
    pub async fn presence(
        &self,
        markers: &[Marker],
        deadline: Instant,
    ) -> Result<Presence, PeerError> {
        if markers.is_empty() {
            return Ok(Presence::default());
        }
        let counts = match self.door(deadline).await? {
            Door::Default => self.count_default(markers, deadline).await?,
            Door::Full => self.count_by_search(Door::Full, markers, deadline).await?,
        };
        let mut presence = Presence::default();
        for marker in markers {
            match counts.get(marker).copied().unwrap_or(0) {
                0 => presence.missing.push(marker.clone()),
                1 => {}
                many => presence.duplicates.push((marker.clone(), many)),
            }
        }
        Ok(presence)
    }

    async fn count_default(
        &self,
        markers: &[Marker],
        deadline: Instant,
    ) -> Result<HashMap<Marker, usize>, PeerError> {
        if !self.shared.unlistable.load(Ordering::Acquire) {
            match self.list_all(deadline).await {
                Ok(listing) => {
                    let items = listing.items.iter();
                    return Ok(count(items.filter_map(|item| {
                        Marker::split(&item.content).map(|(marker, _)| marker)
                    })));
                }
                Err(PeerError::Unclear(_) | PeerError::Retry(_)) => {}
                Err(other) => return Err(other),
            }
        }
        let counts = self
            .count_by_search(Door::Default, markers, deadline)
            .await?;
        // Searches answer, so it is the listing that cannot be had, now and later: it only grows.
        self.shared.unlistable.store(true, Ordering::Release);
        Ok(counts)
    }

    /// Counts `markers` by searching for beginnings of their ids, a longer one wherever a search is full.
    async fn count_by_search(
        &self,
        door: Door,
        markers: &[Marker],
        deadline: Instant,
    ) -> Result<HashMap<Marker, usize>, PeerError> {
        let full = match door {
            Door::Default => default_door::MANY,
            Door::Full => full_door::MAX_LIMIT,
        };
        let mut counts = HashMap::new();
        let mut open: Vec<(String, Vec<Marker>)> = vec![(String::new(), markers.to_vec())];
        while let Some((prefix, wanted)) = open.pop() {
            if wanted.is_empty() {
                continue;
            }
            let term = if prefix.is_empty() {
                "[mv:".to_owned()
            } else {
                format!(":{prefix}")
            };
            let found = match door {
                Door::Default => self.ask_default(&term, full, deadline).await?,
                Door::Full => self.ask_full(&term, full, deadline).await?,
            };
            const ULID_CHARS: usize = 26;
            if found.len() < full || prefix.len() == ULID_CHARS {
                let seen = count(found.into_iter().filter_map(|item| item.marker));
                counts.extend(wanted.into_iter().filter_map(|marker| {
                    let times = seen.get(&marker).copied()?;
                    Some((marker, times))
                }));
                continue;
            }
            let mut branches: HashMap<String, Vec<Marker>> = HashMap::new();
            for marker in wanted {
                let next = marker.id.to_string()[..=prefix.len()].to_owned();
                branches.entry(next).or_default().push(marker);
            }
            open.extend(branches);
        }
        Ok(counts)
    }

    async fn ask_default(
        &self,
        pattern: &str,
        limit: usize,
        deadline: Instant,
    ) -> Result<Vec<Preview>, PeerError> {
        let arguments = self.shared.fresh.arguments(pattern, limit);
        let reply = self.call(default_door::SEARCH, arguments, deadline).await?;
        default_door::previews(&reply).ok_or_else(|| self.refusal(&reply))
    }

    async fn ask_full(
        &self,
        query: &str,
        limit: usize,
        deadline: Instant,
    ) -> Result<Vec<Preview>, PeerError> {
        let arguments = full_door::search_arguments(query, limit);
        let reply = self.call(full_door::SEARCH, arguments, deadline).await?;
        full_door::previews(&reply).ok_or_else(|| self.refusal(&reply))
    }

    async fn call(
        &self,
        tool: &str,
        arguments: Map<String, Value>,
        deadline: Instant,
    ) -> Result<CallReply, PeerError> {
        Ok(self.shared.client.call(tool, arguments, deadline).await?)
    }

    async fn door(&self, deadline: Instant) -> Result<Door, PeerError> {
        let losses = self.shared.client.losses();
        let known = self.known().clone();
        match known {
            Some(known) if known.losses == losses => Ok(known.info.door),
            _ => self
                .probe(deadline)
                .await
                .map(|info| info.door)
                .map_err(|error| match error {
                    // Listing tools changes nothing, so whatever was to follow it was not sent.
                    PeerError::Unclear(error) => PeerError::Down(error),
                    other => other,
                }),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<Known>> {
        self.shared
            .info
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads an answer that is not success.
    fn refusal(&self, reply: &CallReply) -> PeerError {
        let structured = reply.structured.as_ref();
        let message = structured.and_then(|body| body.get("message")?.as_str());
        let text = message.unwrap_or(&reply.text);
        let said: String = fold(text).chars().take(300).collect();
        let has = |part: &str| text.contains(part);
        if has("Unknown tool") {
            // The other front door may have taken this one's place.
            *self.known() = None;
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

fn count(markers: impl Iterator<Item = Marker>) -> HashMap<Marker, usize> {
    let mut counts = HashMap::new();
    for marker in markers {
        *counts.entry(marker).or_default() += 1;
    }
    counts
}

fn as_item(preview: Preview) -> Option<PeerItem> {
    Some(PeerItem {
        id: None,
        content: format!("{} {}", preview.marker?, preview.text),
        whole: !preview.truncated,
    })
}

/// Merges what several questions found, best match first, the peer's own order (newest first) among equals.
fn ranked(query: &str, found: Vec<Preview>, limit: usize) -> Vec<PeerHit> {
    let words: Vec<String> = query.split_whitespace().map(str::to_lowercase).collect();
    let mut seen = std::collections::HashSet::new();
    let mut hits: Vec<PeerHit> = found
        .into_iter()
        .filter(|item| seen.insert((item.marker.clone(), item.text.clone())))
        .map(|item| PeerHit {
            score: share(&words, &item.text),
            marker: item.marker,
            text: item.text,
            truncated: item.truncated,
        })
        .collect();
    hits.sort_by(|a, b| b.score.unwrap_or(0.0).total_cmp(&a.score.unwrap_or(0.0)));
    hits.truncate(limit);
    hits
}

fn share(words: &[String], text: &str) -> Option<f64> {
    if words.is_empty() {
        return None;
    }
    let text = text.to_lowercase();
    let held = words.iter().filter(|word| text.contains(*word)).count();
    Some(held as f64 / words.len() as f64)
}
