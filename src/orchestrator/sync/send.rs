//! One entry's way to the peer: asking whether it is there, where it may be, and storing it.

use super::pace::Ticket;
use super::peer::Peer;
use crate::model::OutboxEntry;
use crate::panic;
use crate::resilience::Pass;
use crate::session_buddy::{Marker, Outgoing, PeerError};
use std::time::{Duration, Instant};

/// A call that ended.
pub(super) struct Done {
    pub(super) entry: OutboxEntry,
    pub(super) pass: Pass<PeerError>,
    pub(super) ticket: Ticket,
    pub(super) result: Result<Sent, PeerError>,
    pub(super) took: Duration,
    /// When it ended; the sender sees it later where it was waiting for the store.
    pub(super) ended: Instant,
}

/// How the peer came to have an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// It took it now.
    Stored,
    /// It had it already.
    WasThere,
}

/// Sends one entry. A panic of the call is an unclear outcome, so that the entry comes back whatever happens.
pub(super) async fn send<P: Peer>(
    peer: P,
    entry: OutboxEntry,
    pass: Pass<PeerError>,
    ticket: Ticket,
    timeout: Duration,
) -> Done {
    let began = now();
    let call = ask_and_store(&peer, &entry, began + timeout);
    let result = match panic::catch(call).await {
        Ok(result) => result,
        Err(_panicked) => Err(PeerError::panicked("a store")),
    };
    let ended = now();
    Done {
        entry,
        pass,
        ticket,
        result,
        took: ended - began,
        ended,
    }
}

async fn ask_and_store<P: Peer>(
    peer: &P,
    entry: &OutboxEntry,
    deadline: Instant,
) -> Result<Sent, PeerError> {
    let memory = &entry.memory;
    let marker = Marker {
        pool: memory.pool.clone(),
        id: memory.id,
    };
    if entry.ask_first {
        match peer.is_there(marker.clone(), deadline).await {
            Ok(true) => return Ok(Sent::WasThere),
            Ok(false) => {}
            // A question changes nothing, so the entry is as it was before.
            Err(PeerError::Unclear(error)) => return Err(PeerError::Down(error)),
            // A refused question does not mean that the entry would be refused.
            Err(PeerError::Permanent(said)) => return Err(PeerError::Retry(said)),
            Err(other) => return Err(other),
        }
    }
    let item = Outgoing {
        marker,
        text: memory.text.to_string(),
        tags: memory.tags.iter().map(ToString::to_string).collect(),
    };
    peer.store(item, deadline).await.map(|()| Sent::Stored)
}

/// Returns the monotonic clock, the paused one in tests.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
