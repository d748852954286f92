//! Notices: what callers could not be told when it happened. Each is delivered once, with the next answer.

use super::query::Query;
use super::{Store, StoreError};
use crate::model::{At, WorkflowId, WorkflowRecord};
use crate::redact::{Redacted, redact};
use rusqlite::{Connection, params};

/// Notices beyond these are dropped, the oldest first: nobody reads a thousand.
const MAX_NOTICES: u32 = 1_000;

/// What a caller could not be told when it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The text for the caller.
    pub text: Redacted,
    /// The workflow it is about.
    pub workflow: Option<WorkflowId>,
    /// When it happened.
    pub at: At,
}

impl Store {
    /// Keeps a notice for the next caller.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn add_notice(
        &self,
        text: Redacted,
        workflow: Option<WorkflowId>,
    ) -> Result<(), StoreError> {
        self.write("keep a notice", move |db| add(db, &text, workflow))
            .await
    }

    /// Keeps the notice that this server ends before a workflow does, with `items` of it unfinished.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn add_interrupted_notice(
        &self,
        record: &WorkflowRecord,
        items: usize,
    ) -> Result<(), StoreError> {
        let text = interrupted(record.id, &record.title, items);
        self.add_notice(text, Some(record.id)).await
    }

    /// Takes all notices, oldest first; each is delivered once.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing; the notices stay then.
    pub async fn take_notices(&self) -> Result<Vec<Notice>, StoreError> {
        self.write("take notices", |db| {
            let sql = "SELECT text, workflow, at_ms FROM notices ORDER BY notice";
            let notices = db.all(sql, [], |row| {
                Ok(Notice {
                    text: row.get(0)?,
                    workflow: row.get(1)?,
                    at: row.get(2)?,
                })
            })?;
            db.run("DELETE FROM notices", [])?;
            Ok(notices)
        })
        .await
    }
}

pub(super) fn add(
    db: &Connection,
    text: &Redacted,
    workflow: Option<WorkflowId>,
) -> Result<(), StoreError> {
    db.run(
        "INSERT INTO notices (at_ms, workflow, text) VALUES (?1, ?2, ?3)",
        params![At::now(), workflow, text],
    )?;
    db.run(
        "DELETE FROM notices WHERE notice <= (SELECT max(notice) FROM notices) - ?1",
        [MAX_NOTICES],
    )?;
    Ok(())
}

/// Returns whether there is a notice of this workflow.
pub(super) fn any_of(db: &Connection, id: WorkflowId) -> Result<bool, StoreError> {
    db.any("SELECT 1 FROM notices WHERE workflow = ?1", [id])
}

/// Returns the notice of a workflow whose server ended before it did.
pub(super) fn interrupted(id: WorkflowId, title: &str, items: usize) -> Redacted {
    let text = format!(
        "workflow {id} ({title}) was interrupted: its server ended; {items} item(s) were not finished. resume_workflow {id} runs them."
    );
    redact(&text)
}
