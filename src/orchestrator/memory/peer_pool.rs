//! Collecting from a pool whose worker is a Session-Buddy: the memories that others stored there.

use super::pools::Collect;
use crate::error::Problem;
use crate::model::{At, MemoryKind, NewMemory, PoolName};
use crate::redact::redact;
use crate::session_buddy::{Marker, PeerItem, SessionBuddy};
use crate::text::on_screen;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

/// The memories of a pool that a Session-Buddy serves.
///
/// Only the default front door lists memories stored by others; the full one lists our own alone, so nothing is collected
/// from it. The listing has no times: a memory's time is that of its first collection.
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
    /// Returns an item as a memory. An item with a marker keeps the marker's id, by which the store recognises its own
    /// memories, forgotten ones included; other markers come from servers with another state directory.
    fn told(&self, item: PeerItem) -> NewMemory {
        let (marker, text) = match Marker::split(&item.content) {
            Some((marker, text)) => (Some(marker.id), text.to_owned()),
            None => (None, item.content),
        };
        let mut memory = NewMemory::new(
            MemoryKind::Note,
            redact(&on_screen(&text)),
            self.pool.clone(),
            self.source.clone(),
        );
        memory.marker = marker;
        memory.source_id = item.id;
        memory
    }
}
