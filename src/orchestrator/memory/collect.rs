//! `aggregate_memory`: all pools at once, new memories counted, forwarding under way meanwhile.

use super::collector::{Answer, Failure, FanOut};
use super::handle::Memories;
use super::pools::{Collect, PoolNames, unknown_pool};
use crate::api::{
    AggregateMemory, AggregateMemoryResult, Caller, Collected, Forwarding, PoolCollection,
    PoolOutcome, Progress,
};
use crate::error::{ErrorKind, Problem};
use crate::model::{At, MemoryId, NewMemory, PeerName, PoolName};
use crate::orchestrator::instants;
use crate::orchestrator::sync::forwarding::Forwarding as Sender;
use crate::redact::redact;
use crate::store::Store;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, sleep, timeout_at};

/// How many memories one transaction takes.
const BATCH: u32 = 500;

/// A pool's own server is given this long at least, however little the caller waits.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// How long is waited for a peer that does not answer; it may just be restarting.
const DOWN_PATIENCE: Duration = Duration::from_secs(3);

/// How often is looked at the outbox while waiting: another server may be the one that sends.
const LOOK: Duration = Duration::from_millis(300);
/// How long is waited between two looks at least, for each memory that is looked at: ten times what the look takes.
const LEAST_LOOK: Duration = Duration::from_micros(20);

/// The most bytes that the rows of an answer may take.
const ROWS_BYTES: usize = 7_500;

/// What a pool's collection has given so far.
#[derive(Debug, Clone, Default)]
struct Tally {
    new: Vec<MemoryId>,
    duplicate: u64,
    /// Of the new ones, those that the peer itself told: it has them.
    at_peer: u64,
}

/// One pool to collect from.
struct Target {
    pool: PoolName,
    collector: Option<Arc<dyn Collect>>,
    // A tokio mutex: held from before a batch's transaction until its figures are added. Shared, so that what a late
    // pool gave counts, and whoever reads it waits for a transaction that is under way.
    tally: Arc<Mutex<Tally>>,
}

/// What all collections of one call have in common.
#[derive(Clone)]
struct Job {
    memories: Memories,
    since: Option<At>,
    forward_to: Option<PeerName>,
    deadline: Instant,
}

impl Memories {
    /// Answers `aggregate_memory`.
    ///
    /// # Errors
    ///
    /// A refusal of `pools`, `since` or `wait_s`, or that the store cannot be read. A pool that fails is a row.
    ///
    /// # Cancel safety
    ///
    /// What was collected stays collected, and what is to be forwarded goes on by itself.
    pub async fn aggregate(
        &self,
        call: AggregateMemory,
        caller: &Caller,
        names: &impl PoolNames,
    ) -> Result<AggregateMemoryResult, Problem> {
        let wait = caller.wait(call.wait_s, Caller::DEFAULT_WAIT)?;
        let (since, _) = instants::range(call.since.as_deref(), None, At::now())?;
        let pools = self.chosen(&call.pools, since, names).await?;
        let forward = call.forward.unwrap_or(true);
        let sender = self.0.forwarding.as_ref().filter(|_| forward);
        let resent = match call.resend_failed {
            true => Some(self.resend(sender).await?),
            false => None,
        };
        if let Some(sender) = sender {
            sender.connect_ahead();
        }
        let begun = Instant::now();
        let patience = self
            .0
            .collect_deadline
            .min(wait.duration.max(LEAST_PATIENCE));
        let job = Job {
            memories: self.clone(),
            since,
            forward_to: sender.map(|sender| sender.peer().clone()),
            deadline: begun + patience,
        };
        let rows = collect_all(&job, pools, names, caller).await;
        if let Some(sender) = sender {
            let mut ids: Vec<MemoryId> = rows.iter().flat_map(|row| row.1.new.clone()).collect();
            ids.extend(resent.iter().flatten());
            self.wait_for_forwarding(sender, ids, begun + wait.duration)
                .await?;
        }
        let mut result = self.summed(rows, sender).await?;
        result.resent = resent.map(|ids| ids.len() as u64);
        result.wait_capped_s = wait.capped_s;
        Ok(result)
    }

    /// Returns the pools that a call means, each once: all that there are and those that are gone and left something to
    /// collect, or the ones it names, where a gone one must have left memories.
    async fn chosen(
        &self,
        asked: &[PoolName],
        since: Option<At>,
        names: &impl PoolNames,
    ) -> Result<Vec<PoolName>, Problem> {
        if asked.is_empty() {
            let mut pools = names.all();
            let left = self.0.store.collectable_pools(since).await?;
            pools.extend(left.into_iter().filter(|pool| !names.exists(pool.as_str())));
            return Ok(pools);
        }
        let unique: BTreeSet<&PoolName> = asked.iter().collect();
        for &name in &unique {
            if !names.exists(name.as_str()) && !self.has_memories_of(name).await? {
                return Err(unknown_pool("pools", name, names));
            }
        }
        Ok(unique.into_iter().cloned().collect())
    }

    /// Puts what the peer refused for good back in line; returns what that is.
    async fn resend(&self, sender: Option<&Sender>) -> Result<Vec<MemoryId>, Problem> {
        let Some(sender) = sender else {
            return Err(Problem::argument(
                "resend_failed",
                "nothing is forwarded by this call",
                "true with a [session_buddy] in the config and without `forward` false",
            ));
        };
        let requeued = self.0.store.requeue_dead(sender.peer().clone()).await?;
        if !requeued.is_empty() {
            self.stored();
        }
        Ok(requeued)
    }

    /// Waits until the peer has `ids` or refused them, until it turns out to be down, or until the deadline.
    async fn wait_for_forwarding(
        &self,
        sender: &Sender,
        ids: Vec<MemoryId>,
        deadline: Instant,
    ) -> Result<(), Problem> {
        let mut status = sender.subscribe();
        // A peer that restarted meanwhile may have lost what it had.
        sender.check_now();
        let mut down: Option<Instant> = None;
        let least = LEAST_LOOK * u32::try_from(ids.len()).unwrap_or(u32::MAX);
        while Instant::now() < deadline {
            let counts = self
                .0
                .store
                .outbox_counts_of(sender.peer().clone(), ids.clone());
            if counts.await?.open() == 0 {
                break;
            }
            status.mark_unchanged();
            if sender.sender_state().await?.down_since.is_none() {
                down = None;
            } else if down.get_or_insert_with(Instant::now).elapsed() >= DOWN_PATIENCE {
                break;
            }
            // The counts cost a look at each id, so a burst of news is one look.
            sleep(least.min(LOOK).min(deadline - Instant::now())).await;
            let look = deadline.min(Instant::now() + LOOK);
            // Neither news nor the lack of them matters here: the outbox is what is asked.
            let _ = timeout_at(look, status.changed()).await;
        }
        Ok(())
    }

    /// Adds the rows up; every figure of the whole is a sum over its rows.
    async fn summed(
        &self,
        rows: Vec<(PoolName, Tally, Result<PoolOutcome, Problem>)>,
        sender: Option<&Sender>,
    ) -> Result<AggregateMemoryResult, Problem> {
        let peer = self.forward_to();
        let mut sum = Collected::default();
        let mut pools = Vec::with_capacity(rows.len());
        for (pool, tally, outcome) in rows {
            let figures = figures(&self.0.store, peer.clone(), &tally).await?;
            add(&mut sum, &figures);
            let (status, error) = match outcome {
                Ok(status) => (status, None),
                Err(problem) => (PoolOutcome::Failed, Some(problem)),
            };
            let mut row = PoolCollection::of(pool, status, figures);
            row.error = error;
            pools.push(row);
        }
        let counts = match &peer {
            Some(peer) => self.0.store.outbox_counts(peer.clone()).await,
            None => Ok(Default::default()),
        };
        let counts = counts?;
        let down_since = match sender {
            Some(sender) => sender.sender_state().await?.down_since,
            None => None,
        };
        let forwarding = match (sender, down_since) {
            (None, _) => Forwarding::Off,
            (Some(_), Some(_)) => Forwarding::Down,
            (Some(_), None) => Forwarding::Ok,
        };
        let truncated = shorten(&mut pools);
        Ok(AggregateMemoryResult {
            collected: sum.collected,
            new: sum.new,
            duplicate: sum.duplicate,
            forwarded: sum.forwarded,
            pending: sum.pending,
            failed: sum.failed,
            outbox_pending: counts.open(),
            outbox_failed: counts.dead,
            resent: None,
            forwarding,
            down_since,
            pools,
            truncated,
            wait_capped_s: None,
        })
    }
}

/// Collects from all pools at once and returns what each gave, in their order.
async fn collect_all(
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
    /// Collects from one pool: what is in the store, and what its own server has.
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
            memory.text = redact(&memory.text).into_string();
            memory
                .text
                .truncate(memory.text.floor_char_boundary(MAX_TEXT_BYTES));
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

    /// Runs one batch apart from the collection, which its deadline may cut off: what a transaction has written is
    /// counted, and the sender told, in any case.
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

    /// Lets forwarding begin while collecting goes on.
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

/// Returns what has become of a pool's new memories by now.
async fn figures(
    store: &Store,
    peer: Option<PeerName>,
    tally: &Tally,
) -> Result<Collected, Problem> {
    let new = tally.new.len() as u64;
    let counts = match peer {
        Some(peer) if new > 0 => store.outbox_counts_of(peer, tally.new.clone()).await,
        _ => Ok(Default::default()),
    };
    let counts = counts?;
    let forwarded = (counts.acked + tally.at_peer).min(new);
    let failed = counts.dead.min(new - forwarded);
    Ok(Collected {
        collected: new + tally.duplicate,
        new,
        duplicate: tally.duplicate,
        forwarded,
        pending: new - forwarded - failed,
        failed,
    })
}

fn add(sum: &mut Collected, more: &Collected) {
    sum.collected += more.collected;
    sum.new += more.new;
    sum.duplicate += more.duplicate;
    sum.forwarded += more.forwarded;
    sum.pending += more.pending;
    sum.failed += more.failed;
}

/// Puts failed and late pools first and cuts the rows to what an answer can hold; returns whether rows were left out.
fn shorten(pools: &mut Vec<PoolCollection>) -> bool {
    // Stable: within each group the pools keep their order.
    pools.sort_by_key(|row| (row.status == PoolOutcome::Ok, row.collected == 0));
    let mut bytes = 0;
    let fitting = pools.iter().take_while(|row| {
        bytes += serde_json::to_string(row).map_or(0, |text| text.len() + 1);
        bytes <= ROWS_BYTES
    });
    let kept = fitting.count();
    let left_out = pools.len() > kept;
    pools.truncate(kept);
    left_out
}
