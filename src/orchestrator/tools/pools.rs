//! Pools as callers see them: `list_pools`, `set_pool`, `close_pool`.

use super::arguments;
use super::view::Room;
use crate::api::{ClosePool, Detail, Health, ListPools, ListPoolsResult, PoolRow, SetPool};
use crate::config::{MAX_WORKERS, QUEUE};
use crate::error::{ErrorKind, Fault, Problem};
use crate::model::PoolName;
use crate::orchestrator::Orchestrator;
use crate::orchestrator::memory::collector::{Answer, Failure, fan_out};
use crate::orchestrator::routing::pool::Pool;
use crate::orchestrator::routing::pools::PoolStatus;
use crate::orchestrator::routing::{Availability, PoolSpec};
use futures_util::FutureExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The most bytes of JSON that the rows of one page take.
const PAGE_BYTES: usize = 8_200;

/// The most rows of one page: the smallest row is larger than 8,200 / 80 bytes.
const PAGE_ROWS: usize = 80;

/// The most labels of one pool, and the longest label in bytes.
const MAX_LABELS: usize = 32;
const LABEL_BYTES: usize = 64;

/// How many routed tasks may wait in a pool that `set_pool` makes.
const DEFAULT_QUEUE: u32 = 1_000;

/// How long a worker that was found usable without asking anybody counts as usable.
const USABLE_FOR: Duration = Duration::from_secs(2);

/// How often a closing pool is looked at.
const CLOSE_POLL: Duration = Duration::from_millis(50);

/// How long stopped tasks of a closed pool may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(10);

impl Orchestrator {
    /// Answers `list_pools`.
    pub(crate) async fn pools_page(&self, args: ListPools) -> Result<ListPoolsResult, Problem> {
        let (standing, total, after_page) = self.chosen(&args)?;
        let detail = args.detail.unwrap_or_default();
        let elsewhere = match detail {
            Detail::Full => self
                .0
                .store
                .in_flight_elsewhere()
                .await
                .map_err(|error| error.problem())?,
            Detail::Summary => BTreeMap::new(),
        };
        let probes = self.probe(&standing).await;
        let listed = standing.len();
        let mut room = Room::new(PAGE_BYTES);
        let mut pools = Vec::with_capacity(listed);
        for (standing, probe) in standing.into_iter().zip(probes) {
            let row = row(standing, probe, detail, &elsewhere);
            if !room.take(&row) {
                break;
            }
            pools.push(row);
        }
        let last = pools
            .last()
            .map(|row: &PoolRow| row.name.as_str().to_owned());
        let more = pools.len() < listed || after_page > 0;
        Ok(ListPoolsResult {
            total: total as u64,
            pools,
            cursor: last.filter(|_| more),
        })
    }

    /// Returns the pools of this page, how many there are in all pages, and how many may come after this one.
    fn chosen(&self, args: &ListPools) -> Result<(Vec<PoolStatus>, usize, usize), Problem> {
        let after = args.cursor.as_deref();
        if args.pools.is_empty() {
            let (mut page, total) = self.0.pools.page(after, PAGE_ROWS + 1);
            let after_page = page.len().saturating_sub(PAGE_ROWS);
            page.truncate(PAGE_ROWS);
            return Ok((page, total, after_page));
        }
        let mut chosen = Vec::new();
        for name in &args.pools {
            chosen.push(
                self.0
                    .pools
                    .get(name.as_str())
                    .ok_or_else(|| self.no_pool("pools", name))?,
            );
        }
        chosen.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        chosen.dedup_by(|a, b| a.spec.name == b.spec.name);
        let total = chosen.len();
        chosen.retain(|pool| after.is_none_or(|after| pool.spec.name.as_str() > after));
        Ok((chosen, total, 0))
    }

    fn no_pool(&self, field: &str, name: &PoolName) -> Problem {
        let names = self.0.pools.names();
        arguments::unknown(
            field,
            "pool",
            name.as_str(),
            names.iter().map(PoolName::as_str),
            "set_pool makes a pool",
        )
    }

    /// Asks every pool's worker at once how it is. Those that know without asking anybody cost nothing, and a good
    /// answer of theirs holds for [`USABLE_FOR`]: it may have taken a walk along the PATH.
    async fn probe(&self, pools: &[PoolStatus]) -> Vec<Answer<(), Problem>> {
        let mut answers = Vec::with_capacity(pools.len());
        let mut open = Vec::new();
        let now = std::time::Instant::now();
        for (place, standing) in pools.iter().enumerate() {
            let pool = &standing.pool;
            if standing.availability == Availability::Open && pool.was_usable(now, USABLE_FOR) {
                answers.push(Answer::Ok(()));
                continue;
            }
            match pool.worker.probe().now_or_never() {
                Some(Ok(())) => {
                    pool.found_usable(now);
                    answers.push(Answer::Ok(()));
                }
                Some(Err(problem)) => answers.push(Answer::Failed(Failure::Error(problem))),
                None => {
                    answers.push(Answer::Late);
                    open.push((place, Arc::clone(pool)));
                }
            }
        }
        if !open.is_empty() {
            let deadline = Instant::now() + self.0.config.limits.collect_deadline;
            let places: Vec<usize> = open.iter().map(|(place, _)| *place).collect();
            let asked = fan_out(open, deadline, |(_, pool)| async move {
                pool.worker.probe().await
            });
            for (place, answer) in places.into_iter().zip(asked.await) {
                answers[place] = answer;
            }
        }
        self.note_health(pools, &answers);
        answers
    }

    /// Takes pools whose worker cannot be used out of the choice, and back in.
    fn note_health(&self, pools: &[PoolStatus], answers: &[Answer<(), Problem>]) {
        for (standing, answer) in pools.iter().zip(answers) {
            match answer {
                Answer::Failed(_) => self
                    .0
                    .quarantine
                    .put(standing.key, Arc::clone(&standing.pool)),
                Answer::Ok(()) if standing.availability == Availability::Unhealthy => {
                    self.0
                        .pools
                        .turn(standing.key, Availability::Unhealthy, Availability::Open);
                }
                _ => {}
            }
        }
    }

    /// Answers `set_pool`.
    pub(crate) async fn set(&self, args: SetPool) -> Result<PoolRow, Problem> {
        let max_workers = arguments::count("max_workers", args.max_workers, MAX_WORKERS)?;
        let labels = args.labels.map(labels).transpose()?;
        match self.0.pools.get(args.name.as_str()) {
            Some(standing) => {
                if let Some(worker) = args.worker.filter(|worker| *worker != standing.spec.worker) {
                    return Err(Problem {
                        kind: ErrorKind::Conflict,
                        ..Problem::argument(
                            "worker",
                            format!(
                                "pool {} has worker {}, not {worker}",
                                args.name, standing.spec.worker
                            ),
                            standing.spec.worker.clone(),
                        )
                    }
                    .with_hint("close_pool it first, or give the new pool another name"));
                }
                let key = standing.key;
                self.0.pools.change(|router| {
                    if let Some(max_workers) = max_workers {
                        router.rescale(key, max_workers);
                    }
                    if let Some(labels) = &labels {
                        router.relabel(key, labels);
                    }
                    match args.draining {
                        Some(true) => router.set_availability(key, Availability::Draining),
                        Some(false) => router.set_availability(key, Availability::Open),
                        None => {}
                    }
                });
                if labels.is_some() {
                    self.0.engine.end_unroutable().await;
                }
            }
            None => self.make(&args.name, args.worker, max_workers, labels, args.draining)?,
        }
        let mut row = self.one_row(&args.name).await?;
        row.temporary = true;
        Ok(row)
    }

    fn make(
        &self,
        name: &PoolName,
        worker: Option<String>,
        max_workers: Option<u32>,
        labels: Option<Vec<String>>,
        draining: Option<bool>,
    ) -> Result<(), Problem> {
        let known = self.0.workers.keys().map(String::as_str);
        let missing = |field: &str, allowed: String| {
            Problem::argument(
                field,
                format!("there is no pool {name} yet, and a new one needs {field}"),
                allowed,
            )
        };
        let Some(worker) = worker else {
            return Err(missing("worker", known.collect::<Vec<_>>().join(", ")));
        };
        let Some(runs) = self.0.workers.get(&worker) else {
            return Err(arguments::unknown(
                "worker",
                "worker kind",
                &worker,
                known,
                "worker kinds come from the config file only",
            ));
        };
        let Some(max_workers) = max_workers else {
            return Err(missing("max_workers", "1 to 10000".to_owned()));
        };
        let timeout = self
            .0
            .config
            .workers
            .get(&worker)
            .and_then(|kind| kind.timeout);
        let spec = PoolSpec {
            name: name.clone(),
            worker: worker.clone(),
            max_workers,
            queue: DEFAULT_QUEUE.min(*QUEUE.end()),
            labels: labels.unwrap_or_default(),
        };
        let pool = Pool::new(name.clone(), worker, Arc::clone(runs), timeout);
        if !self.0.pools.add(spec, pool) {
            return Err(Problem::new(
                ErrorKind::Conflict,
                format!("pool {name} was made by another call just now"),
            ));
        }
        if draining == Some(true)
            && let Some(standing) = self.0.pools.get(name.as_str())
        {
            self.0
                .pools
                .change(|router| router.set_availability(standing.key, Availability::Draining));
        }
        Ok(())
    }

    /// Answers `close_pool`: what was accepted may end within the grace; then what runs is stopped, and what waits for the
    /// pool goes to another that fits or ends.
    pub(crate) async fn close_pool(&self, args: ClosePool) -> Result<PoolRow, Problem> {
        let grace = arguments::seconds("grace_s", args.grace_s, 0.0..=30.0)?;
        let grace = grace.unwrap_or(Duration::from_secs(10));
        let standing = self
            .0
            .pools
            .get(args.name.as_str())
            .ok_or_else(|| self.no_pool("name", &args.name))?;
        let key = standing.key;
        self.0
            .pools
            .change(|router| router.set_availability(key, Availability::Draining));
        if !self.drained(&args.name, grace, || {}).await {
            self.0
                .pools
                .change(|router| router.set_availability(key, Availability::Closing));
            // At every look: what was about to start is not among what runs yet.
            let stop = || {
                for run in self.0.engine.live_runs() {
                    run.stop_pool(&args.name);
                }
            };
            self.drained(&args.name, STOP_LIMIT, stop).await;
        }
        let mut row = self.one_row(&args.name).await?;
        row.temporary = true;
        self.0.pools.remove(key);
        self.0.pools.ring();
        self.0.engine.end_unroutable().await;
        Ok(row)
    }

    /// Waits until nothing runs in the pool or waits for it, and does `meanwhile` at every look; returns whether it came
    /// to that.
    async fn drained(&self, name: &PoolName, limit: Duration, meanwhile: impl Fn()) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            meanwhile();
            let load = self
                .0
                .pools
                .get(name.as_str())
                .map(|standing| standing.load);
            if load.is_none_or(|load| load.in_flight + load.queued == 0) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(CLOSE_POLL).await;
        }
    }

    async fn one_row(&self, name: &PoolName) -> Result<PoolRow, Problem> {
        let standing = self
            .0
            .pools
            .get(name.as_str())
            .ok_or_else(|| self.no_pool("name", name))?;
        let mut probes = self.probe(std::slice::from_ref(&standing)).await;
        let probe = probes.pop().unwrap_or(Answer::Late);
        Ok(row(standing, probe, Detail::Full, &BTreeMap::new()))
    }
}

fn labels(labels: Vec<String>) -> Result<Vec<String>, Problem> {
    let good = |label: &String| {
        !label.is_empty()
            && label.len() <= LABEL_BYTES
            && !label.contains(|c: char| c.is_control() || c.is_whitespace())
    };
    if labels.len() > MAX_LABELS || !labels.iter().all(good) {
        return Err(Problem::argument(
            "labels",
            "a label is empty, too long or holds blanks, or there are too many",
            format!("up to {MAX_LABELS} labels of 1 to {LABEL_BYTES} bytes without blanks"),
        ));
    }
    Ok(labels)
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
            Some(Problem::new(
                ErrorKind::TimedOut,
                "its worker did not answer in time",
            )),
        ),
    };
    // Percentiles cost a sort: only who asks for them pays.
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
