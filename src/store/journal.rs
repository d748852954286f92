//! Workflows, items and attempts: the journal that is written before anything starts.
//!
//! An item's row holds its latest state; the attempts before it are kept beside. The counts of a workflow are kept in
//! its row, in the same transaction, so that polling costs the same for 1 item and for 10,000.

use super::StoreError;
use super::column::{State, Text, from_json, json_of};
use crate::model::{
    At, Attempt, Counts, ItemIndex, ItemRecord, ItemState, ItemWork, NewMemory, PoolName, Revision,
    ServerId, Work, WorkflowId, WorkflowRecord, WorkflowStatus,
};
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};
use std::collections::HashMap;

/// What [`super::Store::create_workflow`] did.
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
    /// A running one begins its attempt, one in a final state ends it, and a queued one waits: for its next attempt
    /// where it follows an end, else again, as if its attempt had not begun.
    pub records: Vec<ItemRecord>,
    /// Stored with the records or not at all.
    pub memories: Vec<NewMemory>,
}

impl Entry {
    /// Returns an entry of records that left nothing behind.
    pub fn of(records: Vec<ItemRecord>) -> Self {
        Self {
            records,
            memories: Vec::new(),
        }
    }
}

/// A workflow's changing part, as one job sees and writes it.
pub(super) struct Head {
    pub(super) wf: i64,
    pub(super) id: WorkflowId,
    pub(super) owner: ServerId,
    counts: Counts,
    max_failures: Option<u32>,
}

const HEAD: &str = "SELECT wf, owner, planned, queued, running, succeeded, failed, timed_out, cancelled, interrupted,
     json_extract(record, '$.settings.max_failures') AS max_failures FROM workflows WHERE id = ?1";

impl Head {
    pub(super) fn load(db: &Connection, id: WorkflowId) -> Result<Option<Self>, StoreError> {
        let mut statement = db.prepare_cached(HEAD)?;
        let head = statement.query_row([Text(id)], |row| {
            Ok(Self {
                wf: row.get("wf")?,
                id,
                owner: row.get::<_, Text<ServerId>>("owner")?.0,
                counts: counts_of(row)?,
                max_failures: row.get("max_failures")?,
            })
        });
        Ok(head.optional()?)
    }

    /// Loads the head of a workflow that `me` must own.
    pub(super) fn owned(db: &Connection, id: WorkflowId, me: ServerId) -> Result<Self, StoreError> {
        let head = Self::load(db, id)?.ok_or(StoreError::NoWorkflow { id })?;
        if head.owner == me {
            Ok(head)
        } else {
            Err(StoreError::NotOwner { id })
        }
    }

    pub(super) fn unfinished(&self) -> u32 {
        self.counts.queued + self.counts.running
    }

    /// Replaces an item's row, keeping an attempt that is over beside it.
    pub(super) fn put(&mut self, db: &Connection, record: &ItemRecord) -> Result<(), StoreError> {
        let old = self.stored(db, record.item)?;
        self.put_over(db, &old, record)
    }

    /// Writes what happened to an item; an end that is journaled stays as it is.
    fn write(&mut self, db: &Connection, record: &ItemRecord) -> Result<(), StoreError> {
        let old = self.stored(db, record.item)?;
        let ended = old.state.is_final() && old.attempt == record.attempt;
        if !ended || !attempt_of(record.status) {
            return self.put_over(db, &old, record);
        }
        // The same end once more is no harm: its first write may have gone well and been told as failed.
        if record.status.is_final() && self.record(db, record.item)? == *record {
            return Ok(());
        }
        Err(StoreError::Ended {
            id: self.id,
            item: record.item,
            attempt: record.attempt,
        })
    }

    fn put_over(
        &mut self,
        db: &Connection,
        old: &Stored,
        record: &ItemRecord,
    ) -> Result<(), StoreError> {
        let waits_again = old.state.is_final() && !attempt_of(record.status);
        // One that was begun and taken back before it started has a higher number, and leaves nothing.
        if old.attempt > 0 && (old.attempt < record.attempt || waits_again) {
            // The first copy is the attempt's own; a later row of the same number only waited for the next one.
            db.prepare_cached(
                "INSERT OR IGNORE INTO attempts (wf, item, attempt, record)
                 SELECT wf, item, attempt, record FROM items WHERE wf = ?1 AND item = ?2",
            )?
            .execute(params![self.wf, record.item])?;
        }
        db.prepare_cached(
            "UPDATE items SET state = ?3, attempt = ?4, pool = ?5, record = ?6 WHERE wf = ?1 AND item = ?2",
        )?
        .execute(params![
            self.wf,
            record.item,
            record.status.as_str(),
            record.attempt,
            record.pool.as_ref().map(PoolName::as_str),
            json_of("an item", record)?,
        ])?;
        self.counts.shift(old.state, record.status);
        Ok(())
    }

    fn record(&self, db: &Connection, item: ItemIndex) -> Result<ItemRecord, StoreError> {
        let mut statement =
            db.prepare_cached("SELECT record FROM items WHERE wf = ?1 AND item = ?2")?;
        let mut rows = statement.query(params![self.wf, item])?;
        let row = rows
            .next()?
            .ok_or(StoreError::NoItem { id: self.id, item })?;
        from_json("an item", row.get_ref(0)?)
    }

    fn stored(&self, db: &Connection, item: ItemIndex) -> Result<Stored, StoreError> {
        let mut statement =
            db.prepare_cached("SELECT state, attempt FROM items WHERE wf = ?1 AND item = ?2")?;
        let stored = statement.query_row(params![self.wf, item], |row| {
            Ok(Stored {
                state: row.get::<_, State>(0)?.0,
                attempt: row.get(1)?,
            })
        });
        let id = self.id;
        stored.optional()?.ok_or(StoreError::NoItem { id, item })
    }

    /// Writes the counts and the next revision, which it returns.
    pub(super) fn save(self, db: &Connection) -> Result<Revision, StoreError> {
        let counts = self.counts;
        let mut save = db.prepare_cached(
            "UPDATE workflows SET owner = :owner, updated_at_ms = :now, revision = revision + 1, status = :status,
                 planned = :planned, queued = :queued, running = :running, succeeded = :succeeded,
                 failed = :failed, timed_out = :timed_out, cancelled = :cancelled, interrupted = :interrupted
             WHERE wf = :wf RETURNING revision",
        )?;
        let revision = save.query_row(named_params! {
            ":wf": self.wf, ":owner": Text(self.owner), ":now": At::now().unix_ms(),
            ":status": status_text(counts.status_within(self.max_failures)),
            ":planned": counts.planned, ":queued": counts.queued, ":running": counts.running,
            ":succeeded": counts.succeeded, ":failed": counts.failed, ":timed_out": counts.timed_out,
            ":cancelled": counts.cancelled, ":interrupted": counts.interrupted,
        }, |row| row.get::<_, i64>(0))?;
        Ok(revision.unsigned_abs())
    }
}

/// Returns whether a record in this state describes the attempt it names, not the wait for the next one.
fn attempt_of(state: ItemState) -> bool {
    state == ItemState::Running || state.is_final()
}

struct Stored {
    state: ItemState,
    attempt: Attempt,
}

/// Returns the workflow with this idempotency key.
pub(super) fn by_key(db: &Connection, key: &str) -> Result<Option<WorkflowRecord>, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT owner, record FROM workflows WHERE idempotency_key = ?1")?;
    let found = statement.query_row([key], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)));
    found
        .optional()?
        .map(|(owner, json)| record_of(owner, &json))
        .transpose()
}

pub(super) fn create(
    db: &Connection,
    record: &WorkflowRecord,
    items: &[(ItemWork, ItemRecord)],
) -> Result<Created, StoreError> {
    if let Some(key) = &record.idempotency_key
        && let Some(existing) = by_key(db, key)?
    {
        return Ok(Created::Existing(existing));
    }
    let counts = Counts::of(items.iter().map(|(_, item)| item.status));
    let now = At::now().unix_ms();
    db.prepare_cached(
        "INSERT INTO workflows (id, owner, idempotency_key, created_at_ms, updated_at_ms, revision, status,
             planned, queued, running, succeeded, failed, timed_out, cancelled, interrupted, record)
         VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?
    .execute(params![
        Text(record.id),
        Text(record.owner),
        record.idempotency_key,
        record.created_at.unix_ms(),
        now,
        status_text(counts.status_within(record.settings.max_failures)),
        counts.planned,
        counts.queued,
        counts.running,
        counts.succeeded,
        counts.failed,
        counts.timed_out,
        counts.cancelled,
        counts.interrupted,
        json_of("a workflow", record)?,
    ])?;
    let wf = db.last_insert_rowid();
    insert_items(db, wf, items)?;
    Ok(Created::New)
}

fn insert_items(
    db: &Connection,
    wf: i64,
    items: &[(ItemWork, ItemRecord)],
) -> Result<(), StoreError> {
    let keys = insert_works(db, wf, items)?;
    let mut insert = db.prepare_cached(
        "INSERT INTO items (wf, item, state, attempt, pool, repo, work, record)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for ((work, item), key) in items.iter().zip(keys) {
        insert.execute(params![
            wf,
            item.item,
            item.status.as_str(),
            item.attempt,
            item.pool.as_ref().map(PoolName::as_str),
            work.repo,
            key,
            json_of("an item", item)?,
        ])?;
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
    let mut insert = db.prepare_cached("INSERT INTO works (wf, json) VALUES (?1, ?2)")?;
    let mut keys = Vec::with_capacity(items.len());
    for (work, _) in items {
        let key = match works.get(&work.work) {
            Some(&key) => key,
            None => {
                insert.execute(params![wf, json_of("a task", &work.work)?])?;
                let key = db.last_insert_rowid();
                works.insert(&work.work, key);
                key
            }
        };
        keys.push(key);
    }
    Ok(keys)
}

/// Puts items in line again, with how the workflow runs and what they are to do from now on.
pub(super) fn restart(
    db: &Connection,
    me: ServerId,
    record: &WorkflowRecord,
    items: &[(ItemWork, ItemRecord)],
) -> Result<Revision, StoreError> {
    let mut head = Head::owned(db, record.id, me)?;
    head.max_failures = record.settings.max_failures;
    for (_, item) in items {
        let old = head.stored(db, item.item)?;
        if matches!(old.state, ItemState::Queued | ItemState::Running) {
            return Err(StoreError::Unfinished {
                id: record.id,
                item: item.item,
            });
        }
    }
    db.prepare_cached("UPDATE workflows SET record = ?2 WHERE wf = ?1")?
        .execute(params![head.wf, json_of("a workflow", record)?])?;
    let keys = insert_works(db, head.wf, items)?;
    for ((_, item), key) in items.iter().zip(keys) {
        db.prepare_cached("UPDATE items SET work = ?3 WHERE wf = ?1 AND item = ?2")?
            .execute(params![head.wf, item.item, key])?;
        head.put(db, item)?;
    }
    head.save(db)
}

/// Writes entries of one workflow, in order.
pub(super) fn write(
    db: &Connection,
    me: ServerId,
    id: WorkflowId,
    entries: &[Entry],
) -> Result<Revision, StoreError> {
    let mut head = Head::owned(db, id, me)?;
    for record in entries.iter().flat_map(|entry| &entry.records) {
        head.write(db, record)?;
    }
    head.save(db)
}

pub(super) fn save_items(
    db: &Connection,
    me: ServerId,
    id: WorkflowId,
    records: &[ItemRecord],
) -> Result<Revision, StoreError> {
    let mut head = Head::owned(db, id, me)?;
    for record in records {
        head.put(db, record)?;
    }
    head.save(db)
}

/// Reads a record; its owner is the row's, which `adopt` changes.
pub(super) fn record_of(owner: Text<ServerId>, json: &str) -> Result<WorkflowRecord, StoreError> {
    let record: WorkflowRecord =
        serde_json::from_str(json).map_err(|error| StoreError::decode("a workflow", error))?;
    Ok(WorkflowRecord {
        owner: owner.0,
        ..record
    })
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

pub(super) fn status_text(status: WorkflowStatus) -> &'static str {
    match status {
        WorkflowStatus::Planned => "planned",
        WorkflowStatus::Running => "running",
        WorkflowStatus::Succeeded => "succeeded",
        WorkflowStatus::Partial => "partial",
        WorkflowStatus::Failed => "failed",
        WorkflowStatus::Cancelled => "cancelled",
        WorkflowStatus::Interrupted => "interrupted",
    }
}
