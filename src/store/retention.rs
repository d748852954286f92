//! Removes what the configured retention does not keep.
//!
//! A clock that is wrong for one start must not delete anything, so age is not counted to the clock's own date. Every
//! look notes its day, and age counts to the third newest day on which a server looked: a date is believed once servers
//! have looked on two later days. Days later than the present one were noted by a wrong clock and are dropped.

use super::forget::{self, Why};
use super::query::Query;
use super::{Store, StoreError, wal};
use crate::model::{At, MemoryKind, WorkflowId};
use rusqlite::{Connection, params};
use std::time::Duration;

/// Workflows or memories removed in one transaction, so that other writers get their turn.
const BATCH: u32 = 50;
/// A day, by which looks are told apart.
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

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

/// What [`Store::prune`] removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The instant to which age was counted; none: too few days are known, and nothing was removed.
    pub as_of: Option<At>,
    /// These workflows, with their items; their logs and worktrees are the caller's to remove.
    pub workflows: Vec<WorkflowId>,
    /// How many memories. One that is still to be sent to a peer stays.
    pub memories: u64,
}

impl Store {
    /// Removes what `keep` does not keep, and returns what that was. `now` is the clock's instant.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing; what was removed before stays removed.
    pub async fn prune(&self, keep: Retention, now: At) -> Result<Pruned, StoreError> {
        let as_of = self
            .write("note a day", move |db| believed_date(db, now))
            .await?;
        let mut pruned = Pruned {
            as_of,
            ..Pruned::default()
        };
        let Some(as_of) = as_of else {
            return Ok(pruned);
        };
        if let Some(age) = keep.workflows {
            let before = as_of.minus(age);
            loop {
                let batch = self
                    .write("remove old workflows", move |db| old_workflows(db, before))
                    .await?;
                pruned.workflows.extend_from_slice(&batch);
                if batch.len() < BATCH as usize {
                    break;
                }
            }
        }
        let outcomes: &[_] = &[MemoryKind::Outcome];
        let kept: &[_] = &[MemoryKind::Lesson, MemoryKind::Note];
        for (kinds, age) in [(outcomes, keep.outcomes), (kept, keep.lessons_and_notes)] {
            let Some(age) = age else { continue };
            for &kind in kinds {
                pruned.memories += self.prune_memories(kind, as_of.minus(age)).await?;
            }
        }
        if !pruned.workflows.is_empty() || pruned.memories > 0 {
            self.between("shrink the store", shrink).await?;
        }
        Ok(pruned)
    }

    async fn prune_memories(&self, kind: MemoryKind, before: At) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let batch = self
                .write("remove old memories", move |db| {
                    old_memories(db, kind, before)
                })
                .await?;
            removed += u64::from(batch);
            if batch < BATCH {
                return Ok(removed);
            }
        }
    }
}

/// Notes the day of `now` and returns the latest instant that two later days confirm, if there is one.
fn believed_date(db: &Connection, now: At) -> Result<Option<At>, StoreError> {
    let today = now.unix_ms().div_euclid(DAY_MS);
    db.run("DELETE FROM days WHERE day > ?1", [today])?;
    db.run("INSERT OR IGNORE INTO days (day) VALUES (?1)", [today])?;
    let sql = "SELECT day FROM days ORDER BY day DESC LIMIT 1 OFFSET 2";
    let believed = db.first(sql, [], |row| row.get::<_, i64>(0))?;
    // Older days are needed only as far as later ones may turn out to be wrong.
    db.run(
        "DELETE FROM days WHERE day < (SELECT day FROM days ORDER BY day DESC LIMIT 1 OFFSET 100)",
        [],
    )?;
    Ok(believed.map(|day| At::from_unix_ms(day.saturating_mul(DAY_MS))))
}

/// Removes a batch of the workflows that ended before `before`.
///
/// One with an item that has a worktree stays: its row is the only way to find that work again.
fn old_workflows(db: &Connection, before: At) -> Result<Vec<WorkflowId>, StoreError> {
    db.all(
        "DELETE FROM workflows WHERE wf IN (
             SELECT wf FROM workflows
              WHERE updated_at_ms < ?1 AND queued + running = 0
                AND NOT EXISTS (SELECT 1 FROM items WHERE items.wf = workflows.wf
                                   AND json_extract(items.record, '$.worktree') IS NOT NULL)
              ORDER BY wf LIMIT ?2)
         RETURNING id",
        params![before, BATCH],
        |row| row.get(0),
    )
}

/// Removes a batch of the memories of a kind that are older than `before`, and returns how many. One that is still to be
/// sent to a peer stays.
fn old_memories(db: &Connection, kind: MemoryKind, before: At) -> Result<u32, StoreError> {
    const OLD: &str = "m IN (
         SELECT m FROM memories
          WHERE created_at_ms < ?1 AND kind = ?2
            AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.m = memories.m AND state <> 'acked')
          ORDER BY created_at_ms, m LIMIT ?3)";
    forget::remove(db, OLD, params![before, kind, BATCH], Why::Expired)
}

/// Gives what was freed back to the disk, and empties the log.
fn shrink(db: &Connection) -> Result<(), StoreError> {
    db.execute_batch("PRAGMA incremental_vacuum")?;
    wal::truncate(db).map(|_| ())
}
