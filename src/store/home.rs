//! Notes of what came home: two fields of an item's record, written whoever owns the workflow.
//!
//! The repositories' own records are the truth; these notes outlive them.

use super::column::{Text, from_json, json_of};
use super::{Store, StoreError};
use crate::model::{ItemIndex, ItemRecord, WorkflowId};
use rusqlite::{Connection, OptionalExtension, params};

/// What to note of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeNote {
    /// The item.
    pub item: ItemIndex,
    /// The commit that the note is about; an item that has another one by now is left alone.
    pub commit: String,
    /// How its change was brought home, and when; none: it is not home.
    pub applied: Option<String>,
    /// What takes that back.
    pub undo: Option<String>,
}

impl Store {
    /// Notes which items' changes are home. Nothing else of an item is written, so that its owner, who may be running it
    /// again, is not disturbed.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing; nothing was noted then.
    pub async fn note_home(&self, id: WorkflowId, notes: Vec<HomeNote>) -> Result<(), StoreError> {
        self.write("note what is home", move |db| note(db, id, &notes))
            .await
    }
}

fn note(db: &Connection, id: WorkflowId, notes: &[HomeNote]) -> Result<(), StoreError> {
    let mut changed = false;
    for note in notes {
        let mut select = db.prepare_cached(
            "SELECT wf, items.record FROM workflows JOIN items USING (wf) WHERE id = ?1 AND item = ?2",
        )?;
        let found = select.query_row(params![Text(id), note.item], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        });
        let Some((wf, json)) = found.optional()? else {
            continue;
        };
        let mut record: ItemRecord = from_json("an item", json.as_str().into())?;
        let is_noted = record.applied == note.applied && record.undo == note.undo;
        if is_noted || record.commit.as_ref() != Some(&note.commit) {
            continue;
        }
        record.applied.clone_from(&note.applied);
        record.undo.clone_from(&note.undo);
        db.prepare_cached("UPDATE items SET record = ?3 WHERE wf = ?1 AND item = ?2")?
            .execute(params![wf, note.item, json_of("an item", &record)?])?;
        changed = true;
    }
    if changed {
        db.prepare_cached("UPDATE workflows SET revision = revision + 1 WHERE id = ?1")?
            .execute([Text(id)])?;
    }
    Ok(())
}
