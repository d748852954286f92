//! Progress of calls: the session's listener for notifications, and the call that listens.

use futures_util::FutureExt;
use parking_lot::Mutex;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResponse, CallToolResult,
    CancelledNotificationParam, ClientCapabilities, ClientConfig, ClientRequest, Implementation,
    ProgressNotificationParam, ProgressToken, RequestId, ServerResult,
};
use rmcp::service::{NotificationContext, Peer, PeerRequestOptions, RoleClient, ServiceError};
use std::collections::HashMap;
use std::sync::Arc;

/// One step that a server reported of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// How far it is, in the server's own unit.
    pub done: f64,
    /// What `done` will be at the end, where the server reports it.
    pub total: Option<f64>,
    /// What it is doing, in the server's words.
    pub message: Option<String>,
}

/// Takes the steps of one call; called on the connection's task, so it must not block.
pub type OnProgress = Arc<dyn Fn(Step) + Send + Sync>;

/// The client's side of a session: names the client and passes progress to the call that it belongs to.
#[derive(Clone, Default)]
pub(super) struct Listener {
    // Held for map operations only.
    calls: Arc<Mutex<HashMap<ProgressToken, OnProgress>>>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

impl Listener {
    fn listen(&self, token: ProgressToken, on_progress: OnProgress) -> Listening<'_> {
        self.calls.lock().insert(token.clone(), on_progress);
        Listening {
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
        let call = self.calls.lock().get(&params.progress_token).cloned();
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
struct Listening<'a> {
    listener: &'a Listener,
    token: ProgressToken,
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.listener.calls.lock().remove(&self.token);
    }
}

/// Cancels the remote request when dropped before [`Self::answered`].
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
        // Queueing it takes one poll; waiting until it is sent is not possible in `drop`.
        let _queued = self.peer.notify_cancelled(params).now_or_never();
    }
}

/// Calls a tool once and listens to its progress; rmcp's own call does not return the progress token that it made.
///
/// # Cancel safety
///
/// When dropped, the remote request is cancelled with `notifications/cancelled`.
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
    let _listening = listener.listen(handle.progress_token.clone(), on_progress);
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
