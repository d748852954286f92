//! The client handle: lazy connection, deadlines, session renewal, breaker.

use super::child::Launcher;
use super::connect::{CallFailure, Connection, Endpoint, call_failure};
use super::error::{ClientError, NotSent, Unclear};
use super::progress::{OnProgress, call_tool};
use crate::resilience::{Backoff, Breaker, BreakerState, Permit};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared as SharedFuture};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, JsonObject,
    ResourceContents, Tool,
};
use rmcp::service::ServiceError;
use serde_json::Value;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::timeout_at;

/// How a client behaves; the defaults suit a server on the same machine.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// The server's name in messages.
    pub name: String,
    /// The longest a connection with its handshake may take; a child that loads much needs its time.
    pub connect_timeout: Duration,
    /// How many failures in a row open the breaker.
    pub breaker_threshold: u32,
    /// The first and the longest time that an open breaker rests.
    pub breaker_rest: (Duration, Duration),
    /// The seed of the jitter.
    pub seed: u64,
    /// The largest answer that is read, in bytes: a full listing of a memory server is megabytes. A larger one fails its
    /// call, and over stdio ends the session.
    pub max_answer: usize,
    /// What starts a server that is a child process; without it, none is.
    pub launcher: Option<Launcher>,
}

impl ClientSettings {
    /// Returns the defaults for the server `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            connect_timeout: Duration::from_secs(90),
            breaker_threshold: 5,
            breaker_rest: (Duration::from_millis(500), Duration::from_secs(15)),
            seed: u64::from(std::process::id()),
            max_answer: 64 << 20,
            launcher: None,
        }
    }
}

/// What a tool answered.
#[derive(Debug, Clone, PartialEq)]
pub struct CallReply {
    /// Whether the tool says that it failed.
    pub is_error: bool,
    /// Its text blocks and embedded texts, joined by newlines; in place of a block that is no text, what it is.
    pub text: String,
    /// Its structured content.
    pub structured: Option<Value>,
}

/// Who answers at the endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    /// The server's own name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The protocol version agreed on.
    pub protocol: String,
}

/// A handle to another MCP server; clones share one session. Nothing is connected before the first call.
#[derive(Debug, Clone)]
pub struct McpClient {
    shared: Arc<Shared>,
    guarded: bool,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    settings: ClientSettings,
    // std mutexes: short looks and swaps, never held across an await, never both at once.
    slot: Mutex<Slot>,
    breaker: Mutex<Breaker>,
    losses: AtomicU64,
}

type Connecting = SharedFuture<BoxFuture<'static, Result<Arc<Connection>, NotSent>>>;

#[derive(Debug)]
enum Slot {
    Idle,
    Connecting(Connecting),
    Up(Arc<Connection>),
    Closed,
}

/// A call's right to be sent; gives a probe back when its caller goes away.
struct Pass<'a> {
    shared: &'a Shared,
    permit: Option<Permit>,
}

impl McpClient {
    /// Returns a client of the server at `endpoint`; connects when it is first called.
    pub fn new(endpoint: Endpoint, settings: ClientSettings) -> Self {
        let (first, longest) = settings.breaker_rest;
        let delays = Backoff::new(first, longest, settings.seed);
        let breaker = Breaker::new(settings.breaker_threshold, delays);
        Self {
            shared: Arc::new(Shared {
                endpoint,
                settings,
                slot: Mutex::new(Slot::Idle),
                breaker: Mutex::new(breaker),
                losses: AtomicU64::new(0),
            }),
            guarded: true,
        }
    }

    /// Returns a handle to the same session whose calls neither ask the breaker nor tell it.
    ///
    /// For calls whose failures say more about what was asked than about the server: one caller's deadlines must not
    /// keep another's call from being sent.
    #[must_use]
    pub fn unguarded(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            guarded: false,
        }
    }

    /// Calls a tool.
    ///
    /// # Errors
    ///
    /// [`ClientError`], whose variant says whether the tool may have been executed. A tool that says it failed is an
    /// `Ok` reply with `is_error`.
    ///
    /// # Cancel safety
    ///
    /// When dropped, the server is told that nobody waits any more and the pending entry goes; the tool may or may not
    /// have been executed. A connection that is being made is kept for the next call.
    pub async fn call(
        &self,
        tool: &str,
        arguments: JsonObject,
        deadline: Instant,
    ) -> Result<CallReply, ClientError> {
        self.call_watched(tool, arguments, deadline, Arc::new(|_| {}))
            .await
    }

    /// Calls a tool and tells `on_progress` each step that the server reports of it.
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
            CallToolResponse::Complete(result) => Ok(reply(result)),
            _ => Err(ClientError::Refused {
                peer: self.shared.settings.name.clone(),
                what: tool.to_owned(),
                code: None,
                message:
                    "it asks for input or makes a task of it, which this client does not serve"
                        .into(),
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

    /// Returns who answers, once connected.
    pub fn server_info(&self) -> Option<ServerInfo> {
        let Slot::Up(connection) = &*lock(&self.shared.slot) else {
            return None;
        };
        let info = connection.peer.peer_info()?;
        let server = info.server_info.as_ref();
        Some(ServerInfo {
            name: server.map(|it| it.name.clone()).unwrap_or_default(),
            version: server.map(|it| it.version.clone()).unwrap_or_default(),
            protocol: info.protocol_version.to_string(),
        })
    }

    /// Returns how often a session was found lost: each time the server had restarted, so that whatever it was doing
    /// before is over.
    pub fn losses(&self) -> u64 {
        self.shared.losses.load(Ordering::Acquire)
    }

    /// Returns whether the server is called at present.
    pub fn breaker(&self) -> BreakerState {
        lock(&self.shared.breaker).state(now())
    }

    /// Ends the session: all waiters fail at once, an HTTP session is deleted, a child gets EOF on its stdin, after
    /// `grace` SIGTERM and after another `grace` SIGKILL, with its process group. Later calls are refused.
    ///
    /// # Cancel safety
    ///
    /// When dropped, a child is killed at once.
    pub async fn close(&self, grace: Duration) {
        let slot = std::mem::replace(&mut *lock(&self.shared.slot), Slot::Closed);
        if let Slot::Up(connection) = slot {
            connection.close(grace).await;
        }
    }

    /// Sends a request; once more over a new session when the server certainly did not execute it because it had lost
    /// the old one.
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
        let pass = if self.guarded {
            Some(self.shared.admit()?)
        } else {
            None
        };
        let first = self.try_once(what, deadline, &send).await;
        let result = match first {
            Err(CallFailure::SessionLost) => self.try_once(what, deadline, &send).await,
            other => other,
        };
        let result = result.map_err(|failure| match failure {
            CallFailure::Other(error) => error,
            CallFailure::SessionLost => self.shared.not_sent(NotSent::SessionLost),
        });
        if let Some(pass) = pass {
            pass.record(result.as_ref().err());
        }
        result
    }

    async fn try_once<T, F, Answer>(
        &self,
        what: &str,
        deadline: Instant,
        send: &F,
    ) -> Result<T, CallFailure>
    where
        F: Fn(Arc<Connection>) -> Answer,
        Answer: Future<Output = Result<T, ServiceError>>,
    {
        let shared = &self.shared;
        let deadline = tokio::time::Instant::from_std(deadline);
        let not_sent = |cause| CallFailure::Other(shared.not_sent(cause));
        if deadline <= tokio::time::Instant::now() {
            return Err(not_sent(NotSent::Deadline));
        }
        let connection = timeout_at(deadline, shared.connection())
            .await
            .unwrap_or(Err(NotSent::Deadline))
            .map_err(not_sent)?;
        let answer = timeout_at(deadline, send(Arc::clone(&connection))).await;
        let name = &shared.settings.name;
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let failure = call_failure(name, what, error);
                if matches!(failure, CallFailure::SessionLost) {
                    shared.drop_lost(&connection);
                }
                Err(failure)
            }
            Err(_) => Err(CallFailure::Other(ClientError::Unclear {
                peer: name.clone(),
                what: what.to_owned(),
                cause: Unclear::Deadline,
            })),
        }
    }
}

impl Shared {
    fn not_sent(&self, cause: NotSent) -> ClientError {
        ClientError::NotSent {
            peer: self.settings.name.clone(),
            cause,
        }
    }

    fn admit(&self) -> Result<Pass<'_>, ClientError> {
        let admitted = lock(&self.breaker).admit(now());
        let permit = admitted.map_err(|refused| {
            self.not_sent(NotSent::Resting {
                retry_in: refused.retry_in,
            })
        })?;
        Ok(Pass {
            shared: self,
            permit: Some(permit),
        })
    }

    /// Returns the session, making one where there is none; all who wait share one attempt.
    async fn connection(&self) -> Result<Arc<Connection>, NotSent> {
        let attempt = {
            let mut slot = lock(&self.slot);
            match &*slot {
                Slot::Closed => return Err(NotSent::Closed),
                Slot::Up(connection) if !connection.is_closed() => {
                    return Ok(Arc::clone(connection));
                }
                Slot::Connecting(attempt) => attempt.clone(),
                Slot::Up(_) | Slot::Idle => {
                    if matches!(&*slot, Slot::Up(_)) {
                        self.losses.fetch_add(1, Ordering::AcqRel);
                    }
                    let attempt = self.connect();
                    *slot = Slot::Connecting(attempt.clone());
                    attempt
                }
            }
        };
        let result = attempt.clone().await;
        let mut slot = lock(&self.slot);
        if matches!(&*slot, Slot::Connecting(current) if current.ptr_eq(&attempt)) {
            *slot = match &result {
                Ok(connection) => Slot::Up(Arc::clone(connection)),
                Err(_) => Slot::Idle,
            };
        }
        result
    }

    fn connect(&self) -> Connecting {
        let endpoint = self.endpoint.clone();
        let settings = self.settings.clone();
        async move {
            let opening = Connection::open(&endpoint, &settings);
            let opened = tokio::time::timeout(settings.connect_timeout, opening).await;
            let unanswered = || NotSent::Connect("the handshake was not answered in time".into());
            opened.unwrap_or_else(|_| Err(unanswered())).map(Arc::new)
        }
        .boxed()
        .shared()
    }

    /// Forgets a session that the server forgot, unless somebody else has replaced it already.
    fn drop_lost(&self, lost: &Arc<Connection>) {
        let mut slot = lock(&self.slot);
        if matches!(&*slot, Slot::Up(current) if Arc::ptr_eq(current, lost)) {
            *slot = Slot::Idle;
            self.losses.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Pass<'_> {
    fn record(mut self, error: Option<&ClientError>) {
        let Some(permit) = self.permit.take() else {
            return;
        };
        let mut breaker = lock(&self.shared.breaker);
        match error {
            None | Some(ClientError::Refused { .. }) => breaker.succeeded(permit),
            Some(error) if error.tells_against_the_peer() => breaker.failed(permit, now()),
            Some(_) => breaker.abandoned(permit, now()),
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            lock(&self.shared.breaker).abandoned(permit, now());
        }
    }
}

/// Returns the monotonic clock, the paused one in tests.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Locks even after a panic elsewhere: every critical section here leaves its data whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reply(result: CallToolResult) -> CallReply {
    let texts: Vec<String> = result.content.iter().map(text_of).collect();
    CallReply {
        is_error: result.is_error.unwrap_or(false),
        text: texts.join("\n"),
        structured: result.structured_content,
    }
}

/// Returns what a block says; of one that is no text, what it is.
fn text_of(block: &ContentBlock) -> String {
    match block {
        ContentBlock::Text(block) => block.text.clone(),
        ContentBlock::Image(image) => format!("[an image, {}]", image.mime_type),
        ContentBlock::Audio(audio) => format!("[a sound, {}]", audio.mime_type),
        ContentBlock::ResourceLink(link) => link.uri.clone(),
        ContentBlock::Resource(embedded) => match &embedded.resource {
            ResourceContents::TextResourceContents { text, .. } => text.clone(),
            ResourceContents::BlobResourceContents { uri, .. } => format!("[data, {uri}]"),
            _ => "[a resource]".to_owned(),
        },
        _ => "[a block of an unknown kind]".to_owned(),
    }
}
