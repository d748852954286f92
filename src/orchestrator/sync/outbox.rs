//! The outbox of one peer: the store's table of what is to be sent to it.

use crate::error::Problem;
use crate::model::{At, MemoryId, OutboxEntry, PeerName, SendFailure};
use crate::redact::redact;
use crate::store::Store;
use std::future::Future;
use std::time::Duration;

/// The durable queue of one peer. An entry that is taken is leased until it is acknowledged, failed or given back.
pub(super) trait Outbox: Send + Sync + 'static {
    /// Leases at most `limit` entries that are due, oldest first.
    fn take(&self, limit: u32) -> impl Future<Output = Result<Vec<OutboxEntry>, Problem>> + Send;
    /// Returns how long until an entry is due; none where no entry waits.
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

/// What becomes of an entry that was not delivered, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Undelivered {
    /// It is unclear whether the peer has it: it rests this long, then the peer is asked.
    Rest(Duration, String),
    /// The peer does not have it: it is due again after this long.
    Retry(Duration, String),
    /// The peer will never take it.
    Dead(String),
}

/// The outbox of one peer in the store.
pub(super) struct StoreOutbox {
    pub(super) store: Store,
    pub(super) peer: PeerName,
}

impl Outbox for StoreOutbox {
    async fn take(&self, limit: u32) -> Result<Vec<OutboxEntry>, Problem> {
        Ok(self.store.take_outbox(self.peer.clone(), limit).await?)
    }

    async fn next_due(&self) -> Result<Option<Duration>, Problem> {
        let due = self.store.next_due(self.peer.clone()).await?;
        Ok(due.map(|at| {
            let ms = at.unix_ms().saturating_sub(At::now().unix_ms());
            Duration::from_millis(u64::try_from(ms).unwrap_or(0))
        }))
    }

    async fn ack(&self, ids: Vec<MemoryId>) -> Result<(), Problem> {
        self.store.ack_outbox(self.peer.clone(), ids).await?;
        Ok(())
    }

    async fn fail(&self, id: MemoryId, why: Undelivered) -> Result<(), Problem> {
        let failure = match why {
            Undelivered::Rest(wait, error) => SendFailure::Unclear {
                until: after(wait),
                error: redact(&error),
            },
            Undelivered::Retry(wait, error) => SendFailure::Retry {
                at: after(wait),
                error: redact(&error),
            },
            Undelivered::Dead(error) => SendFailure::Dead {
                error: redact(&error),
            },
        };
        Ok(self
            .store
            .fail_outbox(self.peer.clone(), id, failure)
            .await?)
    }

    async fn give_back(&self, ids: Vec<MemoryId>) -> Result<(), Problem> {
        self.store.give_back_outbox(self.peer.clone(), ids).await?;
        Ok(())
    }

    async fn wake(&self) -> Result<(), Problem> {
        self.store.wake_outbox(self.peer.clone()).await?;
        Ok(())
    }
}

/// Returns the instant `wait` from now.
pub(super) fn after(wait: Duration) -> At {
    let ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    At::from_unix_ms(At::now().unix_ms().saturating_add(ms))
}
