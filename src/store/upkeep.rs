//! What keeps the file well: its figures, its integrity, and what the configured retention removes.

use super::StoreError;
use super::column::Text;
use crate::model::{At, WorkflowId};
use rusqlite::{Connection, params};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An integrity check that takes longer than this stops and says so.
const CHECK_TIME: Duration = Duration::from_secs(5);
/// Virtual machine steps of SQLite between two looks at the clock.
const CHECK_STEPS: i32 = 10_000;
/// Workflows or memories removed in one transaction, so that other writers get their turn.
pub(super) const PRUNE_BATCH: u32 = 50;

/// How the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreHealth {
    /// The database file.
    pub path: PathBuf,
    /// Its size.
    pub file_bytes: u64,
    /// The size of its write-ahead log.
    pub wal_bytes: u64,
    /// Its schema's version.
    pub schema_version: i64,
    /// How many workflows it holds.
    pub workflows: u64,
    /// How many memories it holds.
    pub memories: u64,
    /// Whether nothing wrong was found.
    pub ok: bool,
    /// Whether the whole file was looked at in the time there was.
    pub complete: bool,
    /// What is wrong, a few lines at most.
    pub problems: Vec<String>,
}

/// What to keep; nothing is removed that no field names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// How long a workflow is kept after its last change, once it has ended.
    pub workflows: Option<Duration>,
    /// How long outcomes are kept.
    pub outcomes: Option<Duration>,
    /// How long lessons and notes are kept.
    pub lessons_and_notes: Option<Duration>,
}

/// What [`super::Store::prune`] removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// These workflows, with their items; their logs and worktrees are the caller's to remove.
    pub workflows: Vec<WorkflowId>,
    /// How many memories. What a peer is still to get stays.
    pub memories: u64,
}

/// Returns the figures; needs a connection of its own, because the clock that stops the check is a part of it.
pub(super) fn health(mut db: Connection, path: &Path) -> Result<StoreHealth, StoreError> {
    let size = |path: &Path| path.metadata().map_or(0, |file| file.len());
    let (complete, problems) = check(&mut db)?;
    Ok(StoreHealth {
        path: path.to_owned(),
        file_bytes: size(path),
        wal_bytes: size(&path.with_extension("db-wal")),
        schema_version: db.pragma_query_value(None, "user_version", |row| row.get(0))?,
        workflows: count(&db, "SELECT count(*) FROM workflows")?,
        memories: count(&db, "SELECT count(*) FROM memories")?,
        ok: problems.is_empty(),
        complete,
        problems,
    })
}

fn count(db: &Connection, sql: &str) -> Result<u64, StoreError> {
    let count: i64 = db.query_row(sql, [], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// Looks at the whole file, or at what there is time for.
fn check(db: &mut Connection) -> Result<(bool, Vec<String>), StoreError> {
    let end = Instant::now() + CHECK_TIME;
    db.progress_handler(CHECK_STEPS, Some(move || Instant::now() >= end))?;
    let checked = db
        .prepare("PRAGMA quick_check(5)")
        .and_then(|mut statement| {
            let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
            lines.collect::<Result<Vec<_>, _>>()
        });
    db.progress_handler(0, None::<fn() -> bool>)?;
    match checked {
        Ok(lines) => Ok((
            true,
            lines.into_iter().filter(|line| line != "ok").collect(),
        )),
        Err(error)
            if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) =>
        {
            Ok((false, Vec::new()))
        }
        Err(error) => match StoreError::from(error) {
            StoreError::Damaged { detail } => Ok((true, vec![detail])),
            other => Err(other),
        },
    }
}

/// Removes a batch of the workflows that ended before `before`.
///
/// One with an item that has a worktree stays: its row is the only way to find that work again.
pub(super) fn prune_workflows(db: &Connection, before: At) -> Result<Vec<WorkflowId>, StoreError> {
    let mut statement = db.prepare_cached(
        "DELETE FROM workflows WHERE wf IN (
             SELECT wf FROM workflows
              WHERE updated_at_ms < ?1 AND queued + running = 0
                AND NOT EXISTS (SELECT 1 FROM items WHERE items.wf = workflows.wf
                                   AND json_extract(items.record, '$.worktree') IS NOT NULL)
              ORDER BY wf LIMIT ?2)
         RETURNING id",
    )?;
    let removed = statement.query_map(params![before.unix_ms(), PRUNE_BATCH], |row| {
        Ok(row.get::<_, Text<WorkflowId>>(0)?.0)
    })?;
    Ok(removed.collect::<Result<_, _>>()?)
}

/// Returns the instant `age` before now.
pub(super) fn ago(age: Duration) -> At {
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    At::from_unix_ms(At::now().unix_ms().saturating_sub(age))
}

/// Gives what was freed back to the disk, and empties the write-ahead log.
pub(super) fn shrink(db: &Connection) -> Result<(), StoreError> {
    db.execute_batch("PRAGMA incremental_vacuum")?;
    checkpoint(db).map(|_| ())
}

/// What became of the write-ahead log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Log {
    /// It is in the file, and empty itself.
    Empty,
    /// A reader still needs it.
    InUse,
}

/// Moves the write-ahead log into the file and cuts it to nothing, unless a reader still needs it.
pub(super) fn checkpoint(db: &Connection) -> Result<Log, StoreError> {
    let busy: i64 = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(if busy == 0 { Log::Empty } else { Log::InUse })
}
