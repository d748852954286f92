//! From an endpoint to an initialized session.

use super::child::ChildGroup;
use super::endpoint::Endpoint;
use super::error::{NotSent, chain, excerpt};
use super::failure::{HttpError, not_sent};
use super::http::Backend;
use super::progress::Listener;
use super::settings::ClientSettings;
use super::throttle::{Allowance, Request, Throttled};
use parking_lot::Mutex;
use reqwest::header::{HeaderName, HeaderValue};
use rmcp::model::ProtocolVersion;
use rmcp::service::{
    ClientInitializeError, ClientLifecycleMode, ClientServiceExt, Peer, RoleClient, RunningService,
};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::common::client_side_sse::NeverRetry;
use rmcp::transport::streamable_http_client::{
    StreamableHttpClientTransport, StreamableHttpClientTransportConfig,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a TCP and TLS connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many POSTs rmcp sends at once, cancellations included; more than the slots of all pools, which alone limit the
/// calls.
const MAX_POSTS: usize = 100_000;
/// How many bytes a child may write on its stdout at once and each second while no request is sent to it. Above that,
/// each request lets it write one answer of the largest size.
const UNASKED: (i64, i64) = (1 << 20, 64 << 10);

/// An initialized session.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) peer: Peer<RoleClient>,
    pub(super) listener: Listener,
    /// What may be read from a child, and what one more request adds.
    stdout: Option<(Allowance, i64)>,
    // Each is locked once, to take its content out at the end.
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
        // The first refusal is reported, because most servers know only that handshake.
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
        let backend =
            Backend::new(url, CONNECT_TIMEOUT).map_err(|error| NotSent::Tls(chain(&error)))?;
        // The client renews a lost session itself: rmcp's own renewal drops the answers of the other calls. A response stream that broke is not resumed: the call is unclear.
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
        Ok(Self::new(service))
    }

    async fn open_stdio(
        command: &[String],
        env: &[(String, String)],
        settings: &ClientSettings,
        lifecycle: ClientLifecycleMode,
    ) -> Result<Self, NotSent> {
        let Some(launcher) = &settings.launcher else {
            return Err(NotSent::Spawn("this client starts no programs".to_owned()));
        };
        let (child, (stdout, stdin)) = ChildGroup::start(launcher, command, env)
            .await
            .map_err(|error| NotSent::Spawn(chain(&error)))?;
        let allowance = Allowance::new(UNASKED.0, UNASKED.1);
        let stdout = Throttled::new(stdout, allowance.clone());
        let transport =
            AsyncRwTransport::new_client(stdout, stdin).with_max_line_length(settings.max_answer);
        let started = Listener::default()
            .serve_with_lifecycle(transport, lifecycle)
            .await;
        match started {
            Ok(service) => Ok(Self {
                stdout: Some((
                    allowance,
                    i64::try_from(settings.max_answer).unwrap_or(i64::MAX),
                )),
                child: Mutex::new(Some(child)),
                ..Self::new(service)
            }),
            Err(error) => Err(handshake_error(&error, &child.stderr_tail().await)),
        }
    }

    fn new(service: RunningService<RoleClient, Listener>) -> Self {
        Self {
            peer: service.peer().clone(),
            listener: service.service().clone(),
            stdout: None,
            service: Mutex::new(Some(service)),
            child: Mutex::new(None),
        }
    }

    /// Lets a child answer at length for as long as the returned request lives.
    pub(super) fn request(&self) -> Option<Request> {
        let (allowance, answer) = self.stdout.as_ref()?;
        Some(allowance.request(*answer))
    }

    /// Returns whether no call can be sent any more.
    pub(super) fn is_closed(&self) -> bool {
        self.peer.is_transport_closed()
    }

    /// Ends the session: every caller gets an error, the HTTP session is deleted, the child ends.
    pub(super) async fn close(&self, grace: Duration) {
        let service = self.service.lock().take();
        if let Some(mut service) = service
            && let Err(error) = service.close_with_timeout(grace).await
        {
            tracing::warn!(%error, "the session did not end cleanly");
        }
        let child = self.child.lock().take();
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
        message.push_str("; the end of its stderr: ");
        message.push_str(&excerpt(last));
    }
    message
}
