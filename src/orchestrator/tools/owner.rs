//! Requests to the live server that runs a workflow, through rows of the store that it watches.

use crate::api::Caller;
use crate::error::{ErrorKind, Problem};
use crate::model::WorkflowId;
use crate::orchestrator::Orchestrator;
use crate::store::OwnerRequest;
use std::time::Duration;

/// How long the owner may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// How often its answer is looked for.
const POLL: Duration = Duration::from_millis(50);

impl Orchestrator {
    /// Sends a request to a workflow's owner and returns its answer.
    ///
    /// # Errors
    ///
    /// The owner's refusal, or a time-out. A request that was not answered in time is withdrawn, so that it is not
    /// carried out later.
    pub(super) async fn ask_owner(
        &self,
        id: WorkflowId,
        request: OwnerRequest,
        caller: &Caller,
    ) -> Result<(), Problem> {
        let store = &self.0.store;
        let number = store.ask_owner(id, request).await?;
        let answered = async {
            loop {
                if let Some(answer) = store.answer_to(number).await? {
                    return answer;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let answer = tokio::select! {
            answer = tokio::time::timeout(LIMIT, answered) => answer.unwrap_or_else(|_| Err(unanswered(id))),
            _ = caller.interrupted() => Err(unanswered(id)),
        };
        if let Err(error) = store.withdraw_request(number).await {
            tracing::warn!(%error, "a request could not be withdrawn");
        }
        answer
    }
}

fn unanswered(id: WorkflowId) -> Problem {
    Problem::new(
        ErrorKind::TimedOut,
        format!("the server that runs workflow {id} has not answered"),
    )
    .with_hint("get_workflow shows the workflow's state; then call again")
}
