//! Stores of the development versions before the first release: recognised, read for what must not be lost, refused.

use crate::store::StoreError;
use crate::store::query::Query;
use rusqlite::Connection;

/// The versions of their schema; the file has no mark of its own.
const VERSIONS: std::ops::RangeInclusive<i64> = 1..=7;

pub(super) fn is_one(db: &Connection, version: i64) -> Result<bool, StoreError> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name IN ('workflows', 'works', 'items')";
    let tables = db.first(sql, [], |row| row.get(0))?;
    Ok(VERSIONS.contains(&version) && tables == Some(3))
}

/// Returns the branches whose changes were not applied, each with its repository, as `REPO: BRANCH`.
pub(super) fn branches(db: &Connection) -> Result<Vec<String>, StoreError> {
    db.all(
        "SELECT repo || ': ' || json_extract(record, '$.branch') FROM items
          WHERE json_extract(record, '$.branch') IS NOT NULL AND json_extract(record, '$.applied') IS NULL
          ORDER BY wf, item",
        [],
        |row| row.get(0),
    )
}
