//! The client handle: calls with a deadline, sent once more where the session turns out to be lost.

use super::connect::Connection;
use super::endpoint::Endpoint;
use super::error::{ClientError, NotSent, Unclear};
use super::failure::{Failure, call_failure};
use super::progress::{OnProgress, call_tool};
use super::reply::CallReply;
use super::session::Session;
use super::settings::ClientSettings;
use rmcp::model::{CallToolRequestParams, CallToolResponse, JsonObject, Tool};
use rmcp::service::ServiceError;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout_at;

/// A handle to another MCP server; clones share one session. Nothing is connected before the first call.
#[derive(Debug, Clone)]
pub struct McpClient(Arc<Session>);

impl McpClient {
    /// Returns a client of the server at `endpoint`; connects when it is first called.
    pub fn new(endpoint: Endpoint, settings: ClientSettings) -> Self {
        Self(Arc::new(Session::new(endpoint, settings)))
    }

    /// Calls a tool.
    ///
    /// # Errors
    ///
    /// [`ClientError`], whose variant says whether the tool may have been executed. A tool that reports a failure is an
    /// `Ok` reply with `is_error`.
    ///
    /// # Cancel safety
    ///
    /// When dropped, the remote request is cancelled; the tool may or may not have been executed. A connection attempt
    /// in progress is kept for the next call.
    pub async fn call(
        &self,
        tool: &str,
        arguments: JsonObject,
        deadline: Instant,
    ) -> Result<CallReply, ClientError> {
        let ignore: OnProgress = Arc::new(|_| {});
        self.call_watched(tool, arguments, deadline, ignore).await
    }

    /// Calls a tool and passes each step that the server reports of it to `on_progress`.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    ///
    /// # Cancel safety
    ///
    /// As [`Self::call`].
    pub async fn call_watched(
        &self,
        tool: &str,
        arguments: JsonObject,
        deadline: Instant,
        on_progress: OnProgress,
    ) -> Result<CallReply, ClientError> {
        let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        let response = self
            .request(tool, deadline, |connection| {
                let (params, on_progress) = (params.clone(), Arc::clone(&on_progress));
                async move {
                    call_tool(&connection.peer, &connection.listener, params, on_progress).await
                }
            })
            .await?;
        match response {
            CallToolResponse::Complete(result) => Ok(result.into()),
            _ => Err(ClientError::Refused {
                peer: self.name().to_owned(),
                what: tool.to_owned(),
                code: None,
                message: "it asks for input or makes a task of the call, which this client does not support".into(),
            }),
        }
    }

    /// Lists all tools of the server.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub async fn list_tools(&self, deadline: Instant) -> Result<Vec<Tool>, ClientError> {
        self.request("tools/list", deadline, |connection| async move {
            connection.peer.list_all_tools().await
        })
        .await
    }

    /// Returns the version that the server gave in the handshake, once connected.
    pub fn server_version(&self) -> Option<String> {
        let connection = self.0.current()?;
        let info = connection.peer.peer_info()?;
        Some(info.server_info.as_ref()?.version.clone())
    }

    /// Returns how often a session was found lost; the server may have restarted each time, which ends whatever it was
    /// doing.
    pub fn losses(&self) -> u64 {
        self.0.losses()
    }

    /// Ends the session: all callers fail at once, an HTTP session is deleted, a child gets EOF on its stdin, SIGTERM
    /// after `grace` and SIGKILL after another `grace`, with its process group. Later calls are refused.
    ///
    /// # Cancel safety
    ///
    /// When dropped, a child is killed at once.
    pub async fn close(&self, grace: Duration) {
        self.0.close(grace).await;
    }

    fn name(&self) -> &str {
        &self.0.settings.name
    }

    /// Sends a request; once more over a new session where the server did not execute it because it lost the old one.
    async fn request<T, F, Answer>(
        &self,
        what: &str,
        deadline: Instant,
        send: F,
    ) -> Result<T, ClientError>
    where
        F: Fn(Arc<Connection>) -> Answer,
        Answer: Future<Output = Result<T, ServiceError>>,
    {
        match self.send_once(what, deadline, &send).await {
            Err(Failure::SessionLost(_)) => self.send_once(what, deadline, &send).await,
            other => other,
        }
        .map_err(|failure| match failure {
            Failure::SessionLost(error) | Failure::Other(error) => error,
        })
    }

    async fn send_once<T, F, Answer>(
        &self,
        what: &str,
        deadline: Instant,
        send: &F,
    ) -> Result<T, Failure>
    where
        F: Fn(Arc<Connection>) -> Answer,
        Answer: Future<Output = Result<T, ServiceError>>,
    {
        let peer = || self.name().to_owned();
        let until = tokio::time::Instant::from_std(deadline);
        let connected = if until <= tokio::time::Instant::now() {
            Err(NotSent::Deadline)
        } else {
            let connected = timeout_at(until, self.0.connection()).await;
            connected.unwrap_or(Err(NotSent::Deadline))
        };
        let connection = connected.map_err(|cause| {
            Failure::Other(ClientError::NotSent {
                peer: peer(),
                cause,
            })
        })?;
        let _request = connection.request();
        match timeout_at(until, send(Arc::clone(&connection))).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let failure = call_failure(self.name(), what, error);
                if matches!(failure, Failure::SessionLost(_)) {
                    self.0.lost(&connection);
                }
                Err(failure)
            }
            Err(_) => Err(Failure::Other(ClientError::Unclear {
                peer: peer(),
                what: what.to_owned(),
                cause: Unclear::Deadline,
            })),
        }
    }
}
