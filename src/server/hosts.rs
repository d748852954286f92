//! How long each host waits for the answer of a call.

use crate::api::Caller;
use std::time::Duration;

/// The name under which `mahavishnu call` presents itself.
pub const CLI_CLIENT: &str = "mahavishnu-call";

/// Hosts that were measured to wait longer than [`Caller::DEFAULT_WAIT_CAP`], by `clientInfo.name`, each with its limit
/// less a margin for the answer's way.
///
/// Measured 2026-07: Codex 0.169 gives up after 300 s unless its config says otherwise. Claude Code and Gemini CLI have
/// a limit that the user sets and that the server is not told, so they get the default.
const PATIENT: [(&str, Duration); 2] = [
    ("codex-mcp-client", Duration::from_secs(270)),
    (CLI_CLIENT, Duration::from_secs(3_600)),
];

/// Returns how long a call of the host `name` may wait.
pub(super) fn wait_cap(name: Option<&str>) -> Duration {
    PATIENT
        .iter()
        .find(|(patient, _)| Some(*patient) == name)
        .map_or(Caller::DEFAULT_WAIT_CAP, |(_, cap)| *cap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_measured_hosts_wait_longer() {
        assert_eq!(wait_cap(None), Duration::from_secs(45));
        assert_eq!(wait_cap(Some("claude-ai")), Duration::from_secs(45));
        assert_eq!(wait_cap(Some("codex-mcp-client")), Duration::from_secs(270));
    }
}
