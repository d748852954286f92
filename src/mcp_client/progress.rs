//! Progress of calls: the listener that the server's notifications reach, and the call that listens.

use futures_util::FutureExt;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResponse, CallToolResult,
    CancelledNotificationParam, ClientCapabilities, ClientConfig, ClientRequest, Implementation,
    ProgressNotificationParam, ProgressToken, RequestId, ServerResult,
};
use rmcp::service::{NotificationContext, Peer, PeerRequestOptions, RoleClient, ServiceError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One step that a server reported of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// How far it is, in the server's own unit.
    pub done: f64,
    /// What `done` is at the end, where the server knows it.
    pub total: Option<f64>,
    /// What it is at, in the server's words.
    pub message: Option<String>,
}

/// Takes the steps of one call; called on the connection's task, so it must not block.
pub type OnProgress = Arc<dyn Fn(Step) + Send + Sync>;

/// The client's side of a session: says who it is and hands progress to the call that it belongs to.
#[derive(Clone, Default)]
pub(super) struct Listener {
    // A std mutex: held for map operations only.
    calls: Arc<Mutex<HashMap<ProgressToken, OnProgress>>>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

impl Listener {
    fn calls(&self) -> MutexGuard<'_, HashMap<ProgressToken, OnProgress>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, token: ProgressToken, on_progress: OnProgress) -> Heard<'_> {
        self.calls().insert(token.clone(), on_progress);
        Heard {
            listener: self,
            token,
        }
    }
}

impl rmcp::ClientHandler for Listener {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(
            ClientCapabilities::default(),
            Implementation::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")),
        )
    }

    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        let call = self.calls().get(&params.progress_token).cloned();
        if let Some(on_progress) = call {
            on_progress(Step {
                done: params.progress,
                total: params.total,
                message: params.message,
            });
        }
    }
}

/// A call's entry; dropping it takes it out.
struct Heard<'a> {
    listener: &'a Listener,
    token: ProgressToken,
}

impl Drop for Heard<'_> {
    fn drop(&mut self) {
        self.listener.calls().remove(&self.token);
    }
}

/// Tells the server, when dropped before [`Self::answered`], that nobody waits for the answer any more.
struct Waiting<'a> {
    peer: &'a Peer<RoleClient>,
    id: Option<RequestId>,
}

impl Waiting<'_> {
    fn answered(mut self) {
        self.id = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let why = "the caller gave it up".to_owned();
        let params = CancelledNotificationParam::new(Some(id), Some(why));
        // Putting it into the session's queue takes one poll; nobody waits for it to be on the wire.
        let _queued = self.peer.notify_cancelled(params).now_or_never();
    }
}

/// Calls a tool once and hears its progress. rmcp's own call does not tell the progress token that it made.
///
/// # Cancel safety
///
/// When dropped, the server is told with `notifications/cancelled`.
pub(super) async fn call_tool(
    peer: &Peer<RoleClient>,
    listener: &Listener,
    params: CallToolRequestParams,
    on_progress: OnProgress,
) -> Result<CallToolResponse, ServiceError> {
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
    let handle = peer
        .send_cancellable_request(request, PeerRequestOptions::no_options())
        .await?;
    let _heard = listener.hear(handle.progress_token.clone(), on_progress);
    let waiting = Waiting {
        peer,
        id: Some(handle.id.clone()),
    };
    let result = handle.await_response().await;
    waiting.answered();
    match result? {
        ServerResult::CallToolResult(result) => Ok(CallToolResponse::Complete(result)),
        ServerResult::InputRequiredResult(result) => Ok(CallToolResponse::InputRequired(result)),
        ServerResult::CreateTaskResult(result) => Ok(CallToolResponse::Task(result)),
        ServerResult::EmptyResult(_) => Ok(CallToolResponse::Complete(CallToolResult::default())),
        _ => Err(ServiceError::UnexpectedResponse),
    }
}
