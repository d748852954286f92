//! Waiting for a workflow of this server or of another one. Waiting never affects the run, unless a person interrupts the
//! waiting call and the workflow's `on_interrupt` is `cancel`.

use super::interrupt::is_a_persons;
use super::snapshot::no_workflow;
use crate::api::{Caller, Interrupt, Progress};
use crate::error::Problem;
use crate::model::{Counts, OnInterrupt, Revision, WorkflowId};
use crate::orchestrator::Orchestrator;
use crate::orchestrator::engine::{Run, RunStatus, Stop};
use crate::store::OwnerState;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often a run of another server is looked at.
const POLL: Duration = Duration::from_millis(150);

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The end.
    Done,
    /// A failed item, after this revision if there is one, or the end.
    Failure(Option<Revision>),
    /// A later revision than this, or the end.
    Change(Revision),
}

impl Until {
    fn is_met(self, now: &RunStatus) -> bool {
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
    /// Waits for a workflow, for `limit` at most, and reports progress to the caller. Returns the run, where it is this
    /// server's.
    ///
    /// # Cancel safety
    ///
    /// A dropped wait never touches the run.
    pub(super) async fn wait(
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
            None => self.wait_elsewhere(id, deadline, until, caller).await?,
        }
        Ok(run)
    }

    async fn wait_here(&self, run: &Arc<Run>, deadline: Instant, until: Until, caller: &Caller) {
        let mut changes = run.changes();
        loop {
            changes.mark_unchanged();
            let status = run.status();
            report(caller, &status.counts);
            if until.is_met(&status) {
                return;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(deadline) => return,
                why = caller.interrupted() => return self.interrupted(run, &why, caller).await,
            }
        }
    }

    async fn wait_elsewhere(
        &self,
        id: WorkflowId,
        deadline: Instant,
        until: Until,
        caller: &Caller,
    ) -> Result<(), Problem> {
        // How many failures there were at the last revision that the caller knows.
        let mut known = 0;
        loop {
            let summary = self.0.store.summary(id).await?;
            let summary = summary.ok_or_else(|| no_workflow(id))?;
            report(caller, &summary.counts);
            let failed = failures(&summary.counts);
            if matches!(until, Until::Failure(Some(after)) if summary.revision <= after) {
                known = failed;
            }
            let met = until.is_met(&RunStatus {
                counts: summary.counts,
                revision: summary.revision,
                failed_at: (failed > known).then_some(summary.revision),
            });
            if met || summary.owner == OwnerState::Dead || Instant::now() >= deadline {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep_until((Instant::now() + POLL).min(deadline)) => {}
                _ = caller.interrupted() => return Ok(()),
            }
        }
    }

    /// Handles the interrupt of a waiting call: cancels the run where a person interrupted and `on_interrupt` is `cancel`.
    async fn interrupted(&self, run: &Arc<Run>, why: &Interrupt, caller: &Caller) {
        let Interrupt::Cancelled(reason) = why else {
            return;
        };
        let cancels = run.record().settings.on_interrupt == OnInterrupt::Cancel;
        if cancels && is_a_persons(caller.client.as_deref(), reason.as_deref()) {
            self.0.engine.stop(run, &[], Stop::Requested, None).await;
            self.0.notices.add(format!(
                "workflow {0} was cancelled because the call that waited for it was interrupted; resume_workflow {0} continues it",
                run.id()
            ));
        }
    }
}

fn failures(counts: &Counts) -> u32 {
    counts.failed + counts.timed_out
}

/// Reports progress to the caller, with a text only where the caller receives it.
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
