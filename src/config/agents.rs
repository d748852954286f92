//! Headless agent programs as data: how each is called and how it takes its prompt.

/// How a program takes its prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptBy {
    /// On stdin, which is closed after it.
    Stdin,
    /// As one more argument at the end of the argv.
    Argument,
    /// As a file whose path follows this flag.
    FileAfter(&'static str),
}

/// One agent program.
#[derive(Debug, PartialEq, Eq)]
pub struct AgentPreset {
    /// The kind's name in the config and the default pool's name.
    pub name: &'static str,
    /// The argv, the program first, without the prompt.
    pub argv: &'static [&'static str],
    /// How it takes the prompt.
    pub prompt: PromptBy,
}

impl AgentPreset {
    /// Returns the program's name.
    pub fn program(&self) -> &'static str {
        self.argv[0]
    }
}

/// The agent programs that are known.
///
/// Prompts go by stdin wherever the program takes them so: an argv shows in `ps` and its length is limited.
pub static AGENT_PRESETS: [AgentPreset; 8] = [
    AgentPreset {
        name: "claude",
        argv: &[
            "claude",
            "-p",
            "--output-format",
            "stream-json",
            "--verbose",
            // Keeps the worker from starting this very server again.
            "--strict-mcp-config",
        ],
        prompt: PromptBy::Stdin,
    },
    AgentPreset {
        name: "codex",
        argv: &["codex", "exec", "--json", "--skip-git-repo-check", "-"],
        prompt: PromptBy::Stdin,
    },
    AgentPreset {
        name: "gemini",
        argv: &["gemini", "-o", "stream-json"],
        prompt: PromptBy::Stdin,
    },
    AgentPreset {
        name: "opencode",
        argv: &["opencode", "run", "--format", "json"],
        prompt: PromptBy::Argument,
    },
    AgentPreset {
        name: "qwen",
        argv: &["qwen", "-o", "stream-json"],
        prompt: PromptBy::Stdin,
    },
    AgentPreset {
        name: "aider",
        argv: &[
            "aider",
            "--yes-always",
            "--no-pretty",
            "--no-stream",
            "--no-check-update",
            "--analytics-disable",
        ],
        prompt: PromptBy::FileAfter("--message-file"),
    },
    AgentPreset {
        name: "goose",
        argv: &["goose", "run", "--no-session", "-i", "-"],
        prompt: PromptBy::Stdin,
    },
    AgentPreset {
        name: "cursor-agent",
        argv: &["cursor-agent", "-p", "--output-format", "stream-json"],
        prompt: PromptBy::Argument,
    },
];

/// Returns the preset of this name.
pub fn preset(name: &str) -> Option<&'static AgentPreset> {
    AGENT_PRESETS.iter().find(|preset| preset.name == name)
}
