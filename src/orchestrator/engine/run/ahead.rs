//! What a run does ahead of its slots: items that have begun in the journal and wait to start.

use super::item::{Item, Phase};
use super::{Begun, Run};
use crate::model::{At, ItemIndex, ItemRecord, ItemState, PoolName};
use crate::orchestrator::engine::live::Live;
use std::sync::Arc;
use std::time::Duration;

impl Run {
    /// Takes a ready item and begins an attempt at it that waits for its slot; none where it is not ready any more.
    pub(in super::super) fn claim_ahead(
        &self,
        item: ItemIndex,
        pool: &PoolName,
        grace: Duration,
    ) -> Option<Begun> {
        let mut state = self.state();
        let live = Arc::new(Live::new(grace));
        if !state.leave_ready(item, Phase::Ahead(Arc::clone(&live))) {
            return None;
        }
        let settings = Arc::clone(&state.record);
        let claimed = state.items.get_mut(item as usize)?;
        claimed.tries += 1;
        Some(Begun {
            record: claimed.next_attempt(pool),
            work: Arc::clone(&claimed.work),
            settings,
            live,
        })
    }

    /// Returns whether what was claimed ahead may start.
    pub(in super::super) fn may_start(&self, item: ItemIndex) -> bool {
        let state = self.state();
        let waits =
            |item: &Item| matches!(&item.phase, Phase::Ahead(live) if live.stopped().is_none());
        !state.has_failed_enough() && state.items.get(item as usize).is_some_and(waits)
    }

    /// Starts what was claimed ahead, now that it has a slot: it runs from now on. None where it may not any more.
    pub(in super::super) fn start(&self, record: &mut ItemRecord) -> Option<Arc<Live>> {
        let mut state = self.state();
        if state.has_failed_enough() {
            return None;
        }
        let item = state.items.get_mut(record.item as usize)?;
        let grace = match &item.phase {
            Phase::Ahead(live) if live.stopped().is_none() => live.grace.get(),
            _ => return None,
        };
        let live = Arc::new(Live::new(grace));
        record.started_at = Some(At::now());
        item.record = Arc::new(record.clone());
        item.phase = Phase::Live(Arc::clone(&live));
        state.taken += 1;
        state.counts.shift(ItemState::Queued, ItemState::Running);
        drop(state);
        self.wake(None);
        Some(live)
    }
}
