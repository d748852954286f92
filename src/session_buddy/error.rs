//! What a failed exchange with Session-Buddy means for the item that was to be sent.

use crate::error::{ErrorKind, Fault};
use crate::mcp_client::{ClientError, Unclear};
use crate::resilience::Refused;
use std::time::Duration;

/// Why Session-Buddy did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It will never take this item.
    #[error("session-buddy will not take this: {0}")]
    Permanent(String),
    /// It did not take this item now.
    #[error("session-buddy did not take this: {0}")]
    Retry(String),
    /// It may or may not have taken the item.
    #[error("whether session-buddy did it is unclear")]
    Unclear(#[source] ClientError),
    /// It was not reached, so the item was certainly not taken.
    #[error("session-buddy is down")]
    Down(#[source] ClientError),
    /// It failed again and again, or has not answered for long, so that it is not called for now.
    #[error("session-buddy is left alone for now{}", because(after.as_deref()))]
    Resting {
        /// How long until it is called again; absent while one call is in flight to find out.
        retry_in: Option<Duration>,
        /// How it failed last.
        after: Option<Box<PeerError>>,
    },
    /// It answers, but its database is held by another process, so that no item can be taken.
    #[error("session-buddy cannot use its database: {0}")]
    Locked(String),
    /// What answers there is an MCP server of another sort, so that no item can be taken.
    #[error("what answers is not a Session-Buddy: {0}")]
    NotSessionBuddy(String),
}

fn because(after: Option<&PeerError>) -> String {
    match after {
        Some(error) => format!(", because it keeps failing: {}", error.problem().message),
        None => ": a call to it has not been answered for long".to_owned(),
    }
}

impl From<Refused<PeerError>> for PeerError {
    fn from(refused: Refused<PeerError>) -> Self {
        Self::Resting {
            retry_in: refused.retry_in,
            after: refused.after.map(Box::new),
        }
    }
}

impl PeerError {
    /// Returns whether it concerns the peer as a whole rather than one item.
    pub fn is_about_the_peer(&self) -> bool {
        !matches!(self, Self::Permanent(_) | Self::Retry(_))
    }

    /// Returns the unclear outcome of `what`, a call that a defect of this program ended.
    pub fn panicked(what: &str) -> Self {
        Self::Unclear(ClientError::Unclear {
            peer: "session-buddy".to_owned(),
            what: what.to_owned(),
            cause: Unclear::Broken("a defect of this program ended the call".to_owned()),
        })
    }
}

impl From<ClientError> for PeerError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NotSent { .. } => Self::Down(error),
            ClientError::Unclear { .. } => Self::Unclear(error),
            ClientError::Refused { .. } => Self::Retry(error.to_string()),
        }
    }
}

impl Fault for PeerError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Permanent(_) => ErrorKind::Failed,
            Self::Retry(_) | Self::Locked(_) | Self::NotSessionBuddy(_) | Self::Resting { .. } => {
                ErrorKind::Unavailable
            }
            Self::Unclear(error) | Self::Down(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Locked(_) => Some(
                "end the other Session-Buddy that uses the same home directory, or give one of them another HOME"
                    .to_owned(),
            ),
            Self::NotSessionBuddy(_) => Some(
                "set the url or the command of `[session_buddy]` in the config to a Session-Buddy; the memories kept here are sent then"
                    .to_owned(),
            ),
            Self::Unclear(error) | Self::Down(error) => error.hint(),
            Self::Resting { retry_in, after } => {
                let fix = after.as_ref().and_then(|after| after.hint());
                let fix = fix.unwrap_or_else(|| "check_health shows its state".to_owned());
                Some(match retry_in {
                    Some(wait) => format!("{fix}; it is called again in {} s", wait.as_secs() + 1),
                    None => format!("{fix}; one call is in flight to find out"),
                })
            }
            Self::Permanent(_) | Self::Retry(_) => None,
        }
    }
}
