//! The HTTP backend of rmcp's client: reqwest, with redirects refused loudly and answers held to their requests.

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

/// A redirect that was not followed.
#[derive(Debug, thiserror::Error)]
#[error("redirected to {0}")]
pub(super) struct RedirectRefused(pub(super) String);

/// rmcp's own reqwest backend with three differences.
///
/// A redirect that is not followed is an error that names its target. A JSON answer to a request that carries another
/// id (some servers answer faults with a made-up one) fails that request at once, where rmcp would wait for the right
/// id for ever: over HTTP the connection says which request a body answers. And the stream for messages that the server
/// sends unasked is never opened, since nobody here listens.
#[derive(Debug, Clone)]
pub(super) struct Backend(reqwest::Client);

impl Backend {
    /// Returns a backend whose connections are given up after `connect_timeout`.
    ///
    /// # Errors
    ///
    /// When the TLS roots of the machine cannot be loaded.
    pub(super) fn new(connect_timeout: Duration) -> Result<Self, reqwest::Error> {
        // An idle connection is never reused: one that the server closed in the meantime would make a call unclear, and
        // connecting costs next to nothing beside what a tool does.
        reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .connect_timeout(connect_timeout)
            .tcp_keepalive(Duration::from_secs(15))
            .redirect(redirects())
            .build()
            .map(Self)
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

/// Gives a faulty error answer the id of the request it came back on; refuses another request's result.
fn held_to_its_request(
    sent: &RequestId,
    answer: ServerJsonRpcMessage,
) -> Result<ServerJsonRpcMessage, StreamableHttpError<reqwest::Error>> {
    match answer {
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
                held_to_its_request(&sent, answer)
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
