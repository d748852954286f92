//! Reads the journal: workflows, summaries, lists, attempts.

use super::column::Json;
use super::journal::{by_key, counts_of, record_of, revision_of};
use super::locks::{OwnerState, Owners};
use super::query::Query;
use super::stored::Item;
use super::{Store, StoreError};
use crate::model::{
    At, Attempt, Counts, ItemIndex, ItemRecord, ItemWork, PoolName, Revision, Work, WorkflowId,
    WorkflowRecord, WorkflowStatus,
};
use rusqlite::{Connection, Row, named_params, params};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A workflow with all its items.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredWorkflow {
    /// The workflow.
    pub record: WorkflowRecord,
    /// What its items are to do, in their order.
    pub works: Vec<ItemWork>,
    /// The items' latest records, in the same order.
    pub items: Vec<ItemRecord>,
    /// Grows by one with every change.
    pub revision: Revision,
    /// Which server runs it.
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
    pub revision: Revision,
    /// Which server runs it.
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

impl Store {
    /// Returns the workflow that was started with this idempotency key.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn workflow_by_key(&self, key: String) -> Result<Option<WorkflowRecord>, StoreError> {
        self.read("look an idempotency key up", move |db| by_key(db, &key))
            .await
    }

    /// Returns a workflow with all its items.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn workflow(&self, id: WorkflowId) -> Result<Option<StoredWorkflow>, StoreError> {
        let owners = Arc::clone(&self.inner.owners);
        self.read("read a workflow", move |db| workflow(db, &owners, id))
            .await
    }

    /// Returns a workflow without its items: cheap, for polling.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn summary(&self, id: WorkflowId) -> Result<Option<WorkflowSummary>, StoreError> {
        let owners = Arc::clone(&self.inner.owners);
        self.read("read a workflow", move |db| summary(db, &owners, id))
            .await
    }

    /// Returns the record of one attempt of an item, the latest or an earlier one.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn attempt(
        &self,
        id: WorkflowId,
        item: ItemIndex,
        attempt: Attempt,
    ) -> Result<Option<ItemRecord>, StoreError> {
        self.read("read an attempt", move |db| {
            // A row that waits for its next attempt still names the last one, whose own record is then kept beside.
            let found = db.first(
                "SELECT attempts.record, 0 AS latest FROM workflows JOIN attempts USING (wf)
                  WHERE id = ?1 AND item = ?2 AND attempt = ?3
                 UNION ALL
                 SELECT items.record, 1 AS latest FROM workflows JOIN items USING (wf)
                  WHERE id = ?1 AND item = ?2 AND attempt = ?3 AND attempt > 0
                 ORDER BY latest LIMIT 1",
                params![id, item, attempt],
                |row| row.get::<_, Item>(0),
            );
            Ok(found?.map(|item| item.0))
        })
        .await
    }

    /// Returns the workflows that `query` asks for, newest first.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn workflows(
        &self,
        query: WorkflowQuery,
    ) -> Result<Vec<WorkflowSummary>, StoreError> {
        let owners = Arc::clone(&self.inner.owners);
        self.read("list workflows", move |db| workflows(db, &owners, &query))
            .await
    }

    /// Counts the running items of other live servers, by pool.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn in_flight_elsewhere(&self) -> Result<BTreeMap<PoolName, u32>, StoreError> {
        let owners = Arc::clone(&self.inner.owners);
        self.read("count what other servers run", move |db| {
            let rows = db.all(
                "SELECT owner, pool, count(*) FROM workflows JOIN items USING (wf)
                  WHERE queued + running > 0 AND owner <> ?1 AND state = 'running' AND pool IS NOT NULL
                  GROUP BY owner, pool",
                [owners.me()],
                |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, u32>(2)?)),
            )?;
            let mut pools = BTreeMap::new();
            for (owner, pool, count) in rows {
                if owners.state(owner, true) == OwnerState::Other {
                    *pools.entry(pool).or_insert(0) += count;
                }
            }
            Ok(pools)
        })
        .await
    }
}

fn workflow(
    db: &Connection,
    owners: &Owners,
    id: WorkflowId,
) -> Result<Option<StoredWorkflow>, StoreError> {
    let Some(summary) = summary(db, owners, id)? else {
        return Ok(None);
    };
    let texts: HashMap<i64, Work> = db
        .all(
            "SELECT work, json FROM works JOIN workflows USING (wf) WHERE id = ?1",
            [id],
            |row| Ok((row.get(0)?, row.get::<_, Json<_>>(1)?.0)),
        )?
        .into_iter()
        .collect();
    let rows = db.all(
        "SELECT item, items.repo, work, record FROM items JOIN workflows USING (wf) WHERE id = ?1 ORDER BY item",
        [id],
        |row| {
            let (item, repo, work) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok((item, repo, work, row.get::<_, Item>(3)?.0))
        },
    )?;
    let (mut works, mut items) = (Vec::new(), Vec::new());
    for (item, repo, work, record) in rows {
        let work = texts.get(&work).cloned();
        let work = work.ok_or_else(|| StoreError::decode("an item", "its task is missing"))?;
        works.push(ItemWork { item, repo, work });
        items.push(record);
    }
    Ok(Some(StoredWorkflow {
        record: summary.record,
        works,
        items,
        revision: summary.revision,
        owner: summary.owner,
    }))
}

fn summary(
    db: &Connection,
    owners: &Owners,
    id: WorkflowId,
) -> Result<Option<WorkflowSummary>, StoreError> {
    db.first("SELECT * FROM workflows WHERE id = ?1", [id], |row| {
        summary_of(row, owners)
    })
}

fn workflows(
    db: &Connection,
    owners: &Owners,
    query: &WorkflowQuery,
) -> Result<Vec<WorkflowSummary>, StoreError> {
    // A whole path is looked up, a name has to be searched for.
    let here = match &query.repo {
        Some(path) if path.starts_with('/') => "repo = :repo",
        _ => "substr(repo, -length('/' || :repo)) = '/' || :repo",
    };
    let sql = format!(
        "SELECT * FROM workflows
         WHERE (:before IS NULL OR id < :before)
           AND (:since IS NULL OR created_at_ms >= :since)
           AND (:states = '[]' OR status IN (SELECT value FROM json_each(:states)))
           AND (:repo IS NULL OR EXISTS (
               SELECT 1 FROM items WHERE items.wf = workflows.wf AND {here}))
         ORDER BY id DESC LIMIT :limit"
    );
    let values = named_params! {
        ":before": query.before,
        ":since": query.since,
        ":states": Json(&query.status),
        ":repo": query.repo,
        ":limit": query.limit,
    };
    db.all(&sql, values, |row| summary_of(row, owners))
}

fn summary_of(row: &Row<'_>, owners: &Owners) -> rusqlite::Result<WorkflowSummary> {
    let record = record_of(row)?;
    let counts = counts_of(row)?;
    Ok(WorkflowSummary {
        owner: owners.state(record.owner, counts.unfinished() > 0),
        record,
        counts,
        revision: revision_of(row)?,
        updated_at: row.get("updated_at_ms")?,
    })
}
