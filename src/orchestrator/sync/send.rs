//! One call: the question whether the peer has a memory, where it may, and its store.

use super::driver::now;
use super::pace::Ticket;
use super::parts::Peer;
use crate::model::OutboxEntry;
use crate::resilience::Permit;
use crate::session_buddy::{Marker, Outgoing, PeerError};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

/// A call that ended.
pub(crate) struct Done {
    pub(crate) entry: OutboxEntry,
    pub(crate) permit: Permit,
    pub(crate) ticket: Ticket,
    pub(crate) result: Result<Sent, PeerError>,
    pub(crate) took: Duration,
    /// When; that is noticed later where the store was waited for meanwhile.
    pub(crate) ended: Instant,
}

/// What became of an entry that the peer has now.
pub(crate) enum Sent {
    /// It took it.
    Stored,
    /// It had it.
    WasThere,
}

/// Sends one entry; asks for it before where the peer may have it already.
///
/// A panic of the call is an unclear outcome: what the call holds comes back whatever happens.
pub(crate) async fn send<P: Peer>(
    peer: P,
    entry: OutboxEntry,
    permit: Permit,
    ticket: Ticket,
    timeout: Duration,
) -> Done {
    let began = now();
    let call = ask_and_store(&peer, &entry, began + timeout);
    // Nothing of the call is looked at after a panic but the entry, which it only reads.
    let result = AssertUnwindSafe(call).catch_unwind().await;
    let result = result.unwrap_or_else(|_| Err(PeerError::panicked("a delivery")));
    let ended = now();
    Done {
        entry,
        permit,
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
            // Nor does a refused question say anything about the entry.
            Err(PeerError::Permanent(said)) => return Err(PeerError::Retry(said)),
            Err(other) => return Err(other),
        }
    }
    let item = Outgoing {
        marker,
        text: memory.text.clone(),
        tags: memory.tags.clone(),
    };
    peer.store(item, deadline).await.map(|_| Sent::Stored)
}
