//! The HTTP backend of rmcp's client: reqwest, with refused redirects reported and answers matched to their requests.

use super::error::excerpt;
use futures_util::stream::BoxStream;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::redirect;
use rmcp::model::{ClientJsonRpcMessage, JsonRpcMessage, RequestId, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse,
    StreamableHttpResponseLimits,
};
use sse_stream::Sse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// The codes with which MCP servers refuse a request as such, mostly because they do not know its session: JSON-RPC's
/// "invalid request", and those of the TypeScript SDK for "bad request" and "session not found".
const BAD_REQUEST: [i32; 3] = [-32600, -32000, -32001];

/// A redirect that was not followed.
#[derive(Debug, thiserror::Error)]
#[error("redirected to {0}")]
pub(super) struct RedirectRefused(pub(super) String);

/// rmcp's own reqwest backend with these differences.
///
/// A redirect that is not followed is an error that names its target. A JSON answer to a request that carries another id
/// (some servers answer faults with a made-up one) fails that request at once, where rmcp would wait for the right id for
/// ever: over HTTP the connection shows which request a body answers. The stream for messages that the server sends
/// unasked is never opened, because this client has no use for them.
#[derive(Debug, Clone)]
pub(super) struct Backend(reqwest::Client);

impl Backend {
    /// Returns a backend for the server at `url` that gives up connecting after `connect_timeout`.
    ///
    /// The environment's proxies and `NO_PROXY` apply, except to a server on this machine, which no proxy can reach.
    ///
    /// # Errors
    ///
    /// When the TLS roots of the machine cannot be loaded.
    pub(super) fn new(url: &str, connect_timeout: Duration) -> Result<Self, reqwest::Error> {
        // An idle connection is never reused: one that the server closed in the meantime would make a call unclear, and
        // connecting costs next to nothing beside what a tool does.
        let mut client = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .connect_timeout(connect_timeout)
            .tcp_keepalive(Duration::from_secs(15))
            .redirect(redirects());
        if is_loopback(url) {
            client = client.no_proxy();
        }
        client.build().map(Self)
    }
}

/// Returns whether the URL's host is this machine: `localhost`, a name below it (RFC 6761), or a loopback address.
fn is_loopback(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else {
        return false;
    };
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches([']', '.']);
    match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback() || address.is_unspecified(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Follows a redirect that keeps the method and the origin; names the target of any other.
fn redirects() -> redirect::Policy {
    const MAX_HOPS: usize = 5;
    redirect::Policy::custom(|attempt| {
        let keeps_body = matches!(attempt.status().as_u16(), 307 | 308);
        let same_origin = attempt
            .previous()
            .first()
            .is_some_and(|first| first.origin() == attempt.url().origin());
        if keeps_body && same_origin && attempt.previous().len() <= MAX_HOPS {
            attempt.follow()
        } else {
            let target = attempt.url().to_string();
            attempt.error(RedirectRefused(target))
        }
    })
}

/// Returns a JSON answer as one to the request `sent`: an error gets its id, another request's result is refused.
fn matched(
    sent: &RequestId,
    answer: ServerJsonRpcMessage,
    in_session: bool,
) -> Result<ServerJsonRpcMessage, StreamableHttpError<reqwest::Error>> {
    match answer {
        JsonRpcMessage::Error(error)
            if in_session
                && error.id.as_ref() != Some(sent)
                && BAD_REQUEST.contains(&error.error.code.0) =>
        {
            // rmcp drops the status; this is the form in which it reports one without a JSON body.
            let text = format!("HTTP 400: {}", error.error.message);
            Err(StreamableHttpError::UnexpectedServerResponse(text.into()))
        }
        JsonRpcMessage::Error(mut error) => {
            error.id = Some(sent.clone());
            Ok(ServerJsonRpcMessage::Error(error))
        }
        JsonRpcMessage::Response(response) if response.id.to_string() != sent.to_string() => {
            Err(StreamableHttpError::UnexpectedServerResponse(
                excerpt(&format!("an answer to another request ({})", response.id)).into(),
            ))
        }
        answer => Ok(answer),
    }
}

impl StreamableHttpClient for Backend {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, StreamableHttpError<Self::Error>> {
        self.post_message_with_response_limits(
            uri,
            message,
            session_id,
            auth_header,
            custom_headers,
            StreamableHttpResponseLimits::default(),
        )
        .await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, StreamableHttpError<Self::Error>> {
        let sent = match &message {
            JsonRpcMessage::Request(request) => Some(request.id.clone()),
            _ => None,
        };
        let in_session = session_id.is_some();
        let response = self
            .0
            .post_message_with_response_limits(
                uri,
                message,
                session_id,
                auth_header,
                custom_headers,
                limits,
            )
            .await?;
        match (sent, response) {
            (Some(sent), StreamableHttpPostResponse::Json(answer, session)) => {
                matched(&sent, answer, in_session)
                    .map(|answer| StreamableHttpPostResponse::Json(answer, session))
            }
            (_, response) => Ok(response),
        }
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session_id: Arc<str>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), StreamableHttpError<Self::Error>> {
        self.0
            .delete_session(uri, session_id, auth_header, custom_headers)
            .await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        auth_header: Option<String>,
        custom_headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, StreamableHttpError<Self::Error>> {
        if last_event_id.is_none() {
            return Err(StreamableHttpError::ServerDoesNotSupportSse);
        }
        self.0
            .get_stream(uri, session_id, last_event_id, auth_header, custom_headers)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn loopback_hosts_in_all_their_forms_are_recognised() {
        for url in [
            "http://127.0.0.1:8678/mcp",
            "http://127.9.9.9/",
            "http://localhost:1/",
            "http://LOCALHOST./",
            "http://app.localhost/",
            "https://[::1]:8678/mcp",
            "http://[::ffff:127.0.0.1]/",
            "http://0.0.0.0:8678/mcp",
        ] {
            assert!(is_loopback(url), "{url}");
        }
        for url in [
            "http://127.0.0.1.example.org/",
            "http://localhost.example.org/",
            "http://10.0.0.1/",
            "not a url",
        ] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
