//! Memory rows: stored once by their identity, collected, forgotten.

use super::column::{Text, json_of};
use super::{StoreError, forget, outbox};
use crate::model::{
    At, CollectedBatch, InsertReport, Memory, MemoryId, MemoryKind, NewMemory, PeerName, PoolName,
    WorkflowId,
};
use rusqlite::{Connection, OptionalExtension, Row, Statement, params};
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// The longest text of a memory, in bytes.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// A memory to store, with what is worked out of it without the store: best before it is the writing thread's turn.
pub(super) struct Prepared<'a> {
    new: Cow<'a, NewMemory>,
    id: MemoryId,
    identity: Identity,
    text_digest: i64,
    tags: String,
}

impl<'a> Prepared<'a> {
    fn of(new: Cow<'a, NewMemory>, id: MemoryId) -> Result<Self, StoreError> {
        if new.text.len() > MAX_TEXT_BYTES {
            return Err(StoreError::Argument {
                field: "text",
                message: format!("a memory of {} bytes is too long", new.text.len()),
                allowed: "at most 1 MiB of text".to_owned(),
            });
        }
        Ok(Self {
            id: new.marker.unwrap_or(id),
            identity: identity(&new),
            text_digest: text_digest(&new.text),
            tags: json_of("a memory", &new.tags)?,
            new,
        })
    }
}

/// Prepares memories for [`insert`]; refuses a text that is too long.
pub(super) fn prepared<'a>(
    memories: impl IntoIterator<Item = Cow<'a, NewMemory>>,
) -> Result<Vec<Prepared<'a>>, StoreError> {
    let memories: Vec<_> = memories.into_iter().collect();
    // In their order, each goes to the end of its index.
    let ids = MemoryId::ascending(memories.len());
    let memories = memories.into_iter().zip(ids);
    memories.map(|(new, id)| Prepared::of(new, id)).collect()
}

/// Stores memories; their words are in the index once the transaction ends (see [`index_new`]).
pub(super) fn insert(
    db: &Connection,
    memories: &[Prepared<'_>],
    forward_to: Option<&PeerName>,
) -> Result<InsertReport, StoreError> {
    let mut report = InsertReport::default();
    if memories.is_empty() {
        return Ok(report);
    }
    let mut row = db.prepare_cached(INSERT)?;
    let any_buried = forget::any_buried(db)?;
    for memory in memories {
        let Prepared { new, identity, .. } = memory;
        let buried = match any_buried {
            true => forget::buried(db, new, identity)?,
            false => None,
        };
        let stored = match buried {
            Some(_) => None,
            None => insert_row(db, &mut row, memory)?,
        };
        let Some(m) = stored else {
            let known = known(db, new, identity)?.or(buried);
            let other = || StoreError::decode("a memory", "its id is that of another one");
            report.ids.push(known.ok_or_else(other)?);
            report.duplicate += 1;
            continue;
        };
        // A peer need not be told what it told us.
        if let Some(peer) = forward_to.filter(|peer| peer.as_str() != new.source) {
            outbox::enqueue(db, peer, m)?;
        }
        report.new += 1;
        report.ids.push(memory.id);
        report.new_ids.push(memory.id);
    }
    Ok(report)
}

fn known(
    db: &Connection,
    new: &NewMemory,
    identity: &Identity,
) -> Result<Option<MemoryId>, StoreError> {
    let found = match new.marker {
        Some(marker) => db
            .prepare_cached("SELECT id FROM memories WHERE id = ?1")?
            .query_row([Text(marker)], |row| row.get(0)),
        None => db
            .prepare_cached("SELECT id FROM memories WHERE identity = ?1")?
            .query_row([identity], |row| row.get(0)),
    };
    Ok(found.optional()?.map(|id: Text<MemoryId>| id.0))
}

const INSERT: &str =
    "INSERT INTO memories (id, identity, kind, pool, created_at_ms, aggregated, text_digest, workflow, item,
         attempt, worker, commit_id, source, repo, tags, text)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16) ON CONFLICT DO NOTHING";

/// Writes the row with [`INSERT`], and its tags, unless the memory is known by its identity; returns its number.
fn insert_row(
    db: &Connection,
    row: &mut Statement<'_>,
    memory: &Prepared<'_>,
) -> Result<Option<i64>, StoreError> {
    let new = &memory.new;
    let inserted = row.execute(params![
        Text(memory.id),
        memory.identity,
        new.kind.as_str(),
        new.pool.as_str(),
        new.created_at.unix_ms(),
        new.aggregated,
        memory.text_digest,
        new.workflow.map(Text),
        new.item,
        new.attempt,
        new.worker,
        new.commit,
        new.source,
        new.repo,
        memory.tags,
        new.text,
    ])?;
    if inserted == 0 {
        return Ok(None);
    }
    let m = db.last_insert_rowid();
    for tag in &new.tags {
        db.prepare_cached("INSERT OR IGNORE INTO memory_tags (tag, m) VALUES (?1, ?2)")?
            .execute(params![tag, m])?;
    }
    Ok(Some(m))
}

/// Puts the words of new memories into the index: of those behind its last one, because numbers only grow. Every
/// transaction ends with this.
///
/// All at once, because FTS5 writes what it has gathered as a segment of its own at every savepoint, which triggers and
/// `RETURNING` have too, and merging segments takes longer than all the rest.
pub(super) fn index_new(db: &Connection) -> Result<(), StoreError> {
    let (indexed, last): (i64, i64) = db
        .prepare_cached(
            "SELECT coalesce((SELECT max(id) FROM memories_fts_docsize), 0), coalesce((SELECT max(m) FROM memories), 0)",
        )?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if indexed < last {
        db.prepare_cached(
            "INSERT INTO memories_fts (rowid, text, tags, repo)
             SELECT m, text, tags, repo FROM memories WHERE m > ?1 ORDER BY m",
        )?
        .execute([indexed])?;
    }
    Ok(())
}

/// What makes two memories the same; see [`NewMemory`].
pub(super) type Identity = [u8; 32];

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

/// The columns that [`memory_of`] reads, for statements that join other tables.
pub(super) const COLUMNS: &str =
    "memories.id, kind, memories.pool, created_at_ms, aggregated, workflow, item,
     attempt, worker, commit_id, source, repo, tags, text";

pub(super) fn memory_of(row: &Row<'_>) -> rusqlite::Result<Memory> {
    let tags: String = row.get("tags")?;
    Ok(Memory {
        id: row.get::<_, Text<MemoryId>>("id")?.0,
        kind: row.get::<_, Text<Kind>>("kind")?.0.0,
        text: row.get("text")?,
        pool: row.get::<_, Text<PoolName>>("pool")?.0,
        repo: row.get("repo")?,
        workflow: row
            .get::<_, Option<Text<WorkflowId>>>("workflow")?
            .map(|id| id.0),
        item: row.get("item")?,
        attempt: row.get("attempt")?,
        worker: row.get("worker")?,
        commit: row.get("commit_id")?,
        source: row.get("source")?,
        tags: serde_json::from_str(&tags).unwrap_or_default(),
        created_at: At::from_unix_ms(row.get("created_at_ms")?),
        aggregated: row.get("aggregated")?,
    })
}

struct Kind(MemoryKind);

impl std::str::FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        MemoryKind::parse(text).map(Self).ok_or(())
    }
}

pub(super) fn row_of(db: &Connection, m: i64) -> Result<Memory, StoreError> {
    let mut statement =
        db.prepare_cached(&format!("SELECT {COLUMNS} FROM memories WHERE m = ?1"))?;
    Ok(statement.query_row([m], memory_of)?)
}

pub(super) fn get(db: &Connection, id: MemoryId) -> Result<Option<Memory>, StoreError> {
    let mut statement =
        db.prepare_cached(&format!("SELECT {COLUMNS} FROM memories WHERE id = ?1"))?;
    Ok(statement.query_row([Text(id)], memory_of).optional()?)
}

pub(super) fn unaggregated(
    db: &Connection,
    pool: &PoolName,
    limit: u32,
) -> Result<Vec<Memory>, StoreError> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM memories WHERE pool = ?1 AND aggregated = 0 ORDER BY m LIMIT ?2"
    ))?;
    let found = statement.query_map(params![pool.as_str(), limit], memory_of)?;
    Ok(found.collect::<Result<_, _>>()?)
}

pub(super) fn mark_aggregated(
    db: &Connection,
    ids: &[MemoryId],
    forward_to: Option<&PeerName>,
) -> Result<u32, StoreError> {
    let mut marked = 0;
    for &id in ids {
        let found = db
            .prepare_cached(
                "UPDATE memories SET aggregated = 1 WHERE id = ?1 AND aggregated = 0 RETURNING m, source",
            )?
            .query_row([Text(id)], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
            })
            .optional()?;
        let Some((m, source)) = found else {
            continue;
        };
        if let Some(peer) = forward_to.filter(|peer| peer.as_str() != source) {
            outbox::enqueue(db, peer, m)?;
        }
        marked += 1;
    }
    Ok(marked)
}

/// Reads which rows of a pool a collection takes: those not collected yet, or with `since` all from then on.
fn collectable(
    db: &Connection,
    pool: &PoolName,
    since: Option<At>,
    after: i64,
    limit: u32,
) -> Result<Vec<(i64, MemoryId, String, bool)>, StoreError> {
    let condition = match since {
        None => "aggregated = 0 AND ?2 IS NULL",
        Some(_) => "created_at_ms >= ?2",
    };
    let mut statement = db.prepare_cached(&format!(
        "SELECT m, id, source, aggregated FROM memories WHERE pool = ?1 AND {condition} AND m > ?3
          ORDER BY m LIMIT ?4"
    ))?;
    let values = params![pool.as_str(), since.map(At::unix_ms), after, limit];
    let found = statement.query_map(values, |row| {
        let id = row.get::<_, Text<MemoryId>>(1)?.0;
        Ok((row.get(0)?, id, row.get(2)?, row.get(3)?))
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Returns whether a collection would take anything.
pub(super) fn has_collectable(
    db: &Connection,
    pool: &PoolName,
    since: Option<At>,
    after: i64,
) -> Result<bool, StoreError> {
    Ok(!collectable(db, pool, since, after, 1)?.is_empty())
}

/// Returns the pools of which a collection would take something.
pub(super) fn collectable_pools(
    db: &Connection,
    since: Option<At>,
) -> Result<Vec<PoolName>, StoreError> {
    let condition = match since {
        None => "aggregated = 0 AND ?1 IS NULL",
        Some(_) => "created_at_ms >= ?1",
    };
    let mut statement = db.prepare_cached(&format!(
        "SELECT DISTINCT pool FROM memories WHERE {condition} ORDER BY pool"
    ))?;
    let found = statement.query_map([since.map(At::unix_ms)], |row| {
        Ok(row.get::<_, Text<PoolName>>(0)?.0)
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Marks a batch as collected and puts it into the outbox of `forward_to`.
pub(super) fn collect(
    db: &Connection,
    pool: &PoolName,
    since: Option<At>,
    after: i64,
    limit: u32,
    forward_to: Option<&PeerName>,
) -> Result<CollectedBatch, StoreError> {
    let rows = collectable(db, pool, since, after, limit)?;
    let mut batch = CollectedBatch::default();
    if rows.len() >= limit as usize {
        batch.next = rows.last().map(|row| row.0);
    }
    let mut mark = db.prepare_cached("UPDATE memories SET aggregated = 1 WHERE m = ?1")?;
    for (m, id, source, aggregated) in rows {
        if aggregated {
            batch.duplicate += 1;
        } else {
            mark.execute([m])?;
            batch.new.push(id);
        }
        if let Some(peer) = forward_to.filter(|peer| peer.as_str() != source) {
            outbox::enqueue(db, peer, m)?;
        }
    }
    Ok(batch)
}
