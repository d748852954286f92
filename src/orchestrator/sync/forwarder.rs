//! Sending from the local store to Session-Buddy by whichever server of this store holds the peer's lock.

use super::outbox::{StoreOutbox, after};
use super::sender::Sender;
use super::settings::DeliverySettings;
use super::status::{DeliveryStatus, Link};
use crate::error::Problem;
use crate::model::{At, PeerName, SenderState};
use crate::session_buddy::{PeerInfo, SessionBuddy};
use crate::store::Store;
use std::convert::Infallible;
use std::time::{Duration, Instant};

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

/// How long a peer may take to list its tools.
const PROBE_LIMIT: Duration = Duration::from_secs(30);
/// How often a waiting server tries to become the sender.
const ELECTION: Duration = Duration::from_secs(2);
/// How long sending pauses after a failure of the store.
const STORE_PAUSE: Duration = Duration::from_secs(5);

impl Forwarder {
    /// Waits until no other process sends to this peer, then sends until stopped.
    ///
    /// # Cancel safety
    ///
    /// When dropped, calls in flight are abandoned; the next sender asks the peer for them.
    pub async fn run(&self) {
        let mut logged: Option<Problem> = None;
        while !self.link.stop.is_cancelled() {
            let pause = match self.send_while_elected().await {
                Ok(()) => ELECTION,
                Err(error) => {
                    // A store that keeps failing is logged once.
                    if logged.as_ref() != Some(&error) {
                        tracing::warn!(%error, "forwarding stopped and will start again");
                    }
                    self.set_status(|status| status.error = Some(error.clone()));
                    logged = Some(error);
                    STORE_PAUSE
                }
            };
            tokio::select! {
                () = self.link.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Sends until stopped where no other server of this store does, else returns at once.
    async fn send_while_elected(&self) -> Result<(), Problem> {
        let Some(_elected) = self.store.peer_lock(&self.peer)? else {
            return Ok(());
        };
        let known = self.store.peer_state(self.peer.clone()).await?.sender;
        let until = after(self.settings.rest_after_death(known.slowest));
        self.store.reclaim_outbox(self.peer.clone(), until).await?;
        self.set_status(|status| {
            status.sending = true;
            status.down_since = known.down_since;
            status.error = known.error.clone().map(Problem::from);
        });
        let outbox = StoreOutbox {
            store: self.store.clone(),
            peer: self.peer.clone(),
        };
        let (buddy, settings) = (self.buddy.clone(), self.settings.clone());
        let sender = Sender::new(outbox, buddy, settings, self.link.clone(), &known);
        let sent = tokio::select! {
            sent = sender.run() => sent,
            never = self.store_state(known) => match never {},
        };
        self.set_status(|status| status.sending = false);
        sent
    }

    /// Writes the state of sending to the store whenever it changes, for the other servers and for the next sender.
    async fn store_state(&self, mut stored: SenderState) -> Infallible {
        /// At most this often, because the pace changes all the time.
        const EVERY: Duration = Duration::from_millis(500);
        let mut status = self.link.status.subscribe();
        loop {
            let state = status.borrow_and_update().for_others();
            if state != stored {
                let noted = self.store.note_sender(self.peer.clone(), state.clone());
                match noted.await {
                    Ok(()) => stored = state,
                    Err(error) => tracing::debug!(%error, "the state of sending was not stored"),
                }
            }
            tokio::time::sleep(EVERY).await;
            if status.changed().await.is_err() {
                // The sender of the status is a field of this very struct.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns the state of sending, whichever server of this store does it.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub async fn sender_state(&self) -> Result<SenderState, Problem> {
        let own = self.link.status.borrow().clone();
        if own.sending {
            return Ok(own.for_others());
        }
        Ok(self.store.peer_state(self.peer.clone()).await?.sender)
    }

    /// Asks the peer who it is. Where nothing is to be sent, the answer is published, because no traffic shows it then.
    ///
    /// # Errors
    ///
    /// The peer does not answer, or the store cannot be read.
    pub async fn probe(&self) -> Result<PeerInfo, Problem> {
        let asked = self.buddy.probe(Instant::now() + PROBE_LIMIT).await;
        let asked = asked.map_err(Problem::from);
        let waiting = self.store.outbox_counts(self.peer.clone()).await?.open();
        if waiting == 0 {
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

    pub(super) fn set_status(&self, change: impl FnOnce(&mut DeliveryStatus)) {
        self.link.status.send_modify(change);
    }
}
