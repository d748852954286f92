//! How long each host waits for the answer of a call.

use crate::api::Caller;
use std::time::Duration;

/// The name under which `mahavishnu call` presents itself.
pub(crate) const CLI_CLIENT: &str = "mahavishnu-call";

/// Hosts that wait longer than [`Caller::DEFAULT_WAIT_CAP`], by `clientInfo.name`, each with its measured
/// limit less a margin for the answer's way.
///
/// Measured 2026-11-24, with no limit set by the user and a server that sends nothing: Codex 0.169.0 gives up after
/// 300 s, Gemini CLI 0.61.0 after 600 s; Claude Code 2.1.331 still waited after 840 s, when the measurement ended. A
/// user may set a lower limit, which the server cannot see: then the call is cancelled and the run goes on. The
/// Inspector 2.12.0 gives up after 60 s, which the default is below.
const PATIENT: [(&str, Duration); 4] = [
    ("claude-code", Duration::from_secs(810)),
    ("codex-mcp-client", Duration::from_secs(270)),
    ("gemini-cli-mcp-client", Duration::from_secs(570)),
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
        assert_eq!(wait_cap(Some("inspector-cli")), Duration::from_secs(45));
        assert_eq!(wait_cap(Some("claude-code")), Duration::from_secs(810));
        assert_eq!(wait_cap(Some("codex-mcp-client")), Duration::from_secs(270));
        assert_eq!(
            wait_cap(Some("gemini-cli-mcp-client")),
            Duration::from_secs(570)
        );
    }
}
