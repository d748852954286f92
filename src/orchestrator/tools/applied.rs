//! What is applied of a workflow, and how it is undone.
//!
//! The records beside the repositories are the truth ([`crate::repo::Repos::undo_records`]); `applied` and `undo` of an item in
//! the store are notes of them, so that a crash between the two loses nothing and the state is known when a record has
//! expired.

use super::snapshot::Snapshot;
use crate::api::Applied;
use crate::error::Problem;
use crate::model::{ItemRecord, WorkflowId};
use crate::orchestrator::Orchestrator;
use crate::repo::{How, UndoRecord, is_expired};
use crate::store::AppliedNote;
use std::collections::HashMap;
use std::sync::Arc;

impl Orchestrator {
    /// Fills in which items' changes are applied, how, and how that is undone.
    pub(super) async fn fill_in_applied(&self, snapshot: &mut Snapshot) -> Result<(), Problem> {
        if !snapshot.items.iter().any(|record| has_changes(record)) {
            return Ok(());
        }
        let applied = self.applied(snapshot.record.id).await?;
        for record in &mut snapshot.items {
            if has_changes(record) {
                let (how, undo) = state_of(record, &applied);
                let record = Arc::make_mut(record);
                record.applied = how;
                record.undo = undo;
            }
        }
        Ok(())
    }

    /// Returns the applies of a workflow that can be undone, by commit; the latest of each commit.
    async fn applied(&self, id: WorkflowId) -> Result<HashMap<String, Arc<UndoRecord>>, Problem> {
        let mut found = HashMap::new();
        for applied in self.0.repos.undo_records().await? {
            if applied.workflow == id {
                let applied = Arc::new(applied);
                let commits = applied.commits.iter().cloned();
                found.extend(commits.map(|commit| (commit, Arc::clone(&applied))));
            }
        }
        Ok(found)
    }

    /// Notes in the store what is applied now. A failure is logged only: the records beside the repositories keep it.
    pub(super) async fn note_applied(&self, id: WorkflowId) {
        if let Err(problem) = self.try_note_applied(id).await {
            tracing::warn!(%problem, "what was applied could not be noted in the store");
        }
    }

    async fn try_note_applied(&self, id: WorkflowId) -> Result<(), Problem> {
        let mut snapshot = self.snapshot(id).await?;
        self.fill_in_applied(&mut snapshot).await?;
        let changed = snapshot.items.iter().filter(|record| has_changes(record));
        let notes = changed.filter_map(|record| {
            Some(AppliedNote {
                item: record.item,
                commit: record.commit.clone()?,
                applied: record.applied.clone(),
                undo: record.undo.clone(),
            })
        });
        Ok(self.0.store.note_applied(id, notes.collect()).await?)
    }
}

/// Returns an item's `applied` and `undo`.
fn state_of(
    record: &ItemRecord,
    applied: &HashMap<String, Arc<UndoRecord>>,
) -> (Option<String>, Option<String>) {
    let commit = record.commit.as_deref().unwrap_or_default();
    if let Some(applied) = applied.get(commit) {
        let how = format!("{} at {}", how_text(applied.how), applied.at);
        return (Some(how), Some(applied.token()));
    }
    match &record.undo {
        // It was undone, and the note of that was lost.
        Some(undo) if !is_expired(undo) => (None, None),
        _ => (record.applied.clone(), None),
    }
}

/// Returns whether an item has a commit to apply.
pub(super) fn has_changes(record: &ItemRecord) -> bool {
    record.worktree.is_some() && record.changed == Some(true) && record.commit.is_some()
}

/// Returns whether an item's changes are applied as `how`.
pub(super) fn is_applied_as(record: &ItemRecord, how: How) -> bool {
    let applied = record.applied.as_deref().unwrap_or_default();
    applied.split(' ').next() == Some(how_text(how))
}

fn how_text(how: How) -> &'static str {
    match how {
        How::WorkingCopy => "working_copy",
        How::Merge => "merge",
        How::Branch => "branch",
    }
}

/// Returns the row of an item that nothing was done with.
pub(super) fn row(record: &ItemRecord) -> Applied {
    Applied {
        item: record.item,
        repo: record.repo.clone(),
        applied: false,
        would_apply: false,
        conflicts: Vec::new(),
        overlaps_dirty: Vec::new(),
        undo: None,
        undone: false,
        error: None,
    }
}
