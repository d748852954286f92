//! The journal: workflows, items and attempts, written before anything starts.
//!
//! An item's row holds its latest state; the attempts before it are kept beside. The counts of a workflow are kept in
//! its row, in the same transaction, so that polling costs the same for 1 item and for 10,000.

use super::column::Json;
use super::query::Query;
use super::stored::{self, Item};
use super::{Store, StoreError, memories};
use crate::model::{
    At, Counts, InsertReport, ItemIndex, ItemRecord, ItemState, ItemWork, NewMemory, PeerName,
    Revision, ServerId, Work, WorkflowId, WorkflowRecord,
};
use rusqlite::{Connection, Row, named_params, params};
use std::collections::HashMap;
use std::sync::Arc;

/// What [`Store::create_workflow`] did.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one value per call, moved once")]
pub enum Created {
    /// It is journaled.
    New,
    /// Nothing was written: this workflow has the same idempotency key.
    Existing(WorkflowRecord),
}

/// What happened to items of a workflow, in order, and what that left behind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entry {
    /// A running record begins its attempt and a final one ends it. A queued one waits: after an end for the next
    /// attempt, else again, as if its attempt had not begun.
    pub records: Vec<ItemRecord>,
    /// Stored with the records or not at all.
    pub memories: Vec<NewMemory>,
}

impl Entry {
    /// Returns an entry of records without memories.
    pub fn of(records: Vec<ItemRecord>) -> Self {
        Self {
            records,
            memories: Vec::new(),
        }
    }
}

impl Store {
    /// Journals a workflow with all its items.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing; nothing was written then.
    pub async fn create_workflow(
        &self,
        record: WorkflowRecord,
        items: impl Into<Arc<Vec<(ItemWork, ItemRecord)>>>,
    ) -> Result<Created, StoreError> {
        let items = items.into();
        self.write("journal a workflow", move |db| create(db, &record, &items))
            .await
    }

    /// Writes what happened to items of a workflow, all or nothing; durable when this returns the workflow's new revision
    /// and what became of the memories.
    ///
    /// An attempt may start once its begin is journaled. An end and its memories are one transaction, so that a crash
    /// cannot separate them. An end that is followed by the same item's wait for its next attempt is kept beside it.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotOwner`] where another server owns the workflow: nothing may be started then.
    /// [`StoreError::Ended`] where another end of the attempt is journaled. As [`Self::insert_memories`].
    pub async fn journal(
        &self,
        id: WorkflowId,
        entries: Arc<Vec<Entry>>,
        forward_to: Option<PeerName>,
    ) -> Result<(Revision, InsertReport), StoreError> {
        let me = self.server_id();
        self.write("write the journal", move |db| {
            let mut head = Head::owned(db, id, me)?;
            for record in entries.iter().flat_map(|entry| &entry.records) {
                head.write(db, record)?;
            }
            let left = entries.iter().flat_map(|entry| &entry.memories);
            let report = memories::insert(db, left, forward_to.as_ref())?;
            Ok((head.save(db)?, report))
        })
        .await
    }

    /// Queues items again, all or none: `record` is how the workflow runs from now on, and each item comes with what it
    /// is to do from now on. Returns the workflow's new revision.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotOwner`] where another server owns the workflow: adopt it first. [`StoreError::Unfinished`]
    /// where one of the items is queued or runs.
    pub async fn restart(
        &self,
        record: WorkflowRecord,
        items: Vec<(ItemWork, ItemRecord)>,
    ) -> Result<Revision, StoreError> {
        let me = self.server_id();
        self.write("queue items again", move |db| {
            restart(db, me, &record, &items)
        })
        .await
    }
}

/// A workflow's changing part, as one job reads and writes it.
pub(super) struct Head {
    pub(super) wf: i64,
    pub(super) id: WorkflowId,
    pub(super) owner: ServerId,
    pub(super) counts: Counts,
    pub(super) revision: Revision,
    max_failures: Option<u32>,
}

const HEAD: &str =
    "SELECT wf, owner, revision, json_extract(settings, '$.max_failures') AS max_failures,
        planned, queued, running, succeeded, failed, timed_out, cancelled, interrupted
   FROM workflows WHERE id = ?1";

impl Head {
    pub(super) fn load(db: &Connection, id: WorkflowId) -> Result<Option<Self>, StoreError> {
        db.first(HEAD, [id], |row| {
            Ok(Self {
                wf: row.get("wf")?,
                id,
                owner: row.get("owner")?,
                counts: counts_of(row)?,
                revision: revision_of(row)?,
                max_failures: row.get("max_failures")?,
            })
        })
    }

    /// Loads the head of a workflow that `me` must own.
    fn owned(db: &Connection, id: WorkflowId, me: ServerId) -> Result<Self, StoreError> {
        let head = Self::load(db, id)?.ok_or(StoreError::NoWorkflow { id })?;
        if head.owner == me {
            Ok(head)
        } else {
            Err(StoreError::NotOwner { id })
        }
    }

    /// Writes what happened to an item; an end that is journaled stays as it is.
    pub(super) fn write(&mut self, db: &Connection, record: &ItemRecord) -> Result<(), StoreError> {
        let old = self.stored(db, record.item)?;
        let ended = old.status.is_final() && old.attempt == record.attempt;
        if !ended || !describes_attempt(record.status) {
            return self.replace(db, &old, record);
        }
        // Writing the same end again is harmless: its first write may have been committed and reported as failed.
        if record.status.is_final() && old == *record {
            return Ok(());
        }
        Err(StoreError::Ended {
            id: self.id,
            item: record.item,
            attempt: record.attempt,
        })
    }

    /// Replaces an item's row `old`, keeping an attempt that is over beside it.
    pub(super) fn replace(
        &mut self,
        db: &Connection,
        old: &ItemRecord,
        record: &ItemRecord,
    ) -> Result<(), StoreError> {
        let waits_again = old.status.is_final() && !describes_attempt(record.status);
        // An attempt that was begun and taken back before it started has a higher number, and leaves nothing.
        if old.attempt > 0 && (old.attempt < record.attempt || waits_again) {
            // The first copy is the attempt's own; a later row of the same number only waited for the next one.
            db.run(
                "INSERT OR IGNORE INTO attempts (wf, item, attempt, record)
                 SELECT wf, item, attempt, record FROM items WHERE wf = ?1 AND item = ?2",
                params![self.wf, record.item],
            )?;
        }
        db.run(
            "UPDATE items SET state = ?3, attempt = ?4, pool = ?5, record = ?6 WHERE wf = ?1 AND item = ?2",
            params![
                self.wf,
                record.item,
                record.status,
                record.attempt,
                record.pool,
                stored::json_of(record)?,
            ],
        )?;
        self.counts.shift(old.status, record.status);
        Ok(())
    }

    /// Reads an item's row, if there is one.
    pub(super) fn item(
        &self,
        db: &Connection,
        item: ItemIndex,
    ) -> Result<Option<ItemRecord>, StoreError> {
        let found = db.first(
            "SELECT record FROM items WHERE wf = ?1 AND item = ?2",
            params![self.wf, item],
            |row| row.get::<_, Item>(0),
        )?;
        Ok(found.map(|item| item.0))
    }

    fn stored(&self, db: &Connection, item: ItemIndex) -> Result<ItemRecord, StoreError> {
        let id = self.id;
        self.item(db, item)?.ok_or(StoreError::NoItem { id, item })
    }

    /// Writes the owner, the counts and the next revision, which it returns.
    pub(super) fn save(self, db: &Connection) -> Result<Revision, StoreError> {
        let counts = self.counts;
        let revision = self.revision + 1;
        db.run(
            "UPDATE workflows SET owner = :owner, updated_at_ms = :now, revision = :revision, status = :status,
                 planned = :planned, queued = :queued, running = :running, succeeded = :succeeded,
                 failed = :failed, timed_out = :timed_out, cancelled = :cancelled, interrupted = :interrupted
             WHERE wf = :wf",
            named_params! {
                ":wf": self.wf, ":owner": self.owner, ":now": At::now(), ":revision": revision.cast_signed(),
                ":status": counts.status_within(self.max_failures),
                ":planned": counts.planned, ":queued": counts.queued, ":running": counts.running,
                ":succeeded": counts.succeeded, ":failed": counts.failed, ":timed_out": counts.timed_out,
                ":cancelled": counts.cancelled, ":interrupted": counts.interrupted,
            },
        )?;
        Ok(revision)
    }
}

/// Returns whether a record in this state describes the attempt it names, not the wait for the next one.
fn describes_attempt(state: ItemState) -> bool {
    state == ItemState::Running || state.is_final()
}

/// Returns the workflow with this idempotency key.
pub(super) fn by_key(db: &Connection, key: &str) -> Result<Option<WorkflowRecord>, StoreError> {
    db.first(
        "SELECT * FROM workflows WHERE idempotency_key = ?1",
        [key],
        record_of,
    )
}

fn create(
    db: &Connection,
    record: &WorkflowRecord,
    items: &[(ItemWork, ItemRecord)],
) -> Result<Created, StoreError> {
    if let Some(key) = &record.idempotency_key
        && let Some(existing) = by_key(db, key)?
    {
        return Ok(Created::Existing(existing));
    }
    db.run(
        "INSERT INTO workflows (id, title, owner, created_at_ms, single, settings, idempotency_key, arguments_hash,
             updated_at_ms, revision, status, planned, queued, running, succeeded, failed, timed_out, cancelled,
             interrupted)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?4, 0, 'planned', 0, 0, 0, 0, 0, 0, 0, 0)",
        params![
            record.id,
            record.title,
            record.owner,
            record.created_at,
            record.single,
            Json(&record.settings),
            record.idempotency_key,
            record.arguments_hash,
        ],
    )?;
    let head = Head {
        wf: db.last_insert_rowid(),
        id: record.id,
        owner: record.owner,
        counts: Counts::of(items.iter().map(|(_, item)| item.status)),
        revision: 0,
        max_failures: record.settings.max_failures,
    };
    insert_items(db, head.wf, items)?;
    head.save(db)?;
    Ok(Created::New)
}

fn insert_items(
    db: &Connection,
    wf: i64,
    items: &[(ItemWork, ItemRecord)],
) -> Result<(), StoreError> {
    let keys = insert_works(db, wf, items)?;
    for ((work, item), key) in items.iter().zip(keys) {
        db.run(
            "INSERT INTO items (wf, item, state, attempt, pool, repo, work, record)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                wf,
                item.item,
                item.status,
                item.attempt,
                item.pool,
                work.repo,
                key,
                stored::json_of(item)?,
            ],
        )?;
    }
    Ok(())
}

/// Writes what workers get, each text once, and returns each item's key.
fn insert_works(
    db: &Connection,
    wf: i64,
    items: &[(ItemWork, ItemRecord)],
) -> Result<Vec<i64>, StoreError> {
    let mut works: HashMap<&Work, i64> = HashMap::new();
    let mut keys = Vec::with_capacity(items.len());
    for (ItemWork { work, .. }, _) in items {
        if !works.contains_key(work) {
            db.run(
                "INSERT INTO works (wf, json) VALUES (?1, ?2)",
                params![wf, Json(work)],
            )?;
            works.insert(work, db.last_insert_rowid());
        }
        keys.push(works[work]);
    }
    Ok(keys)
}

fn restart(
    db: &Connection,
    me: ServerId,
    record: &WorkflowRecord,
    items: &[(ItemWork, ItemRecord)],
) -> Result<Revision, StoreError> {
    let mut head = Head::owned(db, record.id, me)?;
    head.max_failures = record.settings.max_failures;
    db.run(
        "UPDATE workflows SET title = ?2, settings = ?3 WHERE wf = ?1",
        params![head.wf, record.title, Json(&record.settings)],
    )?;
    let keys = insert_works(db, head.wf, items)?;
    for ((_, item), key) in items.iter().zip(keys) {
        let old = head.stored(db, item.item)?;
        if matches!(old.status, ItemState::Queued | ItemState::Running) {
            return Err(StoreError::Unfinished {
                id: record.id,
                item: item.item,
            });
        }
        db.run(
            "UPDATE items SET work = ?3 WHERE wf = ?1 AND item = ?2",
            params![head.wf, item.item, key],
        )?;
        head.replace(db, &old, item)?;
    }
    head.save(db)
}

/// Reads a whole row of `workflows`.
pub(super) fn record_of(row: &Row<'_>) -> rusqlite::Result<WorkflowRecord> {
    Ok(WorkflowRecord {
        id: row.get("id")?,
        title: row.get("title")?,
        owner: row.get("owner")?,
        created_at: row.get("created_at_ms")?,
        single: row.get("single")?,
        settings: row.get::<_, Json<_>>("settings")?.0,
        idempotency_key: row.get("idempotency_key")?,
        arguments_hash: row.get("arguments_hash")?,
    })
}

pub(super) fn revision_of(row: &Row<'_>) -> rusqlite::Result<Revision> {
    Ok(row.get::<_, i64>("revision")?.unsigned_abs())
}

pub(super) fn counts_of(row: &Row<'_>) -> rusqlite::Result<Counts> {
    let mut counts = Counts {
        total: 0,
        planned: row.get("planned")?,
        queued: row.get("queued")?,
        running: row.get("running")?,
        succeeded: row.get("succeeded")?,
        failed: row.get("failed")?,
        timed_out: row.get("timed_out")?,
        cancelled: row.get("cancelled")?,
        interrupted: row.get("interrupted")?,
    };
    counts.total = counts.ended() + counts.planned + counts.queued + counts.running;
    Ok(counts)
}
