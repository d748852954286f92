//! Removing memories: for good when a person asks, by age when the config does. A peer's copy must not bring back
//! either, so what a peer may have leaves a tombstone.

use super::column::{Text, json_of};
use super::memory::Identity;
use super::upkeep::{self, Log};
use super::{Store, StoreError, memory};
use crate::model::{At, MemoryId, MemoryKind, NewMemory, PeerName, Work};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashSet;
use std::time::Duration;

/// How often and how long is waited for readers that keep the log in use: a server's own readers are done in a moment,
/// another program may take its time.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(200);

/// The sources whose memories are written here; all others are peers.
const OURS: &str = "('worker', 'remember')";

/// What became of a memory that was to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// Whether it was gone already, by an earlier call.
    pub before: bool,
    /// Peers that have a copy, or perhaps have: it was sent to them.
    pub peers: Vec<PeerName>,
    /// Whether the prompt or command of the attempt that it tells of stays in the journal, because other items or
    /// attempts of the workflow have it too.
    pub work_stays: bool,
}

impl Store {
    /// Removes a memory for good: from the tables, the full-text index, the file and its log. With an outcome goes what
    /// the journal keeps of the same attempt: output tail, cause, error, and the prompt where nobody else needs it. The
    /// attempt's log files are the caller's to remove. Returns nothing where there never was such a memory.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] where a reader keeps the log in use for 10 s: the memory is gone, but its text may still
    /// stand there; calling this again finishes it.
    ///
    /// # Cancel safety
    ///
    /// As the error: calling this again finishes it.
    pub async fn forget(&self, id: MemoryId) -> Result<Option<Forgotten>, StoreError> {
        let forgotten = self
            .write("forget a memory", move |db| forget(db, id))
            .await?;
        if forgotten.is_none() {
            return Ok(None);
        }
        for _ in 0..TRIES {
            match self.between("empty the log", upkeep::checkpoint).await? {
                Log::Empty => return Ok(forgotten),
                Log::InUse => tokio::time::sleep(PAUSE).await,
            }
        }
        Err(StoreError::Locked)
    }

    /// Returns which of `ids` a person has had forgotten.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn forgotten(&self, ids: Vec<MemoryId>) -> Result<HashSet<MemoryId>, StoreError> {
        self.read("look for what was forgotten", move |db| {
            let mut statement =
                db.prepare_cached("SELECT 1 FROM tombstones WHERE id = ?1 AND forgotten = 1")?;
            let mut found = HashSet::new();
            for id in ids {
                if statement.exists([Text(id)])? {
                    found.insert(id);
                }
            }
            Ok(found)
        })
        .await
    }
}

fn forget(db: &Connection, id: MemoryId) -> Result<Option<Forgotten>, StoreError> {
    let peers = peers_of(db, id)?;
    let place = place_of(db, id)?;
    let removed = remove(db, "id = ?1", [Text(id)], Why::Forgotten)?;
    if removed == 0 {
        let before = db
            .prepare_cached("SELECT 1 FROM tombstones WHERE id = ?1 AND forgotten = 1")?
            .exists([Text(id)])?;
        return Ok(before.then_some(Forgotten {
            before,
            peers,
            work_stays: false,
        }));
    }
    let work_stays = match place {
        Some(place) => !place.forget(db)?,
        None => false,
    };
    Ok(Some(Forgotten {
        before: false,
        peers,
        work_stays,
    }))
}

fn peers_of(db: &Connection, id: MemoryId) -> Result<Vec<PeerName>, StoreError> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT peer FROM outbox JOIN memories USING (m)
          WHERE id = ?1 AND (state IN ('sending', 'resting', 'acked') OR ask_first)
          UNION SELECT source FROM memories WHERE id = ?1 AND source NOT IN {OURS}"
    ))?;
    let found = statement.query_map([Text(id)], |row| row.get::<_, String>(0))?;
    found.map(|name| Ok(PeerName::new(name?))).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Forgotten,
    Expired,
}

/// Removes the memories that fit `condition` and returns how many; leaves a tombstone for each that is forgotten, and for
/// each that expires and a peer may have.
fn remove(
    db: &Connection,
    condition: &str,
    values: impl rusqlite::Params + Copy,
    why: Why,
) -> Result<usize, StoreError> {
    // The words of a removed memory are taken out of the index, so they must be in it.
    memory::index_new(db)?;
    let (all, flag) = match why {
        Why::Forgotten => ("1", 1),
        Why::Expired => ("0", 0),
    };
    db.prepare_cached(&format!(
        "INSERT INTO tombstones (id, identity, forgotten)
         SELECT id, iif(source IN {OURS}, NULL, identity), {flag} FROM memories
          WHERE {condition} AND ({all} OR source NOT IN {OURS}
                OR EXISTS (SELECT 1 FROM outbox WHERE outbox.m = memories.m))
         ON CONFLICT (id) DO UPDATE SET forgotten = max(forgotten, excluded.forgotten)"
    ))?
    .execute(values)?;
    let removed = db
        .prepare_cached(&format!("DELETE FROM memories WHERE {condition}"))?
        .execute(values)?;
    Ok(removed)
}

/// Returns whether any memory has a tombstone.
pub(super) fn any_buried(db: &Connection) -> Result<bool, StoreError> {
    Ok(db.prepare_cached("SELECT 1 FROM tombstones")?.exists([])?)
}

/// Returns the id of a memory that was removed here and that a peer now tells again.
pub(super) fn buried(
    db: &Connection,
    new: &NewMemory,
    identity: &Identity,
) -> Result<Option<MemoryId>, StoreError> {
    let found = match new.marker {
        Some(marker) => db
            .prepare_cached("SELECT id FROM tombstones WHERE id = ?1")?
            .query_row([Text(marker)], |row| row.get::<_, Text<MemoryId>>(0)),
        None => db
            .prepare_cached("SELECT id FROM tombstones WHERE identity = ?1")?
            .query_row([identity], |row| row.get(0)),
    };
    Ok(found.optional()?.map(|id| id.0))
}

/// The attempt that an outcome tells of.
struct Place {
    wf: i64,
    workflow: String,
    item: u32,
    attempt: u32,
}

fn place_of(db: &Connection, id: MemoryId) -> Result<Option<Place>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT wf, workflow, item, attempt FROM memories JOIN workflows ON workflows.id = memories.workflow
          WHERE memories.id = ?1 AND kind = 'outcome' AND item IS NOT NULL AND attempt IS NOT NULL",
    )?;
    let place = statement.query_row([Text(id)], |row| {
        Ok(Place {
            wf: row.get(0)?,
            workflow: row.get(1)?,
            item: row.get(2)?,
            attempt: row.get(3)?,
        })
    });
    Ok(place.optional()?)
}

impl Place {
    /// Removes from the journal what the outcome told; returns whether that includes the prompt.
    fn forget(&self, db: &Connection) -> Result<bool, StoreError> {
        for table in ["items", "attempts"] {
            db.prepare_cached(&format!(
                "UPDATE {table} SET record = json_remove(record, '$.output_tail', '$.verify.output_tail', '$.cause', '$.error')
                  WHERE wf = ?1 AND item = ?2 AND attempt = ?3"
            ))?
            .execute(params![self.wf, self.item, self.attempt])?;
        }
        self.forget_work(db)
    }

    /// Removes the prompt, unless the workflow goes on, an outcome of another item or attempt tells it too, or another
    /// item may be resumed with it. Returns whether it is gone.
    fn forget_work(&self, db: &Connection) -> Result<bool, StoreError> {
        let gone = json_of("a task", &Work::forgotten())?;
        let changed = db
            .prepare_cached(
                "UPDATE works SET json = ?4
                  WHERE work = (SELECT work FROM items WHERE wf = ?1 AND item = ?2)
                    AND (SELECT planned + queued + running FROM workflows WHERE wf = ?1) = 0
                    AND NOT EXISTS (SELECT 1 FROM items WHERE wf = ?1 AND items.work = works.work
                         AND ((item <> ?2 AND state <> 'succeeded')
                              OR EXISTS (SELECT 1 FROM memories WHERE kind = 'outcome' AND workflow = ?3
                                            AND memories.item = items.item)))",
            )?
            .execute(params![self.wf, self.item, self.workflow, gone])?;
        if changed == 0 {
            return Ok(false);
        }
        db.prepare_cached(
            "UPDATE workflows SET record = json_set(record, '$.title', ?2) WHERE wf = ?1
                AND NOT EXISTS (SELECT 1 FROM works WHERE wf = ?1 AND json <> ?3)",
        )?
        .execute(params![self.wf, Work::FORGOTTEN_TITLE, gone])?;
        Ok(true)
    }
}

/// Removes a batch of the memories of these kinds that are older than `before`; what a peer is still to get stays.
pub(super) fn prune(
    db: &Connection,
    kinds: &[MemoryKind],
    before: At,
    batch: u32,
) -> Result<u32, StoreError> {
    const OLD: &str = "m IN (
         SELECT m FROM memories
          WHERE created_at_ms < ?1 AND kind IN (SELECT value FROM json_each(?2))
            AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.m = memories.m AND state <> 'acked')
          ORDER BY created_at_ms, m LIMIT ?3)";
    let kinds: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
    let kinds = json_of("a query", &kinds)?;
    let before = before.unix_ms();
    let removed = remove(db, OLD, params![before, kinds, batch], Why::Expired)?;
    Ok(u32::try_from(removed).unwrap_or(u32::MAX))
}
