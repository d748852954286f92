//! What the sender needs of a peer.

use crate::resilience::Breaker;
use crate::session_buddy::{Marker, Outgoing, PeerError, SessionBuddy};
use std::future::Future;
use std::time::Instant;

/// A server that memories are sent to; clones share one session and one breaker.
pub(super) trait Peer: Clone + Send + Sync + 'static {
    /// Returns the breaker, which the sender shares with all other traffic to the peer.
    fn breaker(&self) -> &Breaker<PeerError>;
    /// Connects where there is no connection, and makes sure that a peer answers that stores memories.
    fn connect(&self, deadline: Instant) -> impl Future<Output = Result<(), PeerError>> + Send;
    /// Stores one memory.
    fn store(
        &self,
        item: Outgoing,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), PeerError>> + Send;
    /// Returns whether the peer has the memory.
    fn is_there(
        &self,
        marker: Marker,
        deadline: Instant,
    ) -> impl Future<Output = Result<bool, PeerError>> + Send;
    /// Returns how often the peer is known to have restarted, which ended whatever it was doing.
    fn restarts(&self) -> u64;
}

impl Peer for SessionBuddy {
    fn breaker(&self) -> &Breaker<PeerError> {
        SessionBuddy::breaker(self)
    }

    async fn connect(&self, deadline: Instant) -> Result<(), PeerError> {
        SessionBuddy::connect(self, deadline).await
    }

    async fn store(&self, item: Outgoing, deadline: Instant) -> Result<(), PeerError> {
        SessionBuddy::store(self, &item, deadline).await
    }

    async fn is_there(&self, marker: Marker, deadline: Instant) -> Result<bool, PeerError> {
        SessionBuddy::is_there(self, &marker, deadline).await
    }

    fn restarts(&self) -> u64 {
        SessionBuddy::restarts(self)
    }
}
