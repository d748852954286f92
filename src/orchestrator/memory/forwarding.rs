//! The background sender: begins with the first memory to send, ends with the server, and finds what the peer lost.

use crate::model::{At, PeerName};
use crate::orchestrator::delivery::{DeliverySettings, DeliveryStatus, Forwarder, Link};
use crate::session_buddy::SessionBuddy;
use crate::store::Store;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often is looked whether the peer may have lost something.
const RECONCILE_LOOK: Duration = Duration::from_secs(5);

/// How long one reconciliation may take; a listing of thousands takes a busy peer seconds.
const RECONCILE_DEADLINE: Duration = Duration::from_secs(120);

/// Forwards to one peer in the background.
pub(super) struct Forwarding {
    forwarder: Forwarder,
    tasks: TaskTracker,
    begun: AtomicBool,
}

impl Forwarding {
    pub(super) fn new(
        store: Store,
        peer: PeerName,
        buddy: SessionBuddy,
        settings: DeliverySettings,
        tasks: TaskTracker,
        closing: CancellationToken,
    ) -> Self {
        let link = Link {
            enqueued: Arc::new(Notify::new()),
            stop: closing,
            status: Arc::new(watch::Sender::new(DeliveryStatus::default())),
        };
        Self {
            forwarder: Forwarder {
                store,
                peer,
                buddy,
                settings,
                link,
            },
            tasks,
            begun: AtomicBool::new(false),
        }
    }

    pub(super) fn forwarder(&self) -> &Forwarder {
        &self.forwarder
    }

    pub(super) fn peer(&self) -> &PeerName {
        &self.forwarder.peer
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<DeliveryStatus> {
        self.forwarder.link.status.subscribe()
    }

    pub(super) fn down_since(&self) -> Option<At> {
        self.forwarder.link.status.borrow().down_since
    }

    /// Begins where an earlier server left something to send.
    pub(super) async fn resume(&self) {
        let counts = self.forwarder.store.outbox_counts(self.peer().clone());
        match counts.await {
            Ok(counts) if counts.open() == 0 => {}
            Ok(_) => self.enqueued(),
            // The store says the same to every call; sending begins with the first memory that it takes.
            Err(error) => tracing::warn!(%error, "the outbox could not be read"),
        }
    }

    /// Wakes the sender; begins it the first time.
    pub(super) fn enqueued(&self) {
        let stop = &self.forwarder.link.stop;
        if !stop.is_cancelled() && !self.begun.swap(true, Ordering::AcqRel) {
            let sender = self.forwarder.clone();
            self.tasks.spawn(async move { sender.run().await });
            let watcher = self.forwarder.clone();
            self.tasks.spawn(
                stop.clone()
                    .run_until_cancelled_owned(watch_losses(watcher)),
            );
        }
        self.forwarder.link.enqueued.notify_one();
    }
}

/// Reconciles once the peer has been reached, and again whenever it restarted.
///
/// A restarted peer may have lost what it acknowledged, and nobody knows what happened to it while no server watched.
async fn watch_losses(forwarder: Forwarder) {
    let mut reconciled: Option<u64> = None;
    loop {
        tokio::time::sleep(RECONCILE_LOOK).await;
        let losses = forwarder.buddy.client().losses();
        let due = {
            let status = forwarder.link.status.borrow();
            let reached = status.delivered + status.already_there > 0;
            let up = status.sending && status.down_since.is_none();
            up && (reached || reconciled.is_some()) && reconciled != Some(losses)
        };
        if !due {
            continue;
        }
        match forwarder
            .reconcile(Instant::now() + RECONCILE_DEADLINE)
            .await
        {
            Ok(found) => {
                reconciled = Some(losses);
                if !found.is_clean() {
                    tracing::warn!(
                        checked = found.checked,
                        lost = found.lost,
                        duplicates = found.duplicates,
                        "the peer lost memories, which are sent again, or has some twice"
                    );
                }
            }
            Err(error) => {
                tracing::info!(%error, "what the peer has could not be compared; tried again")
            }
        }
    }
}
