//! The settings without a config file, and those that it leaves out.

use super::limits::DEFAULT_QUEUE;
use super::{
    AGENT_PRESETS, AgentConfig, Allow, CacheConfig, CommandConfig, Config, Durability, Limits,
    LogConfig, MAX_WORKERS, PoolConfig, RootsConfig, SessionBuddyConfig, Sources, StoreConfig,
    WorkerConfig, WorkerKind, preset,
};
use crate::model::PoolName;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;

/// How many workers the pool of an agent program found on the PATH has.
const AGENT_WORKERS: u32 = 2;

/// Returns the configuration without a file.
pub(super) fn config(sources: &Sources) -> Config {
    let mut workers = BTreeMap::new();
    Config {
        file: None,
        roots: roots(sources),
        pools: pools(sources, &mut workers),
        workers,
        session_buddy: None,
        limits: Limits::default(),
        cache: CacheConfig::default(),
        store: StoreConfig {
            dir: sources.default_state_dir.clone(),
            durability: Durability::default(),
            retention: None,
            retention_outcomes: None,
            retention_notes: None,
        },
        log: LogConfig::default(),
    }
}

/// Returns the roots where none are named.
pub(super) fn roots(sources: &Sources) -> RootsConfig {
    RootsConfig::StartDir {
        dir: sources.start_dir.clone(),
        home: sources.home.clone(),
    }
}

/// Returns the pools where none are named, and defines their workers where `workers` does not.
pub(super) fn pools(
    sources: &Sources,
    workers: &mut BTreeMap<String, WorkerConfig>,
) -> Vec<PoolConfig> {
    let most = *MAX_WORKERS.end();
    let cores = u32::try_from(sources.cores.get()).map_or(most, |cores| cores.min(most));
    let mut define = |name: &str| {
        if let (false, Some(worker)) = (workers.contains_key(name), worker(name)) {
            workers.insert(name.to_owned(), worker);
        }
    };
    define("command");
    let mut pools = vec![pool("local", "command", cores)];
    for preset in &AGENT_PRESETS {
        if is_on_path(preset.program(), &sources.path) {
            define(preset.name);
            pools.push(pool(preset.name, preset.name, AGENT_WORKERS));
        }
    }
    pools
}

/// Returns the worker of a kind that needs no table of its own; none where it needs one.
pub(super) fn worker(name: &str) -> Option<WorkerConfig> {
    let kind = match (name, preset(name)) {
        ("command", _) => WorkerKind::Command(CommandConfig {
            allow: Allow::Any,
            ..CommandConfig::default()
        }),
        ("session-buddy", _) => WorkerKind::SessionBuddy(SessionBuddyConfig { server: None }),
        (_, Some(preset)) => WorkerKind::Agent(AgentConfig {
            preset,
            program: CommandConfig::default(),
        }),
        (_, None) => return None,
    };
    Some(WorkerConfig {
        kind,
        timeout: None,
    })
}

fn pool(name: &'static str, worker: &str, max_workers: u32) -> PoolConfig {
    let name: PoolName = name
        .parse()
        .expect("the default pools' names are pool names, as a test shows");
    PoolConfig {
        name,
        worker: worker.to_owned(),
        max_workers,
        labels: Vec::new(),
        queue: DEFAULT_QUEUE,
    }
}

fn is_on_path(program: &str, path: &OsStr) -> bool {
    std::env::split_paths(path).any(|folder| {
        // An empty PATH entry means the current folder, where a program is not looked for.
        folder.is_absolute()
            && std::fs::metadata(folder.join(program))
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}
