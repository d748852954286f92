//! The outbox: what is to be sent to a peer, at-least-once, with the memory's id as the marker by which the peer can be
//! asked for it.
//!
//! An entry is written in the transaction that stores its memory. One server at a time sends to a peer (the one that
//! holds the peer's lock): it leases entries, which are `sending` from then on, and reports how each went. Entries that
//! are `sending` when a sender begins were leased by a dead one, so their outcome is unclear.

use super::column::Json;
use super::memory_row::{COLUMNS, memory_of};
use super::query::Query;
use super::{Store, StoreError};
use crate::model::{
    At, DeadLetter, MemoryId, OutboxCounts, OutboxEntry, PeerName, PoolName, SendFailure,
};
use rusqlite::{Connection, Params, params};
use std::time::Duration;

/// No entry rests or waits for its next try as long as this. One that is due later was written while the clock was
/// ahead, and is due at once.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

impl Store {
    /// Puts every memory since `since` that is not in this peer's outbox into it; returns how many.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn backfill(&self, peer: PeerName, since: Option<At>) -> Result<u64, StoreError> {
        self.write("fill the outbox", move |db| {
            let since = since.map_or(i64::MIN, At::unix_ms);
            let added = db.run(
                "INSERT OR IGNORE INTO outbox (peer, m, state, due_at_ms, changed_at_ms, attempts, ask_first)
                 SELECT ?1, m, 'pending', ?2, ?2, 0, 0 FROM memories
                  WHERE source <> ?1 AND created_at_ms >= ?3 ORDER BY m",
                params![peer, At::now(), since],
            );
            added.map(u64::from)
        })
        .await
    }

    /// Leases up to `limit` due entries for sending, oldest first. The caller holds the peer's lock.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn take_outbox(
        &self,
        peer: PeerName,
        limit: u32,
    ) -> Result<Vec<OutboxEntry>, StoreError> {
        self.write("take from the outbox", move |db| take(db, &peer, limit))
            .await
    }

    /// Returns when the next entry is due, for the sender's sleep; in the past where one is due already.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn next_due(&self, peer: PeerName) -> Result<Option<At>, StoreError> {
        self.read("look into the outbox", move |db| {
            // Two lookups in the partial index, which the literal condition makes usable.
            let due = db.first(
                "SELECT min(due) FROM (
                     SELECT min(due_at_ms) AS due FROM outbox WHERE peer = ?1 AND state = 'pending' AND state <> 'acked'
                     UNION ALL
                     SELECT min(due_at_ms) FROM outbox WHERE peer = ?1 AND state = 'resting' AND state <> 'acked')",
                [peer],
                |row| row.get::<_, Option<At>>(0),
            );
            let now = At::now();
            Ok(due?.flatten().map(|due| if due > now.plus(LONGEST_WAIT) { now } else { due }))
        })
        .await
    }

    /// Notes that the peer has these memories, however that became known; returns of how many that is new.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn ack_outbox(&self, peer: PeerName, ids: Vec<MemoryId>) -> Result<u32, StoreError> {
        self.write("acknowledge memories", move |db| {
            set(
                db,
                &peer,
                &ids,
                "state = 'acked', ask_first = 0, error = NULL",
                "state <> 'acked'",
            )
        })
        .await
    }

    /// Notes that a leased entry was not sent, or perhaps was.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn fail_outbox(
        &self,
        peer: PeerName,
        id: MemoryId,
        failure: SendFailure,
    ) -> Result<(), StoreError> {
        self.write("note a failed delivery", move |db| {
            fail(db, &peer, id, &failure)
        })
        .await
    }

    /// Lets what a dead sender left half sent rest until `until`; to be called with the peer's lock, before the first
    /// [`Self::take_outbox`]. Returns how many entries there were.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn reclaim_outbox(&self, peer: PeerName, until: At) -> Result<u32, StoreError> {
        self.write("reclaim the outbox", move |db| {
            db.run(
                "UPDATE outbox SET state = 'resting', ask_first = 1, due_at_ms = ?2, changed_at_ms = ?3,
                     error = 'the sender ended before the answer'
                  WHERE peer = ?1 AND state = 'sending'",
                params![peer, until, At::now()],
            )
        })
        .await
    }

    /// Ends all rests, because the peer has restarted: nothing sent before can arrive any more.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn wake_outbox(&self, peer: PeerName) -> Result<u32, StoreError> {
        self.write("wake the outbox", move |db| {
            db.run(
                "UPDATE outbox SET due_at_ms = ?2 WHERE peer = ?1 AND state = 'resting'",
                params![peer, At::now()],
            )
        })
        .await
    }

    /// Counts the peer's entries by state.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn outbox_counts(&self, peer: PeerName) -> Result<OutboxCounts, StoreError> {
        self.read("count the outbox", move |db| {
            let sql = "SELECT state, count(*) FROM outbox WHERE peer = ?1 GROUP BY state";
            counts(db, sql, [peer])
        })
        .await
    }

    /// Counts by state those of `ids` that are in the peer's outbox.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn outbox_counts_of(
        &self,
        peer: PeerName,
        ids: Vec<MemoryId>,
    ) -> Result<OutboxCounts, StoreError> {
        self.read("count the outbox", move |db| {
            counts(
                db,
                "SELECT state, count(*) FROM json_each(?2) CROSS JOIN memories ON memories.id = json_each.value
                   JOIN outbox ON outbox.peer = ?1 AND outbox.m = memories.m GROUP BY state",
                params![peer, Json(ids)],
            )
        })
        .await
    }

    /// Returns what the peer refused for good, newest first.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn dead_letters(
        &self,
        peer: PeerName,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        self.read("list dead letters", move |db| {
            db.all(
                "SELECT id, coalesce(error, ''), attempts, changed_at_ms FROM outbox JOIN memories USING (m)
                  WHERE peer = ?1 AND state = 'dead' ORDER BY changed_at_ms DESC, entry DESC LIMIT ?2",
                params![peer, limit],
                |row| {
                    Ok(DeadLetter {
                        id: row.get(0)?,
                        error: row.get(1)?,
                        attempts: row.get(2)?,
                        at: row.get(3)?,
                    })
                },
            )
        })
        .await
    }

    /// Makes all dead letters due again; returns which.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn requeue_dead(&self, peer: PeerName) -> Result<Vec<MemoryId>, StoreError> {
        self.write("send dead letters again", move |db| {
            db.all(
                "UPDATE outbox SET state = 'pending', due_at_ms = ?2, changed_at_ms = ?2, attempts = 0
                  WHERE peer = ?1 AND state = 'dead'
                  RETURNING (SELECT id FROM memories WHERE memories.m = outbox.m)",
                params![peer, At::now()],
                |row| row.get(0),
            )
        })
        .await
    }

    /// Gives back what was leased and not sent, in one step; returns how many. Never sent, it counts as no attempt.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn give_back_outbox(
        &self,
        peer: PeerName,
        ids: Vec<MemoryId>,
    ) -> Result<u32, StoreError> {
        self.write("give back to the outbox", move |db| {
            set(
                db,
                &peer,
                &ids,
                "state = 'pending', attempts = attempts - 1, due_at_ms = ?3",
                "state = 'sending'",
            )
        })
        .await
    }

    /// Returns whether the peer has acknowledged anything, which it then may have lost.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn has_acked(&self, peer: PeerName) -> Result<bool, StoreError> {
        self.read("look for what was sent", move |db| {
            let sql = "SELECT 1 FROM outbox WHERE peer = ?1 AND state = 'acked'";
            db.any(sql, [peer])
        })
        .await
    }

    /// Returns a page of what the peer acknowledged, each with its pool, in the order of the ids, to compare with what
    /// it has.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn acked(
        &self,
        peer: PeerName,
        after: Option<MemoryId>,
        limit: u32,
    ) -> Result<Vec<(MemoryId, PoolName)>, StoreError> {
        self.read("list what was sent", move |db| {
            db.all(
                "SELECT id, pool FROM memories JOIN outbox USING (m)
                  WHERE peer = ?1 AND state = 'acked' AND id > coalesce(?2, '') ORDER BY id LIMIT ?3",
                params![peer, after, limit],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
        })
        .await
    }

    /// Makes entries pending again that the peer acknowledged and lost; returns how many.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn mark_lost(&self, peer: PeerName, ids: Vec<MemoryId>) -> Result<u32, StoreError> {
        self.write("send lost memories again", move |db| {
            // Asked for again before it is sent: a listing can be older than it looks.
            set(
                db,
                &peer,
                &ids,
                "state = 'pending', ask_first = 1, due_at_ms = ?3, error = 'the peer lost it'",
                "state = 'acked'",
            )
        })
        .await
    }
}

/// Adds an entry for `peer`, unless the memory came from it.
pub(super) fn enqueue(
    db: &Connection,
    peer: Option<&PeerName>,
    source: &str,
    m: i64,
) -> Result<(), StoreError> {
    if let Some(peer) = peer.filter(|peer| peer.as_str() != source) {
        db.run(
            "INSERT OR IGNORE INTO outbox (peer, m, state, due_at_ms, changed_at_ms, attempts, ask_first)
             VALUES (?1, ?2, 'pending', ?3, ?3, 0, 0)",
            params![peer, m, At::now()],
        )?;
    }
    Ok(())
}

fn take(db: &Connection, peer: &PeerName, limit: u32) -> Result<Vec<OutboxEntry>, StoreError> {
    let now = At::now();
    let sql = format!(
        "SELECT {COLUMNS}, entry, ask_first, attempts FROM outbox JOIN memories USING (m)
          WHERE entry IN (SELECT entry FROM outbox
                           WHERE peer = ?1 AND state IN ('pending', 'resting') AND (due_at_ms <= ?2 OR due_at_ms > ?3)
                           ORDER BY due_at_ms, entry LIMIT ?4)
          ORDER BY due_at_ms, entry"
    );
    let values = params![peer, now, now.plus(LONGEST_WAIT), limit];
    let found = db.all(&sql, values, |row| {
        let entry = OutboxEntry {
            memory: memory_of(row)?,
            ask_first: row.get("ask_first")?,
            attempts: row.get("attempts")?,
        };
        Ok((row.get::<_, i64>("entry")?, entry))
    })?;
    for (entry, _) in &found {
        db.run(
            "UPDATE outbox SET state = 'sending', attempts = attempts + 1, changed_at_ms = ?2 WHERE entry = ?1",
            params![entry, now],
        )?;
    }
    Ok(found.into_iter().map(|(_, entry)| entry).collect())
}

fn set(
    db: &Connection,
    peer: &PeerName,
    ids: &[MemoryId],
    change: &str,
    condition: &str,
) -> Result<u32, StoreError> {
    let sql = format!(
        "UPDATE outbox SET {change}, changed_at_ms = ?3
          WHERE m = (SELECT m FROM memories WHERE id = ?1) AND peer = ?2 AND {condition}"
    );
    let now = At::now();
    let mut changed = 0;
    for id in ids {
        changed += db.run(&sql, params![id, peer, now])?;
    }
    Ok(changed)
}

fn fail(
    db: &Connection,
    peer: &PeerName,
    id: MemoryId,
    failure: &SendFailure,
) -> Result<(), StoreError> {
    let now = At::now();
    let (state, due, unclear, error) = match failure {
        SendFailure::Unclear { until, error } => ("resting", *until, true, error),
        SendFailure::Retry { at, error } => ("pending", *at, false, error),
        SendFailure::Dead { error } => ("dead", now, false, error),
    };
    db.run(
        "UPDATE outbox SET state = ?3, due_at_ms = ?4, ask_first = ask_first OR ?5, error = ?6, changed_at_ms = ?7
          WHERE m = (SELECT m FROM memories WHERE id = ?1) AND peer = ?2 AND state = 'sending'",
        params![id, peer, state, due, unclear, error, now],
    )?;
    Ok(())
}

fn counts(db: &Connection, sql: &str, values: impl Params) -> Result<OutboxCounts, StoreError> {
    let mut counts = OutboxCounts::default();
    let rows = db.all(sql, values, |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
    })?;
    for (state, count) in rows {
        let slot = match state.as_str() {
            "pending" => &mut counts.pending,
            "sending" => &mut counts.sending,
            "resting" => &mut counts.resting,
            "acked" => &mut counts.acked,
            "dead" => &mut counts.dead,
            other => return Err(StoreError::decode("an outbox entry", other)),
        };
        *slot = count.unsigned_abs();
    }
    Ok(counts)
}
