//! All that is known of a workflow at one moment, from its run here or from the store.

use crate::api::Owner;
use crate::error::{ErrorKind, Problem};
use crate::model::{Counts, ItemRecord, ItemState, WorkflowId, WorkflowRecord, WorkflowStatus};
use crate::orchestrator::Orchestrator;
use crate::orchestrator::engine::{Run, View};
use crate::store::{OwnerState, StoredWorkflow};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// All that is known of a workflow at one moment.
pub(super) struct Snapshot {
    pub(super) record: Arc<WorkflowRecord>,
    pub(super) items: Vec<Arc<ItemRecord>>,
    pub(super) counts: Counts,
    pub(super) revision: u64,
    pub(super) owner: Owner,
    pub(super) eta: Option<Duration>,
}

impl From<View> for Snapshot {
    fn from(view: View) -> Self {
        Self {
            record: view.record,
            items: view.items,
            counts: view.counts,
            revision: view.revision,
            owner: Owner::This,
            eta: view.eta,
        }
    }
}

impl From<StoredWorkflow> for Snapshot {
    fn from(stored: StoredWorkflow) -> Self {
        Self {
            record: Arc::new(stored.record),
            counts: Counts::of(stored.items.iter().map(|item| item.status)),
            items: stored.items.into_iter().map(Arc::new).collect(),
            revision: stored.revision,
            owner: stored.owner.into(),
            eta: None,
        }
    }
}

impl From<OwnerState> for Owner {
    fn from(owner: OwnerState) -> Self {
        match owner {
            OwnerState::This => Self::This,
            OwnerState::Other => Self::Other,
            OwnerState::Dead => Self::Dead,
        }
    }
}

impl Snapshot {
    /// Returns the workflow's status.
    pub(super) fn status(&self) -> WorkflowStatus {
        self.counts.status_within(self.record.settings.max_failures)
    }

    /// Returns the repositories whose repeats ended differently.
    pub(super) fn flaky(&self) -> BTreeSet<&str> {
        if self.record.settings.repeat <= 1 {
            return BTreeSet::new();
        }
        let ended = |states: &[ItemState]| -> BTreeSet<&str> {
            let records = self.items.iter();
            let those = records.filter(|record| states.contains(&record.status));
            those.map(|record| record.repo.as_str()).collect()
        };
        let passed = ended(&[ItemState::Succeeded]);
        let failed = ended(&[ItemState::Failed, ItemState::TimedOut]);
        passed.intersection(&failed).copied().collect()
    }
}

impl Orchestrator {
    /// Returns all that is known of a workflow now.
    ///
    /// A workflow that nothing runs any more although it is journaled as running is marked interrupted first.
    ///
    /// # Errors
    ///
    /// There is no such workflow, or the store cannot be read.
    pub(super) async fn snapshot(&self, id: WorkflowId) -> Result<Snapshot, Problem> {
        if let Some(run) = self.0.engine.run(id) {
            return Ok(run.view().into());
        }
        let stored = self.stored(id).await?;
        match stored.owner {
            _ if is_over(&stored) => return Ok(stored.into()),
            OwnerState::Other => return Ok(stored.into()),
            OwnerState::Dead => self.0.engine.recover().await?,
            OwnerState::This => {
                let _turn = self.0.engine.resuming().await;
                if let Some(run) = self.0.engine.run(id) {
                    return Ok(run.view().into());
                }
                self.0.engine.give_up(id).await?;
            }
        }
        Ok(self.stored(id).await?.into())
    }

    /// Returns all that is known of a workflow that [`Self::wait`] has waited for as `waited`.
    ///
    /// A run of this server that is over knows everything itself, so that nothing is read again.
    pub(super) async fn snapshot_after(
        &self,
        waited: Option<Arc<Run>>,
        id: WorkflowId,
    ) -> Result<Snapshot, Problem> {
        match waited {
            // A run under the same id was resumed meanwhile.
            Some(run) if run.is_over() && self.0.engine.run(id).is_none() => Ok(run.view().into()),
            _ => self.snapshot(id).await,
        }
    }

    /// Returns a workflow as it is journaled.
    pub(super) async fn stored(&self, id: WorkflowId) -> Result<StoredWorkflow, Problem> {
        let stored = self.0.store.workflow(id).await?;
        stored.ok_or_else(|| no_workflow(id))
    }
}

/// Returns whether no item is queued or runs.
pub(super) fn is_over(stored: &StoredWorkflow) -> bool {
    let open = |item: &ItemRecord| matches!(item.status, ItemState::Queued | ItemState::Running);
    !stored.items.iter().any(open)
}

/// Returns the error for an id that no workflow has.
pub(super) fn no_workflow(id: WorkflowId) -> Problem {
    Problem {
        field: Some("workflow_id".to_owned()),
        ..Problem::new(ErrorKind::NotFound, format!("there is no workflow {id}"))
    }
    .with_hint("get_workflow without workflow_id lists the workflows")
}
