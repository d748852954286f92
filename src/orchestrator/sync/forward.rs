//! Delivery from the local store to Session-Buddy, by whichever process holds the peer's lock, and reconciliation.

use super::driver::Delivery;
use super::parts::{DeliverySettings, DeliveryStatus, Link, Outbox, Peer, Undelivered};
use crate::error::{Fault, Problem};
use crate::model::{At, MemoryId, OutboxEntry, PeerName, Reconciled, SendFailure, SenderState};
use crate::session_buddy::{Marker, Outgoing, PeerError, PeerInfo, SessionBuddy, Stored};
use crate::store::Store;
use std::convert::Infallible;
use std::time::{Duration, Instant};

/// One peer's outbox in the store.
#[derive(Debug, Clone)]
pub struct PeerOutbox {
    store: Store,
    peer: PeerName,
}

impl PeerOutbox {
    /// Returns the outbox of `peer` in `store`.
    pub fn new(store: Store, peer: PeerName) -> Self {
        Self { store, peer }
    }
}

fn after(wait: Duration) -> At {
    let ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    At::from_unix_ms(At::now().unix_ms().saturating_add(ms))
}

impl Outbox for PeerOutbox {
    async fn take(&self, limit: u32) -> Result<Vec<OutboxEntry>, Problem> {
        let taken = self.store.take_outbox(self.peer.clone(), limit).await;
        taken.map_err(|error| error.problem())
    }

    async fn next_due(&self) -> Result<Option<Duration>, Problem> {
        let due = self.store.next_due(self.peer.clone()).await;
        let due = due.map_err(|error| error.problem())?;
        Ok(due.map(|at| {
            let ms = at.unix_ms().saturating_sub(At::now().unix_ms());
            Duration::from_millis(u64::try_from(ms).unwrap_or(0))
        }))
    }

    async fn ack(&self, ids: Vec<MemoryId>) -> Result<(), Problem> {
        let acked = self.store.ack_outbox(self.peer.clone(), ids).await;
        acked.map(drop).map_err(|error| error.problem())
    }

    async fn fail(&self, id: MemoryId, why: Undelivered) -> Result<(), Problem> {
        let failure = match why {
            Undelivered::Rest(wait, error) => SendFailure::Unclear {
                until: after(wait),
                error,
            },
            Undelivered::Retry(wait, error) => SendFailure::Retry {
                at: after(wait),
                error,
            },
            Undelivered::Dead(error) => SendFailure::Dead { error },
        };
        let failed = self.store.fail_outbox(self.peer.clone(), id, failure).await;
        failed.map_err(|error| error.problem())
    }

    async fn give_back(&self, ids: Vec<MemoryId>) -> Result<(), Problem> {
        let given = self.store.give_back_outbox(self.peer.clone(), ids).await;
        given.map(drop).map_err(|error| error.problem())
    }

    async fn wake(&self) -> Result<(), Problem> {
        let woken = self.store.wake_outbox(self.peer.clone()).await;
        woken.map(drop).map_err(|error| error.problem())
    }
}

impl Peer for SessionBuddy {
    async fn meet(&self, deadline: Instant) -> Result<(), PeerError> {
        SessionBuddy::meet(self, deadline).await
    }

    async fn store(&self, item: Outgoing, deadline: Instant) -> Result<Stored, PeerError> {
        SessionBuddy::store(self, &item, deadline).await
    }

    async fn is_there(&self, marker: Marker, deadline: Instant) -> Result<bool, PeerError> {
        SessionBuddy::is_there(self, &marker, deadline).await
    }

    fn restarts(&self) -> u64 {
        SessionBuddy::restarts(self)
    }
}

/// Forwards the store's memories to one Session-Buddy for as long as the process lives.
#[derive(Debug, Clone)]
pub struct Forwarder {
    /// The store.
    pub store: Store,
    /// The peer's name in the store.
    pub peer: PeerName,
    /// The peer.
    pub buddy: SessionBuddy,
    /// How to send.
    pub settings: DeliverySettings,
    /// The rest of the process.
    pub link: Link,
}

/// How long a peer may take to tell its tools.
const PROBE_LIMIT: Duration = Duration::from_secs(30);
/// How long the start of a new sender waits before it looks again whether it may send.
const ELECTION: Duration = Duration::from_secs(2);
/// How long after a failure of the store sending begins anew.
const STORE_PAUSE: Duration = Duration::from_secs(5);

impl Forwarder {
    /// Waits until no other process sends to this peer, then sends until stopped.
    ///
    /// # Cancel safety
    ///
    /// When dropped, calls in flight are abandoned; the next sender asks the peer for them.
    pub async fn run(&self) {
        let mut told: Option<Problem> = None;
        while !self.link.stop.is_cancelled() {
            let pause = match self.send_while_elected().await {
                Ok(()) => ELECTION,
                Err(error) => {
                    // A store that stays out of order is told once.
                    if told.as_ref() != Some(&error) {
                        tracing::warn!(%error, "forwarding stopped and begins anew");
                    }
                    self.set_status(|status| status.error = Some(error.clone()));
                    told = Some(error);
                    STORE_PAUSE
                }
            };
            tokio::select! {
                () = self.link.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn send_while_elected(&self) -> Result<(), Problem> {
        let lock = self.store.peer_lock(&self.peer);
        let Some(_elected) = lock.map_err(|error| error.problem())? else {
            return Ok(());
        };
        let known = self.store.peer_state(self.peer.clone()).await;
        let known = known.map_err(|error| error.problem())?.sender;
        let until = after(self.settings.rest_after_death(known.slowest));
        let reclaimed = self.store.reclaim_outbox(self.peer.clone(), until).await;
        reclaimed.map_err(|error| error.problem())?;
        self.set_status(|status| {
            status.sending = true;
            status.down_since = known.down_since;
            status.error = known.error.clone();
        });
        let outbox = PeerOutbox::new(self.store.clone(), self.peer.clone());
        let (buddy, settings) = (self.buddy.clone(), self.settings.clone());
        let delivery = Delivery::new(outbox, buddy, settings, self.link.clone(), &known);
        let sent = tokio::select! {
            sent = delivery.run() => sent,
            never = self.tell_others(known) => match never {},
        };
        self.set_status(|status| status.sending = false);
        sent
    }

    /// Writes down how sending stands whenever that changes, for the other servers of this store and for the next sender.
    async fn tell_others(&self, mut told: SenderState) -> Infallible {
        /// At most this often: the pace changes all the time.
        const EVERY: Duration = Duration::from_millis(500);
        let mut status = self.link.status.subscribe();
        loop {
            let state = status.borrow_and_update().for_others();
            if state != told {
                match self
                    .store
                    .note_sender(self.peer.clone(), state.clone())
                    .await
                {
                    Ok(()) => told = state,
                    Err(error) => tracing::debug!(%error, "how sending stands was not noted"),
                }
            }
            tokio::time::sleep(EVERY).await;
            if status.changed().await.is_err() {
                // The sender of the status lives in this very struct.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns how sending stands, whichever server of this store does it.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub async fn sender_state(&self) -> Result<SenderState, Problem> {
        let own = self.link.status.borrow().clone();
        if own.sending {
            return Ok(own.for_others());
        }
        let known = self.store.peer_state(self.peer.clone()).await;
        Ok(known.map_err(|error| error.problem())?.sender)
    }

    /// Asks the peer whether it is there, and where nothing is on its way notes the answer: there is no traffic then
    /// that would tell.
    ///
    /// # Errors
    ///
    /// The peer does not answer, or the store cannot be read.
    pub async fn probe(&self) -> Result<PeerInfo, Problem> {
        let asked = self.buddy.probe(Instant::now() + PROBE_LIMIT).await;
        let asked = asked.map_err(|error| error.problem());
        let counts = self.store.outbox_counts(self.peer.clone()).await;
        if counts.map_err(|error| error.problem())?.open() == 0 {
            self.set_status(|status| match &asked {
                Ok(_) => (status.down_since, status.error) = (None, None),
                Err(error) => {
                    status.down_since.get_or_insert_with(At::now);
                    status.error = Some(error.clone());
                }
            });
        }
        asked
    }

    /// Looks whether the peer still has all that it acknowledged, and sends again what it lost. What was found is
    /// published in the status and in the store.
    ///
    /// # Errors
    ///
    /// When the peer or the store does not answer; nothing is sent again then.
    pub async fn reconcile(&self, deadline: Instant) -> Result<Reconciled, Problem> {
        let found = self.compare(deadline).await;
        if let Ok(found) = &found {
            self.set_status(|status| status.reconciled = Some(found.clone()));
            if found.lost > 0 {
                self.link.enqueued.notify_one();
            }
        }
        let noted = self
            .store
            .note_reconciled(self.peer.clone(), found.clone())
            .await;
        noted.map_err(|error| error.problem())?;
        found
    }

    async fn compare(&self, deadline: Instant) -> Result<Reconciled, Problem> {
        const BATCH: usize = 1_000;
        let acked = self.acked().await?;
        let at = At::now();
        let presence = self.buddy.presence(&acked, deadline).await;
        let presence = presence.map_err(|error| error.problem())?;
        for batch in presence.missing.chunks(BATCH) {
            let lost = batch.iter().map(|marker| marker.id).collect();
            let marked = self.store.mark_lost(self.peer.clone(), lost).await;
            marked.map_err(|error| error.problem())?;
        }
        let twice = presence.duplicates.iter().take(Reconciled::MAX_TWICE);
        Ok(Reconciled {
            at,
            checked: acked.len() as u64,
            lost: presence.missing.len() as u64,
            duplicates: presence.duplicates.len() as u64,
            twice: twice
                .map(|(marker, times)| (marker.id, *times as u64))
                .collect(),
        })
    }

    /// Returns all that the peer acknowledged.
    async fn acked(&self) -> Result<Vec<Marker>, Problem> {
        const PAGE: u32 = 5_000;
        let mut acked: Vec<Marker> = Vec::new();
        loop {
            let after = acked.last().map(|marker| marker.id);
            let page = self.store.acked(self.peer.clone(), after, PAGE).await;
            let page = page.map_err(|error| error.problem())?;
            let last = page.len() < PAGE as usize;
            acked.extend(page.into_iter().map(|(id, pool)| Marker { pool, id }));
            if last {
                return Ok(acked);
            }
        }
    }

    fn set_status(&self, change: impl FnOnce(&mut DeliveryStatus)) {
        self.link.status.send_modify(change);
    }
}
