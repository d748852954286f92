//! From an endpoint to a session, and from rmcp's errors to what they say about execution.

use super::child::ChildGroup;
use super::client::ClientSettings;
use super::error::{ClientError, NotSent, Unclear, chain, excerpt};
use super::http::{Backend, RedirectRefused};
use super::progress::Listener;
use crate::config::PeerConfig;
use crate::process::base_env;
use reqwest::header::{HeaderName, HeaderValue};
use rmcp::model::ProtocolVersion;
use rmcp::service::{
    ClientInitializeError, ClientLifecycleMode, ClientServiceExt, Peer, RoleClient, RunningService,
    ServiceError,
};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::common::client_side_sse::NeverRetry;
use rmcp::transport::streamable_http_client::{
    StreamableHttpClientTransport, StreamableHttpClientTransportConfig, StreamableHttpError,
};
use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Where another MCP server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// It answers streamable HTTP at a URL.
    Http {
        /// The URL of the MCP endpoint.
        url: String,
        /// Headers sent with every request, as name and value.
        headers: Vec<(String, String)>,
    },
    /// It is started as a child process and speaks on its stdin and stdout.
    Stdio {
        /// The program and its arguments.
        command: Vec<String>,
        /// Its whole environment, as name and value.
        env: Vec<(String, String)>,
    },
}

impl Endpoint {
    /// Returns where the config says that a server is; one that is started as a child gets of `env`, this server's own
    /// environment, what every program gets and what the config passes on.
    pub fn of(peer: &PeerConfig, env: &[(OsString, OsString)]) -> Self {
        let text = |part: &OsString| part.to_string_lossy().into_owned();
        match peer {
            PeerConfig::Http { url, headers } => Self::Http {
                url: url.clone(),
                headers: headers.clone().into_iter().collect(),
            },
            PeerConfig::Stdio {
                command,
                env_pass,
                env: set,
            } => {
                let set = set.iter().map(|(name, value)| (name.into(), value.into()));
                let set: Vec<(OsString, OsString)> = set.collect();
                let whole = base_env(env.iter().cloned(), env_pass, &set);
                Self::Stdio {
                    command: command.clone(),
                    env: whole
                        .iter()
                        .map(|(name, value)| (text(name), text(value)))
                        .collect(),
                }
            }
        }
    }
}

/// How long a TCP and TLS connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many POSTs rmcp sends at once, cancellations among them; above what the slots of a few pools add up to, since
/// the slots alone limit the calls.
const MAX_POSTS: usize = 100_000;

/// An initialized session.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: Peer<RoleClient>,
    pub(super) listener: Listener,
    // std mutexes: each is locked once, to take its content out at the end.
    service: Mutex<Option<RunningService<RoleClient, Listener>>>,
    child: Mutex<Option<ChildGroup>>,
}

impl Connection {
    /// Connects and initializes: the handshake of all protocol versions up to 2025-11-25 first, then the later one.
    pub(super) async fn open(
        endpoint: &Endpoint,
        settings: &ClientSettings,
    ) -> Result<Self, NotSent> {
        let greet = ClientLifecycleMode::Initialize;
        let refused = match Self::open_with(endpoint, settings, greet).await {
            Err(refused @ NotSent::Handshake(_)) => refused,
            other => return other,
        };
        let modern = ClientLifecycleMode::Discover {
            preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        };
        // The first refusal is the one to tell: most servers know only that handshake.
        let opened = Self::open_with(endpoint, settings, modern).await;
        opened.map_err(|_| refused)
    }

    async fn open_with(
        endpoint: &Endpoint,
        settings: &ClientSettings,
        lifecycle: ClientLifecycleMode,
    ) -> Result<Self, NotSent> {
        match endpoint {
            Endpoint::Http { url, headers } => {
                Self::open_http(url, headers, settings, lifecycle).await
            }
            Endpoint::Stdio { command, env } => {
                Self::open_stdio(command, env, settings, lifecycle).await
            }
        }
    }

    async fn open_http(
        url: &str,
        headers: &[(String, String)],
        settings: &ClientSettings,
        lifecycle: ClientLifecycleMode,
    ) -> Result<Self, NotSent> {
        let backend = Backend::new(CONNECT_TIMEOUT).map_err(|error| NotSent::Tls(chain(&error)))?;
        // A lost session is renewed by the client, which knows which calls may be repeated; rmcp's own renewal drops
        // the answers of the other calls. A response stream that broke is not resumed: the call is unclear.
        let mut config = StreamableHttpClientTransportConfig::with_uri(url)
            .custom_headers(header_map(headers)?)
            .max_concurrent_requests(MAX_POSTS)
            .max_sse_event_size(settings.max_answer)
            .max_json_response_size(settings.max_answer)
            .reinit_on_expired_session(false);
        config.retry_config = Arc::new(NeverRetry::default());
        let transport = StreamableHttpClientTransport::with_client(backend, config);
        let service = Listener::default()
            .serve_with_lifecycle(transport, lifecycle)
            .await
            .map_err(|error| handshake_error(&error, ""))?;
        Ok(Self::new(service, None))
    }

    async fn open_stdio(
        command: &[String],
        env: &[(String, String)],
        settings: &ClientSettings,
        lifecycle: ClientLifecycleMode,
    ) -> Result<Self, NotSent> {
        let Some(launcher) = &settings.launcher else {
            let nobody = "this client starts no programs";
            return Err(NotSent::Spawn(nobody.to_owned()));
        };
        let (child, (stdout, stdin)) = ChildGroup::start(launcher, command, env)
            .map_err(|error| NotSent::Spawn(chain(&error)))?;
        let transport =
            AsyncRwTransport::new_client(stdout, stdin).with_max_line_length(settings.max_answer);
        let started = Listener::default()
            .serve_with_lifecycle(transport, lifecycle)
            .await;
        match started {
            Ok(service) => Ok(Self::new(service, Some(child))),
            Err(error) => Err(handshake_error(&error, &child.last_words().await)),
        }
    }

    fn new(service: RunningService<RoleClient, Listener>, child: Option<ChildGroup>) -> Self {
        Self {
            peer: service.peer().clone(),
            listener: service.service().clone(),
            service: Mutex::new(Some(service)),
            child: Mutex::new(child),
        }
    }

    /// Returns whether no call can be sent any more.
    pub(super) fn is_closed(&self) -> bool {
        self.peer.is_transport_closed()
    }

    /// Ends the session: every waiter gets an error, the HTTP session is deleted, the child ends.
    pub(super) async fn close(&self, grace: Duration) {
        let service = self.service.lock().ok().and_then(|mut slot| slot.take());
        if let Some(mut service) = service
            && let Err(error) = service.close_with_timeout(grace).await
        {
            tracing::warn!(%error, "the session did not end cleanly");
        }
        let child = self.child.lock().ok().and_then(|mut slot| slot.take());
        if let Some(child) = child {
            child.end(grace).await;
        }
    }
}

fn header_map(headers: &[(String, String)]) -> Result<HashMap<HeaderName, HeaderValue>, NotSent> {
    headers
        .iter()
        .map(|(name, value)| {
            let bad = |_| NotSent::Connect(format!("{name:?} is not a usable header"));
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad(()))?;
            let mut value = HeaderValue::from_str(value).map_err(|_| bad(()))?;
            value.set_sensitive(true);
            Ok((key, value))
        })
        .collect()
}

fn handshake_error(error: &ClientInitializeError, stderr: &str) -> NotSent {
    match error {
        ClientInitializeError::TransportError { error, .. } => {
            match error.error.downcast_ref::<HttpError>() {
                Some(http) => not_sent(http),
                None => NotSent::Spawn(with_stderr(chain(error.error.as_ref()), stderr)),
            }
        }
        ClientInitializeError::ConnectionClosed(_) => {
            if stderr.is_empty() {
                NotSent::NotMcp("the connection closed during the handshake".into())
            } else {
                NotSent::Spawn(with_stderr("it ended during the handshake".into(), stderr))
            }
        }
        ClientInitializeError::JsonRpcError(error) => NotSent::Handshake(excerpt(&error.message)),
        other => NotSent::NotMcp(chain(other)),
    }
}

fn with_stderr(mut message: String, stderr: &str) -> String {
    if let Some(last) = stderr.lines().rev().find(|line| !line.trim().is_empty()) {
        message.push_str("; its last word on stderr: ");
        message.push_str(&excerpt(last));
    }
    message
}

/// What rmcp's HTTP transport fails with.
type HttpError = StreamableHttpError<reqwest::Error>;

/// Reads an HTTP failure of the handshake, during which no tool is called.
fn not_sent(error: &HttpError) -> NotSent {
    match error {
        HttpError::Client(error) => no_connection(error),
        HttpError::HttpStatus(status) if status.status == 429 => NotSent::TooManyCalls,
        HttpError::HttpStatus(status) => {
            NotSent::Connect(format!("it answered with HTTP {}", status.status))
        }
        HttpError::AuthRequired(challenge) => {
            NotSent::Unauthorized(excerpt(&challenge.www_authenticate_header))
        }
        HttpError::InsufficientScope(challenge) => {
            NotSent::Unauthorized(excerpt(&challenge.www_authenticate_header))
        }
        HttpError::UnexpectedServerResponse(text)
            if text.starts_with("HTTP 401") || text.starts_with("HTTP 403") =>
        {
            NotSent::Unauthorized(excerpt(text))
        }
        HttpError::UnexpectedServerResponse(text) => NotSent::NotMcp(excerpt(text)),
        HttpError::UnexpectedContentType(Some(kind)) => {
            NotSent::NotMcp(format!("it answered with {}", excerpt(kind)))
        }
        other => NotSent::NotMcp(chain(other)),
    }
}

fn no_connection(error: &reqwest::Error) -> NotSent {
    if let Some(target) = redirect_target(error) {
        return NotSent::Redirected(target);
    }
    let text = chain(error);
    let lower = text.to_lowercase();
    let tls = [
        "certificate",
        "tls",
        "handshake",
        "contenttype",
        "corrupt message",
    ];
    if error.is_connect() && tls.iter().any(|word| lower.contains(word)) {
        NotSent::Tls(text)
    } else {
        NotSent::Connect(text)
    }
}

fn redirect_target(error: &reqwest::Error) -> Option<String> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(refused) = cause.downcast_ref::<RedirectRefused>() {
            return Some(excerpt(&refused.0));
        }
        source = cause.source();
    }
    None
}

/// What became of a call that failed.
pub(super) enum CallFailure {
    /// The server does not know the session: it did not execute the call.
    SessionLost,
    /// Anything else.
    Other(ClientError),
}

/// Reads a failure of a call over an initialized session.
pub(super) fn call_failure(peer: &str, what: &str, error: ServiceError) -> CallFailure {
    let (peer, what) = (peer.to_owned(), what.to_owned());
    let cause = match error {
        ServiceError::McpError(error) => {
            return CallFailure::Other(ClientError::Refused {
                peer,
                what,
                code: Some(error.code.0),
                message: excerpt(&error.message),
            });
        }
        ServiceError::TransportSend(error) => match error.error.downcast_ref::<HttpError>() {
            Some(HttpError::SessionExpired) => return CallFailure::SessionLost,
            Some(error) => match sent_or_not(error) {
                Ok(unclear) => unclear,
                Err(cause) => return CallFailure::Other(ClientError::NotSent { peer, cause }),
            },
            None => Unclear::Broken(chain(error.error.as_ref())),
        },
        ServiceError::TransportClosed => Unclear::Broken("it was closed".into()),
        ServiceError::UnexpectedResponse => {
            Unclear::Garbage("a result of another kind than was asked for".into())
        }
        other => Unclear::Broken(chain(&other)),
    };
    CallFailure::Other(ClientError::Unclear { peer, what, cause })
}

/// Tells whether a request that failed may have been executed, or what kept it from being sent.
fn sent_or_not(error: &HttpError) -> Result<Unclear, NotSent> {
    match error {
        HttpError::Client(error)
            if error.is_connect() || error.is_builder() || redirect_target(error).is_some() =>
        {
            Err(no_connection(error))
        }
        HttpError::Client(error) => Ok(Unclear::Broken(chain(error))),
        HttpError::HttpStatus(status) if status.status != 429 => Ok(Unclear::Status(status.status)),
        HttpError::UnexpectedServerResponse(text) if text.starts_with("HTTP 4") => {
            Err(not_sent(error))
        }
        HttpError::UnexpectedServerResponse(text) => Ok(Unclear::Garbage(excerpt(text))),
        HttpError::UnexpectedContentType(kind) => Ok(Unclear::Garbage(format!(
            "content type {}",
            excerpt(kind.as_deref().unwrap_or("missing"))
        ))),
        HttpError::HttpStatus(_) | HttpError::AuthRequired(_) | HttpError::InsufficientScope(_) => {
            Err(not_sent(error))
        }
        other => Ok(Unclear::Broken(chain(other))),
    }
}
