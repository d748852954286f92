//! Whether a host's reason for taking a call back means that a person stopped it.
//!
//! Measured 2026-11-24 with `tests/hosts/measure.py` (the Inspector's web page by hand), the newest versions of the day:
//!
//! | Host | `clientInfo.name` | A person's interrupt | Its own time-out |
//! |---|---|---|---|
//! | Claude Code 2.1.331 | `claude-code` | `AbortError: user-cancel` | `SdkError: Request timed out` |
//! | Codex 0.169.0 | `codex-mcp-client` | `MCP request cancelled by caller` | the same text |
//! | Gemini CLI 0.61.0 | `gemini-cli-mcp-client` | no notification | `McpError: MCP error -32001: Request timed out` |
//! | Inspector 2.12.0, web | `mcp-inspector` | `Tool call cancelled by user` | `SdkError: Request timed out` |
//! | the same, `--cli` | `inspector-cli` | no notification | `SdkError: Request timed out` |
//! | the same, `mcpdo` | `inspector-cli` | `AbortError: This operation was aborted` | `SdkError: Request timed out` |
//!
//! Claude Code writes the same in both protocol eras, for Escape, Ctrl-C and SIGINT. Two texts are no person's, though a
//! person may be behind them: Codex has one text for everything, and `mcpdo` writes its text also where it was killed,
//! as an agent's own time-out does. A reason counts only from the host that was measured to give it: the texts are no
//! standard, and another host may mean another thing by one.

/// Returns whether `reason`, of a `notifications/cancelled` of the host `client`, is a person's.
///
/// No reason, an unknown one, an unknown host and a time-out are not: the run goes on.
pub(super) fn is_a_persons(client: Option<&str>, reason: Option<&str>) -> bool {
    PERSONS
        .iter()
        .any(|&(host, persons)| client == Some(host) && reason == Some(persons))
}

/// The reasons that mean a person and nothing else, by the host's `clientInfo.name`.
const PERSONS: [(&str, &str); 2] = [
    ("claude-code", "AbortError: user-cancel"),
    ("mcp-inspector", "Tool call cancelled by user"),
];

#[cfg(test)]
mod tests {
    use super::*;

    const SDK_TIME_OUT: &str = "SdkError: Request timed out";

    /// Every reason that was measured: the host, what it wrote, and whether that is a person's.
    const MEASURED: [(&str, &str, bool); 8] = [
        ("claude-code", "AbortError: user-cancel", true),
        ("claude-code", SDK_TIME_OUT, false),
        ("codex-mcp-client", "MCP request cancelled by caller", false),
        (
            "gemini-cli-mcp-client",
            "McpError: MCP error -32001: Request timed out",
            false,
        ),
        ("mcp-inspector", "Tool call cancelled by user", true),
        ("mcp-inspector", SDK_TIME_OUT, false),
        (
            "inspector-cli",
            "AbortError: This operation was aborted",
            false,
        ),
        ("inspector-cli", SDK_TIME_OUT, false),
    ];

    #[test]
    fn each_measured_reason_is_told_apart() {
        for (host, reason, persons) in MEASURED {
            assert_eq!(
                is_a_persons(Some(host), Some(reason)),
                persons,
                "{host}: {reason}"
            );
        }
    }

    #[test]
    fn a_reason_counts_only_from_its_own_host_and_word_for_word() {
        for (host, reason) in PERSONS {
            assert!(!is_a_persons(None, Some(reason)));
            assert!(!is_a_persons(Some("another-host"), Some(reason)));
            assert!(!is_a_persons(Some(host), None));
            assert!(!is_a_persons(Some(host), Some("")));
            assert!(!is_a_persons(Some(host), Some(&reason.to_uppercase())));
            assert!(!is_a_persons(Some(host), Some(&format!("{reason} "))));
        }
    }
}
