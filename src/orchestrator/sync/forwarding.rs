//! The background sender: lives as long as the server, sends or waits for its turn, and finds what the peer lost.

use super::{DeliverySettings, DeliveryStatus, Forwarder, Link};
use crate::error::{Fault, Problem};
use crate::model::{PeerName, SenderState};
use crate::resilience::Backoff;
use crate::session_buddy::SessionBuddy;
use crate::store::Store;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often is looked whether traffic found the peer restarted.
const GLANCE: Duration = Duration::from_secs(1);

/// How long the peer may take to be connected to before there is something for it.
const GREETING: Duration = Duration::from_secs(30);

/// How long one comparison may take; a listing of thousands takes a busy peer seconds.
const RECONCILE_DEADLINE: Duration = Duration::from_secs(120);

/// How long is waited after a comparison that failed: at first, and at most.
const RECONCILE_PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));

/// Forwards to one peer in the background.
pub(crate) struct Forwarding {
    forwarder: Forwarder,
    tasks: TaskTracker,
    begun: AtomicBool,
    /// Told when somebody wants to know now whether the peer is still the same.
    look: Arc<Notify>,
}

impl Forwarding {
    pub(crate) fn new(
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
            look: Arc::default(),
        }
    }

    pub(crate) fn forwarder(&self) -> &Forwarder {
        &self.forwarder
    }

    pub(crate) fn peer(&self) -> &PeerName {
        &self.forwarder.peer
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<DeliveryStatus> {
        self.forwarder.link.status.subscribe()
    }

    /// Returns how sending stands, whichever server of this store does it.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub(crate) async fn sender_state(&self) -> Result<SenderState, Problem> {
        self.forwarder.sender_state().await
    }

    /// Begins to send, or to wait until the server that does has ended: what it leaves is not left lying.
    pub(crate) fn begin(&self) {
        let stop = &self.forwarder.link.stop;
        if stop.is_cancelled() || self.begun.swap(true, Ordering::AcqRel) {
            return;
        }
        let sender = self.forwarder.clone();
        self.tasks.spawn(async move { sender.run().await });
        let watch = Watch::new(self.forwarder.clone(), Arc::clone(&self.look));
        self.tasks
            .spawn(stop.clone().run_until_cancelled_owned(watch.run()));
    }

    /// Has the peer connected to while there is nothing for it yet, so that what comes need not wait for that. Does
    /// nothing where another server of this store sends.
    pub(crate) fn greet(&self) {
        self.begin();
        let (buddy, stop) = (
            self.forwarder.buddy.clone(),
            self.forwarder.link.stop.clone(),
        );
        let mut status = self.forwarder.link.status.subscribe();
        let greeting = async move {
            let elected = status.wait_for(|status| status.sending);
            if !matches!(tokio::time::timeout(GREETING, elected).await, Ok(Ok(_))) {
                return;
            }
            // The sender finds it out again and tells it.
            if let Err(error) = buddy.meet(Instant::now() + GREETING).await {
                tracing::debug!(%error, "the peer was not connected to");
            }
        };
        self.tasks.spawn(stop.run_until_cancelled_owned(greeting));
    }

    /// Wakes the sender.
    pub(crate) fn enqueued(&self) {
        self.begin();
        self.forwarder.link.enqueued.notify_one();
    }

    /// Has the peer looked at now rather than within the minute.
    pub(crate) fn look(&self) {
        self.begin();
        self.look.notify_one();
    }
}

/// Compares the peer with the outbox once it is known, and again whenever it restarted.
///
/// A restarted peer may have lost what it acknowledged, and nobody knows what happened to it while no server watched.
/// Restarts are noticed by the traffic, and where there is none by a question now and then. Nothing is asked of a peer
/// that has nothing to lose.
struct Watch {
    forwarder: Forwarder,
    look: Arc<Notify>,
    /// The client's count of lost sessions at the last comparison that was made while this process sends.
    compared: Option<u64>,
    asked: Option<tokio::time::Instant>,
    pauses: Backoff,
    pause_until: tokio::time::Instant,
}

impl Watch {
    fn new(forwarder: Forwarder, look: Arc<Notify>) -> Self {
        let (first, longest) = RECONCILE_PAUSE;
        Self {
            pauses: Backoff::new(first, longest, forwarder.settings.seed),
            pause_until: tokio::time::Instant::now(),
            forwarder,
            look,
            compared: None,
            asked: None,
        }
    }

    async fn run(mut self) {
        let losses = self.forwarder.buddy.client().losses();
        // What is acknowledged from now on is this client's own doing, which notices a restart.
        if matches!(self.has_acked().await, Ok(false)) {
            self.compared = Some(losses);
        }
        loop {
            let wanted = tokio::select! {
                () = self.look.notified() => true,
                () = tokio::time::sleep(GLANCE.min(self.forwarder.settings.look)) => false,
            };
            if !self.forwarder.link.status.borrow().sending {
                // Another server looks after it; what happens meanwhile is that one's to find.
                (self.compared, self.asked) = (None, None);
                continue;
            }
            if let Err(error) = self.glance(wanted).await {
                tracing::debug!(%error, "the peer was not looked at");
            }
        }
    }

    /// Asks the peer where that is due, and compares where it turns out to have restarted.
    async fn glance(&mut self, wanted: bool) -> Result<(), Problem> {
        let due = self
            .asked
            .is_none_or(|asked| asked.elapsed() >= self.forwarder.settings.look);
        let losses = self.forwarder.buddy.client().losses();
        if !wanted && !due && self.compared == Some(losses) {
            return Ok(());
        }
        let paused = tokio::time::Instant::now() < self.pause_until;
        if !wanted && paused {
            return Ok(());
        }
        if !self.has_acked().await? {
            return Ok(());
        }
        if wanted || due {
            self.asked = Some(tokio::time::Instant::now());
            self.forwarder.probe().await?;
        }
        // Read before the comparison: a restart during it makes another one due.
        let losses = self.forwarder.buddy.client().losses();
        let down = self.forwarder.link.status.borrow().down_since.is_some();
        if down || self.compared == Some(losses) {
            return Ok(());
        }
        self.compare(losses).await;
        Ok(())
    }

    async fn has_acked(&self) -> Result<bool, Problem> {
        let (store, peer) = (&self.forwarder.store, &self.forwarder.peer);
        let acked = store.has_acked(peer.clone()).await;
        acked.map_err(|error| error.problem())
    }

    async fn compare(&mut self, losses: u64) {
        let deadline = Instant::now() + RECONCILE_DEADLINE;
        match self.forwarder.reconcile(deadline).await {
            Ok(found) => {
                self.compared = Some(losses);
                self.pauses.reset();
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
                self.pause_until = tokio::time::Instant::now() + self.pauses.next_delay();
                tracing::info!(%error, "what the peer has could not be compared; tried again");
            }
        }
    }
}
