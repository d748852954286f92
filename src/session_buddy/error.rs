//! What a failed exchange with Session-Buddy means for the item that was to be sent.

use crate::error::{ErrorKind, Fault};
use crate::mcp_client::ClientError;

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
    /// It answers, but its database is held by another process, so that no item can be taken.
    #[error("session-buddy cannot use its database: {0}")]
    Locked(String),
}

impl PeerError {
    /// Returns whether it concerns the peer as a whole rather than one item.
    pub fn is_about_the_peer(&self) -> bool {
        matches!(self, Self::Unclear(_) | Self::Down(_) | Self::Locked(_))
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
            Self::Retry(_) | Self::Locked(_) => ErrorKind::Unavailable,
            Self::Unclear(error) | Self::Down(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Locked(_) => Some(
                "end the other Session-Buddy that uses the same home directory, or give one of them another HOME"
                    .to_owned(),
            ),
            Self::Unclear(error) | Self::Down(error) => error.hint(),
            Self::Permanent(_) | Self::Retry(_) => None,
        }
    }
}
