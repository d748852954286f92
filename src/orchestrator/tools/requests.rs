//! Granting what other servers ask of this one's runs: the owner of a workflow cancels and resumes it for their callers.

use crate::api::ResumeWorkflow;
use crate::error::{ErrorKind, Problem, RedactedProblem};
use crate::model::WorkflowId;
use crate::orchestrator::Orchestrator;
use crate::orchestrator::engine::{Neighbours, Stop};
use crate::store::{Adopted, OwnerRequest, TakenRequest};
use std::time::Duration;

impl Orchestrator {
    /// Takes over from dead servers and grants the requests of live ones, until the server ends.
    pub(crate) fn grant_requests(&self) {
        let core = self.clone();
        self.0.tasks.spawn(async move {
            let closing = core.0.closing.clone();
            closing.run_until_cancelled(core.grant_all()).await;
        });
    }

    async fn grant_all(&self) {
        let mut neighbours = Neighbours::take_over(self.0.engine.clone()).await;
        loop {
            for asked in neighbours.requests().await {
                let TakenRequest {
                    number,
                    id,
                    request,
                } = asked;
                let answer = self.grant(id, request).await.map_err(RedactedProblem::from);
                if let Err(error) = self.0.store.answer_request(number, answer).await {
                    tracing::warn!(%error, "a request could not be answered");
                }
            }
        }
    }

    async fn grant(&self, id: WorkflowId, request: OwnerRequest) -> Result<(), Problem> {
        match request {
            OwnerRequest::Cancel { items, grace_ms } => {
                let engine = &self.0.engine;
                if let Some(run) = engine.run(id) {
                    let grace = Some(Duration::from_millis(grace_ms));
                    engine.stop(&run, &items, Stop::Requested, grace).await;
                }
                Ok(())
            }
            OwnerRequest::Resume { json } => {
                let args: ResumeWorkflow = serde_json::from_str(&json).map_err(unreadable)?;
                match self.resume_mine(&args).await? {
                    Adopted::OwnedBy(_) => Err(Problem::new(
                        ErrorKind::Busy,
                        "another server has taken the workflow up meanwhile",
                    )
                    .with_hint("call again")),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// Returns the problem of a request that a server of another version wrote.
fn unreadable(error: serde_json::Error) -> Problem {
    let message = format!("the server that runs the workflow cannot read the request: {error}");
    Problem::new(ErrorKind::Conflict, message)
        .with_hint("end the older one of the two servers, then call again")
}
