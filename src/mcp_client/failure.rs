//! From rmcp's errors to what they mean for a call: not sent, lost with its session, or unclear.

use super::error::{ClientError, NotSent, Unclear, chain, excerpt};
use super::http::RedirectRefused;
use rmcp::model::ErrorCode;
use rmcp::service::ServiceError;
use rmcp::transport::streamable_http_client::StreamableHttpError;

/// What rmcp's HTTP transport fails with.
pub(super) type HttpError = StreamableHttpError<reqwest::Error>;

/// Returns what an HTTP failure of the handshake means; no tool is called during it.
pub(super) fn not_sent(error: &HttpError) -> NotSent {
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

/// Returns whether the server refused the request as such, as many do that have lost the session.
fn is_bad_request(answer: &str) -> bool {
    ["HTTP 400", "HTTP 410"]
        .iter()
        .any(|status| answer.starts_with(status))
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

/// A call without a reply.
pub(super) enum Failure {
    /// The server may not know the session, and did not execute the call.
    SessionLost(ClientError),
    /// Anything else.
    Other(ClientError),
}

/// Returns what a failure of a call over an initialized session means.
pub(super) fn call_failure(peer: &str, what: &str, error: ServiceError) -> Failure {
    let (peer, what) = (peer.to_owned(), what.to_owned());
    let cause = match error {
        ServiceError::McpError(error) => {
            return Failure::Other(ClientError::Refused {
                peer,
                what,
                code: Some(error.code.0),
                message: excerpt(&error.message),
            });
        }
        ServiceError::TransportSend(error) => match error.error.downcast_ref::<HttpError>() {
            Some(HttpError::SessionExpired) => {
                let cause = NotSent::SessionLost;
                return Failure::SessionLost(ClientError::NotSent { peer, cause });
            }
            Some(HttpError::UnexpectedServerResponse(text)) if is_bad_request(text) => {
                return Failure::SessionLost(ClientError::Refused {
                    peer,
                    what,
                    code: Some(ErrorCode::INVALID_REQUEST.0),
                    message: excerpt(text),
                });
            }
            Some(error) => match sent_or_not(error) {
                Ok(unclear) => unclear,
                Err(cause) => return Failure::Other(ClientError::NotSent { peer, cause }),
            },
            None => Unclear::Broken(chain(error.error.as_ref())),
        },
        ServiceError::TransportClosed => Unclear::Broken("it was closed".into()),
        ServiceError::UnexpectedResponse => {
            Unclear::Garbage("a result of another kind than was asked for".into())
        }
        other => Unclear::Broken(chain(&other)),
    };
    Failure::Other(ClientError::Unclear { peer, what, cause })
}

/// Returns what happened to a request that may have been executed, or what kept it from being sent.
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
