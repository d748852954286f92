//! The store's figures and its integrity.

use super::locks::Owners;
use super::query::Query;
use super::{Store, StoreError};
use rusqlite::{Connection, ErrorCode};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An integrity check stops after this, incomplete.
const CHECK_TIME: Duration = Duration::from_secs(5);
/// Virtual machine steps of SQLite between two looks at the clock.
const CHECK_STEPS: i32 = 10_000;

/// The state of the store.
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
    /// Whether the whole file was checked in the time there was.
    pub complete: bool,
    /// What is wrong, a few lines at most.
    pub problems: Vec<String>,
}

impl Store {
    /// Returns the store's figures and looks for damage, for some seconds at most.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening; damage that is found is a result.
    pub async fn integrity(&self) -> Result<StoreHealth, StoreError> {
        let (files, owners) = (self.inner.files.clone(), Arc::clone(&self.inner.owners));
        // On a connection of its own, because the clock that stops the check is a part of it.
        self.read("check the store", move |_| {
            health(files.reader()?, files.database(), &owners)
        })
        .await
    }
}

fn health(mut db: Connection, path: &Path, owners: &Owners) -> Result<StoreHealth, StoreError> {
    let size = |path: &Path| path.metadata().map_or(0, |file| file.len());
    let (complete, mut problems) = check(&mut db)?;
    if problems.is_empty() {
        problems = lost_locks(&db, owners)?;
    }
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

/// Names the lock files that were removed although their servers may still run items.
fn lost_locks(db: &Connection, owners: &Owners) -> Result<Vec<String>, StoreError> {
    let servers = db.all(
        "SELECT DISTINCT owner FROM workflows WHERE queued + running > 0",
        [],
        |row| row.get(0),
    )?;
    let lost = servers
        .into_iter()
        .filter(|&owner| owners.is_missing(owner));
    let problems = lost.map(|owner| {
        let path = owners.file(owner);
        format!(
            "the lock file {} was removed, so its server may still run items; once no mahavishnu runs, make the \
             file again, empty, and the items can be resumed",
            path.display()
        )
    });
    Ok(problems.collect())
}

fn count(db: &Connection, sql: &str) -> Result<u64, StoreError> {
    let count = db.first(sql, [], |row| row.get::<_, i64>(0))?;
    Ok(count.unwrap_or_default().unsigned_abs())
}

/// Checks the whole file, or as much as there is time for.
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
        Ok(mut lines) => {
            lines.retain(|line| line != "ok");
            Ok((true, lines))
        }
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            Ok((false, Vec::new()))
        }
        Err(error) => match StoreError::from(error) {
            StoreError::Damaged { detail } => Ok((true, vec![detail])),
            other => Err(other),
        },
    }
}
