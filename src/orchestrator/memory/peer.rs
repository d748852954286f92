//! The configured Session-Buddy as a client.

use crate::config::PeerConfig;
use crate::mcp_client::{ClientSettings, Endpoint, Launcher, McpClient};
use crate::model::{At, PeerName};
use crate::session_buddy::SessionBuddy;
use std::ffi::OsString;

/// Its name in the store and in answers, whatever its address: where another server answers at a new address,
/// reconciliation finds what that one lacks.
pub(super) const NAME: &str = "session_buddy";

/// Returns the Session-Buddy that the config names; nothing is connected before the first call.
///
/// `env` is the whole environment of one that is started as a child, by `launcher`.
pub fn connect(
    peer: &PeerConfig,
    env: &[(OsString, OsString)],
    launcher: Launcher,
) -> (PeerName, SessionBuddy) {
    let text = |part: &OsString| part.to_string_lossy().into_owned();
    let endpoint = match peer {
        PeerConfig::Http { url } => Endpoint::Http {
            url: url.clone(),
            headers: Vec::new(),
        },
        PeerConfig::Stdio { command } => Endpoint::Stdio {
            command: command.clone(),
            env: env
                .iter()
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
        },
    };
    let settings = ClientSettings {
        launcher: Some(launcher),
        ..ClientSettings::new(NAME)
    };
    let client = McpClient::new(endpoint, settings);
    // The peer remembers queries beyond this process's life, so each begins elsewhere.
    let seed = At::now().unix_ms().unsigned_abs() ^ u64::from(std::process::id()) << 40;
    (PeerName::new(NAME), SessionBuddy::new(client, seed))
}
