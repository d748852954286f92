//! `set_pool` and `close_pool`: pools of worker kinds that the config defines, for the life of this server.

use super::arguments;
use crate::api::{ClosePool, PoolRow, SetPool};
use crate::config::MAX_WORKERS;
use crate::error::{ErrorKind, Problem};
use crate::model::PoolName;
use crate::orchestrator::Orchestrator;
use crate::orchestrator::routing::pool::Pool;
use crate::orchestrator::routing::pools::PoolStatus;
use crate::orchestrator::routing::{Availability, PoolSpec};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The most labels of one pool, and the longest label in bytes.
const MAX_LABELS: usize = 32;
const LABEL_BYTES: usize = 64;

/// How many routed tasks may be queued in a pool that `set_pool` makes.
const QUEUE: u32 = 1_000;

/// How long what a closed pool runs may take to end by itself, by default.
const CLOSE_GRACE: Duration = Duration::from_secs(10);

/// How long stopped tasks of a closed pool may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How often a closing pool is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Checked arguments of `set_pool`.
struct Wanted {
    name: PoolName,
    worker: Option<String>,
    max_workers: Option<u32>,
    labels: Option<Vec<String>>,
    draining: Option<bool>,
}

impl Orchestrator {
    /// Answers `set_pool`.
    pub(super) async fn set_pool(&self, args: SetPool) -> Result<PoolRow, Problem> {
        let name = args.name.clone();
        let wanted = Wanted {
            name: args.name,
            worker: args.worker,
            max_workers: arguments::count("max_workers", args.max_workers, MAX_WORKERS)?,
            labels: args.labels.map(labels).transpose()?,
            draining: args.draining,
        };
        match self.0.pools.get(name.as_str()) {
            Some(pool) => self.change_pool(&pool, wanted).await?,
            None => self.make_pool(wanted)?,
        }
        self.temporary_row(&name).await
    }

    async fn change_pool(&self, pool: &PoolStatus, wanted: Wanted) -> Result<(), Problem> {
        let worker = &pool.spec.worker;
        if let Some(other) = wanted.worker.filter(|other| other != worker) {
            let message = format!("pool {} has worker {worker}, not {other}", wanted.name);
            return Err(Problem {
                kind: ErrorKind::Conflict,
                ..Problem::argument("worker", message, worker.clone())
            }
            .with_hint("close_pool it first, or give the new pool another name"));
        }
        let key = pool.key;
        self.0.pools.change(|router| {
            if let Some(max_workers) = wanted.max_workers {
                router.rescale(key, max_workers);
            }
            if let Some(labels) = &wanted.labels {
                router.relabel(key, labels);
            }
            match wanted.draining {
                Some(true) => router.set_availability(key, Availability::Draining),
                Some(false) => router.set_availability(key, Availability::Open),
                None => {}
            }
        });
        if wanted.labels.is_some() {
            self.0.engine.end_unroutable().await;
        }
        Ok(())
    }

    fn make_pool(&self, wanted: Wanted) -> Result<(), Problem> {
        let core = &self.0;
        let name = &wanted.name;
        let missing = |field: &str, allowed: String| {
            let message = format!("there is no pool {name} yet, and a new one needs {field}");
            Problem::argument(field, message, allowed)
        };
        let Some(worker) = wanted.worker else {
            let kinds: Vec<&str> = core.workers.keys().map(String::as_str).collect();
            return Err(missing("worker", kinds.join(", ")));
        };
        let Some(runs) = core.workers.get(&worker) else {
            return Err(core.no_such_worker("worker", &worker));
        };
        let Some(max_workers) = wanted.max_workers else {
            return Err(missing("max_workers", "1 to 10000".to_owned()));
        };
        let kind = core.config.workers.get(&worker);
        let timeout = kind.and_then(|kind| kind.timeout);
        let pool = Pool::new(name.clone(), worker.clone(), Arc::clone(runs), timeout);
        let spec = PoolSpec {
            name: name.clone(),
            worker,
            max_workers,
            queue: QUEUE,
            labels: wanted.labels.unwrap_or_default(),
        };
        if !core.pools.add(spec, pool) {
            let message = format!("pool {name} was made by another call just now");
            return Err(Problem::new(ErrorKind::Conflict, message)
                .with_hint("call set_pool again to change it"));
        }
        if wanted.draining == Some(true) {
            self.drain_pool(name)?;
        }
        Ok(())
    }

    /// Answers `close_pool`: what was accepted may end within the grace period; then what runs is stopped, and what is
    /// queued for the pool goes to another that fits, or ends.
    pub(super) async fn close_pool(&self, args: ClosePool) -> Result<PoolRow, Problem> {
        let grace = arguments::seconds("grace_s", args.grace_s, 0.0..=30.0)?;
        let pool = self.drain_pool(&args.name)?;
        let pools = &self.0.pools;
        if !self
            .is_idle_within(&args.name, grace.unwrap_or(CLOSE_GRACE), || {})
            .await
        {
            pools.change(|router| router.set_availability(pool.key, Availability::Closing));
            // At every look, since an item that was just about to start does not run yet.
            let stop = || {
                for run in self.0.engine.live_runs() {
                    run.stop_pool(&args.name);
                }
            };
            self.is_idle_within(&args.name, STOP_LIMIT, stop).await;
        }
        let row = self.temporary_row(&args.name).await?;
        pools.remove(pool.key);
        pools.ring();
        self.0.engine.end_unroutable().await;
        Ok(row)
    }

    fn drain_pool(&self, name: &PoolName) -> Result<PoolStatus, Problem> {
        let pool = self.pool("name", name)?;
        let drain = Availability::Draining;
        self.0
            .pools
            .change(|router| router.set_availability(pool.key, drain));
        Ok(pool)
    }

    /// Waits until nothing runs in the pool or is queued for it, calling `meanwhile` at every look; returns whether that
    /// came within `limit`.
    async fn is_idle_within(&self, name: &PoolName, limit: Duration, meanwhile: impl Fn()) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            meanwhile();
            let pool = self.0.pools.get(name.as_str());
            if pool.is_none_or(|pool| pool.load.in_flight + pool.load.queued == 0) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn temporary_row(&self, name: &PoolName) -> Result<PoolRow, Problem> {
        Ok(PoolRow {
            temporary: true,
            ..self.pool_row(name).await?
        })
    }
}

fn labels(labels: Vec<String>) -> Result<Vec<String>, Problem> {
    let is_good = |label: &String| {
        (1..=LABEL_BYTES).contains(&label.len())
            && !label.contains(|c: char| c.is_control() || c.is_whitespace())
    };
    if labels.len() > MAX_LABELS || !labels.iter().all(is_good) {
        return Err(Problem::argument(
            "labels",
            "a label is empty, too long or contains blanks, or there are too many",
            format!("up to {MAX_LABELS} labels of 1 to {LABEL_BYTES} bytes without blanks"),
        ));
    }
    Ok(labels)
}
