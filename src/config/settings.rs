//! The checked configuration as the program uses it.

use super::agents::AgentPreset;
use super::allow::Allow;
use super::limits::{CacheConfig, Durability, Limits, LogConfig};
use crate::model::PoolName;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file it came from; none where the defaults apply.
    pub file: Option<PathBuf>,
    /// Where tasks may run.
    pub roots: RootsConfig,
    /// The pools, in the file's order; names are unique, workers defined.
    pub pools: Vec<PoolConfig>,
    /// The worker kinds that pools can be made of.
    pub workers: BTreeMap<String, WorkerConfig>,
    /// The memory server, where there is one.
    pub session_buddy: Option<PeerConfig>,
    /// Bounds of runs.
    pub limits: Limits,
    /// The search cache.
    pub cache: CacheConfig,
    /// The state.
    pub store: StoreConfig,
    /// The log.
    pub log: LogConfig,
}

/// Where tasks may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootsConfig {
    /// Below these absolute folders, not yet resolved.
    Given(Vec<PathBuf>, NamedBy),
    /// None are named: below the folder the program was started in, unless that is `/` or HOME. Decided at first use,
    /// so that a host which starts the server in `/` still gets answers with the next step.
    StartDir {
        /// The start folder.
        dir: PathBuf,
        /// The user's home, which is refused as a default root.
        home: Option<PathBuf>,
    },
}

/// Where a setting was given, so that a hint names what to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NamedBy {
    /// In the config file.
    #[default]
    File,
    /// By `MAHAVISHNU_ROOTS`.
    Environment,
    /// By `--root`.
    Flag,
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// Its name.
    pub name: PoolName,
    /// The key of its worker in [`Config::workers`].
    pub worker: String,
    /// Its slots, 1 to `MAX_WORKERS`.
    pub max_workers: u32,
    /// Its labels, without repeats.
    pub labels: Vec<String>,
    /// How many routed tasks may wait in it.
    pub queue: u32,
}

/// One worker kind with its settings.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerConfig {
    /// What runs a task.
    pub kind: WorkerKind,
    /// How long one attempt may take, unless the call sets another limit.
    pub timeout: Option<Duration>,
}

/// What runs a task.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerKind {
    /// A program.
    Command(CommandConfig),
    /// A headless agent program.
    Agent(AgentConfig),
    /// A tool of another MCP server.
    Mcp(McpConfig),
    /// A worker pool of Session-Buddy.
    SessionBuddy(SessionBuddyConfig),
}

impl WorkerKind {
    /// Returns the kind's name as the config file writes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Command(_) => "command",
            Self::Agent(agent) => agent.preset.name,
            Self::Mcp(_) => "mcp",
            Self::SessionBuddy(_) => "session-buddy",
        }
    }

    /// Returns whether tasks go to another server.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Mcp(_) | Self::SessionBuddy(_))
    }
}

/// How programs are run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandConfig {
    /// The argv that a prompt (`task`) is run with; `{repo}`, `{task}`, `{item}` and `{workflow_id}` are replaced. Where
    /// `{task}` does not occur, the prompt goes to stdin. None: the worker takes no prompts. Never empty.
    pub command: Option<Vec<String>>,
    /// Which programs a call may name.
    pub allow: Allow,
    /// Which variables of the server's own environment are handed on.
    pub env_pass: Vec<String>,
    /// Variables with their values.
    pub env: BTreeMap<String, String>,
}

/// How an agent program is run.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentConfig {
    /// The program's preset.
    pub preset: &'static AgentPreset,
    /// Its settings; a `command` takes the place of the preset's argv.
    pub program: CommandConfig,
}

/// How a tool of another MCP server is called.
#[derive(Debug, Clone, PartialEq)]
pub struct McpConfig {
    /// The server.
    pub server: PeerConfig,
    /// The tool's name.
    pub tool: String,
    /// Its arguments; `{repo}`, `{task}`, `{item}` and `{workflow_id}` are replaced in texts, at any depth. Where `{repo}`
    /// occurs, the tool is taken to work on the files of this machine.
    pub arguments: serde_json::Map<String, serde_json::Value>,
    /// Which programs a call may name in `setup` and `verify`.
    pub allow: Allow,
}

/// Which Session-Buddy runs the tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionBuddyConfig {
    /// The server; none: the one of `[session_buddy]`.
    pub server: Option<PeerConfig>,
}

/// How another MCP server is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PeerConfig {
    /// Streamable HTTP at this URL.
    Http {
        /// The URL, `http` or `https`.
        url: String,
        /// Headers sent with every request.
        headers: BTreeMap<String, String>,
    },
    /// Started as a child with this argv, spoken to over its stdio.
    Stdio {
        /// The argv, never empty.
        command: Vec<String>,
        /// Which variables of the server's own environment are handed on.
        env_pass: Vec<String>,
        /// Variables with their values.
        env: BTreeMap<String, String>,
    },
}

/// Where the state lives and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The state folder, absolute.
    pub dir: PathBuf,
    /// What a finished write has survived.
    pub durability: Durability,
    /// How long finished workflows and their logs are kept; none: for ever.
    pub retention: Option<Duration>,
    /// How long outcomes, what workers did, are kept; none: for ever.
    pub retention_outcomes: Option<Duration>,
    /// How long lessons and notes are kept; none: for ever.
    pub retention_notes: Option<Duration>,
}
