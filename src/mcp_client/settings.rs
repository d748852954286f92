//! How a client behaves.

use super::child::Launcher;
use std::time::Duration;

/// How a client behaves; the defaults suit a server on the same machine.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// The server's name in messages.
    pub name: String,
    /// The longest a connection with its handshake may take; some programs take long to start.
    pub connect_timeout: Duration,
    /// The largest answer that is read, in bytes: a full listing of a memory server is megabytes. A larger one fails its
    /// call.
    pub max_answer: usize,
    /// What starts a server that is a child process; without it, none is started.
    pub launcher: Option<Launcher>,
}

impl ClientSettings {
    /// Returns the defaults for the server `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            connect_timeout: Duration::from_secs(90),
            max_answer: 64 << 20,
            launcher: None,
        }
    }
}
