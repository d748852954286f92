//! The write-ahead log: how large it may grow, and moving it into the database.

use super::StoreError;
use rusqlite::Connection;

/// After a checkpoint the log's file is cut to this. The log is moved into the database at every 1,000 pages (SQLite's
/// default), about 4 MiB, so that it is longer only while a reader is at work or for one large transaction.
const KEPT_BYTES: i64 = 1 << 20;

/// Sets the log's bound on the connection that writes.
pub(super) fn limit(db: &Connection) -> Result<(), StoreError> {
    Ok(db.pragma_update(None, "journal_size_limit", KEPT_BYTES)?)
}

/// Moves the log into the database and cuts it to nothing; returns whether it could. A reader that still needs it
/// prevents that.
pub(super) fn truncate(db: &Connection) -> Result<bool, StoreError> {
    let busy: i64 = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(busy == 0)
}
