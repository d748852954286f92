//! Sending in the background for as long as the server lives.

use super::forwarder::Forwarder;
use super::settings::DeliverySettings;
use super::status::{DeliveryStatus, Link};
use super::watch::Watch;
use crate::error::Problem;
use crate::model::{PeerName, SenderState};
use crate::session_buddy::SessionBuddy;
use crate::store::Store;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long connecting ahead of the first memory may take.
const CONNECT_AHEAD: Duration = Duration::from_secs(30);

/// Forwards to one peer in the background.
pub(crate) struct Forwarding {
    forwarder: Forwarder,
    tasks: TaskTracker,
    begun: AtomicBool,
    /// Notified when the peer is to be checked for a restart now.
    check_now: Arc<Notify>,
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
            check_now: Arc::default(),
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

    /// Returns the state of sending, whichever server of this store does it.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub(crate) async fn sender_state(&self) -> Result<SenderState, Problem> {
        self.forwarder.sender_state().await
    }

    /// Starts sending, or waiting until the server that sends has ended; the first call does, later ones do nothing.
    pub(crate) fn begin(&self) {
        let stop = &self.forwarder.link.stop;
        if stop.is_cancelled() || self.begun.swap(true, Ordering::AcqRel) {
            return;
        }
        let sender = self.forwarder.clone();
        self.tasks.spawn(async move { sender.run().await });
        let watch = Watch::new(self.forwarder.clone(), Arc::clone(&self.check_now));
        self.tasks
            .spawn(stop.clone().run_until_cancelled_owned(watch.run()));
    }

    /// Connects to the peer before there is something to send, so that what comes need not wait for that. Does nothing
    /// where another server of this store sends.
    pub(crate) fn connect_ahead(&self) {
        self.begin();
        let (buddy, stop) = (
            self.forwarder.buddy.clone(),
            self.forwarder.link.stop.clone(),
        );
        let mut status = self.forwarder.link.status.subscribe();
        let connecting = async move {
            let elected = status.wait_for(|status| status.sending);
            if !matches!(
                tokio::time::timeout(CONNECT_AHEAD, elected).await,
                Ok(Ok(_))
            ) {
                return;
            }
            // The sender meets the same error and publishes it.
            if let Err(error) = buddy.connect(Instant::now() + CONNECT_AHEAD).await {
                tracing::debug!(%error, "the peer was not connected to");
            }
        };
        self.tasks.spawn(stop.run_until_cancelled_owned(connecting));
    }

    /// Wakes the sender, because something was put into the outbox.
    pub(crate) fn enqueued(&self) {
        self.begin();
        self.forwarder.link.enqueued.notify_one();
    }

    /// Has the peer checked for a restart now rather than at the next regular time.
    pub(crate) fn check_now(&self) {
        self.begin();
        self.check_now.notify_one();
    }
}
