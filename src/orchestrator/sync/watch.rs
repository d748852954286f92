//! Watching for restarts of the peer, after which it is compared with the outbox.

use super::forwarder::Forwarder;
use crate::error::Problem;
use crate::resilience::Backoff;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How often the client's count of lost sessions is read.
const TICK: Duration = Duration::from_secs(1);

/// How long one comparison may take; a listing of thousands takes a busy peer seconds.
const COMPARE_DEADLINE: Duration = Duration::from_secs(120);

/// The first and the longest pause after a comparison that failed.
const COMPARE_PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));

/// Compares the peer with the outbox once it is known, and again whenever it may have restarted.
///
/// A restarted peer may have lost what it acknowledged, and so may one that no server watched. Traffic shows restarts;
/// where there is none, the peer is asked now and then. A peer that has acknowledged nothing is not asked.
pub(super) struct Watch {
    forwarder: Forwarder,
    /// Notified when the peer is to be asked now.
    ask_now: Arc<Notify>,
    /// The client's count of lost sessions at the last comparison that was made while this process sends.
    compared: Option<u64>,
    asked: Option<tokio::time::Instant>,
    pauses: Backoff,
    pause_until: tokio::time::Instant,
}

impl Watch {
    pub(super) fn new(forwarder: Forwarder, ask_now: Arc<Notify>) -> Self {
        let (first, longest) = COMPARE_PAUSE;
        Self {
            pauses: Backoff::new(first, longest, forwarder.settings.seed),
            pause_until: tokio::time::Instant::now(),
            forwarder,
            ask_now,
            compared: None,
            asked: None,
        }
    }

    pub(super) async fn run(mut self) {
        let losses = self.losses();
        // The client notices a restart after anything that is acknowledged from now on.
        if matches!(self.has_acked().await, Ok(false)) {
            self.compared = Some(losses);
        }
        loop {
            let now = tokio::select! {
                () = self.ask_now.notified() => true,
                () = tokio::time::sleep(TICK.min(self.forwarder.settings.look)) => false,
            };
            if !self.forwarder.link.status.borrow().sending {
                // Another server watches the peer; what happens meanwhile is unknown here.
                (self.compared, self.asked) = (None, None);
            } else if let Err(error) = self.check(now).await {
                tracing::debug!(%error, "the peer was not checked for a restart");
            }
        }
    }

    /// Asks the peer where that is due or wanted `now`, and compares where it turns out to have restarted.
    async fn check(&mut self, now: bool) -> Result<(), Problem> {
        let look = self.forwarder.settings.look;
        let ask = now || self.asked.is_none_or(|asked| asked.elapsed() >= look);
        if !ask && self.compared == Some(self.losses()) {
            return Ok(());
        }
        let paused = tokio::time::Instant::now() < self.pause_until;
        if (paused && !now) || !self.has_acked().await? {
            return Ok(());
        }
        if ask {
            self.asked = Some(tokio::time::Instant::now());
            self.forwarder.probe().await?;
        }
        // Read before the comparison: a restart during it makes another one due.
        let losses = self.losses();
        let down = self.forwarder.link.status.borrow().down_since.is_some();
        if !down && self.compared != Some(losses) {
            self.compare(losses).await;
        }
        Ok(())
    }

    fn losses(&self) -> u64 {
        self.forwarder.buddy.client().losses()
    }

    async fn has_acked(&self) -> Result<bool, Problem> {
        let peer = self.forwarder.peer.clone();
        Ok(self.forwarder.store.has_acked(peer).await?)
    }

    async fn compare(&mut self, losses: u64) {
        let deadline = Instant::now() + COMPARE_DEADLINE;
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
                tracing::info!(%error, "the peer could not be compared with the outbox; retrying later");
            }
        }
    }
}
