//! Journaling what happens to a run's items: begins and ends, in order.
//!
//! A run has at most one write on its way. Whatever is added meanwhile goes into the next one, so that many short items
//! share a flush of the disk.
//!
//! An item whose end cannot be written (a full disk) stays `running` for callers, and its end is written as soon as it
//! can be; only the end of the server gives that up, and then the next server finds the item interrupted.

use super::handle::Engine;
use super::ledger::Line;
use super::run::Run;
use super::stop::Stop;
use crate::error::{ErrorKind, Fault};
use crate::model::{ItemIndex, ItemRecord, NewMemory, Revision};
use crate::resilience::Backoff;
use crate::store::{Entry, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The first and the longest pause before an end that could not be written is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// After as many failed tries a notice is left for callers.
const NOTICE_AFTER: u32 = 4;

impl Engine {
    /// Journals the begin of an attempt, which may start only then; returns the journal's revision.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of writing it.
    pub(super) async fn journal_begin(
        &self,
        run: &Arc<Run>,
        record: &ItemRecord,
    ) -> Result<Revision, StoreError> {
        self.append(run, Entry::of(vec![record.clone()])).await
    }

    /// Journals ends of items that waited, and makes them known.
    ///
    /// # Cancel safety
    ///
    /// The ends are written even if the future is dropped.
    pub(super) async fn journal_ends(&self, run: &Arc<Run>, ended: Vec<ItemRecord>) {
        if ended.is_empty() {
            return self.finish(run);
        }
        let (engine, run) = (self.clone(), Arc::clone(run));
        let writing = self
            .tasks
            .spawn(async move { engine.write_ends(&run, ended, None).await });
        if let Err(error) = writing.await {
            tracing::error!(%error, "journaling the ends of items failed");
        }
    }

    /// Journals the records of ended items, in order, with what an attempt left behind, and makes them known; an item
    /// that is to be tried again gets ready. Not cancel safe: runs on a task that nothing drops.
    pub(super) async fn write_ends(
        &self,
        run: &Arc<Run>,
        records: Vec<ItemRecord>,
        memory: Option<NewMemory>,
    ) {
        let mut next = Entry {
            records,
            memories: memory.into_iter().collect(),
        };
        while !next.records.is_empty() {
            let items = items_of(&next);
            let revision = self.persist(run, next).await;
            next = Entry::of(self.make_known(run, items, revision));
        }
        self.finish(run);
    }

    /// Makes journaled ends known; returns the ends that follow from them and are to be journaled next.
    fn make_known(
        &self,
        run: &Arc<Run>,
        items: Vec<ItemIndex>,
        revision: Option<Revision>,
    ) -> Vec<ItemRecord> {
        let mut more = run.ends_journaled(items, revision);
        if run.has_ready() {
            self.line_up(run);
        }
        self.memories.stored();
        if run.has_failed_enough() {
            more.extend(run.stop(&[], Stop::MaxFailures, None));
        }
        more
    }

    /// Writes until it is written, the server ends, or it never can be; returns the journal's revision where it was.
    async fn persist(&self, run: &Arc<Run>, entry: Entry) -> Option<Revision> {
        let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, 0);
        let mut tries = 0;
        loop {
            let error = match self.append(run, entry.clone()).await {
                Ok(revision) => return Some(revision),
                Err(error) => error,
            };
            tries += 1;
            tracing::warn!(%error, tries, "an end could not be journaled");
            if tries == NOTICE_AFTER || !may_pass(&error) {
                self.notice_unsaved(run, entry.records.len(), &error);
            }
            let pause = tokio::time::sleep(pauses.next_delay());
            let waits = self.closing.run_until_cancelled(pause);
            if !may_pass(&error) || waits.await.is_none() {
                tracing::error!(%error, "an end was not journaled");
                return None;
            }
        }
    }

    fn notice_unsaved(&self, run: &Run, count: usize, error: &StoreError) {
        let id = run.id();
        let problem = error.problem();
        let hint = problem.hint.unwrap_or_default();
        self.notices.add(format!(
            "the end of {count} item(s) of workflow {id} cannot be written to the store ({}); it is tried again and again. {hint}",
            problem.message
        ));
    }

    /// Adds an entry to the run's ledger, which it starts a writer for where none is at work, and waits until it is
    /// written. Where the future is dropped, the entry is written all the same.
    async fn append(&self, run: &Arc<Run>, entry: Entry) -> Result<Revision, StoreError> {
        let (written, result) = oneshot::channel();
        if run.ledger().add(Line { entry, written }) {
            let (engine, run) = (self.clone(), Arc::clone(run));
            self.tasks.spawn(async move {
                loop {
                    let Some(lines) = run.ledger().take() else {
                        return;
                    };
                    engine.write(&run, lines).await;
                }
            });
        }
        result.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Writes these lines in one transaction, or each in its own where that fails: one entry's fault is not another's.
    async fn write(&self, run: &Run, lines: Vec<Line>) {
        let (entries, waiting): (Vec<_>, Vec<_>) = lines
            .into_iter()
            .map(|line| (line.entry, line.written))
            .unzip();
        let entries = Arc::new(entries);
        let written = self.commit(run, Arc::clone(&entries)).await;
        // Nobody waits any more for the begin of an attempt that was stopped meanwhile.
        if written.is_ok() || waiting.len() == 1 {
            for sender in waiting {
                let _ = sender.send(written.clone());
            }
            return;
        }
        for (entry, sender) in Arc::unwrap_or_clone(entries).into_iter().zip(waiting) {
            let _ = sender.send(self.commit(run, Arc::new(vec![entry])).await);
        }
    }

    async fn commit(&self, run: &Run, entries: Arc<Vec<Entry>>) -> Result<Revision, StoreError> {
        let forward_to = self.memories.forward_to();
        let written = self.store.journal(run.id(), entries, forward_to).await;
        written.map(|(revision, _)| revision)
    }
}

/// Returns the items that an entry is about, each once.
fn items_of(entry: &Entry) -> Vec<ItemIndex> {
    let mut items: Vec<_> = entry.records.iter().map(|record| record.item).collect();
    items.dedup();
    items
}

/// Returns whether another try may succeed without a change to what is written.
fn may_pass(error: &StoreError) -> bool {
    !matches!(error, StoreError::Closed)
        && matches!(
            error.kind(),
            ErrorKind::Unavailable | ErrorKind::Busy | ErrorKind::Internal
        )
}
