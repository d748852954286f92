//! `cancel_workflow`, for runs of this server and of others.

use super::arguments;
use super::select;
use super::snapshot::is_over;
use super::wait::Until;
use crate::api::{Caller, CancelWorkflow, WorkflowResult};
use crate::error::Problem;
use crate::model::{ItemIndex, WorkflowId};
use crate::orchestrator::Orchestrator;
use crate::orchestrator::engine::Stop;
use crate::store::{OwnerRequest, OwnerState};
use std::time::Duration;
use tokio::time::Instant;

/// How long beyond the grace period the answer waits for the items to end.
const WAIT: Duration = Duration::from_secs(10);

impl Orchestrator {
    /// Answers `cancel_workflow`.
    pub(super) async fn cancel_workflow(
        &self,
        args: CancelWorkflow,
        caller: &Caller,
    ) -> Result<WorkflowResult, Problem> {
        let engine = &self.0.engine;
        let grace = arguments::seconds("grace_s", args.grace_s, 0.0..=30.0)?;
        let grace = grace.unwrap_or(self.0.config.limits.grace);
        let id = args.workflow_id;
        let snapshot = self.snapshot(id).await?;
        let named = select::items(&snapshot.items, &args.items)?;
        let items: Vec<ItemIndex> = named.into_iter().collect();
        match engine.run(id) {
            Some(run) => {
                engine
                    .stop(&run, &items, Stop::Requested, Some(grace))
                    .await
            }
            None => self.cancel_elsewhere(id, &items, grace, caller).await?,
        }
        let limit = (grace + WAIT).min(caller.host_wait_cap);
        let waited = if items.is_empty() {
            self.wait(id, limit, Until::Done, caller).await?
        } else {
            self.wait_for_items(id, &items, limit, caller).await?;
            None
        };
        self.answer(waited, id).await
    }

    async fn cancel_elsewhere(
        &self,
        id: WorkflowId,
        items: &[ItemIndex],
        grace: Duration,
        caller: &Caller,
    ) -> Result<(), Problem> {
        let stored = self.stored(id).await?;
        if stored.owner == OwnerState::Other && !is_over(&stored) {
            let request = OwnerRequest::Cancel {
                items: items.to_vec(),
                grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
            };
            self.ask_owner(id, request, caller).await?;
        }
        Ok(())
    }

    /// Waits until these items have ended, for `limit` at most.
    async fn wait_for_items(
        &self,
        id: WorkflowId,
        items: &[ItemIndex],
        limit: Duration,
        caller: &Caller,
    ) -> Result<(), Problem> {
        let deadline = Instant::now() + limit;
        loop {
            let snapshot = self.snapshot(id).await?;
            let records = items
                .iter()
                .filter_map(|item| snapshot.items.get(*item as usize));
            let left = deadline.saturating_duration_since(Instant::now());
            if records.into_iter().all(|record| record.status.is_final())
                || left.is_zero()
                || caller.interrupt_now().is_some()
            {
                return Ok(());
            }
            let change = Until::Change(snapshot.revision);
            self.wait(id, left, change, caller).await?;
        }
    }
}
