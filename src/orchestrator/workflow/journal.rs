//! Writing ends down, for as long as it takes.
//!
//! An item whose end cannot be written (a full disk) goes on being told as running, and is written as soon as it can be;
//! only the end of the server gives that up, and then the next one finds the item interrupted.

use super::Engine;
use super::run::Run;
use crate::error::{ErrorKind, Fault};
use crate::model::{ItemRecord, NewMemory, Revision};
use crate::resilience::Backoff;
use crate::store::StoreError;
use std::sync::Arc;
use std::time::Duration;

/// The first and the longest pause before an end that could not be written is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// After as many failed tries callers are told.
const TOLD_AFTER: u32 = 4;

impl Engine {
    /// Journals ends of items that waited.
    pub(super) async fn journal_ends(&self, run: &Arc<Run>, ended: Vec<ItemRecord>) {
        if !ended.is_empty() {
            self.journal(run, ended, Vec::new()).await;
        }
        self.finish(run);
    }

    /// Journals ends, in order, with what they left behind, and then makes them known; an item that is to be tried again
    /// gets in line.
    pub(super) async fn journal(
        &self,
        run: &Arc<Run>,
        mut records: Vec<ItemRecord>,
        mut memories: Vec<NewMemory>,
    ) {
        while !records.is_empty() {
            let mut items: Vec<_> = records.iter().map(|record| record.item).collect();
            items.dedup();
            let revision = self
                .persist(run, records, std::mem::take(&mut memories))
                .await;
            // Stopped while their wait for another attempt was being written: their ends come next.
            records = run.journaled(items, revision);
            if run.has_ready() {
                self.line_up(run);
            }
        }
    }

    /// Writes until it is written, the server ends, or it never can be; returns the journal's revision where it was.
    async fn persist(
        &self,
        run: &Run,
        records: Vec<ItemRecord>,
        memories: Vec<NewMemory>,
    ) -> Option<Revision> {
        let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, 0);
        let mut tries = 0;
        loop {
            let forward_to = self.memories.forward_to();
            let write =
                self.store
                    .finish_items(run.id(), records.clone(), memories.clone(), forward_to);
            let error = match write.await {
                Ok((revision, _)) => return Some(revision),
                Err(error) => error,
            };
            tries += 1;
            tracing::warn!(%error, tries, "an end could not be journaled");
            if tries == TOLD_AFTER || !may_pass(&error) {
                self.tell_unsaved(run, records.len(), &error);
            }
            let pause = tokio::time::sleep(pauses.next_delay());
            let waits = self.closing.run_until_cancelled(pause);
            if !may_pass(&error) || waits.await.is_none() {
                tracing::error!(%error, "an end was not journaled");
                return None;
            }
        }
    }

    fn tell_unsaved(&self, run: &Run, count: usize, error: &StoreError) {
        let id = run.id();
        let problem = error.problem();
        let hint = problem.hint.unwrap_or_default();
        self.notices.add(format!(
            "the end of {count} item(s) of workflow {id} cannot be written to the store ({}); it is tried again and again. {hint}",
            problem.message
        ));
    }
}

/// Returns whether another try could go well without anybody changing what is written.
fn may_pass(error: &StoreError) -> bool {
    !matches!(error, StoreError::Closed)
        && matches!(
            error.kind(),
            ErrorKind::Unavailable | ErrorKind::Busy | ErrorKind::Internal
        )
}
