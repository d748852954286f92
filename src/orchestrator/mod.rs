//! The orchestrator: one shared core behind the tools.
//!
//! [`Orchestrator`] is the cloneable handle and the only thing the server sees. Below it: the pools with the router,
//! the workflow engine, the memories with cache and fusion. Not responsible for how a request came in: stdin, signals
//! and protocol belong to the front that serves it.

mod engine;
pub mod instants;
mod logs;
pub mod memory;
mod notices;
mod open;
mod peers;
mod pool_names;
pub mod routing;
pub mod sync;
mod tools;

pub use open::{Setup, open_store};

use crate::config::Config;
use crate::repo::Repos;
use crate::store::Store;
use crate::worker::{Host, Worker};
use engine::Engine;
use memory::Memories;
use memory::retention::Keeper;
use notices::Notices;
use peers::Peers;
use routing::pools::Pools;
use routing::quarantine::Quarantine;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The deadline for stopping and journaling running items when the server shuts down.
const CLOSE_LIMIT: Duration = Duration::from_millis(1_500);

/// The core's handle; cloning shares it.
#[derive(Clone)]
pub struct Orchestrator(Arc<Core>);

struct Core {
    config: Config,
    config_file: PathBuf,
    store: Store,
    repos: Repos,
    host: Host,
    workers: BTreeMap<String, Arc<dyn Worker>>,
    pools: Pools,
    quarantine: Quarantine,
    peers: Peers,
    memories: Memories,
    engine: Engine,
    notices: Notices,
    keeper: Keeper,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Orchestrator {
    /// Ends the core: nothing new starts, what runs is stopped and journaled as interrupted, the store is closed. Takes
    /// two seconds at most; the next server recovers what was not journaled by then.
    pub async fn close(&self) {
        self.0.closing.cancel();
        self.0.tasks.close();
        // The guardian outlives this process and ends what is still running.
        let _ = tokio::time::timeout(CLOSE_LIMIT, self.0.tasks.wait()).await;
        let tidy = async {
            self.0.peers.close(CLOSE_LIMIT / 3).await;
            self.0.repos.settle().await;
            self.0.host.processes.close().await;
            self.0.store.close().await;
        };
        let _ = tokio::time::timeout(CLOSE_LIMIT, tidy).await;
    }
}
