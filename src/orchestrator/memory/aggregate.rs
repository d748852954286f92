//! `aggregate_memory`: what a call collects, how long it waits for forwarding, and the figures that it answers.

use super::collect::{Job, Tally, collect_all};
use super::handle::Memories;
use super::pools::{PoolNames, unknown_pool};
use crate::api::{
    AggregateMemory, AggregateMemoryResult, Caller, Collected, Forwarding, PoolCollection,
    PoolOutcome,
};
use crate::error::Problem;
use crate::model::{At, MemoryId, PeerName, PoolName};
use crate::orchestrator::instants;
use crate::orchestrator::sync::forwarding::Forwarding as Sender;
use crate::store::Store;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// The shortest deadline of a collection, however short `wait_s` is.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// How long to wait for a peer that is down before answering; it may be restarting.
const DOWN_PATIENCE: Duration = Duration::from_secs(3);

/// How often the outbox is polled while waiting: another server process may be the one that sends.
const LOOK: Duration = Duration::from_millis(300);

/// The shortest time between two polls, per memory that is polled for: ten times what one poll takes.
const LEAST_LOOK: Duration = Duration::from_micros(20);

/// The most bytes that the rows of an answer may take.
const ROWS_BYTES: usize = 7_500;

impl Memories {
    /// Answers `aggregate_memory`.
    ///
    /// # Errors
    ///
    /// A refusal of `pools`, `since` or `wait_s`, or that the store cannot be read. A pool that fails is a row.
    ///
    /// # Cancel safety
    ///
    /// Memories collected so far stay in the store, and forwarding continues in the background.
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

    /// Returns the pools of a call, each once: the named ones, where a closed pool must have left memories; or, with none
    /// named, all pools and the closed ones that left something to collect.
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

    /// Queues the dead letters again and returns their memories.
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

    /// Waits until the peer has acknowledged or rejected `ids`, until it is known to be down, or until the deadline.
    async fn wait_for_forwarding(
        &self,
        sender: &Sender,
        ids: Vec<MemoryId>,
        deadline: Instant,
    ) -> Result<(), Problem> {
        let mut status = sender.subscribe();
        // A peer that restarted since may have lost memories that it had acknowledged.
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
            // A poll reads a row per id, so a burst of changes is one poll.
            sleep(least.min(LOOK).min(deadline - Instant::now())).await;
            let look = deadline.min(Instant::now() + LOOK);
            // Woken or timed out, the next poll reads the outbox itself.
            let _ = timeout_at(look, status.changed()).await;
        }
        Ok(())
    }

    /// Builds the answer; every total is the sum over its rows.
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

/// Returns how many of a pool's new memories are forwarded, pending and failed now.
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

/// Sorts failed and late pools first and drops the rows that exceed the answer's size; returns whether any was dropped.
fn shorten(pools: &mut Vec<PoolCollection>) -> bool {
    // The sort is stable: within each group the pools keep their order.
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
