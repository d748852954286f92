//! `list_pools`: the pools with their load, and whether their workers can be used.

use super::page::Budget;
use crate::api::{Detail, Health, ListPools, ListPoolsResult, PoolRow};
use crate::error::{ErrorKind, Problem};
use crate::model::PoolName;
use crate::orchestrator::Orchestrator;
use crate::orchestrator::memory::collector::{Answer, Failure, fan_out};
use crate::orchestrator::routing::Availability;
use crate::orchestrator::routing::pools::PoolStatus;
use futures_util::FutureExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;

/// The most bytes of JSON that the rows of one page take.
const PAGE_BYTES: usize = 8_200;

/// The most rows of one page: the smallest row is larger than 8,200 / 80 bytes.
const PAGE_ROWS: usize = 80;

impl Orchestrator {
    /// Answers `list_pools`.
    pub(super) async fn list_pools(&self, args: ListPools) -> Result<ListPoolsResult, Problem> {
        let detail = args.detail.unwrap_or_default();
        let (pools, total, more) = self.pools_on_page(&args)?;
        let elsewhere = match detail {
            Detail::Full => self.0.store.in_flight_elsewhere().await?,
            Detail::Summary => BTreeMap::new(),
        };
        let probes = self.probe(&pools).await;
        let rows = pools.into_iter().zip(probes);
        let rows = rows.map(|(pool, probe)| row(pool, probe, detail, &elsewhere));
        let (rows, next) = Budget::new(PAGE_BYTES).fill(rows, |_, _| {});
        let last = rows.last().filter(|_| more || next.is_some());
        Ok(ListPoolsResult {
            total: total as u64,
            cursor: last.map(|row| row.name.as_str().to_owned()),
            pools: rows,
        })
    }

    /// Returns the pools of this page, how many there are in all pages, and whether more pools come after these.
    fn pools_on_page(&self, args: &ListPools) -> Result<(Vec<PoolStatus>, usize, bool), Problem> {
        let after = args.cursor.as_deref();
        if args.pools.is_empty() {
            let (mut page, total) = self.0.pools.page(after, PAGE_ROWS + 1);
            let more = page.len() > PAGE_ROWS;
            page.truncate(PAGE_ROWS);
            return Ok((page, total, more));
        }
        let named = args.pools.iter().map(|name| self.pool("pools", name));
        let mut named = named.collect::<Result<Vec<_>, _>>()?;
        named.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        named.dedup_by(|a, b| a.spec.name == b.spec.name);
        let total = named.len();
        named.retain(|pool| after.is_none_or(|after| pool.spec.name.as_str() > after));
        Ok((named, total, false))
    }

    /// Returns the pool that argument `field` names.
    pub(super) fn pool(&self, field: &str, name: &PoolName) -> Result<PoolStatus, Problem> {
        let pool = self.0.pools.get(name.as_str());
        pool.ok_or_else(|| self.0.no_such_pool(field, name))
    }

    /// Returns the row of one pool.
    pub(super) async fn pool_row(&self, name: &PoolName) -> Result<PoolRow, Problem> {
        let pool = self.pool("name", name)?;
        let mut probes = self.probe(std::slice::from_ref(&pool)).await;
        let probe = probes.pop().unwrap_or(Answer::Late);
        Ok(row(pool, probe, Detail::Full, &BTreeMap::new()))
    }

    /// Probes every pool's worker at once, for `collect_deadline` at most.
    async fn probe(&self, pools: &[PoolStatus]) -> Vec<Answer<(), Problem>> {
        // Most workers know without asking another program or server.
        let first = |pool: &PoolStatus| match pool.pool.worker.probe().now_or_never() {
            Some(Ok(())) => Answer::Ok(()),
            Some(Err(problem)) => Answer::Failed(Failure::Error(problem)),
            None => Answer::Late,
        };
        let mut answers: Vec<_> = pools.iter().map(first).collect();
        let is_late = |place: &usize| matches!(answers[*place], Answer::Late);
        let late: Vec<usize> = (0..pools.len()).filter(is_late).collect();
        if !late.is_empty() {
            let deadline = Instant::now() + self.0.config.limits.collect_deadline;
            let asked: Vec<_> = late
                .iter()
                .map(|place| Arc::clone(&pools[*place].pool))
                .collect();
            let asked = fan_out(
                asked,
                deadline,
                |pool| async move { pool.worker.probe().await },
            );
            for (place, answer) in late.into_iter().zip(asked.await) {
                answers[place] = answer;
            }
        }
        self.note_health(pools, &answers);
        answers
    }

    /// Quarantines pools whose worker cannot be used, and takes usable ones back.
    fn note_health(&self, pools: &[PoolStatus], answers: &[Answer<(), Problem>]) {
        let unhealthy = Availability::Unhealthy;
        for (pool, answer) in pools.iter().zip(answers) {
            match answer {
                Answer::Failed(_) => self.0.quarantine.put(pool.key, Arc::clone(&pool.pool)),
                Answer::Ok(()) if pool.availability == unhealthy => {
                    self.0.pools.turn(pool.key, unhealthy, Availability::Open);
                }
                _ => {}
            }
        }
    }
}

fn row(
    standing: PoolStatus,
    probe: Answer<(), Problem>,
    detail: Detail,
    elsewhere: &BTreeMap<PoolName, u32>,
) -> PoolRow {
    let (health, error) = match (standing.availability, probe) {
        (Availability::Draining | Availability::Closing, _) => (Health::Draining, None),
        (_, Answer::Ok(())) => (Health::Healthy, None),
        (_, Answer::Failed(Failure::Error(problem))) => (Health::Unreachable, Some(problem)),
        (_, Answer::Failed(failure)) => (
            Health::Unreachable,
            Some(Problem::new(ErrorKind::Internal, failure.to_string())),
        ),
        (_, Answer::Late) => (
            Health::Degraded,
            Some(
                Problem::new(ErrorKind::TimedOut, "its worker did not answer in time")
                    .with_hint("check_health with probe workers tries it again"),
            ),
        ),
    };
    // Percentiles cost a sort, so that they are computed only where asked for.
    let stats = (detail == Detail::Full).then(|| standing.pool.stats.view());
    let elsewhere = stats.map(|_| elsewhere.get(&standing.spec.name).copied().unwrap_or(0));
    PoolRow {
        name: standing.spec.name,
        worker: standing.spec.worker,
        labels: standing.spec.labels,
        max_workers: standing.load.max_workers,
        in_flight: standing.load.in_flight,
        queued: standing.load.queued,
        load: standing.load.ratio(),
        health,
        succeeded: stats.map(|stats| stats.succeeded),
        failed: stats.map(|stats| stats.failed),
        p50_ms: stats.and_then(|stats| stats.p50_ms),
        p95_ms: stats.and_then(|stats| stats.p95_ms),
        other_servers_in_flight: elsewhere,
        temporary: false,
        error,
    }
}
