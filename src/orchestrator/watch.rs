//! The neighbours: servers that died with work left, and live ones that ask something of this one's runs.

use super::Orchestrator;
use super::workflow::Stop;
use crate::api::ResumeWorkflow;
use crate::error::Fault;
use crate::model::WorkflowId;
use crate::repo::{Recovered, Recovery};
use crate::store::OwnerRequest;
use std::time::Duration;

/// How often other servers' requests are looked for.
const EVERY: Duration = Duration::from_millis(200);

impl Orchestrator {
    /// Takes over from dead servers once, then answers the requests of live ones, until the server ends.
    pub(super) fn watch_neighbours(&self) {
        let core = self.clone();
        self.0.tasks.spawn(async move {
            let closing = core.0.closing.clone();
            closing
                .run_until_cancelled(async {
                    if let Err(problem) = core.recover().await {
                        tracing::warn!(%problem, "could not look for interrupted workflows");
                    }
                    core.recover_applies().await;
                    core.stored_notices().await;
                    core.answer_requests().await;
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

    async fn stored_notices(&self) {
        match self.0.store.take_notices().await {
            Ok(notices) => notices
                .into_iter()
                .for_each(|notice| self.0.notices.add(notice.text)),
            Err(error) => tracing::warn!(%error, "could not read notices"),
        }
    }

    async fn answer_requests(&self) {
        let mut seen = None;
        loop {
            tokio::time::sleep(EVERY).await;
            // Only another process's write changes the number, so an idle server reads one integer.
            let version = match self.0.store.data_version().await {
                Ok(version) => version,
                Err(error) => {
                    tracing::debug!(%error, "could not look for requests");
                    continue;
                }
            };
            if seen.replace(version) == Some(version) {
                continue;
            }
            match self.0.store.take_requests().await {
                Ok(requests) => {
                    for (id, request) in requests {
                        self.answer_request(id, request).await;
                    }
                }
                Err(error) => tracing::warn!(%error, "could not read requests"),
            }
        }
    }

    async fn answer_request(&self, id: WorkflowId, request: OwnerRequest) {
        match request {
            OwnerRequest::Cancel { items, grace_ms } => {
                if let Some(run) = self.0.engine.run(id) {
                    let grace = Some(Duration::from_millis(grace_ms));
                    self.0
                        .engine
                        .stop(&run, &items, Stop::Requested, grace)
                        .await;
                }
            }
            OwnerRequest::Resume { json } => {
                let resumed = match serde_json::from_str::<ResumeWorkflow>(&json) {
                    Ok(args) => self.resume_here(&args).await,
                    Err(error) => {
                        tracing::warn!(%error, "a request of another server cannot be read");
                        return;
                    }
                };
                if let Err(problem) = resumed {
                    self.tell(id, &problem.message).await;
                }
            }
        }
    }

    /// Leaves word for whoever asks next, on whatever server.
    async fn tell(&self, id: WorkflowId, why: &str) {
        let text = format!("workflow {id} was not resumed: {why}");
        if let Err(error) = self.0.store.add_notice(text, Some(id)).await {
            tracing::warn!(problem = %error.problem(), "a notice could not be kept");
        }
    }
}

fn told(recovered: &Recovered) -> String {
    let repo = &recovered.repo;
    let what = match &recovered.outcome {
        Ok(Recovery::Finished) => "was finished".to_owned(),
        Ok(Recovery::TakenBack) => "was taken back: the repository is as it was before".to_owned(),
        Ok(Recovery::Stuck(copies)) => format!(
            "could not be taken back wholly, because files or commits changed since; the old files are in {}",
            copies.display()
        ),
        Err(error) => format!("could not be taken back yet: {error}; check_health shows it"),
    };
    format!("an apply_changes on {repo} that was interrupted {what}")
}
