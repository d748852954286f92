//! Collecting from a pool whose workers are a Session-Buddy: what that server was told by others.

use super::pools::Collect;
use crate::error::Problem;
use crate::model::{At, MemoryKind, NewMemory, PoolName};
use crate::session_buddy::{Marker, PeerItem, SessionBuddy};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

/// The memories of a pool that a Session-Buddy serves.
///
/// Only the default front door lists what others stored; the full one can list ours alone, so that nothing comes from
/// it. Its listing tells no times: everything counts as learned when it was first collected.
#[derive(Debug, Clone)]
pub struct BuddyPool {
    /// The pool.
    pub pool: PoolName,
    /// Its server.
    pub buddy: SessionBuddy,
    /// The server's name, by which its memories are known again; the outbox peer's where it is the same server.
    pub source: String,
}

impl Collect for BuddyPool {
    fn collect(
        &self,
        _since: Option<At>,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Vec<NewMemory>, Problem>> {
        async move {
            let listing = self.buddy.list_all(deadline.into_std());
            let patience = deadline.saturating_duration_since(Instant::now());
            let items = self.buddy.guarded(patience, listing).await?;
            Ok(items.into_iter().map(|item| self.told(item)).collect())
        }
        .boxed()
    }
}

impl BuddyPool {
    /// Returns an item as a memory. One with a marker has the marker's id, by which the store knows it again where it is
    /// ours, or was and is gone on purpose; else another state directory's server told it.
    fn told(&self, item: PeerItem) -> NewMemory {
        let (marker, text) = match Marker::split(&item.content) {
            Some((marker, text)) => (Some(marker.id), text.to_owned()),
            None => (None, item.content),
        };
        let mut memory = NewMemory::new(
            MemoryKind::Note,
            text,
            self.pool.clone(),
            self.source.clone(),
        );
        memory.marker = marker;
        memory.source_id = item.id;
        memory
    }
}
