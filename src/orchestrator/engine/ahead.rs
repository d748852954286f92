//! Looking ahead: short items are made ready and journaled while those before them still run.
//!
//! To journal an attempt's begin takes the disk longer than many a program runs, and a slot that waits for it does
//! nothing. So where attempts are short, the next ones of the same run are prepared before there is a slot: claimed,
//! their repository locked, their begin journaled. Such an item holds no slot and is told as queued. It gets one of the
//! pool it was journaled for when its run has its turn, or is put back as if it had not begun: when it is stopped, and
//! when it has waited for [`LONGEST_WAIT`], so that nothing is bound to a pool that turned out to be slow.
//!
//! Only working copies are prepared: a worktree costs too much to be made for nothing. A run with `max_parallel` does
//! not look ahead, because what is prepared would be beyond it.

use super::Engine;
use super::dispatch::{Queue, park_if_busy};
use super::live::Live;
use super::run::{Next, Run};
use crate::model::{Isolation, ItemIndex};
use crate::orchestrator::routing::PoolKey;
use crate::orchestrator::routing::pool::Pool;
use crate::orchestrator::routing::pools::Slot;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a prepared item waits for a slot at most.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// The most items that are prepared for one pool; more would not make a commit cheaper.
const MOST: u32 = 32;

/// What an attempt has of the pool that it is made in.
pub(crate) enum Seat {
    /// A slot: it may start.
    Slot(Slot),
    /// The prospect of one.
    Ahead(Ahead),
}

/// The prospect of a slot.
pub(crate) struct Ahead {
    pool: Arc<Pool>,
    slot: oneshot::Receiver<Slot>,
}

impl Seat {
    /// Returns the pool.
    pub(crate) fn pool(&self) -> &Arc<Pool> {
        match self {
            Self::Slot(slot) => &slot.pool,
            Self::Ahead(ahead) => &ahead.pool,
        }
    }

    /// Returns the slot, where it has one.
    pub(crate) fn slot(&self) -> Option<&Slot> {
        match self {
            Self::Slot(slot) => Some(slot),
            Self::Ahead(_) => None,
        }
    }
}

impl Ahead {
    /// Waits for the slot; none where it does not come in time or the item is stopped.
    pub(crate) async fn slot(&mut self, live: &Live) -> Option<Slot> {
        tokio::select! {
            biased;
            slot = &mut self.slot => return slot.ok(),
            () = live.cancel.cancelled() => {}
            () = tokio::time::sleep(LONGEST_WAIT) => {}
        }
        // One that was given just now is not to be lost on the way.
        self.slot.close();
        self.slot.try_recv().ok()
    }
}

/// Prepared items by the pool that they were journaled for, the oldest first.
#[derive(Default)]
pub(crate) struct Prepared(HashMap<PoolKey, VecDeque<Waiting>>);

struct Waiting {
    run: Arc<Run>,
    item: ItemIndex,
    give: oneshot::Sender<Slot>,
}

impl Prepared {
    /// Returns whether an item of this run waits.
    pub(crate) fn has(&self, run: &Arc<Run>) -> bool {
        self.0.values().flatten().any(|waiting| waiting.is_of(run))
    }

    fn len(&self, key: PoolKey) -> usize {
        self.0.get(&key).map_or(0, VecDeque::len)
    }

    /// Forgets those that wait no more.
    fn forget_gone(&mut self) {
        self.0.retain(|_, line| {
            line.retain(|waiting| !waiting.give.is_closed());
            !line.is_empty()
        });
    }
}

impl Waiting {
    fn is_of(&self, run: &Arc<Run>) -> bool {
        Arc::ptr_eq(&self.run, run)
    }
}

impl Engine {
    /// Gives a slot to the oldest prepared item of a run; returns whether there were both.
    pub(crate) fn start_prepared(&self, queue: &mut Queue, run: &Arc<Run>) -> bool {
        queue.prepared.forget_gone();
        for (&key, line) in &mut queue.prepared.0 {
            let may_start = |waiting: &Waiting| waiting.is_of(run) && run.may_start(waiting.item);
            let Some(at) = line.iter().position(may_start) else {
                continue;
            };
            let Some(slot) = self.pools.acquire_in(key) else {
                continue;
            };
            if let Some(waiting) = line.remove(at) {
                // Where it has gone just now, the slot comes back with it and is free again.
                return waiting.give.send(slot).is_ok();
            }
        }
        false
    }

    /// Prepares the next items of a run, one of whose attempts has just ended in this pool after `took`.
    pub(crate) fn look_ahead(
        &self,
        queue: &mut Queue,
        run: &Arc<Run>,
        (key, pool): (PoolKey, &Arc<Pool>),
        took: Duration,
    ) {
        let settings = &run.record().settings;
        if settings.isolation != Isolation::InPlace || settings.max_parallel.is_some() {
            return;
        }
        let most = depth(self.pools.width(key), took);
        while queue.prepared.len(key) < most {
            let Next::Item(work) = run.next() else {
                return;
            };
            if park_if_busy(queue, run, &work) {
                continue;
            }
            let Some(begun) = run.claim_ahead(work.item, &pool.name, self.limits.grace) else {
                return;
            };
            queue.busy.insert(work.repo.clone());
            let (give, slot) = oneshot::channel();
            let waiting = Waiting {
                run: Arc::clone(run),
                item: work.item,
                give,
            };
            queue.prepared.0.entry(key).or_default().push_back(waiting);
            let seat = Seat::Ahead(Ahead {
                pool: Arc::clone(pool),
                slot,
            });
            let (engine, run) = (self.clone(), Arc::clone(run));
            self.tasks
                .spawn(async move { engine.make(run, begun, seat).await });
        }
    }
}

/// Returns how many items a pool of `width` slots will start within half the time that they may wait, where an attempt
/// takes as long as the last one `took`.
fn depth(width: u32, took: Duration) -> usize {
    let rounds = (LONGEST_WAIT / 2).as_micros() / took.as_micros().max(1);
    let items = u128::from(width).saturating_mul(rounds);
    items.min(u128::from(MOST)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_items_are_prepared_and_never_many() {
        let ms = Duration::from_millis;
        assert_eq!(depth(8, ms(5)), 32);
        assert_eq!(depth(2, ms(5)), 10);
        assert_eq!(depth(1, ms(20)), 1);
        assert_eq!(depth(1_000, ms(26)), 0);
        assert_eq!(depth(u32::MAX, Duration::ZERO), 32);
    }
}
