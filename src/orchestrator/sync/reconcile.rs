//! Finding out what the peer lost of what it acknowledged, and sending it again.

use super::forwarder::Forwarder;
use crate::error::{Problem, RedactedProblem};
use crate::model::{At, Reconciled};
use crate::session_buddy::Marker;
use std::time::Instant;

impl Forwarder {
    /// Checks whether the peer still has all that it acknowledged, and sends again what it lost. The result is published
    /// in the status and in the store.
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
        let peer = self.peer.clone();
        let noted = found.clone().map_err(RedactedProblem::from);
        self.store.note_reconciled(peer, noted).await?;
        found
    }

    async fn compare(&self, deadline: Instant) -> Result<Reconciled, Problem> {
        const BATCH: usize = 1_000;
        let acked = self.acked().await?;
        let at = At::now();
        let presence = self.buddy.presence(&acked, deadline).await?;
        for batch in presence.missing.chunks(BATCH) {
            let lost = batch.iter().map(|marker| marker.id).collect();
            self.store.mark_lost(self.peer.clone(), lost).await?;
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
            let page = self.store.acked(self.peer.clone(), after, PAGE).await?;
            let is_last = page.len() < PAGE as usize;
            acked.extend(page.into_iter().map(|(id, pool)| Marker { pool, id }));
            if is_last {
                return Ok(acked);
            }
        }
    }
}
