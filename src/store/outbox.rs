//! What is on its way to a peer: at-least-once, with the memory's id as the marker that the peer can be asked for.
//!
//! An entry is written in the transaction that stores its memory. One server at a time sends to a peer (the peer's
//! lock); it takes entries, which then are `sending`, and says how each went. Whatever is `sending` when a sender
//! begins was left by a dead one, and its outcome is unclear.

use super::StoreError;
use super::column::{Text, json_of};
use super::memory::{COLUMNS, memory_of};
use crate::model::{
    At, DeadLetter, MemoryId, OutboxCounts, OutboxEntry, PeerName, PoolName, SendFailure,
};
use rusqlite::{Connection, params};

pub(super) fn enqueue(db: &Connection, peer: &PeerName, m: i64) -> Result<(), StoreError> {
    let now = At::now().unix_ms();
    db.prepare_cached(
        "INSERT OR IGNORE INTO outbox (peer, m, state, due_at_ms, changed_at_ms, attempts, ask_first)
         VALUES (?1, ?2, 'pending', ?3, ?3, 0, 0)",
    )?
    .execute(params![peer.as_str(), m, now])?;
    Ok(())
}

pub(super) fn backfill(
    db: &Connection,
    peer: &PeerName,
    since: Option<At>,
) -> Result<u64, StoreError> {
    let added = db
        .prepare_cached(
            "INSERT OR IGNORE INTO outbox (peer, m, state, due_at_ms, changed_at_ms, attempts, ask_first)
             SELECT ?1, m, 'pending', ?2, ?2, 0, 0 FROM memories
              WHERE source <> ?1 AND created_at_ms >= ?3 ORDER BY m",
        )?
        .execute(params![
            peer.as_str(),
            At::now().unix_ms(),
            since.map_or(i64::MIN, At::unix_ms)
        ])?;
    Ok(added as u64)
}

/// Leases what is due, oldest first.
pub(super) fn take(
    db: &Connection,
    peer: &PeerName,
    limit: u32,
) -> Result<Vec<OutboxEntry>, StoreError> {
    let now = At::now().unix_ms();
    let mut statement = db.prepare_cached(&format!(
        "SELECT {COLUMNS}, entry, ask_first, attempts FROM outbox JOIN memories USING (m)
          WHERE peer = ?1 AND state IN ('pending', 'resting') AND due_at_ms <= ?2
          ORDER BY due_at_ms, entry LIMIT ?3"
    ))?;
    let found = statement.query_map(params![peer.as_str(), now, limit], |row| {
        let entry = OutboxEntry {
            memory: memory_of(row)?,
            ask_first: row.get("ask_first")?,
            attempts: row.get("attempts")?,
        };
        Ok((row.get::<_, i64>("entry")?, entry))
    })?;
    let found = found.collect::<Result<Vec<_>, _>>()?;
    let mut lease = db.prepare_cached(
        "UPDATE outbox SET state = 'sending', attempts = attempts + 1, changed_at_ms = ?2 WHERE entry = ?1",
    )?;
    for (entry, _) in &found {
        lease.execute(params![entry, now])?;
    }
    Ok(found.into_iter().map(|(_, entry)| entry).collect())
}

pub(super) fn has_due(db: &Connection, peer: &PeerName) -> Result<bool, StoreError> {
    Ok(next_due(db, peer)?.is_some_and(|due| due <= At::now()))
}

pub(super) fn next_due(db: &Connection, peer: &PeerName) -> Result<Option<At>, StoreError> {
    let due: Option<i64> = db
        .prepare_cached(
            "SELECT min(due) FROM (
                 SELECT min(due_at_ms) AS due FROM outbox WHERE peer = ?1 AND state = 'pending' AND state <> 'acked'
                 UNION ALL
                 SELECT min(due_at_ms) FROM outbox WHERE peer = ?1 AND state = 'resting' AND state <> 'acked')",
        )?
        .query_row([peer.as_str()], |row| row.get(0))?;
    Ok(due.map(At::from_unix_ms))
}

/// Notes that the peer has these; returns of how many that was not known.
pub(super) fn ack(db: &Connection, peer: &PeerName, ids: &[MemoryId]) -> Result<u32, StoreError> {
    set(
        db,
        peer,
        ids,
        "state = 'acked', ask_first = 0, error = NULL",
        "state <> 'acked'",
    )
}

/// Moves entries that the peer acknowledged and does not have any more back to where they are sent from.
pub(super) fn mark_lost(
    db: &Connection,
    peer: &PeerName,
    ids: &[MemoryId],
) -> Result<u32, StoreError> {
    // Asked for again before it is sent: a listing can be older than it looks.
    set(
        db,
        peer,
        ids,
        "state = 'pending', ask_first = 1, due_at_ms = ?3, error = 'the peer lost it'",
        "state = 'acked'",
    )
}

fn set(
    db: &Connection,
    peer: &PeerName,
    ids: &[MemoryId],
    change: &str,
    condition: &str,
) -> Result<u32, StoreError> {
    let mut statement = db.prepare_cached(&format!(
        "UPDATE outbox SET {change}, changed_at_ms = ?3
          WHERE m = (SELECT m FROM memories WHERE id = ?1) AND peer = ?2 AND {condition}"
    ))?;
    let now = At::now().unix_ms();
    let mut changed = 0;
    for &id in ids {
        changed += statement.execute(params![Text(id), peer.as_str(), now])?;
    }
    Ok(u32::try_from(changed).unwrap_or(u32::MAX))
}

pub(super) fn fail(
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
    db.prepare_cached(
        "UPDATE outbox SET state = ?3, due_at_ms = ?4, ask_first = ask_first OR ?5, error = ?6, changed_at_ms = ?7
          WHERE m = (SELECT m FROM memories WHERE id = ?1) AND peer = ?2 AND state = 'sending'",
    )?
    .execute(params![
        Text(id),
        peer.as_str(),
        state,
        due.unix_ms(),
        unclear,
        error,
        now.unix_ms()
    ])?;
    Ok(())
}

pub(super) fn has_sending(db: &Connection, peer: &PeerName) -> Result<bool, StoreError> {
    Ok(db
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM outbox WHERE peer = ?1 AND state = 'sending' AND state <> 'acked')",
        )?
        .query_row([peer.as_str()], |row| row.get(0))?)
}

/// Lets what a dead sender left rest until `until`: nobody knows whether the peer has it.
pub(super) fn reclaim(db: &Connection, peer: &PeerName, until: At) -> Result<u32, StoreError> {
    let changed = db
        .prepare_cached(
            "UPDATE outbox SET state = 'resting', ask_first = 1, due_at_ms = ?2, changed_at_ms = ?3,
                 error = 'the sender ended before the answer'
              WHERE peer = ?1 AND state = 'sending'",
        )?
        .execute(params![peer.as_str(), until.unix_ms(), At::now().unix_ms()])?;
    Ok(u32::try_from(changed).unwrap_or(u32::MAX))
}

/// Ends all rests: the peer has restarted, so that nothing of before can still arrive.
pub(super) fn wake(db: &Connection, peer: &PeerName) -> Result<u32, StoreError> {
    let changed = db
        .prepare_cached("UPDATE outbox SET due_at_ms = ?2 WHERE peer = ?1 AND state = 'resting'")?
        .execute(params![peer.as_str(), At::now().unix_ms()])?;
    Ok(u32::try_from(changed).unwrap_or(u32::MAX))
}

pub(super) fn requeue_dead(db: &Connection, peer: &PeerName) -> Result<u32, StoreError> {
    let changed = db
        .prepare_cached(
            "UPDATE outbox SET state = 'pending', due_at_ms = ?2, changed_at_ms = ?2, attempts = 0
              WHERE peer = ?1 AND state = 'dead'",
        )?
        .execute(params![peer.as_str(), At::now().unix_ms()])?;
    Ok(u32::try_from(changed).unwrap_or(u32::MAX))
}

pub(super) fn dead_letters(
    db: &Connection,
    peer: &PeerName,
    limit: u32,
) -> Result<Vec<DeadLetter>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT id, error, attempts, changed_at_ms FROM outbox JOIN memories USING (m)
          WHERE peer = ?1 AND state = 'dead' ORDER BY changed_at_ms DESC, entry DESC LIMIT ?2",
    )?;
    let found = statement.query_map(params![peer.as_str(), limit], |row| {
        Ok(DeadLetter {
            id: row.get::<_, Text<MemoryId>>(0)?.0,
            error: row.get::<_, Option<String>>(1)?.unwrap_or_default(),
            attempts: row.get(2)?,
            at: At::from_unix_ms(row.get(3)?),
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

pub(super) fn counts(db: &Connection, peer: &PeerName) -> Result<OutboxCounts, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT state, count(*) FROM outbox WHERE peer = ?1 GROUP BY state")?;
    counts_in(statement.query([peer.as_str()])?)
}

pub(super) fn counts_of(
    db: &Connection,
    peer: &PeerName,
    ids: &[MemoryId],
) -> Result<OutboxCounts, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT state, count(*) FROM json_each(?2) CROSS JOIN memories ON memories.id = json_each.value
           JOIN outbox ON outbox.peer = ?1 AND outbox.m = memories.m GROUP BY state",
    )?;
    counts_in(statement.query(params![peer.as_str(), json_of("ids", &ids)?])?)
}

fn counts_in(mut rows: rusqlite::Rows<'_>) -> Result<OutboxCounts, StoreError> {
    let mut counts = OutboxCounts::default();
    while let Some(row) = rows.next()? {
        let count = row.get::<_, i64>(1)?.unsigned_abs();
        match row.get_ref(0)?.as_str().unwrap_or_default() {
            "pending" => counts.pending = count,
            "sending" => counts.sending = count,
            "resting" => counts.resting = count,
            "acked" => counts.acked = count,
            "dead" => counts.dead = count,
            other => return Err(StoreError::decode("an outbox entry", other)),
        }
    }
    Ok(counts)
}

pub(super) fn acked(
    db: &Connection,
    peer: &PeerName,
    after: Option<MemoryId>,
    limit: u32,
) -> Result<Vec<(MemoryId, PoolName)>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT id, pool FROM memories JOIN outbox USING (m)
          WHERE peer = ?1 AND state = 'acked' AND id > ?2 ORDER BY id LIMIT ?3",
    )?;
    let after = after.map(|id| id.to_string()).unwrap_or_default();
    let found = statement.query_map(params![peer.as_str(), after, limit], |row| {
        let (id, pool) = (row.get::<_, Text<MemoryId>>(0)?, row.get::<_, Text<_>>(1)?);
        Ok((id.0, pool.0))
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Returns whether the peer has acknowledged anything: what it may have lost.
pub(super) fn has_acked(db: &Connection, peer: &PeerName) -> Result<bool, StoreError> {
    Ok(db
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM outbox WHERE peer = ?1 AND state = 'acked')")?
        .query_row([peer.as_str()], |row| row.get(0))?)
}

/// Gives back what was leased and not sent.
pub(super) fn give_back(
    db: &Connection,
    peer: &PeerName,
    ids: &[MemoryId],
) -> Result<u32, StoreError> {
    set(
        db,
        peer,
        ids,
        "state = 'pending', attempts = attempts - 1, due_at_ms = ?3",
        "state = 'sending'",
    )
}
