//! Reads a memory's row.

use super::column::Json;
use crate::model::Memory;
use rusqlite::Row;

/// The columns that [`memory_of`] reads, for statements that join other tables.
pub(super) const COLUMNS: &str =
    "memories.id, kind, memories.pool, created_at_ms, aggregated, workflow, item,
     attempt, worker, commit_id, source, repo, tags, text";

pub(super) fn memory_of(row: &Row<'_>) -> rusqlite::Result<Memory> {
    Ok(Memory {
        id: row.get("id")?,
        kind: row.get("kind")?,
        text: row.get("text")?,
        pool: row.get("pool")?,
        repo: row.get("repo")?,
        workflow: row.get("workflow")?,
        item: row.get("item")?,
        attempt: row.get("attempt")?,
        worker: row.get("worker")?,
        commit: row.get("commit_id")?,
        source: row.get("source")?,
        tags: row.get::<_, Json<_>>("tags")?.0,
        created_at: row.get("created_at_ms")?,
        aggregated: row.get("aggregated")?,
    })
}
