//! What applies where the config file says nothing.

use super::limits::DEFAULT_QUEUE;
use super::{
    AGENT_PRESETS, AgentConfig, AgentPreset, Allow, CacheConfig, CommandConfig, Config, Durability,
    Limits, LogConfig, MAX_WORKERS, PoolConfig, RootsConfig, Sources, StoreConfig, WorkerConfig,
    WorkerKind,
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

/// Returns the roots that nobody named.
pub(super) fn roots(sources: &Sources) -> RootsConfig {
    RootsConfig::StartDir {
        dir: sources.start_dir.clone(),
        home: sources.home.clone(),
    }
}

/// Returns the pools that nobody named, and defines their workers where `workers` does not.
pub(super) fn pools(
    sources: &Sources,
    workers: &mut BTreeMap<String, WorkerConfig>,
) -> Vec<PoolConfig> {
    let most = *MAX_WORKERS.end();
    let cores = u32::try_from(sources.cores.get()).map_or(most, |cores| cores.min(most));
    workers
        .entry("command".to_owned())
        .or_insert_with(|| WorkerConfig {
            kind: WorkerKind::Command(CommandConfig {
                allow: Allow::Any,
                ..CommandConfig::default()
            }),
            timeout: None,
        });
    let mut pools = vec![pool("local", "command", cores)];
    for preset in &AGENT_PRESETS {
        if is_on_path(preset.program(), &sources.path) {
            workers
                .entry(preset.name.to_owned())
                .or_insert_with(|| agent(preset));
            pools.push(pool(preset.name, preset.name, AGENT_WORKERS));
        }
    }
    pools
}

/// Returns the worker that an agent program is without settings of its own.
pub(super) fn agent(preset: &'static AgentPreset) -> WorkerConfig {
    WorkerConfig {
        kind: WorkerKind::Agent(AgentConfig {
            preset,
            command: None,
            allow: Allow::default(),
            env_pass: Vec::new(),
            env: BTreeMap::new(),
        }),
        timeout: None,
    }
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
