//! Putting the core together: the store, the pools with their workers, the other servers, the engine.

use super::engine::{Engine, EngineParts};
use super::memory::retention::Keeper;
use super::memory::{Memories, Parts as MemoryParts};
use super::notices::Notices;
use super::peers::Peers;
use super::routing::PoolSpec;
use super::routing::pool::Pool;
use super::routing::pools::Pools;
use super::routing::quarantine::Quarantine;
use super::sync::DeliverySettings;
use super::{Core, Orchestrator, memory};
use crate::config::{Config, Durability as ConfiguredDurability, RootsConfig, StoreConfig};
use crate::error::Problem;
use crate::mcp_client::Launcher;
use crate::model::PeerName;
use crate::process::{self, Processes, Room, SearchPath};
use crate::repo::{Repos, Setup as ReposSetup};
use crate::store::{Durability, Store, StoreOptions};
use crate::worker::{Host, Worker, kinds};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The limit of open files to ask for when workers are other servers: each call over HTTP is a socket, and there may be
/// thousands of slots. The usual limit is 1024, on macOS 256.
const OPEN_FILES: u64 = 32_768;

/// What `main` passes in; the core reads no environment.
pub struct Setup {
    /// The checked configuration.
    pub config: Config,
    /// The file that the config came from or would come from, for hints.
    pub config_file: PathBuf,
    /// The server's own environment.
    pub env: Vec<(OsString, OsString)>,
    /// The folder the program was started in.
    pub start_dir: PathBuf,
    /// The user's home.
    pub home: Option<PathBuf>,
    /// The program that is run as the guardian: this one.
    pub guardian_program: PathBuf,
}

impl Orchestrator {
    /// Makes the core and begins to open the store in the background; nothing is run.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The state directory cannot be made or locked.
    pub fn open(setup: Setup) -> Result<Self, Problem> {
        let Setup {
            config,
            config_file,
            env,
            start_dir,
            home,
            guardian_program,
        } = setup;
        let store = open_store(&config.store)?;
        let processes = Processes::new(process::Options {
            guardian_program,
            hold: store.ownership_lock().ok().map(|lock| process::Hold {
                lock,
                path: store.ownership_file(),
            }),
        });
        let (search, asking) = SearchPath::with_login_shell(&env, home.clone(), processes.clone());
        let host = Host {
            processes,
            search,
            room: room(&config),
            log_cap_bytes: config.limits.log_cap,
            tail_bytes: config.limits.output_tail,
            env: env.clone().into(),
        };
        let launcher = Launcher {
            processes: host.processes.clone(),
            // Not the start folder: a Session-Buddy takes the repository it is started in as its own session's.
            cwd: home.clone().unwrap_or_else(|| PathBuf::from("/")),
            search: host.search.clone(),
        };
        let (roots, roots_by) = match &config.roots {
            RootsConfig::Given(roots, by) => (roots.clone(), *by),
            RootsConfig::StartDir { .. } => Default::default(),
        };
        let repos = Repos::new(ReposSetup {
            roots,
            roots_by,
            start_dir,
            home,
            config_file: config_file.clone(),
            state_dir: store.state_dir().to_owned(),
            alive: Some(store.ownership_file()),
            worktrees_max_bytes: config.limits.worktrees_max_bytes,
            processes: host.processes.clone(),
            git: "git".into(),
            search: host.search.clone(),
            env: env.clone(),
        });
        let mut peers = Peers::new(&config, env.clone(), Some(launcher));
        let workers = make_workers(&config, &host, &mut peers);
        let pools = make_pools(&config, &workers);
        let notices = Notices::default();
        let tasks = TaskTracker::new();
        let closing = CancellationToken::new();
        let quarantine = Quarantine {
            pools: pools.clone(),
            patience: config.limits.collect_deadline,
            tasks: tasks.clone(),
            closing: closing.clone(),
        };
        let memories = Memories::new(MemoryParts {
            store: store.clone(),
            peer: peers
                .memory()
                .map(|buddy| (PeerName::new(memory::PEER), buddy)),
            delivery: DeliverySettings::default(),
            cache: config.cache,
            collect_deadline: config.limits.collect_deadline,
            clock: Arc::new(std::time::Instant::now),
            tasks: tasks.clone(),
            closing: closing.clone(),
        });
        let engine = Engine::start(EngineParts {
            store: store.clone(),
            pools: pools.clone(),
            quarantine: quarantine.clone(),
            repos: repos.clone(),
            host: host.clone(),
            limits: config.limits,
            notices: notices.clone(),
            memories: memories.clone(),
            tasks: tasks.clone(),
            closing: closing.clone(),
        });
        let keeper = Keeper::new(store.clone(), &config.store, notices.clone());
        let core = Self(Arc::new(Core {
            config,
            config_file,
            store,
            repos,
            host,
            workers,
            pools,
            quarantine,
            peers,
            memories,
            engine,
            notices,
            keeper,
            tasks,
            closing,
        }));
        core.grant_requests();
        core.0.memories.resume();
        let (keeper, closing) = (core.0.keeper.clone(), core.0.closing.clone());
        core.0.tasks.spawn(async move { keeper.run(closing).await });
        if let Some(asking) = asking {
            core.0.tasks.spawn(asking);
        }
        Ok(core)
    }
}

/// Returns the room that the limit of open files leaves, after it was raised as far as the slots of the config need it.
fn room(config: &Config) -> Room {
    let slots = |remote: bool| -> u64 {
        let pools = config.pools.iter().filter(|pool| {
            let kind = config.workers.get(&pool.worker);
            kind.is_some_and(|worker| worker.kind.is_remote() == remote)
        });
        pools.map(|pool| u64::from(pool.max_workers)).sum()
    };
    Room::make(slots(false), slots(true), OPEN_FILES)
}

/// Opens the store that the config names.
///
/// # Errors
///
/// The state directory cannot be made or locked.
pub fn open_store(config: &StoreConfig) -> Result<Store, Problem> {
    let options = StoreOptions {
        dir: config.dir.clone(),
        durability: match config.durability {
            ConfiguredDurability::Full => Durability::Full,
            ConfiguredDurability::Normal => Durability::Normal,
        },
    };
    Ok(Store::open(options)?)
}

type Workers = BTreeMap<String, Arc<dyn Worker>>;

fn make_workers(config: &Config, host: &Host, peers: &mut Peers) -> Workers {
    let made = config
        .workers
        .iter()
        .map(|(name, worker)| (name.clone(), kinds::make(name, worker, host, peers)));
    made.collect()
}

fn make_pools(config: &Config, workers: &Workers) -> Pools {
    let pools = Pools::default();
    for pool in &config.pools {
        let Some(worker) = workers.get(&pool.worker) else {
            continue;
        };
        let spec = PoolSpec {
            name: pool.name.clone(),
            worker: pool.worker.clone(),
            max_workers: pool.max_workers,
            queue: pool.queue,
            labels: pool.labels.clone(),
        };
        let timeout = config
            .workers
            .get(&pool.worker)
            .and_then(|kind| kind.timeout);
        let made = Pool::new(
            pool.name.clone(),
            pool.worker.clone(),
            Arc::clone(worker),
            timeout,
        );
        // Names are unique in a checked config.
        pools.add(spec, made);
    }
    pools
}
