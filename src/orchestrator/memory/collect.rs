//! Collecting from all pools at once under one deadline: the store's own memories and those of a pool's server.

use super::collector::{Answer, Failure, FanOut};
use super::handle::Memories;
use super::pools::{Collect, PoolNames};
use crate::api::{Caller, PoolOutcome, Progress};
use crate::error::{ErrorKind, Problem};
use crate::model::{At, MemoryId, NewMemory, PeerName, PoolName};
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

/// How many memories one transaction takes.
const BATCH: u32 = 500;

/// The result of one pool's collection so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) new: Vec<MemoryId>,
    pub(super) duplicate: u64,
    /// How many of the new ones came from the peer itself, which therefore has them.
    pub(super) at_peer: u64,
}

/// One pool to collect from.
struct Target {
    pool: PoolName,
    collector: Option<Arc<dyn Collect>>,
    // A tokio mutex, held from before a batch's transaction until its figures are added, so that a reader waits for a
    // transaction in progress. Shared, so that what a late pool delivered is counted.
    tally: Arc<Mutex<Tally>>,
}

/// The settings that all collections of one call share.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) memories: Memories,
    pub(super) since: Option<At>,
    pub(super) forward_to: Option<PeerName>,
    pub(super) deadline: Instant,
}

/// Collects from all pools at once and returns each pool's result, in their order.
pub(super) async fn collect_all(
    job: &Job,
    pools: Vec<PoolName>,
    names: &impl PoolNames,
    caller: &Caller,
) -> Vec<(PoolName, Tally, Result<PoolOutcome, Problem>)> {
    let tallies: Vec<_> = pools
        .into_iter()
        .map(|pool| (pool, Arc::new(Mutex::new(Tally::default()))))
        .collect();
    let targets: Vec<Target> = tallies
        .iter()
        .map(|(pool, tally)| Target {
            pool: pool.clone(),
            collector: names.collector(pool),
            tally: Arc::clone(tally),
        })
        .collect();
    let shared = job.clone();
    let mut running = FanOut::start(targets, job.deadline, move |target| {
        let job = shared.clone();
        async move { job.collect(&target).await }
    });
    let mut outcomes: Vec<Result<PoolOutcome, Problem>> = Vec::new();
    outcomes.resize_with(tallies.len(), || Ok(PoolOutcome::Late));
    let mut done = 0;
    while let Some((at, answer)) = running.next().await {
        outcomes[at] = match answer {
            Answer::Ok(()) => Ok(PoolOutcome::Ok),
            Answer::Late => Ok(PoolOutcome::Late),
            Answer::Failed(Failure::Error(problem)) => Err(problem),
            Answer::Failed(panicked) => {
                Err(Problem::new(ErrorKind::Internal, panicked.to_string()))
            }
        };
        done += 1;
        caller.progress.report(Progress {
            done,
            total: Some(tallies.len() as u64),
            message: Some("pools collected".to_owned()),
        });
    }
    let mut rows = Vec::with_capacity(tallies.len());
    for ((pool, tally), outcome) in tallies.into_iter().zip(outcomes) {
        let tally = tally.lock().await.clone();
        rows.push((pool, tally, outcome));
    }
    rows
}

impl Job {
    /// Collects one pool's memories from the store and from its own server.
    async fn collect(&self, target: &Target) -> Result<(), Problem> {
        self.collect_stored(target).await?;
        if let Some(collector) = &target.collector {
            let told = collector.collect(self.since, self.deadline).await?;
            self.keep_told(target, told).await?;
        }
        Ok(())
    }

    async fn collect_stored(&self, target: &Target) -> Result<(), Problem> {
        let mut after = 0;
        loop {
            let (job, pool) = (self.clone(), target.pool.clone());
            let next = self.batch(target, move |mut tally| async move {
                let (store, to) = (&job.memories.0.store, job.forward_to.clone());
                let batch = store
                    .collect_memories(pool, job.since, after, BATCH, to)
                    .await?;
                tally.add(batch.new, batch.duplicate, 0);
                Ok(batch.next)
            });
            match next.await? {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
    }

    async fn keep_told(&self, target: &Target, told: Vec<NewMemory>) -> Result<(), Problem> {
        /// The longest text that the store takes.
        const MAX_TEXT_BYTES: usize = 1 << 20;
        let peer = self.memories.forward_to();
        let mut told = told.into_iter().map(|mut memory| {
            memory.text.truncate(MAX_TEXT_BYTES);
            memory.aggregated = true;
            memory
        });
        loop {
            let batch: Vec<NewMemory> = told.by_ref().take(BATCH as usize).collect();
            if batch.is_empty() {
                return Ok(());
            }
            let from_peer = |memory: &NewMemory| {
                peer.as_ref()
                    .is_some_and(|peer| peer.as_str() == memory.source)
            };
            let at_peer = batch.iter().all(from_peer);
            let job = self.clone();
            let kept = self.batch(target, move |mut tally| async move {
                let (store, to) = (&job.memories.0.store, job.forward_to.clone());
                let report = store.insert_memories(batch, to).await?;
                let known = if at_peer { u64::from(report.new) } else { 0 };
                tally.add(report.new_ids, u64::from(report.duplicate), known);
                Ok(())
            });
            kept.await?;
        }
    }

    /// Runs one batch in its own task, since the deadline may abort the collection: what a transaction has written is
    /// counted and forwarded in any case.
    async fn batch<T, F>(
        &self,
        target: &Target,
        work: impl FnOnce(OwnedMutexGuard<Tally>) -> F,
    ) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Problem>> + Send + 'static,
    {
        let tally = Arc::clone(&target.tally).lock_owned().await;
        let (work, job) = (work(tally), self.clone());
        let batch = self.memories.0.tasks.spawn(async move {
            let done = work.await;
            job.told_sender();
            done
        });
        let ended = batch.await.map_err(|error| {
            Problem::new(ErrorKind::Internal, format!("a batch ended early: {error}"))
        });
        ended?
    }

    /// Wakes the sender while collecting continues.
    fn told_sender(&self) {
        if self.forward_to.is_some() {
            self.memories.stored();
        }
    }
}

impl Tally {
    fn add(&mut self, new: Vec<MemoryId>, duplicate: u64, at_peer: u64) {
        self.new.extend(new);
        self.duplicate += duplicate;
        self.at_peer += at_peer;
    }
}
