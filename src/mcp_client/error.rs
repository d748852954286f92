//! Why a call has no reply, ordered by what is known about its execution.

use crate::error::{ErrorKind, Fault};

/// Why a call has no reply. The variant says whether the server may have executed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The server certainly did not execute the call.
    #[error("{peer} was not called: {cause}")]
    NotSent {
        /// The server, as the config names it.
        peer: String,
        /// What was in the way.
        cause: NotSent,
    },
    /// The server may or may not have executed the call.
    #[error("{peer} did not answer {what}: {cause}")]
    Unclear {
        /// The server, as the config names it.
        peer: String,
        /// The tool or method.
        what: String,
        /// What happened instead of an answer.
        cause: Unclear,
    },
    /// The server answered that it does not execute the call.
    #[error("{peer} refused {what}: {message}")]
    Refused {
        /// The server, as the config names it.
        peer: String,
        /// The tool or method.
        what: String,
        /// The JSON-RPC error code, where it was one.
        code: Option<i32>,
        /// The server's own words, cut to a few hundred characters.
        message: String,
    },
}

/// What kept a call from being sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// No connection: refused, unknown host, TLS.
    #[error("no connection: {0}")]
    Connect(String),
    /// The certificate was not accepted.
    #[error("the TLS handshake failed: {0}")]
    Tls(String),
    /// What answers there is not an MCP server.
    #[error("what answers there is not an MCP server: {0}")]
    NotMcp(String),
    /// The server sends its callers elsewhere.
    #[error("it redirects to {0}")]
    Redirected(String),
    /// The server wants credentials.
    #[error("it wants credentials: {0}")]
    Unauthorized(String),
    /// The server refused the handshake.
    #[error("it refused the handshake: {0}")]
    Handshake(String),
    /// The server keeps losing its sessions.
    #[error("it lost its session twice in a row")]
    SessionLost,
    /// The server asks for fewer calls.
    #[error("it asks for fewer calls (HTTP 429)")]
    TooManyCalls,
    /// The program could not be started or ended before it spoke.
    #[error("the program did not start: {0}")]
    Spawn(String),
    /// The deadline passed before there was a connection.
    #[error("the deadline passed before there was a connection")]
    Deadline,
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}

/// What happened to a call that was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unclear {
    /// The deadline passed.
    #[error("the deadline passed")]
    Deadline,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// An HTTP 5xx, which a gateway may have sent in the server's name.
    #[error("HTTP {0}")]
    Status(u16),
    /// What came back is not an answer.
    #[error("what came back is not an answer: {0}")]
    Garbage(String),
}

impl Fault for ClientError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotSent { cause, .. } => match cause {
                NotSent::Deadline => ErrorKind::TimedOut,
                NotSent::Closed => ErrorKind::Cancelled,
                NotSent::TooManyCalls => ErrorKind::Busy,
                NotSent::Unauthorized(_) => ErrorKind::Forbidden,
                _ => ErrorKind::Unavailable,
            },
            Self::Unclear { cause, .. } => match cause {
                Unclear::Deadline => ErrorKind::TimedOut,
                _ => ErrorKind::Unavailable,
            },
            Self::Refused { .. } => ErrorKind::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NotSent { cause, .. } => match cause {
                NotSent::Connect(_) => {
                    "start the server, or correct its url (host and port) in the config"
                }
                NotSent::Tls(_) => {
                    "check that the url's scheme (http or https) is the server's, and that its certificate is valid \
                     for this host and signed by an authority this machine trusts"
                }
                NotSent::NotMcp(_) => {
                    "give the url of the MCP endpoint itself; it usually ends in /mcp"
                }
                NotSent::Redirected(_) => {
                    "redirects are not followed to another origin, because headers would be sent there; put the final \
                     url into the config if you trust it"
                }
                NotSent::Unauthorized(_) => {
                    "set the server's credentials in the config: a header such as Authorization in `headers` of its table"
                }
                NotSent::Handshake(_) => {
                    "check that the server speaks a version of MCP from 2024-11-05 on"
                }
                NotSent::SessionLost => {
                    "look at the server's log: it restarts or forgets its sessions"
                }
                NotSent::Spawn(_) => {
                    "run the command by hand: it must speak MCP on its stdin and stdout"
                }
                NotSent::TooManyCalls | NotSent::Deadline => "try again later or allow more time",
                NotSent::Closed => return None,
            },
            Self::Unclear { .. } => {
                "it may have been executed all the same: look before you repeat it"
            }
            Self::Refused { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

/// Returns an error with all its causes, cut to a length that fits a message.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Many libraries repeat the cause in their own message.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    excerpt(&text)
}

/// Returns the beginning of a text a server sent, as one line that fits a message.
pub(super) fn excerpt(text: &str) -> String {
    const MAX_CHARS: usize = 300;
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = line.char_indices().nth(MAX_CHARS) {
        line.truncate(cut);
        line.push_str("...");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_one_short_line() {
        let page = format!("<html>\n  <body>{}", "é".repeat(1000));
        let line = excerpt(&page);
        assert!(line.starts_with("<html> <body>é") && line.ends_with("..."));
        assert_eq!(line.chars().count(), 303);
    }

    #[test]
    fn every_error_names_the_peer_and_most_a_next_step() {
        let error = ClientError::NotSent {
            peer: "session-buddy".into(),
            cause: NotSent::Connect("connection refused".into()),
        };
        let problem = error.problem();
        assert_eq!(problem.kind, ErrorKind::Unavailable);
        assert!(problem.message.contains("session-buddy") && problem.retryable);
        assert!(problem.hint.is_some_and(|hint| hint.contains("url")));
    }
}
