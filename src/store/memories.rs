//! The store's methods for memories and the outbox.

use super::lock::open_lock_file;
use super::{Store, StoreError, memory, outbox, search};
use crate::model::{
    At, CollectedBatch, DeadLetter, InsertReport, Memory, MemoryId, MemoryPage, MemoryQuery,
    NewMemory, OutboxCounts, OutboxEntry, PeerName, PoolName, SendFailure,
};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fs::File;

/// The right to send to one peer, among all servers of this state directory; dropping it, or dying, gives it up.
#[derive(Debug)]
pub struct PeerLock {
    _held: File,
}

impl Store {
    /// Stores memories, each with an entry for `forward_to` in its outbox, all or none.
    ///
    /// One that is known by its identity is a duplicate and changes nothing. One that came from `forward_to` itself is
    /// not sent back.
    ///
    /// # Errors
    ///
    /// [`StoreError::Argument`] for a text of more than 1 MiB.
    pub async fn insert_memories(
        &self,
        memories: Vec<NewMemory>,
        forward_to: Option<PeerName>,
    ) -> Result<InsertReport, StoreError> {
        let memories = memory::prepared(memories.into_iter().map(Cow::Owned))?;
        self.write("store memories", move |db| {
            memory::insert(db, &memories, forward_to.as_ref())
        })
        .await
    }

    /// Finds memories, best first; equal texts are one hit.
    ///
    /// # Errors
    ///
    /// [`StoreError::Argument`] for a cursor of something else. No text is an error.
    pub async fn find_memories(&self, query: MemoryQuery) -> Result<MemoryPage, StoreError> {
        self.read("search memories", move |db| search::find(db, &query))
            .await
    }

    /// Returns one memory, whole.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn memory(&self, id: MemoryId) -> Result<Option<Memory>, StoreError> {
        self.read("read a memory", move |db| memory::get(db, id))
            .await
    }

    /// Returns the pool's memories that were not collected yet, oldest first.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn unaggregated(
        &self,
        pool: PoolName,
        limit: u32,
    ) -> Result<Vec<Memory>, StoreError> {
        self.read("collect memories", move |db| {
            memory::unaggregated(db, &pool, limit)
        })
        .await
    }

    /// Marks memories as collected and puts them into a peer's outbox, in one step; returns how many were not marked
    /// before, so that two collections at once count each memory once.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn mark_aggregated(
        &self,
        ids: Vec<MemoryId>,
        forward_to: Option<PeerName>,
    ) -> Result<u32, StoreError> {
        self.write("mark collected memories", move |db| {
            memory::mark_aggregated(db, &ids, forward_to.as_ref())
        })
        .await
    }

    /// Collects a batch of the pool's memories in one transaction: those not collected yet, or with `since` all that
    /// were learned from then on. They count as collected afterwards and are in the outbox of `forward_to`.
    ///
    /// Two collections at once count each memory as new once. `after` is what the batch before gave as `next`; 0 begins.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening, reading or writing.
    pub async fn collect_memories(
        &self,
        pool: PoolName,
        since: Option<At>,
        after: i64,
        limit: u32,
        forward_to: Option<PeerName>,
    ) -> Result<CollectedBatch, StoreError> {
        let asked = pool.clone();
        // Most pools have nothing new; that must not cost a write transaction.
        let look =
            move |db: &rusqlite::Connection| memory::has_collectable(db, &asked, since, after);
        if !self.read("look for new memories", look).await? {
            return Ok(CollectedBatch::default());
        }
        self.write("collect memories", move |db| {
            memory::collect(db, &pool, since, after, limit, forward_to.as_ref())
        })
        .await
    }

    /// Returns the pools of which a collection would take something, in the order of their names.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn collectable_pools(&self, since: Option<At>) -> Result<Vec<PoolName>, StoreError> {
        self.read("look for new memories", move |db| {
            memory::collectable_pools(db, since)
        })
        .await
    }

    /// Tries to become the one sender to `peer`; nothing where another server is.
    ///
    /// # Errors
    ///
    /// [`StoreError::Directory`] where the lock file cannot be used.
    pub fn peer_lock(&self, peer: &PeerName) -> Result<Option<PeerLock>, StoreError> {
        // A hash, because a peer's name may be a URL; the start of it is plenty to tell peers apart.
        let hash: [u8; 32] = Sha256::digest(peer.as_str()).into();
        let name: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let path = self.inner.files.locks.join(format!("peer-{name}.lock"));
        let blame = |source| StoreError::directory(&path, source);
        let held = open_lock_file(&path).map_err(blame)?;
        match flock(&held, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(PeerLock { _held: held })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(blame(error.into())),
        }
    }

    /// Puts every memory since `since` that this peer was never meant to get into its outbox; returns how many.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn backfill(&self, peer: PeerName, since: Option<At>) -> Result<u64, StoreError> {
        self.write("fill the outbox", move |db| {
            outbox::backfill(db, &peer, since)
        })
        .await
    }

    /// Leases up to `limit` due entries for sending. The caller holds the peer's lock.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn take_outbox(
        &self,
        peer: PeerName,
        limit: u32,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        let asked = peer.clone();
        // An empty outbox is looked at often; that must not cost a write transaction.
        let look = move |db: &rusqlite::Connection| outbox::has_due(db, &asked);
        if !self.read("look into the outbox", look).await? {
            return Ok(Vec::new());
        }
        self.write("take from the outbox", move |db| {
            outbox::take(db, &peer, limit)
        })
        .await
    }

    /// Returns when the next entry is due, for the sender's sleep; in the past where one is due already.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn next_due(&self, peer: PeerName) -> Result<Option<At>, StoreError> {
        self.read("look into the outbox", move |db| {
            outbox::next_due(db, &peer)
        })
        .await
    }

    /// Notes that the peer has these memories, however that became known; returns of how many that was news.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn ack_outbox(&self, peer: PeerName, ids: Vec<MemoryId>) -> Result<u32, StoreError> {
        self.write("acknowledge memories", move |db| {
            outbox::ack(db, &peer, &ids)
        })
        .await
    }

    /// Notes that a leased entry was not sent, or perhaps was.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn fail_outbox(
        &self,
        peer: PeerName,
        id: MemoryId,
        failure: SendFailure,
    ) -> Result<(), StoreError> {
        self.write("note a failed delivery", move |db| {
            outbox::fail(db, &peer, id, &failure)
        })
        .await
    }

    /// Lets what a dead sender left half sent rest until `until`; to be called with the peer's lock, before the first
    /// [`Self::take_outbox`]. Returns how many there were.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn reclaim_outbox(&self, peer: PeerName, until: At) -> Result<u32, StoreError> {
        let asked = peer.clone();
        // Mostly there is nothing; that must not cost a write transaction.
        let look = move |db: &rusqlite::Connection| outbox::has_sending(db, &asked);
        if !self.read("look into the outbox", look).await? {
            return Ok(0);
        }
        self.write("reclaim the outbox", move |db| {
            outbox::reclaim(db, &peer, until)
        })
        .await
    }

    /// Ends all rests, because the peer has restarted: what was under way to it cannot arrive any more.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn wake_outbox(&self, peer: PeerName) -> Result<u32, StoreError> {
        self.write("wake the outbox", move |db| outbox::wake(db, &peer))
            .await
    }

    /// Counts the peer's entries by state.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn outbox_counts(&self, peer: PeerName) -> Result<OutboxCounts, StoreError> {
        self.read("count the outbox", move |db| outbox::counts(db, &peer))
            .await
    }

    /// Counts by state those of `ids` that are or were on their way to the peer.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn outbox_counts_of(
        &self,
        peer: PeerName,
        ids: Vec<MemoryId>,
    ) -> Result<OutboxCounts, StoreError> {
        self.read("count the outbox", move |db| {
            outbox::counts_of(db, &peer, &ids)
        })
        .await
    }

    /// Returns what the peer refused for good, newest first.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn dead_letters(
        &self,
        peer: PeerName,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        self.read("list dead letters", move |db| {
            outbox::dead_letters(db, &peer, limit)
        })
        .await
    }

    /// Sends all dead letters again; returns which.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn requeue_dead(&self, peer: PeerName) -> Result<Vec<MemoryId>, StoreError> {
        self.write("send dead letters again", move |db| {
            outbox::requeue_dead(db, &peer)
        })
        .await
    }

    /// Gives back what was leased and not sent, in one step; returns how many. Never sent, it counts as no attempt.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn give_back_outbox(
        &self,
        peer: PeerName,
        ids: Vec<MemoryId>,
    ) -> Result<u32, StoreError> {
        self.write("give back to the outbox", move |db| {
            outbox::give_back(db, &peer, &ids)
        })
        .await
    }

    /// Returns whether the peer has acknowledged anything, which it then may have lost.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn has_acked(&self, peer: PeerName) -> Result<bool, StoreError> {
        self.read("look for what was sent", move |db| {
            outbox::has_acked(db, &peer)
        })
        .await
    }

    /// Returns a page of what the peer acknowledged, each with its pool, in the order of the ids, to compare with what
    /// it has.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn acked(
        &self,
        peer: PeerName,
        after: Option<MemoryId>,
        limit: u32,
    ) -> Result<Vec<(MemoryId, PoolName)>, StoreError> {
        self.read("list what was sent", move |db| {
            outbox::acked(db, &peer, after, limit)
        })
        .await
    }

    /// Puts back what the peer acknowledged and lost; returns how many.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn mark_lost(&self, peer: PeerName, ids: Vec<MemoryId>) -> Result<u32, StoreError> {
        self.write("send lost memories again", move |db| {
            outbox::mark_lost(db, &peer, &ids)
        })
        .await
    }
}
