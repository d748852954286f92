//! Notes which changes were applied to the user's repositories: two fields of an item's record, written whichever server
//! owns the workflow.
//!
//! The repositories' own records are the truth; these notes outlive them.

use super::journal::Head;
use super::query::Query;
use super::{Store, StoreError, stored};
use crate::model::{ItemIndex, WorkflowId};
use rusqlite::{Connection, params};

/// What to note of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedNote {
    /// The item.
    pub item: ItemIndex,
    /// The commit that the note is about; an item that has another one by now is left alone.
    pub commit: String,
    /// How and when its change was applied; none: it is not applied.
    pub applied: Option<String>,
    /// Takes the change back.
    pub undo: Option<String>,
}

impl Store {
    /// Notes which items' changes are applied. No other field of an item is written, so that its owner, who may be
    /// running it again, is not disturbed.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing; nothing was noted then.
    pub async fn note_applied(
        &self,
        id: WorkflowId,
        notes: Vec<AppliedNote>,
    ) -> Result<(), StoreError> {
        self.write("note what is applied", move |db| note(db, id, &notes))
            .await
    }
}

fn note(db: &Connection, id: WorkflowId, notes: &[AppliedNote]) -> Result<(), StoreError> {
    let Some(head) = Head::load(db, id)? else {
        return Ok(());
    };
    let mut changed = false;
    for note in notes {
        let Some(mut record) = head.item(db, note.item)? else {
            continue;
        };
        let is_noted = record.applied == note.applied && record.undo == note.undo;
        if is_noted || record.commit.as_ref() != Some(&note.commit) {
            continue;
        }
        record.applied.clone_from(&note.applied);
        record.undo.clone_from(&note.undo);
        db.run(
            "UPDATE items SET record = ?3 WHERE wf = ?1 AND item = ?2",
            params![head.wf, note.item, stored::json_of(&record)?],
        )?;
        changed = true;
    }
    if changed {
        head.save(db)?;
    }
    Ok(())
}
