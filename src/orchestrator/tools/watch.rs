//! Following a workflow: waiting for it, here or on another server, and `get_workflow`.

use super::select;
use super::view;
use super::view::Snapshot;
use crate::api::{
    Caller, GetWorkflow, GetWorkflowResult, Interrupt, Owner, Progress, WaitFor, WorkflowList,
    WorkflowResult, WorkflowRow,
};
use crate::error::{ErrorKind, Fault, Problem};
use crate::model::{At, Counts, OnInterrupt, Revision, WorkflowId};
use crate::orchestrator::Orchestrator;
use crate::orchestrator::engine::{Run, RunStatus, Stop};
use crate::store::{OwnerState, WorkflowQuery, WorkflowSummary};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often a run of another server is looked at.
const POLL: Duration = Duration::from_millis(150);

/// How many workflows one page of the list has.
const LIST_PAGE: u32 = 20;

/// What a waiting call waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// The end.
    Done,
    /// A failed item, of after this revision if there is one, or the end.
    Failure(Option<Revision>),
    /// A later revision than this, or the end.
    Change(Revision),
}

impl Until {
    fn is_met(self, now: RunStatus) -> bool {
        let over = now.counts.queued + now.counts.running == 0;
        over || match self {
            Self::Done => false,
            Self::Failure(None) => failures(&now.counts) > 0,
            Self::Failure(Some(after)) => now.failed_at.is_some_and(|at| at > after),
            Self::Change(after) => now.revision > after,
        }
    }
}

impl Orchestrator {
    /// Answers `get_workflow`.
    pub(crate) async fn follow(
        &self,
        args: GetWorkflow,
        caller: &Caller,
    ) -> Result<GetWorkflowResult, Problem> {
        let Some(id) = args.workflow_id else {
            return self.list(args).await.map(GetWorkflowResult::List);
        };
        let waits = args.wait_for.is_some() || args.after.is_some();
        let default = if waits {
            Caller::DEFAULT_WAIT
        } else {
            Duration::ZERO
        };
        let wait = caller.wait(args.wait_s, default)?;
        let after = match args.after.map(u64::try_from) {
            Some(Err(_)) => {
                return Err(Problem::argument(
                    "after",
                    "after is negative",
                    "a `revision` of an earlier answer",
                ));
            }
            Some(Ok(after)) => Some(after),
            None => None,
        };
        let until = match (args.wait_for, after) {
            (Some(WaitFor::Failure), after) => Until::Failure(after),
            (Some(WaitFor::Change), None) => Until::Change(self.snapshot(id).await?.revision),
            (Some(WaitFor::Change) | None, Some(after)) => Until::Change(after),
            (Some(WaitFor::Done) | None, _) => Until::Done,
        };
        let waited = self.wait(id, wait.duration, until, caller).await?;
        let mut snapshot = self.snapshot_after(waited, id).await?;
        self.see_what_is_home(&mut snapshot).await?;
        let shown = select::shown(&snapshot, &args)?;
        let mut result = view::result(&snapshot, &shown)?;
        result.wait_capped_s = wait.capped_s;
        Ok(GetWorkflowResult::One(Box::new(result)))
    }

    async fn list(&self, args: GetWorkflow) -> Result<WorkflowList, Problem> {
        let before = match args.cursor {
            Some(cursor) => Some(cursor.parse().map_err(|_| view::bad_cursor())?),
            None => None,
        };
        let query = WorkflowQuery {
            repo: args.repo,
            status: args.status,
            since: args
                .since
                .map(|text| crate::orchestrator::instants::instant("since", &text, At::now()))
                .transpose()?,
            before,
            limit: LIST_PAGE + 1,
        };
        let found = || async {
            let found = self.0.store.workflows(query.clone()).await;
            found.map_err(|error| error.problem())
        };
        let mut rows = found().await?;
        let abandoned = |row: &WorkflowSummary| {
            row.owner == OwnerState::Dead && row.counts.queued + row.counts.running > 0
        };
        if rows.iter().any(abandoned) {
            self.0.engine.recover().await?;
            rows = found().await?;
        }
        let found = rows;
        let more = found.len() > LIST_PAGE as usize;
        let rows: Vec<WorkflowRow> = found
            .into_iter()
            .take(LIST_PAGE as usize)
            .map(row)
            .collect();
        let cursor = rows
            .last()
            .filter(|_| more)
            .map(|row| row.workflow_id.to_string());
        Ok(WorkflowList {
            workflows: rows,
            cursor,
        })
    }

    /// Returns the answer about a workflow that has just been waited for.
    pub(crate) async fn answer(
        &self,
        waited: Option<Arc<Run>>,
        id: WorkflowId,
    ) -> Result<WorkflowResult, Problem> {
        let snapshot = self.snapshot_after(waited, id).await?;
        view::result(&snapshot, &select::Shown::default())
    }

    /// Returns all that is known of a workflow that has just been waited for. Where that was a run of this server which is
    /// over now, it knows everything itself, and nothing is read again.
    async fn snapshot_after(
        &self,
        waited: Option<Arc<Run>>,
        id: WorkflowId,
    ) -> Result<Snapshot, Problem> {
        match waited {
            // One that runs was resumed meanwhile.
            Some(run) if run.is_over() && self.0.engine.run(id).is_none() => {
                Ok(Snapshot::of_run(run.view()))
            }
            _ => self.snapshot(id).await,
        }
    }

    /// Returns all that is known of a workflow now.
    pub(crate) async fn snapshot(&self, id: WorkflowId) -> Result<Snapshot, Problem> {
        if let Some(run) = self.0.engine.run(id) {
            return Ok(Snapshot::of_run(run.view()));
        }
        let stored = self.stored(id).await?;
        match stored.owner {
            _ if stored.is_over() => return Ok(Snapshot::of_store(stored)),
            OwnerState::Other => return Ok(Snapshot::of_store(stored)),
            // Its server is dead: what it left is interrupted from now on.
            OwnerState::Dead => self.0.engine.recover().await?,
            OwnerState::This => {
                let _turn = self.0.engine.resuming().await;
                if let Some(run) = self.0.engine.run(id) {
                    return Ok(Snapshot::of_run(run.view()));
                }
                self.give_up(id).await?;
            }
        }
        self.stored(id).await.map(Snapshot::of_store)
    }

    /// Marks what this server journaled but does not run as interrupted. The caller holds the right to take it up again,
    /// so that nobody is about to run it.
    pub(crate) async fn give_up(&self, id: WorkflowId) -> Result<(), Problem> {
        let given_up = self.0.store.give_up(id).await;
        let items = given_up.map_err(|error| error.problem())?;
        if items > 0 {
            tracing::warn!(%id, items, "items were journaled as running that nothing runs");
        }
        Ok(())
    }

    pub(crate) async fn stored(
        &self,
        id: WorkflowId,
    ) -> Result<crate::store::StoredWorkflow, Problem> {
        let stored = self.0.store.workflow(id).await;
        stored
            .map_err(|error| error.problem())?
            .ok_or_else(|| no_workflow(id))
    }

    /// Waits for a workflow, for `limit` at most; the caller hears of progress. Returns the run, where it is this server's.
    ///
    /// # Cancel safety
    ///
    /// A dropped or interrupted wait never touches the run, unless a person interrupted it and the workflow says that
    /// this cancels it.
    pub(crate) async fn wait(
        &self,
        id: WorkflowId,
        limit: Duration,
        until: Until,
        caller: &Caller,
    ) -> Result<Option<Arc<Run>>, Problem> {
        let deadline = Instant::now() + limit;
        let run = self.0.engine.run(id);
        match &run {
            Some(run) => self.wait_here(run, deadline, until, caller).await,
            None => self.wait_there(id, deadline, until, caller).await?,
        }
        Ok(run)
    }

    async fn wait_here(&self, run: &Arc<Run>, deadline: Instant, until: Until, caller: &Caller) {
        let mut changes = run.changes();
        loop {
            changes.mark_unchanged();
            let status = run.status();
            report(caller, &status.counts);
            if until.is_met(status) {
                return;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(deadline) => return,
                why = caller.interrupted() => {
                    self.interrupted(run, why, caller).await;
                    return;
                }
            }
        }
    }

    async fn wait_there(
        &self,
        id: WorkflowId,
        deadline: Instant,
        until: Until,
        caller: &Caller,
    ) -> Result<(), Problem> {
        // How many failures there were when nothing later was known than what the caller knows.
        let mut known = 0;
        loop {
            let summary = self
                .0
                .store
                .summary(id)
                .await
                .map_err(|error| error.problem())?;
            let summary = summary.ok_or_else(|| no_workflow(id))?;
            report(caller, &summary.counts);
            let failed = failures(&summary.counts);
            if matches!(until, Until::Failure(Some(after)) if summary.revision <= after) {
                known = failed;
            }
            let settled = until.is_met(RunStatus {
                counts: summary.counts,
                revision: summary.revision,
                failed_at: (failed > known).then_some(summary.revision),
            });
            if settled || summary.owner == OwnerState::Dead || Instant::now() >= deadline {
                return Ok(());
            }
            let pause = (Instant::now() + POLL).min(deadline);
            tokio::select! {
                () = tokio::time::sleep_until(pause) => {}
                _ = caller.interrupted() => return Ok(()),
            }
        }
    }

    /// Acts on a waiting call that was interrupted: only a person's interrupt may touch the run.
    async fn interrupted(&self, run: &Arc<Run>, why: Interrupt, caller: &Caller) {
        let Interrupt::Cancelled(reason) = why else {
            return;
        };
        let cancels = run.record().settings.on_interrupt == OnInterrupt::Cancel;
        if cancels
            && crate::orchestrator::tools::interrupt::is_a_persons(
                caller.client.as_deref(),
                reason.as_deref(),
            )
        {
            self.0.engine.stop(run, &[], Stop::Requested, None).await;
            self.0.notices.add(format!(
                "workflow {} was stopped because its call was interrupted; resume_workflow {} goes on with it",
                run.id(),
                run.id()
            ));
        }
    }
}

fn failures(counts: &Counts) -> u32 {
    counts.failed + counts.timed_out
}

/// Tells the caller how far a workflow is, in words only where somebody hears them.
fn report(caller: &Caller, counts: &Counts) {
    caller.progress.report(Progress {
        done: u64::from(counts.ended()),
        total: Some(u64::from(counts.total)),
        message: caller.progress.is_heard().then(|| in_words(counts)),
    });
}

fn in_words(counts: &Counts) -> String {
    let mut message = format!("{} of {} done", counts.ended(), counts.total);
    for (count, what) in [
        (counts.running, "running"),
        (counts.queued, "waiting"),
        (failures(counts), "failed"),
    ] {
        if count > 0 {
            message.push_str(&format!(", {count} {what}"));
        }
    }
    message
}

fn row(summary: WorkflowSummary) -> WorkflowRow {
    WorkflowRow {
        workflow_id: summary.record.id,
        title: summary.record.title,
        status: summary
            .counts
            .status_within(summary.record.settings.max_failures),
        owner: owner(summary.owner),
        counts: summary.counts,
        created_at: summary.record.created_at,
    }
}

pub(crate) fn owner(owner: OwnerState) -> Owner {
    match owner {
        OwnerState::This => Owner::This,
        OwnerState::Other => Owner::Other,
        OwnerState::Dead => Owner::Dead,
    }
}

pub(crate) fn no_workflow(id: WorkflowId) -> Problem {
    Problem {
        field: Some("workflow_id".to_owned()),
        ..Problem::new(ErrorKind::NotFound, format!("there is no workflow {id}"))
    }
    .with_hint("get_workflow without workflow_id lists the workflows")
}
