//! The configuration: read once, checked once, immutable after.
//!
//! Precedence: defaults < file < environment < flags. A leaf: everything from outside comes in through [`Sources`]; it
//! reads no environment, only the config file, and looks for programs on the given PATH. Not responsible for
//! whether a root is a repository or a peer answers: that is found out at first use.

mod agents;
mod allow;
mod check;
mod defaults;
mod document;
mod error;
mod file;
mod limits;

pub use agents::{AGENT_PRESETS, AgentPreset, PromptBy, preset};
pub use allow::Allow;
pub use error::ConfigError;
pub use limits::{CacheConfig, Durability, Limits, LogConfig, MAX_WORKERS, QUEUE};

use crate::model::PoolName;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What one source above the file sets: the environment or the flags.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The config file: `--config`, `MAHAVISHNU_CONFIG`.
    pub file: Option<PathBuf>,
    /// Where the state lives: `--state-dir`, `MAHAVISHNU_STATE_DIR`.
    pub state_dir: Option<PathBuf>,
    /// Folders to work under, in place of the file's: `--root`, `MAHAVISHNU_ROOTS`.
    pub roots: Vec<PathBuf>,
    /// The log filter: `--log`, `MAHAVISHNU_LOG`.
    pub log: Option<String>,
}

impl Overrides {
    /// Returns what the environment sets, asked through `get`; an empty value is an absent one.
    pub fn from_env(get: impl Fn(&str) -> Option<OsString>) -> Self {
        let get = |name| get(name).filter(|value| !value.is_empty());
        Self {
            file: get("MAHAVISHNU_CONFIG").map(PathBuf::from),
            state_dir: get("MAHAVISHNU_STATE_DIR").map(PathBuf::from),
            roots: get("MAHAVISHNU_ROOTS")
                .map(|list| std::env::split_paths(&list).collect())
                .unwrap_or_default(),
            log: get("MAHAVISHNU_LOG").map(|text| text.to_string_lossy().into_owned()),
        }
    }
}

/// Everything the configuration is made from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// What the environment sets.
    pub env: Overrides,
    /// What the flags set.
    pub flags: Overrides,
    /// The file read where neither names one; it may be missing.
    pub default_file: Option<PathBuf>,
    /// The state folder where none is named.
    pub default_state_dir: PathBuf,
    /// The folder the program was started in.
    pub start_dir: PathBuf,
    /// The user's home, for `~/` in the file.
    pub home: Option<PathBuf>,
    /// How many processors there are.
    pub cores: NonZeroUsize,
    /// The PATH on which programs are looked for.
    pub path: OsString,
}

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
    /// Its slots, 1 to [`MAX_WORKERS`].
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

impl Config {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the file, the line and the key, what is allowed and the next step. A file that was
    /// named must be there; the default one may be missing.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let file = match sources.flags.file.as_ref().or(sources.env.file.as_ref()) {
            Some(named) => Some(sources.start_dir.join(named)),
            None => sources
                .default_file
                .clone()
                .filter(|default| default.exists()),
        };
        let mut config = match &file {
            Some(path) => Self::from_file(path, sources)?,
            None => defaults::config(sources),
        };
        for (over, by) in [
            (&sources.env, NamedBy::Environment),
            (&sources.flags, NamedBy::Flag),
        ] {
            config.apply(over, by, &sources.start_dir);
        }
        Ok(config)
    }

    fn from_file(path: &Path, sources: &Sources) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            file: path.to_owned(),
            source,
        })?;
        check::config(path, &text, sources)
    }

    fn apply(&mut self, over: &Overrides, by: NamedBy, start_dir: &Path) {
        if !over.roots.is_empty() {
            let absolute = over.roots.iter().map(|root| start_dir.join(root));
            self.roots = RootsConfig::Given(absolute.collect(), by);
        }
        if let Some(dir) = &over.state_dir {
            self.store.dir = start_dir.join(dir);
        }
        if let Some(filter) = &over.log {
            self.log.filter.clone_from(filter);
        }
    }
}

/// Returns the JSON Schema of the config file, for editors and for `schemas/config.json`.
pub fn schema() -> serde_json::Value {
    file::schema()
}

#[cfg(test)]
mod tests;
