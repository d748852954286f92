//! Removing memories: for good when a person asks, by age when the config does. A peer's copy must not bring back either,
//! so a memory that a peer may have leaves a tombstone.

use super::column::Json;
use super::query::Query;
use super::{Store, StoreError, wal, word_index};
use crate::model::{MemoryId, PeerName, Work, WorkflowId};
use rusqlite::{Connection, Params, params};
use std::collections::HashSet;
use std::time::Duration;

/// How often and how long to wait for readers that keep the log in use: a server's own readers are done in a moment,
/// another program may take longer.
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
    /// Whether the prompt or command of the attempt that it is about stays in the journal, because other items or
    /// attempts of the workflow have it too.
    pub work_stays: bool,
}

impl Store {
    /// Removes a memory for good: from the tables, the full-text index, the file and its log. With an outcome goes what
    /// the journal keeps of the same attempt: output tail, cause, error, and the prompt where no other item needs it. The
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
            if self.between("empty the log", wal::truncate).await? {
                return Ok(forgotten);
            }
            tokio::time::sleep(PAUSE).await;
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
            let mut found = HashSet::new();
            for id in ids {
                if was_forgotten(db, id)? {
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
    if remove(db, "id = ?1", [id], Why::Forgotten)? == 0 {
        return Ok(was_forgotten(db, id)?.then_some(Forgotten {
            before: true,
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

fn was_forgotten(db: &Connection, id: MemoryId) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM tombstones WHERE id = ?1 AND forgotten = 1";
    db.any(sql, [id])
}

fn peers_of(db: &Connection, id: MemoryId) -> Result<Vec<PeerName>, StoreError> {
    let sql = format!(
        "SELECT peer FROM outbox JOIN memories USING (m)
          WHERE id = ?1 AND (state IN ('sending', 'resting', 'acked') OR ask_first)
          UNION SELECT source FROM memories WHERE id = ?1 AND source NOT IN {OURS}"
    );
    db.all(&sql, [id], |row| row.get(0))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Forgotten,
    Expired,
}

/// Removes the memories that fit `condition` and returns how many; leaves a tombstone for each that is forgotten, and for
/// each that expires and a peer may have.
pub(super) fn remove(
    db: &Connection,
    condition: &str,
    values: impl Params + Copy,
    why: Why,
) -> Result<u32, StoreError> {
    // The words of a removed memory are taken out of the index, so they must be in it.
    word_index::index_new(db)?;
    let forgotten = u8::from(why == Why::Forgotten);
    let bury = format!(
        "INSERT INTO tombstones (id, identity, forgotten)
         SELECT id, iif(source IN {OURS}, NULL, identity), {forgotten} FROM memories
          WHERE {condition} AND ({forgotten} OR source NOT IN {OURS}
                OR EXISTS (SELECT 1 FROM outbox WHERE outbox.m = memories.m))
         ON CONFLICT (id) DO UPDATE SET forgotten = max(forgotten, excluded.forgotten)"
    );
    db.run(&bury, values)?;
    db.run(&format!("DELETE FROM memories WHERE {condition}"), values)
}

/// The attempt that an outcome is about.
struct Place {
    wf: i64,
    workflow: WorkflowId,
    item: u32,
    attempt: u32,
}

fn place_of(db: &Connection, id: MemoryId) -> Result<Option<Place>, StoreError> {
    db.first(
        "SELECT wf, workflow, item, attempt FROM memories JOIN workflows ON workflows.id = memories.workflow
          WHERE memories.id = ?1 AND kind = 'outcome' AND item IS NOT NULL AND attempt IS NOT NULL",
        [id],
        |row| {
            Ok(Place {
                wf: row.get(0)?,
                workflow: row.get(1)?,
                item: row.get(2)?,
                attempt: row.get(3)?,
            })
        },
    )
}

impl Place {
    /// Removes from the journal what the outcome repeats; returns whether that includes the prompt.
    fn forget(&self, db: &Connection) -> Result<bool, StoreError> {
        for table in ["items", "attempts"] {
            let sql = format!(
                "UPDATE {table} SET record = json_remove(record, '$.output_tail', '$.verify.output_tail', '$.cause', '$.error')
                  WHERE wf = ?1 AND item = ?2 AND attempt = ?3"
            );
            db.run(&sql, params![self.wf, self.item, self.attempt])?;
        }
        self.forget_work(db)
    }

    /// Removes the prompt, unless the workflow goes on, an outcome of another item or attempt repeats it, or another
    /// item may be resumed with it. Returns whether it is gone.
    fn forget_work(&self, db: &Connection) -> Result<bool, StoreError> {
        let gone = Work::forgotten();
        let changed = db.run(
            "UPDATE works SET json = ?4
              WHERE work = (SELECT work FROM items WHERE wf = ?1 AND item = ?2)
                AND (SELECT planned + queued + running FROM workflows WHERE wf = ?1) = 0
                AND NOT EXISTS (SELECT 1 FROM items WHERE wf = ?1 AND items.work = works.work
                     AND ((item <> ?2 AND state <> 'succeeded')
                          OR EXISTS (SELECT 1 FROM memories WHERE kind = 'outcome' AND workflow = ?3
                                        AND memories.item = items.item)))",
            params![self.wf, self.item, self.workflow, Json(&gone)],
        )?;
        if changed == 0 {
            return Ok(false);
        }
        db.run(
            "UPDATE workflows SET title = ?2 WHERE wf = ?1
                AND NOT EXISTS (SELECT 1 FROM works WHERE wf = ?1 AND json <> ?3)",
            params![self.wf, Work::FORGOTTEN_TITLE, Json(&gone)],
        )?;
        Ok(true)
    }
}
