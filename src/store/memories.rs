//! Memory rows: stored once by their identity, read, collected.

use super::column::Json;
use super::memory_row::{COLUMNS, memory_of};
use super::query::Query;
use super::tombstones::Tombstones;
use super::{Store, StoreError, outbox};
use crate::model::{
    At, CollectedBatch, InsertReport, Memory, MemoryId, MemoryKind, NewMemory, PeerName, PoolName,
};
use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};

/// The longest text of a memory, in bytes.
const MAX_TEXT_BYTES: usize = 1 << 20;

impl Store {
    /// Stores memories, each with an entry for `forward_to` in its outbox, all or none.
    ///
    /// One that is known by its identity is a duplicate and changes nothing. One that came from `forward_to` itself is
    /// not sent back.
    ///
    /// # Errors
    ///
    /// [`StoreError::Argument`] for a text of more than 1 MiB.
    pub async fn insert_memories(
        &self,
        memories: Vec<NewMemory>,
        forward_to: Option<PeerName>,
    ) -> Result<InsertReport, StoreError> {
        self.write("store memories", move |db| {
            insert(db, &memories, forward_to.as_ref())
        })
        .await
    }

    /// Returns one memory, whole.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn memory(&self, id: MemoryId) -> Result<Option<Memory>, StoreError> {
        self.read("read a memory", move |db| {
            let sql = format!("SELECT {COLUMNS} FROM memories WHERE id = ?1");
            db.first(&sql, [id], memory_of)
        })
        .await
    }

    /// Collects a batch of the pool's memories in one transaction: those not collected yet, or with `since` all that
    /// were learned from then on. They count as collected afterwards and are in the outbox of `forward_to`.
    ///
    /// Two collections at once count each memory as new once. `after` is the `next` of the batch before; 0 begins.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening, reading or writing.
    pub async fn collect_memories(
        &self,
        pool: PoolName,
        since: Option<At>,
        after: i64,
        limit: u32,
        forward_to: Option<PeerName>,
    ) -> Result<CollectedBatch, StoreError> {
        self.write("collect memories", move |db| {
            collect(db, &pool, since, after, limit, forward_to.as_ref())
        })
        .await
    }

    /// Returns the pools of which a collection would take something, in the order of their names.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn collectable_pools(&self, since: Option<At>) -> Result<Vec<PoolName>, StoreError> {
        self.read("look for new memories", move |db| {
            let condition = collectable(since);
            let sql = format!("SELECT DISTINCT pool FROM memories WHERE {condition} ORDER BY pool");
            db.all(&sql, [since], |row| row.get(0))
        })
        .await
    }
}

/// Stores memories; their words are in the index once the transaction ends (see [`super::word_index`]).
pub(super) fn insert<'a>(
    db: &Connection,
    memories: impl IntoIterator<Item = &'a NewMemory>,
    forward_to: Option<&PeerName>,
) -> Result<InsertReport, StoreError> {
    let memories: Vec<_> = memories.into_iter().collect();
    let mut report = InsertReport::default();
    if memories.is_empty() {
        return Ok(report);
    }
    let tombstones = Tombstones::load(db)?;
    // Ascending ids go to the end of their index.
    for (new, fresh) in memories.iter().zip(MemoryId::ascending(memories.len())) {
        let identity = identity(new);
        let removed = tombstones.of(db, new, &identity)?;
        let row = match removed {
            Some(_) => None,
            None => insert_row(db, new, fresh, &identity)?,
        };
        let Some((m, id)) = row else {
            let known = known(db, new, &identity)?.or(removed);
            let other = || StoreError::decode("a memory", "its id is that of another one");
            report.ids.push(known.ok_or_else(other)?);
            report.duplicate += 1;
            continue;
        };
        outbox::enqueue(db, forward_to, &new.source, m)?;
        report.new += 1;
        report.ids.push(id);
        report.new_ids.push(id);
    }
    Ok(report)
}

fn known(
    db: &Connection,
    new: &NewMemory,
    identity: &Identity,
) -> Result<Option<MemoryId>, StoreError> {
    db.first(
        "SELECT id FROM memories WHERE id = ?1 OR (?1 IS NULL AND identity = ?2)",
        params![new.marker, identity],
        |row| row.get(0),
    )
}

/// Writes the row and its tags, unless the memory is known by its identity; returns its key and its id.
fn insert_row(
    db: &Connection,
    new: &NewMemory,
    fresh: MemoryId,
    identity: &Identity,
) -> Result<Option<(i64, MemoryId)>, StoreError> {
    if new.text.len() > MAX_TEXT_BYTES {
        return Err(StoreError::Argument {
            field: "text",
            message: format!("a memory of {} bytes is too long", new.text.len()),
            allowed: "at most 1 MiB of text".to_owned(),
        });
    }
    let id = new.marker.unwrap_or(fresh);
    let inserted = db.run(
        "INSERT INTO memories (id, identity, kind, pool, created_at_ms, aggregated, text_digest, workflow, item,
             attempt, worker, commit_id, source, repo, tags, text)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16) ON CONFLICT DO NOTHING",
        params![
            id,
            identity,
            new.kind,
            new.pool,
            new.created_at,
            new.aggregated,
            text_digest(&new.text),
            new.workflow,
            new.item,
            new.attempt,
            new.worker,
            new.commit,
            new.source,
            new.repo,
            Json(&new.tags),
            new.text,
        ],
    )?;
    if inserted == 0 {
        return Ok(None);
    }
    let m = db.last_insert_rowid();
    for tag in &new.tags {
        db.run(
            "INSERT OR IGNORE INTO memory_tags (tag, m) VALUES (?1, ?2)",
            params![tag, m],
        )?;
    }
    Ok(Some((m, id)))
}

/// What makes two memories the same; see [`NewMemory`].
type Identity = [u8; 32];

fn identity(new: &NewMemory) -> Identity {
    let (workflow, item, attempt) = (new.workflow, new.item, new.attempt);
    let repo = new.repo.as_deref().unwrap_or_default();
    if let Some(marker) = new.marker {
        digest(&["marker", &marker.to_string()])
    } else if let Some(id) = &new.source_id {
        digest(&["source", &new.source, id])
    } else if let (Some(workflow), Some(item), Some(attempt)) = (workflow, item, attempt) {
        let kind = new.kind.as_str();
        let place = format!("{workflow}/{item}/{attempt}");
        // One attempt may leave an outcome and several lessons.
        let text = if new.kind == MemoryKind::Outcome {
            ""
        } else {
            &new.text
        };
        digest(&["attempt", kind, &place, text])
    } else {
        digest(&["text", new.pool.as_str(), repo, &new.text])
    }
}

/// Hashes the parts so that no two lists of parts are the same bytes.
fn digest(parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// Returns a number by which equal texts are found; 64 bits, for merging hits, not for identity.
fn text_digest(text: &str) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = digest(&[text]);
    i64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Returns which rows a collection takes: those not collected yet, or with `since`, which is `?1`, all from then on.
fn collectable(since: Option<At>) -> &'static str {
    match since {
        None => "aggregated = 0 AND ?1 IS NULL",
        Some(_) => "created_at_ms >= ?1",
    }
}

/// Marks a batch as collected and puts it into the outbox of `forward_to`.
fn collect(
    db: &Connection,
    pool: &PoolName,
    since: Option<At>,
    after: i64,
    limit: u32,
    forward_to: Option<&PeerName>,
) -> Result<CollectedBatch, StoreError> {
    let sql = format!(
        "SELECT m, id, source, aggregated FROM memories WHERE {} AND pool = ?2 AND m > ?3 ORDER BY m LIMIT ?4",
        collectable(since)
    );
    let rows: Vec<(i64, MemoryId, String, bool)> =
        db.all(&sql, params![since, pool, after, limit], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?;
    let mut batch = CollectedBatch::default();
    if rows.len() >= limit as usize {
        batch.next = rows.last().map(|row| row.0);
    }
    for (m, id, source, aggregated) in rows {
        if aggregated {
            batch.duplicate += 1;
        } else {
            db.run("UPDATE memories SET aggregated = 1 WHERE m = ?1", [m])?;
            batch.new.push(id);
        }
        outbox::enqueue(db, forward_to, &source, m)?;
    }
    Ok(batch)
}
