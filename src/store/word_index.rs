//! The full-text index of memories: kept up to date at the end of each transaction.

use super::StoreError;
use super::query::Query;
use rusqlite::Connection;

/// Puts the words of new memories into the index. New are those behind the last indexed one, because keys only grow.
/// Every transaction ends with this.
///
/// All at once, because FTS5 writes what it has gathered as a segment of its own at every savepoint, which triggers and
/// `RETURNING` have too, and merging segments takes longer than all the rest.
pub(super) fn index_new(db: &Connection) -> Result<(), StoreError> {
    let ends = db.first(
        "SELECT coalesce((SELECT max(id) FROM memories_fts_docsize), 0), coalesce((SELECT max(m) FROM memories), 0)",
        [],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
    )?;
    if let Some((indexed, last)) = ends
        && indexed < last
    {
        db.run(
            "INSERT INTO memories_fts (rowid, text, tags, repo)
             SELECT m, text, tags, repo FROM memories WHERE m > ?1 ORDER BY m",
            [indexed],
        )?;
    }
    Ok(())
}
