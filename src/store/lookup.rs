//! What the journal holds, read back: workflows, summaries, lists, items, attempts.

use super::StoreError;
use super::column::{Text, from_json, json_of};
use super::journal::{counts_of, record_of, status_text};
use super::lock::{OwnerState, Owners};
use crate::model::{
    At, Attempt, Counts, ItemIndex, ItemRecord, ItemWork, PoolName, ServerId, Work, WorkflowId,
    WorkflowRecord, WorkflowStatus,
};
use rusqlite::{Connection, Row, named_params, params};
use std::collections::{BTreeMap, HashMap};

/// A workflow with all its items.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredWorkflow {
    /// The workflow.
    pub record: WorkflowRecord,
    /// What its items are to do, in their order.
    pub works: Vec<ItemWork>,
    /// Where they stand, in the same order.
    pub items: Vec<ItemRecord>,
    /// Grows by one with every change.
    pub revision: u64,
    /// Who runs it.
    pub owner: OwnerState,
}

/// A workflow without its items.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkflowSummary {
    /// The workflow.
    pub record: WorkflowRecord,
    /// How many items are in each state.
    pub counts: Counts,
    /// Grows by one with every change.
    pub revision: u64,
    /// Who runs it.
    pub owner: OwnerState,
    /// When it changed last.
    pub updated_at: At,
}

/// Which workflows to list, newest first; every field narrows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkflowQuery {
    /// With an item on this repository: a canonical path, or a last component of one.
    pub repo: Option<String>,
    /// In one of these states.
    pub status: Vec<WorkflowStatus>,
    /// Journaled at or after this instant.
    pub since: Option<At>,
    /// Older than this one, for paging.
    pub before: Option<WorkflowId>,
    /// The most to return.
    pub limit: u32,
}

pub(super) fn workflow(
    db: &Connection,
    owners: &Owners,
    id: WorkflowId,
) -> Result<Option<StoredWorkflow>, StoreError> {
    let Some(summary) = summary(db, owners, id)? else {
        return Ok(None);
    };
    let wf: i64 = db
        .prepare_cached("SELECT wf FROM workflows WHERE id = ?1")?
        .query_row([Text(id)], |row| row.get(0))?;
    let texts = works(db, wf)?;
    let mut works = Vec::new();
    let mut items = Vec::new();
    let mut statement = db
        .prepare_cached("SELECT item, repo, work, record FROM items WHERE wf = ?1 ORDER BY item")?;
    let mut rows = statement.query([wf])?;
    while let Some(row) = rows.next()? {
        let work = texts.get(&row.get(2)?).cloned();
        works.push(ItemWork {
            item: row.get(0)?,
            repo: row.get(1)?,
            work: work.ok_or_else(|| StoreError::decode("an item", "its task is missing"))?,
        });
        items.push(from_json("an item", row.get_ref(3)?)?);
    }
    Ok(Some(StoredWorkflow {
        record: summary.record,
        works,
        items,
        revision: summary.revision,
        owner: summary.owner,
    }))
}

fn works(db: &Connection, wf: i64) -> Result<HashMap<i64, Work>, StoreError> {
    let mut statement = db.prepare_cached("SELECT work, json FROM works WHERE wf = ?1")?;
    let mut rows = statement.query([wf])?;
    let mut works = HashMap::new();
    while let Some(row) = rows.next()? {
        works.insert(row.get(0)?, from_json("a task", row.get_ref(1)?)?);
    }
    Ok(works)
}

const SUMMARY: &str =
    "SELECT id, owner, updated_at_ms, revision, planned, queued, running, succeeded, failed,
     timed_out, cancelled, interrupted, record FROM workflows";

pub(super) fn summary(
    db: &Connection,
    owners: &Owners,
    id: WorkflowId,
) -> Result<Option<WorkflowSummary>, StoreError> {
    let mut statement = db.prepare_cached(&format!("{SUMMARY} WHERE id = ?1"))?;
    let mut rows = statement.query([Text(id)])?;
    rows.next()?.map(|row| summary_of(row, owners)).transpose()
}

pub(super) fn workflows(
    db: &Connection,
    owners: &Owners,
    query: &WorkflowQuery,
) -> Result<Vec<WorkflowSummary>, StoreError> {
    let states: Vec<_> = query.status.iter().copied().map(status_text).collect();
    // A whole path is looked up, a name has to be searched for.
    let here = match &query.repo {
        Some(path) if path.starts_with('/') => "repo = :repo",
        _ => "substr(repo, -length('/' || :repo)) = '/' || :repo",
    };
    let mut statement = db.prepare_cached(&format!(
        "{SUMMARY}
         WHERE (:before IS NULL OR id < :before)
           AND (:since IS NULL OR created_at_ms >= :since)
           AND (:states = '[]' OR status IN (SELECT value FROM json_each(:states)))
           AND (:repo IS NULL OR EXISTS (
               SELECT 1 FROM items WHERE items.wf = workflows.wf AND {here}))
         ORDER BY id DESC LIMIT :limit"
    ))?;
    let mut rows = statement.query(named_params! {
        ":before": query.before.map(Text),
        ":since": query.since.map(At::unix_ms),
        ":states": json_of("a query", &states)?,
        ":repo": query.repo,
        ":limit": query.limit,
    })?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(summary_of(row, owners)?);
    }
    Ok(found)
}

fn summary_of(row: &Row<'_>, owners: &Owners) -> Result<WorkflowSummary, StoreError> {
    let owner: Text<ServerId> = row.get("owner")?;
    let state = owners.state(owner.0);
    Ok(WorkflowSummary {
        record: record_of(owner, &row.get::<_, String>("record")?)?,
        counts: counts_of(row)?,
        revision: row.get::<_, i64>("revision")?.unsigned_abs(),
        owner: state,
        updated_at: At::from_unix_ms(row.get("updated_at_ms")?),
    })
}

pub(super) fn item(
    db: &Connection,
    id: WorkflowId,
    item: ItemIndex,
) -> Result<Option<ItemRecord>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT items.record FROM workflows JOIN items USING (wf) WHERE id = ?1 AND item = ?2",
    )?;
    let mut rows = statement.query(params![Text(id), item])?;
    rows.next()?
        .map(|row| from_json("an item", row.get_ref(0)?))
        .transpose()
}

pub(super) fn attempt(
    db: &Connection,
    id: WorkflowId,
    item: ItemIndex,
    attempt: Attempt,
) -> Result<Option<ItemRecord>, StoreError> {
    // A row that waits for its next attempt still names the last one, whose own record is then kept beside.
    let mut statement = db.prepare_cached(
        "SELECT attempts.record, 0 AS latest FROM workflows JOIN attempts USING (wf)
          WHERE id = ?1 AND item = ?2 AND attempt = ?3
         UNION ALL
         SELECT items.record, 1 AS latest FROM workflows JOIN items USING (wf)
          WHERE id = ?1 AND item = ?2 AND attempt = ?3 AND attempt > 0
         ORDER BY latest LIMIT 1",
    )?;
    let mut rows = statement.query(params![Text(id), item, attempt])?;
    rows.next()?
        .map(|row| from_json("an attempt", row.get_ref(0)?))
        .transpose()
}

/// Counts the running items of other servers that live, by pool.
pub(super) fn in_flight_elsewhere(
    db: &Connection,
    owners: &Owners,
) -> Result<BTreeMap<PoolName, u32>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT owner, pool, count(*) FROM workflows JOIN items USING (wf)
          WHERE queued + running > 0 AND owner <> ?1 AND state = 'running' AND pool IS NOT NULL
          GROUP BY owner, pool",
    )?;
    let mut rows = statement.query([Text(owners.me())])?;
    let mut pools = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let owner: Text<ServerId> = row.get(0)?;
        if owners.state(owner.0) == OwnerState::Other {
            let pool: Text<PoolName> = row.get(1)?;
            *pools.entry(pool.0).or_insert(0) += row.get::<_, u32>(2)?;
        }
    }
    Ok(pools)
}
