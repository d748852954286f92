//! Memories: what was learned, what items did, what people keep; and their way to a peer.

use super::words::words;
use super::{At, Attempt, ItemIndex, MemoryId, PoolName, WorkflowId};
use crate::redact::Redacted;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What sort of memory it is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum MemoryKind {
    /// What was learned.
    Lesson,
    /// What an item did.
    Outcome,
    /// Kept by hand.
    Note,
}

words!(MemoryKind {
    Lesson => "lesson",
    Outcome => "outcome",
    Note => "note",
});

/// A memory server that memories are forwarded to, as the config names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName(Arc<str>);

impl PeerName {
    /// Returns the name `name`.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for PeerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A memory that is to be stored.
///
/// Its identity, by which a second one is a duplicate, is the first of these it has: its marker; its source with that
/// source's own id; its workflow, item and attempt; else the SHA-256 of pool, repository and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMemory {
    /// What sort of memory it is.
    pub kind: MemoryKind,
    /// What is remembered.
    pub text: Redacted,
    /// The pool it belongs to.
    pub pool: PoolName,
    /// The repository it is about: a canonical absolute path.
    pub repo: Option<String>,
    /// The workflow it comes from.
    pub workflow: Option<WorkflowId>,
    /// The item it comes from.
    pub item: Option<ItemIndex>,
    /// The attempt it comes from.
    pub attempt: Option<Attempt>,
    /// The worker kind's name.
    pub worker: Option<String>,
    /// The commit it is about.
    pub commit: Option<String>,
    /// Who told it: `worker`, `remember`, or a peer's name.
    pub source: String,
    /// The source's own id of it.
    pub source_id: Option<String>,
    /// Our own marker, where a peer gave the memory back that we had sent.
    pub marker: Option<MemoryId>,
    /// Words to find it by.
    pub tags: Vec<Redacted>,
    /// When it was learned.
    pub created_at: At,
    /// Whether it counts as collected, so that the next collection leaves it out.
    pub aggregated: bool,
}

impl NewMemory {
    /// Returns a memory of now that has only what each must have.
    pub fn new(
        kind: MemoryKind,
        text: impl Into<Redacted>,
        pool: PoolName,
        source: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            text: text.into(),
            pool,
            repo: None,
            workflow: None,
            item: None,
            attempt: None,
            worker: None,
            commit: None,
            source: source.into(),
            source_id: None,
            marker: None,
            tags: Vec::new(),
            created_at: At::now(),
            aggregated: false,
        }
    }
}

/// A stored memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Its id, which is also its marker at peers.
    pub id: MemoryId,
    /// What sort of memory it is.
    pub kind: MemoryKind,
    /// What is remembered, whole.
    pub text: Redacted,
    /// The pool it belongs to.
    pub pool: PoolName,
    /// The repository it is about.
    pub repo: Option<String>,
    /// The workflow it comes from.
    pub workflow: Option<WorkflowId>,
    /// The item it comes from.
    pub item: Option<ItemIndex>,
    /// The attempt it comes from.
    pub attempt: Option<Attempt>,
    /// The worker kind's name.
    pub worker: Option<String>,
    /// The commit it is about.
    pub commit: Option<String>,
    /// Who told it.
    pub source: String,
    /// Words to find it by.
    pub tags: Vec<Redacted>,
    /// When it was learned.
    pub created_at: At,
    /// Whether it was collected.
    pub aggregated: bool,
}

/// What an insertion did, one entry of `ids` per given memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InsertReport {
    /// How many are stored now and were not before.
    pub new: u32,
    /// How many were known by their identity.
    pub duplicate: u32,
    /// The ids, in the order given; a duplicate has the id of the one stored before.
    pub ids: Vec<MemoryId>,
    /// The ids of the new ones.
    pub new_ids: Vec<MemoryId>,
}

/// What one batch of a collection from the store gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectedBatch {
    /// Those that were not collected before.
    pub new: Vec<MemoryId>,
    /// How many were.
    pub duplicate: u64,
    /// Where the next batch begins; absent at the end.
    pub next: Option<i64>,
}

/// Which memories to find; every filter narrows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryQuery {
    /// Words, `"phrases"` and `prefixes*`; any text is a search. Empty: all, newest first.
    pub text: String,
    /// Of one of these pools.
    pub pools: Vec<PoolName>,
    /// About this repository: a canonical path, or a last component of one.
    pub repo: Option<String>,
    /// With all of these tags.
    pub tags: Vec<String>,
    /// Of one of these kinds.
    pub kinds: Vec<MemoryKind>,
    /// Learned at or after this instant.
    pub since: Option<At>,
    /// Learned at or before this instant.
    pub until: Option<At>,
    /// One of these.
    pub ids: Vec<MemoryId>,
    /// The most hits of a page.
    pub limit: u32,
    /// Where the page begins: what the page before gave as `next`.
    pub cursor: Option<String>,
}

/// One origin of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The memory with that text.
    pub id: MemoryId,
    /// Its pool.
    pub pool: PoolName,
    /// The repository it is about.
    pub repo: Option<String>,
    /// The workflow it comes from.
    pub workflow: Option<WorkflowId>,
    /// The item it comes from.
    pub item: Option<ItemIndex>,
    /// Who told it.
    pub source: String,
}

/// One found memory.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryHit {
    /// The best ranked memory with this text.
    pub memory: Memory,
    /// How well it matches: larger is better, comparable within one answer only; 0 for a query without words.
    pub score: f64,
    /// Other memories with the same text, at most [`Self::MAX_ORIGINS`].
    pub also: Vec<Origin>,
    /// How many other memories have the same text.
    pub also_count: u32,
}

impl MemoryHit {
    /// The most origins that are listed of one text.
    pub const MAX_ORIGINS: usize = 20;
}

/// One page of found memories, best first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryPage {
    /// The hits.
    pub hits: Vec<MemoryHit>,
    /// Where the next page begins; absent at the end.
    pub next: Option<String>,
    /// Whether only a part of very many matches was ranked, or their words were counted in a part of the memories
    /// only; `notes` says which. Else the order is exactly that of BM25.
    pub approximate: bool,
    /// What was done to the query, for people: cut, searched for any of its words, ranked in part.
    pub notes: Vec<String>,
}

/// A memory on its way to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEntry {
    /// What to send; its id is the marker.
    pub memory: Memory,
    /// Whether the peer may have it already, so that it must be asked before.
    pub ask_first: bool,
    /// How often it was sent before.
    pub attempts: u32,
}

/// Why a memory was not sent, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendFailure {
    /// Nobody knows whether the peer has it: it rests, then the peer is asked.
    Unclear {
        /// Until when it rests.
        until: At,
        /// What happened.
        error: Redacted,
    },
    /// The peer does not have it and may take it later.
    Retry {
        /// When to send it again.
        at: At,
        /// What happened.
        error: Redacted,
    },
    /// The peer will never take it: a dead letter, kept until it is sent again on request.
    Dead {
        /// What the peer said.
        error: Redacted,
    },
}

/// How many memories are in each state of one peer's outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutboxCounts {
    /// To be sent.
    pub pending: u64,
    /// Being sent.
    pub sending: u64,
    /// Perhaps sent; to be asked for.
    pub resting: u64,
    /// The peer has them.
    pub acked: u64,
    /// The peer refused them for good.
    pub dead: u64,
}

impl OutboxCounts {
    /// Returns how many are still on their way.
    pub fn open(&self) -> u64 {
        self.pending + self.sending + self.resting
    }
}

/// A memory that a peer refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The memory.
    pub id: MemoryId,
    /// What the peer said.
    pub error: String,
    /// How often it was sent.
    pub attempts: u32,
    /// When it was given up.
    pub at: At,
}
