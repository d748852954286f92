//! The neighbours: servers that died with work left, and live ones that ask something of this one's runs.

use crate::api::ResumeWorkflow;
use crate::error::{ErrorKind, Fault, Problem};
use crate::model::WorkflowId;
use crate::orchestrator::Orchestrator;
use crate::orchestrator::engine::Stop;
use crate::repo::{Recovered, Recovery};
use crate::store::{Adopted, Asked, OwnerRequest};
use std::time::Duration;

/// How often other servers' requests and notices are looked for.
const EVERY: Duration = Duration::from_millis(200);

/// How many of those looks go by before dead servers are looked for again.
const LOOKS_PER_RECOVERY: u32 = 10;

impl Orchestrator {
    /// Takes over from dead servers and answers the requests of live ones, until the server ends.
    pub(crate) fn watch_neighbours(&self) {
        let core = self.clone();
        self.0.tasks.spawn(async move {
            let closing = core.0.closing.clone();
            closing
                .run_until_cancelled(async {
                    core.take_over().await;
                    core.recover_applies().await;
                    core.stored_notices().await;
                    core.watch().await;
                })
                .await;
        });
    }

    /// Finishes or takes back what a crash left half-way in somebody's repository, and tells of it.
    async fn recover_applies(&self) {
        match self.0.repos.recover().await {
            Ok(recovered) => recovered
                .iter()
                .for_each(|one| self.0.notices.add(told(one))),
            Err(error) => tracing::warn!(%error, "could not look for interrupted applies"),
        }
    }

    /// Tells with the next answers what servers left word of.
    pub(crate) async fn stored_notices(&self) {
        match self.0.store.take_notices().await {
            Ok(notices) => notices
                .into_iter()
                .for_each(|notice| self.0.notices.add(notice.text)),
            Err(error) => tracing::warn!(%error, "could not read notices"),
        }
    }

    async fn take_over(&self) {
        if let Err(problem) = self.recover().await {
            tracing::warn!(%problem, "could not look for interrupted workflows");
        }
    }

    async fn watch(&self) {
        let mut answered = None;
        for look in 1_u32.. {
            tokio::time::sleep(EVERY).await;
            if look.is_multiple_of(LOOKS_PER_RECOVERY) {
                self.take_over().await;
            }
            // Only another process's write changes the number, so an idle server reads one integer.
            let version = match self.0.store.data_version().await {
                Ok(version) => version,
                Err(error) => {
                    tracing::debug!(%error, "could not look for requests");
                    continue;
                }
            };
            if answered == Some(version) {
                continue;
            }
            self.stored_notices().await;
            if self.answer_requests().await {
                answered = Some(version);
            }
        }
    }

    /// Answers what others ask; returns whether their requests could be read.
    async fn answer_requests(&self) -> bool {
        let requests = match self.0.store.take_requests().await {
            Ok(requests) => requests,
            Err(error) => {
                tracing::warn!(%error, "could not read requests");
                return false;
            }
        };
        for Asked {
            number,
            id,
            request,
        } in requests
        {
            let answer = self.grant(id, request).await;
            if let Err(error) = self.0.store.answer_request(number, answer).await {
                tracing::warn!(problem = %error.problem(), "a request could not be answered");
            }
        }
        true
    }

    async fn grant(&self, id: WorkflowId, request: OwnerRequest) -> Result<(), Problem> {
        match request {
            OwnerRequest::Cancel { items, grace_ms } => {
                if let Some(run) = self.0.engine.run(id) {
                    let grace = Some(Duration::from_millis(grace_ms));
                    let engine = &self.0.engine;
                    engine.stop(&run, &items, Stop::Requested, grace).await;
                }
                Ok(())
            }
            OwnerRequest::Resume { json } => {
                let args = serde_json::from_str::<ResumeWorkflow>(&json).map_err(|error| {
                    Problem::new(
                        ErrorKind::Conflict,
                        format!(
                            "the server that runs the workflow cannot read the request: {error}"
                        ),
                    )
                    .with_hint("end the older one of the two servers, then call again")
                })?;
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

fn told(recovered: &Recovered) -> String {
    let repo = &recovered.repo;
    let what = match &recovered.outcome {
        Ok(Recovery::Finished) => "was finished".to_owned(),
        Ok(Recovery::RolledBack) => {
            "was rolled back: the repository is as it was before".to_owned()
        },
        Ok(Recovery::Stuck(copies)) => format!(
            "could not be rolled back wholly, because files or commits changed since; the old files are in {}",
            copies.display()
        ),
        Err(error) => format!("could not be rolled back yet: {error}; check_health shows it"),
    };
    format!("an apply_changes on {repo} that was interrupted {what}")
}
