//! What delivery is made over, how it behaves, and how it stands.

use crate::error::Problem;
use crate::model::{At, MemoryId, OutboxEntry, Reconciled, SenderState};
use crate::session_buddy::{Marker, Outgoing, PeerError, Stored};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// The durable queue of one peer. Whatever is taken is leased until it is acknowledged or failed.
pub trait Outbox: Send + Sync + 'static {
    /// Leases at most `limit` entries that are due, oldest first.
    fn take(&self, limit: u32) -> impl Future<Output = Result<Vec<OutboxEntry>, Problem>> + Send;
    /// Returns how long until an entry is due; nothing where none waits.
    fn next_due(&self) -> impl Future<Output = Result<Option<Duration>, Problem>> + Send;
    /// Notes that the peer has these.
    fn ack(&self, ids: Vec<MemoryId>) -> impl Future<Output = Result<(), Problem>> + Send;
    /// Notes that the peer did not acknowledge this one.
    fn fail(
        &self,
        id: MemoryId,
        why: Undelivered,
    ) -> impl Future<Output = Result<(), Problem>> + Send;
    /// Gives back what was leased and not sent.
    fn give_back(&self, ids: Vec<MemoryId>) -> impl Future<Output = Result<(), Problem>> + Send;
    /// Ends all rests, because the peer restarted.
    fn wake(&self) -> impl Future<Output = Result<(), Problem>> + Send;
}

/// What becomes of an entry that was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undelivered {
    /// Nobody knows whether the peer has it: it rests this long, then the peer is asked.
    Rest(Duration, String),
    /// The peer does not have it: it is due again after this long.
    Retry(Duration, String),
    /// The peer will never take it.
    Dead(String),
}

/// What delivery needs of a peer.
pub trait Peer: Clone + Send + Sync + 'static {
    /// Makes sure that there is a connection, and a peer that stores memories at its other end.
    fn meet(&self, deadline: Instant) -> impl Future<Output = Result<(), PeerError>> + Send;
    /// Stores one memory.
    fn store(
        &self,
        item: Outgoing,
        deadline: Instant,
    ) -> impl Future<Output = Result<Stored, PeerError>> + Send;
    /// Returns whether the peer has the memory.
    fn is_there(
        &self,
        marker: Marker,
        deadline: Instant,
    ) -> impl Future<Output = Result<bool, PeerError>> + Send;
    /// Returns how often the peer is known to have restarted: what it was doing before is over.
    fn restarts(&self) -> u64;
}

/// How delivery behaves.
#[derive(Debug, Clone)]
pub struct DeliverySettings {
    /// The least and the most calls in flight.
    pub in_flight: (usize, usize),
    /// How long a store and a question may take; a busy Session-Buddy needs tens of seconds.
    pub call_timeout: Duration,
    /// The shortest rest of an entry whose outcome is unclear; twice the slowest store seen where that is longer.
    pub unclear_rest: Duration,
    /// How many failures in a row stop the sending.
    pub breaker_threshold: u32,
    /// The first and the longest pause between probes of a peer that is down.
    pub probe_pause: (Duration, Duration),
    /// The first and the longest wait before an entry that the peer did not take is sent again.
    pub retry_wait: (Duration, Duration),
    /// How often the peer may refuse an entry for now before that counts as for good.
    pub max_refusals: u32,
    /// How long the calls in flight may go on once delivery is asked to stop; well within what the process's end takes.
    pub drain: Duration,
    /// How often is looked whether a peer to which nothing is sent is still the one that acknowledged what it has.
    pub look: Duration,
    /// The seed of the jitter.
    pub seed: u64,
}

impl Default for DeliverySettings {
    fn default() -> Self {
        Self {
            in_flight: (1, 512),
            call_timeout: Duration::from_secs(60),
            unclear_rest: Duration::from_secs(30),
            breaker_threshold: 3,
            probe_pause: (Duration::from_millis(500), Duration::from_secs(30)),
            retry_wait: (Duration::from_secs(1), Duration::from_secs(300)),
            max_refusals: 12,
            drain: Duration::from_secs(1),
            look: Duration::from_secs(60),
            seed: u64::from(std::process::id()),
        }
    }
}

impl DeliverySettings {
    /// Returns how long what a dead sender left rests: its calls may still be under way at the peer, whose slowest store
    /// lately took `slowest`. Where no store is known, a call's own limit is.
    pub(crate) fn rest_after_death(&self, slowest: Duration) -> Duration {
        let longest = if slowest.is_zero() {
            self.call_timeout
        } else {
            slowest * 2
        };
        self.unclear_rest.max(longest)
    }
}

/// How delivery stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeliveryStatus {
    /// Whether this process sends; one does for all that share the store.
    pub sending: bool,
    /// Calls in flight.
    pub in_flight: usize,
    /// How many calls may be in flight.
    pub limit: usize,
    /// How many calls in flight the peer was found to be worth; nothing while that is looked for.
    pub found: Option<usize>,
    /// How many the peer took since the start.
    pub delivered: u64,
    /// How many the peer turned out to have already.
    pub already_there: u64,
    /// How many became dead letters.
    pub dead: u64,
    /// Since when the peer takes nothing.
    pub down_since: Option<At>,
    /// What went wrong last, while something is wrong.
    pub error: Option<Problem>,
    /// How long the slowest of the latest stores took.
    pub slowest: Duration,
    /// What the last comparison with the peer by this process found.
    pub reconciled: Option<Reconciled>,
}

impl DeliveryStatus {
    /// Returns what other servers are told of it.
    pub(crate) fn for_others(&self) -> SenderState {
        SenderState {
            down_since: self.down_since,
            error: self.error.clone(),
            limit: u32::try_from(self.found.unwrap_or(0)).unwrap_or(u32::MAX),
            slowest: self.slowest,
        }
    }
}

/// What connects delivery with the rest of the process.
#[derive(Debug, Clone)]
pub struct Link {
    /// Told whenever something was put into the outbox.
    pub enqueued: Arc<Notify>,
    /// Cancelled when delivery is to stop.
    pub stop: CancellationToken,
    /// Where the status is published.
    pub status: Arc<watch::Sender<DeliveryStatus>>,
}
