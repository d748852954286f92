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
mod load;
mod settings;
mod sources;

pub use agents::{AGENT_PRESETS, AgentPreset, PromptBy, preset};
pub use allow::Allow;
pub use error::ConfigError;
pub use limits::{CacheConfig, Durability, Limits, LogConfig, MAX_WORKERS, QUEUE};
pub use settings::{
    AgentConfig, CommandConfig, Config, McpConfig, NamedBy, PeerConfig, PoolConfig, RootsConfig,
    SessionBuddyConfig, StoreConfig, WorkerConfig, WorkerKind,
};
pub use sources::{Overrides, Sources};

/// Returns the JSON Schema of the config file, for editors and for `schemas/config.json`.
pub fn schema() -> serde_json::Value {
    file::schema()
}

#[cfg(test)]
mod tests;
