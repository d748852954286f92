//! `get_workflow`: one workflow's state, after waiting for it, or the list of workflows.

use super::page::bad_cursor;
use super::select;
use super::view::{self, Cursor, Shown};
use super::wait::Until;
use crate::api::{
    Caller, GetWorkflow, GetWorkflowResult, WaitFor, WorkflowList, WorkflowResult, WorkflowRow,
};
use crate::error::Problem;
use crate::model::{At, Revision, WorkflowId};
use crate::orchestrator::engine::Run;
use crate::orchestrator::{Orchestrator, instants};
use crate::store::{OwnerState, WorkflowQuery, WorkflowSummary};
use std::sync::Arc;
use std::time::Duration;

/// How many workflows one page of the list has.
const LIST_PAGE: u32 = 20;

impl Orchestrator {
    /// Answers `get_workflow`.
    pub(super) async fn get_workflow(
        &self,
        args: GetWorkflow,
        caller: &Caller,
    ) -> Result<GetWorkflowResult, Problem> {
        match args.workflow_id {
            Some(id) => {
                let one = self.follow(id, args, caller).await?;
                Ok(GetWorkflowResult::One(Box::new(one)))
            }
            None => self.list_workflows(args).await.map(GetWorkflowResult::List),
        }
    }

    async fn follow(
        &self,
        id: WorkflowId,
        args: GetWorkflow,
        caller: &Caller,
    ) -> Result<WorkflowResult, Problem> {
        let default = match (args.wait_for, args.after) {
            (None, None) => Duration::ZERO,
            _ => Caller::DEFAULT_WAIT,
        };
        let wait = caller.wait(args.wait_s, default)?;
        let after = args.after.map(revision).transpose()?;
        let until = match (args.wait_for, after) {
            (Some(WaitFor::Failure), after) => Until::Failure(after),
            (Some(WaitFor::Change), None) => Until::Change(self.snapshot(id).await?.revision),
            (Some(WaitFor::Change) | None, Some(after)) => Until::Change(after),
            (Some(WaitFor::Done) | None, _) => Until::Done,
        };
        let waited = self.wait(id, wait.duration, until, caller).await?;
        let mut snapshot = self.snapshot_after(waited, id).await?;
        self.fill_in_applied(&mut snapshot).await?;
        let named = select::items(&snapshot.items, &args.items)?;
        let cursor = args
            .cursor
            .as_deref()
            .map(str::parse::<Cursor>)
            .transpose()?;
        let shown = Shown {
            asked: !args.items.is_empty()
                || !args.only.is_empty()
                || args.detail.is_some()
                || cursor.is_some(),
            items: (!args.items.is_empty()).then_some(named),
            only: args.only,
            detail: args.detail.unwrap_or_default(),
            cursor: cursor.unwrap_or_default(),
        };
        let mut result = view::workflow(&snapshot, &shown);
        result.wait_capped_s = wait.capped_s;
        Ok(result)
    }

    /// Returns the short answer about a workflow that [`Self::wait`] has waited for as `waited`.
    pub(super) async fn answer(
        &self,
        waited: Option<Arc<Run>>,
        id: WorkflowId,
    ) -> Result<WorkflowResult, Problem> {
        let snapshot = self.snapshot_after(waited, id).await?;
        Ok(view::workflow(&snapshot, &Shown::default()))
    }

    async fn list_workflows(&self, args: GetWorkflow) -> Result<WorkflowList, Problem> {
        let since = args.since.as_deref();
        let query = WorkflowQuery {
            repo: args.repo,
            status: args.status,
            since: since
                .map(|text| instants::instant("since", text, At::now()))
                .transpose()?,
            before: match args.cursor {
                Some(cursor) => Some(cursor.parse().map_err(|_| bad_cursor())?),
                None => None,
            },
            limit: LIST_PAGE + 1,
        };
        let mut found = self.0.store.workflows(query.clone()).await?;
        let abandoned = |row: &WorkflowSummary| {
            row.owner == OwnerState::Dead && row.counts.queued + row.counts.running > 0
        };
        if found.iter().any(abandoned) {
            self.0.engine.recover().await?;
            found = self.0.store.workflows(query).await?;
        }
        let more = found.len() > LIST_PAGE as usize;
        found.truncate(LIST_PAGE as usize);
        let last = found.last().filter(|_| more);
        Ok(WorkflowList {
            cursor: last.map(|row| row.record.id.to_string()),
            workflows: found.into_iter().map(WorkflowRow::from).collect(),
        })
    }
}

impl From<WorkflowSummary> for WorkflowRow {
    fn from(summary: WorkflowSummary) -> Self {
        let max_failures = summary.record.settings.max_failures;
        Self {
            workflow_id: summary.record.id,
            title: summary.record.title.into(),
            status: summary.counts.status_within(max_failures),
            owner: summary.owner.into(),
            counts: summary.counts,
            created_at: summary.record.created_at,
        }
    }
}

fn revision(after: i64) -> Result<Revision, Problem> {
    Revision::try_from(after).map_err(|_| {
        let message = format!("after is {after}");
        Problem::argument("after", message, "the `revision` of an earlier answer")
    })
}
