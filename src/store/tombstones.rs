//! Tombstones: what must not come back by a peer's listing.

use super::StoreError;
use super::query::Query;
use crate::model::{MemoryId, NewMemory};
use rusqlite::{Connection, Row};

/// The memories that were removed here and that a peer may still have.
pub(super) struct Tombstones {
    any: bool,
}

impl Tombstones {
    /// Looks whether there are any, which mostly spares a lookup for each memory.
    pub(super) fn load(db: &Connection) -> Result<Self, StoreError> {
        let any = db.any("SELECT 1 FROM tombstones", [])?;
        Ok(Self { any })
    }

    /// Returns the id of `new`, where it is a removed memory that a peer now lists again.
    pub(super) fn of(
        &self,
        db: &Connection,
        new: &NewMemory,
        identity: &[u8; 32],
    ) -> Result<Option<MemoryId>, StoreError> {
        let id = |row: &Row<'_>| row.get(0);
        match new.marker {
            _ if !self.any => Ok(None),
            Some(marker) => db.first("SELECT id FROM tombstones WHERE id = ?1", [marker], id),
            None => db.first(
                "SELECT id FROM tombstones WHERE identity = ?1",
                [identity],
                id,
            ),
        }
    }
}
