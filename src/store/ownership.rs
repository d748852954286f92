//! Which server runs a workflow: marking what a dead server left as interrupted, and taking workflows over.
//!
//! The store says what is unfinished; its caller decides what an interrupted item's record and memory are, and hands both
//! back to be written in one transaction.

use super::column::Json;
use super::journal::{Entry, Head};
use super::locks::{OwnerState, Owners};
use super::query::Query;
use super::stored::Item;
use super::{Store, StoreError, memories, notices};
use crate::model::{ItemRecord, PeerName, Revision, ServerId, Work, WorkflowId};
use crate::redact::Redacted;
use rusqlite::Connection;
use std::sync::Arc;

/// What a workflow has queued and running.
#[derive(Debug, Clone, PartialEq)]
pub struct Unfinished {
    /// The workflow.
    pub id: WorkflowId,
    /// Its title.
    pub title: Redacted,
    /// The items, each with what it was to do.
    pub items: Vec<(ItemRecord, Work)>,
    /// The workflow's revision when they were read.
    revision: Revision,
}

/// What [`Store::adopt`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopted {
    /// This server owns the workflow, now or already.
    Ours,
    /// Items are queued or run, and another server owns them; nothing changed.
    OwnedBy(ServerId),
    /// There is no such workflow.
    Missing,
}

impl Store {
    /// Returns what dead servers left queued or running, oldest first. Where that is nothing, their lock files are
    /// removed.
    ///
    /// A server is dead when its ownership lock is free, that is when its guardian has ended too.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn abandoned(&self) -> Result<Vec<Unfinished>, StoreError> {
        let owners = Arc::clone(&self.inner.owners);
        // Listed before the rows are read: a file that is removed must belong to a server that was asked about.
        let dead = owners.dead();
        let asked = Arc::clone(&owners);
        let look = move |db: &Connection| abandoned(db, &asked);
        let found = self.read("look for dead servers", look).await?;
        if found.is_empty() {
            dead.into_iter().for_each(|owner| owners.remove(owner));
        }
        Ok(found)
    }

    /// Returns what a workflow has queued and running; nothing where there is no such workflow.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn unfinished(&self, id: WorkflowId) -> Result<Option<Unfinished>, StoreError> {
        self.read("read what is unfinished", move |db| unfinished(db, id))
            .await
    }

    /// Writes `entry`, the ends and memories of `unfinished` whose server is dead or is this one, and drops what the
    /// server was asked to do with the workflow. The next callers are told of a dead server's. Returns `false` where
    /// the workflow has changed since it was read; nothing is written then.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotOwner`] where another live server owns the workflow.
    pub async fn interrupt(
        &self,
        unfinished: Unfinished,
        entry: Entry,
        forward_to: Option<PeerName>,
    ) -> Result<bool, StoreError> {
        let owners = Arc::clone(&self.inner.owners);
        self.write("mark items as interrupted", move |db| {
            interrupt(db, &owners, &unfinished, &entry, forward_to.as_ref())
        })
        .await
    }

    /// Becomes the owner of a workflow that has nothing queued or running.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn adopt(&self, id: WorkflowId) -> Result<Adopted, StoreError> {
        let me = self.server_id();
        self.write("adopt a workflow", move |db| {
            let Some(mut head) = Head::load(db, id)? else {
                return Ok(Adopted::Missing);
            };
            if head.owner == me {
                return Ok(Adopted::Ours);
            }
            if head.counts.unfinished() > 0 {
                return Ok(Adopted::OwnedBy(head.owner));
            }
            forget_requests(db, head.wf)?;
            head.owner = me;
            head.save(db)?;
            Ok(Adopted::Ours)
        })
        .await
    }
}

fn abandoned(db: &Connection, owners: &Owners) -> Result<Vec<Unfinished>, StoreError> {
    let rows: Vec<(WorkflowId, ServerId)> = db.all(
        "SELECT id, owner FROM workflows WHERE queued + running > 0 AND owner <> ?1 ORDER BY id",
        [owners.me()],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let mut found = Vec::new();
    for (id, owner) in rows {
        if owners.state(owner, true) == OwnerState::Dead {
            found.extend(unfinished(db, id)?);
        }
    }
    Ok(found)
}

fn unfinished(db: &Connection, id: WorkflowId) -> Result<Option<Unfinished>, StoreError> {
    let Some(head) = Head::load(db, id)? else {
        return Ok(None);
    };
    let title = "SELECT title FROM workflows WHERE wf = ?1";
    let title = db.first(title, [head.wf], |row| row.get(0))?;
    let items = db.all(
        "SELECT record, json FROM items JOIN works USING (work)
          WHERE items.wf = ?1 AND state IN ('queued', 'running') ORDER BY item",
        [head.wf],
        |row| Ok((row.get::<_, Item>(0)?.0, row.get::<_, Json<_>>(1)?.0)),
    )?;
    Ok(Some(Unfinished {
        id,
        title: title.unwrap_or_default(),
        items,
        revision: head.revision,
    }))
}

fn interrupt(
    db: &Connection,
    owners: &Owners,
    unfinished: &Unfinished,
    entry: &Entry,
    forward_to: Option<&PeerName>,
) -> Result<bool, StoreError> {
    let id = unfinished.id;
    let mut head = Head::load(db, id)?.ok_or(StoreError::NoWorkflow { id })?;
    if head.revision != unfinished.revision {
        return Ok(false);
    }
    let state = owners.state(head.owner, true);
    if state == OwnerState::Other {
        return Err(StoreError::NotOwner { id });
    }
    for record in &entry.records {
        head.write(db, record)?;
    }
    memories::insert(db, &entry.memories, forward_to)?;
    forget_requests(db, head.wf)?;
    head.save(db)?;
    // A server that ended in good order has left its own notice.
    if state == OwnerState::Dead && !notices::any_of(db, id)? {
        let text = notices::interrupted(id, &unfinished.title, entry.records.len());
        notices::add(db, &text, Some(id))?;
    }
    Ok(true)
}

/// Drops what the former owner was asked: it was meant for a run that is over.
fn forget_requests(db: &Connection, wf: i64) -> Result<(), StoreError> {
    db.run("DELETE FROM requests WHERE wf = ?1", [wf])?;
    Ok(())
}
