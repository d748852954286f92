//! Writing down what happens to a run's items: begins, ends and waits, in order.
//!
//! One step at a time is written of a run, and each takes all that has gathered while the one before was on its way to
//! the disk, so that many short items share a commit. After a step, what no slot waits for gathers a moment longer as
//! long as other items of the run are on their way (PostgreSQL's `commit_delay` and `commit_siblings`): each step costs
//! a flush of the disk and a write of each index. Who finds nobody writing is written at once.
//!
//! An item whose end cannot be written (a full disk) goes on being told as running, and is written as soon as it can be;
//! only the end of the server gives that up, and then the next one finds the item interrupted.

use super::Engine;
use super::live::Stop;
use super::run::Run;
use crate::error::{ErrorKind, Fault};
use crate::model::{ItemIndex, ItemRecord, NewMemory, Revision};
use crate::resilience::Backoff;
use crate::store::{Entry, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// The first and the longest pause before an end that could not be written is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// After as many failed tries callers are told.
const TOLD_AFTER: u32 = 4;
/// How far apart the steps of a run begin where nobody is in a hurry: little beside the time that a prepared item may
/// wait, and nothing to a caller.
const GATHER: Duration = Duration::from_millis(10);

/// What is to be written of a run, and whether somebody writes.
#[derive(Default)]
pub(crate) struct Ledger {
    lines: Vec<Line>,
    writing: bool,
    /// Tells the writer, where it lets lines gather, of one that is [`Haste::Now`].
    hurry: Arc<Notify>,
}

/// Whether a line may wait for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Haste {
    /// A slot or a caller waits for it.
    Now,
    /// Nobody does, as long as other items of the run are on their way.
    WithOthers,
}

/// One entry, and who waits for it.
struct Line {
    entry: Entry,
    due: Due,
    haste: Haste,
}

/// What becomes of an entry that cannot be written.
enum Due {
    /// Whoever waits for it is told so.
    AtOnce(oneshot::Sender<Result<Revision, StoreError>>),
    /// It is tried again until it can be; whoever waits is told nothing before.
    AtLast(Option<oneshot::Sender<()>>),
    /// Nothing: what comes later says the same.
    Never,
}

impl Ledger {
    /// Adds a line that is in a hurry, for a test that looks at nothing else.
    #[cfg(test)]
    pub(crate) fn add_urgent(&mut self) {
        self.add(Line {
            entry: Entry::default(),
            due: Due::Never,
            haste: Haste::Now,
        });
    }

    /// Adds a line; returns whether the caller is to see to its writing.
    fn add(&mut self, line: Line) -> bool {
        if line.haste == Haste::Now {
            self.hurry.notify_waiters();
        }
        self.lines.push(line);
        !std::mem::replace(&mut self.writing, true)
    }

    fn is_urgent(&self) -> bool {
        self.lines.iter().any(|line| line.haste == Haste::Now)
    }

    /// Takes all lines; where there are none, nobody writes any more.
    fn take(&mut self) -> Option<Vec<Line>> {
        self.writing = !self.lines.is_empty();
        self.writing.then(|| std::mem::take(&mut self.lines))
    }
}

impl Engine {
    /// Journals the begin of an attempt, which may start only then.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of writing it.
    pub(crate) async fn journal_begin(
        &self,
        run: &Arc<Run>,
        record: &ItemRecord,
        haste: Haste,
    ) -> Result<Revision, StoreError> {
        let (told, heard) = oneshot::channel();
        self.note(
            run,
            Line {
                entry: Entry::of(vec![record.clone()]),
                due: Due::AtOnce(told),
                haste,
            },
        );
        heard.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Sees to it that the records of one item are journaled, in order, with what it left behind, and then made known;
    /// an item that is to be tried again gets in line.
    pub(crate) fn journal_end(
        &self,
        run: &Arc<Run>,
        records: Vec<ItemRecord>,
        memory: Option<NewMemory>,
    ) {
        let entry = Entry {
            records,
            memories: memory.into_iter().collect(),
        };
        let haste = if run.has_taken() {
            Haste::WithOthers
        } else {
            Haste::Now
        };
        let due = Due::AtLast(None);
        self.note(run, Line { entry, due, haste });
    }

    /// Sees to it that the journal tells of an item that it waits, although its begin was journaled.
    pub(crate) fn journal_wait(&self, run: &Arc<Run>, record: ItemRecord) {
        let entry = Entry::of(vec![record]);
        let (due, haste) = (Due::Never, Haste::WithOthers);
        self.note(run, Line { entry, due, haste });
    }

    /// Journals ends of items that waited, and makes them known.
    pub(crate) async fn journal_ends(&self, run: &Arc<Run>, ended: Vec<ItemRecord>) {
        if !ended.is_empty() {
            let (told, heard) = oneshot::channel();
            let (due, haste) = (Due::AtLast(Some(told)), Haste::Now);
            let entry = Entry::of(ended);
            self.note(run, Line { entry, due, haste });
            // It fails only where the writing met a defect, which was logged.
            let _ = heard.await;
        }
        self.finish(run);
    }

    fn note(&self, run: &Arc<Run>, line: Line) {
        if run.ledger().add(line) {
            let (engine, run) = (self.clone(), Arc::clone(run));
            self.tasks.spawn(async move {
                loop {
                    let began = Instant::now();
                    let Some(lines) = run.ledger().take() else {
                        return;
                    };
                    engine.write(&run, lines).await;
                    gather(&run, began + GATHER).await;
                }
            });
        }
    }

    /// Writes these lines in one step.
    async fn write(&self, run: &Arc<Run>, lines: Vec<Line>) {
        let (entries, dues): (Vec<Entry>, Vec<Due>) =
            lines.into_iter().map(|line| (line.entry, line.due)).unzip();
        let entries = Arc::new(entries);
        match self.journal(run, Arc::clone(&entries)).await {
            Ok(revision) => {
                let mut ended = Vec::new();
                for (entry, due) in entries.iter().zip(&dues) {
                    if matches!(due, Due::AtLast(_)) {
                        ended.extend(items_of(entry));
                    }
                }
                self.make_known(run, ended, Some(revision));
                for due in dues {
                    due.met(revision);
                }
            }
            Err(error) => self.write_each(run, &entries, dues, error).await,
        }
    }

    async fn journal(&self, run: &Run, entries: Arc<Vec<Entry>>) -> Result<Revision, StoreError> {
        let forward_to = self.memories.forward_to();
        let written = self.store.journal(run.id(), entries, forward_to).await;
        written.map(|(revision, _)| revision)
    }

    /// Writes each by itself what could not be written in one step, so that one entry's fault is not another's.
    async fn write_each(
        &self,
        run: &Arc<Run>,
        entries: &[Entry],
        dues: Vec<Due>,
        error: StoreError,
    ) {
        let alone = entries.len() == 1;
        for (entry, due) in entries.iter().zip(dues) {
            match due {
                Due::Never => {
                    tracing::debug!(%error, "the journal tells of a waiting item that it runs")
                }
                Due::AtOnce(told) => {
                    let written = if alone {
                        Err(error.clone())
                    } else {
                        self.journal(run, Arc::new(vec![entry.clone()])).await
                    };
                    // An attempt that was stopped waits no more.
                    let _ = told.send(written);
                }
                Due::AtLast(told) => {
                    let (engine, run, entry) = (self.clone(), Arc::clone(run), entry.clone());
                    self.tasks.spawn(async move {
                        let items = items_of(&entry);
                        let revision = engine.persist(&run, entry).await;
                        engine.make_known(&run, items, revision);
                        told.map(|told| told.send(()));
                    });
                }
            }
        }
    }

    /// Makes ends known, and does what follows from them.
    fn make_known(&self, run: &Arc<Run>, items: Vec<ItemIndex>, revision: Option<Revision>) {
        if items.is_empty() {
            return;
        }
        // Stopped while their wait for another attempt was being written: their ends come next.
        let mut more = run.journaled(items, revision);
        if run.has_ready() {
            self.line_up(run);
        }
        self.memories.stored();
        if run.has_failed_enough() {
            more.extend(run.stop(&[], Stop::MaxFailures, None));
        }
        if !more.is_empty() {
            self.journal_end(run, more, None);
        }
        self.finish(run);
    }

    /// Writes until it is written, the server ends, or it never can be; returns the journal's revision where it was.
    async fn persist(&self, run: &Run, entry: Entry) -> Option<Revision> {
        let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE, 0);
        let mut tries = 0;
        let entries = Arc::new(vec![entry]);
        loop {
            let error = match self.journal(run, Arc::clone(&entries)).await {
                Ok(revision) => return Some(revision),
                Err(error) => error,
            };
            tries += 1;
            tracing::warn!(%error, tries, "an end could not be journaled");
            if tries == TOLD_AFTER || !may_pass(&error) {
                self.tell_unsaved(run, entries[0].records.len(), &error);
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

impl Due {
    /// Tells whoever waits that it is written; an attempt that was stopped waits no more.
    fn met(self, revision: Revision) {
        match self {
            Self::AtOnce(told) => drop(told.send(Ok(revision))),
            Self::AtLast(Some(told)) => drop(told.send(())),
            Self::AtLast(None) | Self::Never => {}
        }
    }
}

/// Waits until `end` for lines to come together, or until somebody is in a hurry; not where no other item is on its way.
pub(crate) async fn gather(run: &Run, end: Instant) {
    let hurry = Arc::clone(&run.ledger().hurry);
    // From here on it hears of every urgent line; those before it are looked for.
    let hurried = hurry.notified();
    if run.has_taken() && !run.ledger().is_urgent() {
        tokio::select! {
            () = tokio::time::sleep_until(end) => {}
            () = hurried => {}
        }
    }
}

/// Returns the items that an entry is about, each once.
fn items_of(entry: &Entry) -> Vec<ItemIndex> {
    let mut items: Vec<_> = entry.records.iter().map(|record| record.item).collect();
    items.dedup();
    items
}

/// Returns whether another try could go well without anybody changing what is written.
fn may_pass(error: &StoreError) -> bool {
    !matches!(error, StoreError::Closed)
        && matches!(
            error.kind(),
            ErrorKind::Unavailable | ErrorKind::Busy | ErrorKind::Internal
        )
}
