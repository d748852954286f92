//! What is to be written of one run: entries gather here while a write is on its way to the disk, and the next write
//! takes them all (group commit).

use crate::model::Revision;
use crate::store::{Entry, StoreError};
use tokio::sync::oneshot;

/// Entries of a run that no write has taken yet.
#[derive(Default)]
pub(super) struct Ledger {
    lines: Vec<Line>,
    has_writer: bool,
}

/// One entry, and where the result of writing it goes.
pub(super) struct Line {
    pub(super) entry: Entry,
    pub(super) written: oneshot::Sender<Result<Revision, StoreError>>,
}

impl Ledger {
    /// Adds a line; returns whether the caller must start a writer, because none is at work.
    pub(super) fn add(&mut self, line: Line) -> bool {
        self.lines.push(line);
        !std::mem::replace(&mut self.has_writer, true)
    }

    /// Takes all lines; where there are none, the writer ends.
    pub(super) fn take(&mut self) -> Option<Vec<Line>> {
        self.has_writer = !self.lines.is_empty();
        self.has_writer.then(|| std::mem::take(&mut self.lines))
    }
}
