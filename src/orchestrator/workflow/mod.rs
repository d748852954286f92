//! The workflow engine: journal first, then start; items are bound to a pool when a slot frees.
//!
//! ```text
//! start, resume ─► run (items and their states) ─► dispatch (which item next, in which slot) ─► attempt (one try)
//! ```
//!
//! A run is what this server works on now; everything else is read from the store. Not responsible for what callers
//! see of a run, nor for reading their arguments.
//!
//! Lock order: dispatch queue, then run, then router. None is held across an await.

mod attempt;
mod cause;
mod dispatch;
mod run;
mod workspace;

pub(super) use cause::groups;
pub(super) use run::{Run, Stop, View};

use super::memory::Memories;
use super::notices::Notices;
use super::pools::Pools;
use super::quarantine::Quarantine;
use crate::config::Limits;
use crate::model::{ItemIndex, WorkflowId};
use crate::pool::worker::command::Host;
use crate::repo::Repos;
use crate::store::Store;
use dispatch::Queue;
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The engine's handle; cloning shares it.
#[derive(Clone)]
pub(super) struct Engine(Arc<Inner>);

/// What the engine is made of.
pub(super) struct Parts {
    pub(super) store: Store,
    pub(super) pools: Pools,
    pub(super) quarantine: Quarantine,
    pub(super) repos: Repos,
    pub(super) host: Host,
    /// The environment of `setup` and `verify` lines.
    pub(super) line_env: Vec<(OsString, OsString)>,
    pub(super) limits: Limits,
    /// What callers are to be told with the next answer.
    pub(super) notices: Notices,
    /// Where what attempts leave behind goes on from the store.
    pub(super) memories: Memories,
    pub(super) tasks: TaskTracker,
    /// Fires when the server ends: nothing new starts, what runs is stopped.
    pub(super) closing: CancellationToken,
}

struct Inner {
    parts: Parts,
    // A std mutex: held for map operations only.
    runs: Mutex<HashMap<WorkflowId, Arc<Run>>>,
    // A std mutex: held while one pass looks for items that can start; see the lock order above.
    queue: Mutex<Queue>,
}

impl std::ops::Deref for Engine {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

impl Engine {
    /// Makes the engine and starts its dispatcher.
    pub(super) fn start(parts: Parts) -> Self {
        let engine = Self(Arc::new(Inner {
            parts,
            runs: Mutex::default(),
            queue: Mutex::default(),
        }));
        let dispatcher = engine.clone();
        engine.tasks.spawn(async move {
            let closing = dispatcher.closing.clone();
            closing
                .run_until_cancelled(async {
                    loop {
                        dispatcher.pools.freed().await;
                        dispatcher.dispatch();
                    }
                })
                .await;
            dispatcher.stop_all();
        });
        engine
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<WorkflowId, Arc<Run>>> {
        self.0.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the run of this workflow, if this server works on it now.
    pub(super) fn run(&self, id: WorkflowId) -> Option<Arc<Run>> {
        self.runs().get(&id).cloned()
    }

    /// Returns all runs that this server works on now.
    pub(super) fn live_runs(&self) -> Vec<Arc<Run>> {
        self.runs().values().cloned().collect()
    }

    /// Takes up a journaled run: its queued items wait for slots from now on.
    pub(super) fn take_up(&self, run: Arc<Run>) {
        if self.closing.is_cancelled() {
            run.stop(&[], Stop::Closing, None);
        }
        self.runs().insert(run.id(), Arc::clone(&run));
        self.watch_time(&run);
        self.queue().add(run);
        self.pools.ring();
    }

    /// Returns the folder that an attempt's streams are logged in.
    pub(super) fn logs(&self, id: WorkflowId, item: ItemIndex, attempt: u32) -> PathBuf {
        self.store
            .state_dir()
            .join("runs")
            .join(id.to_string())
            .join(format!("{item}-{attempt}"))
    }

    /// Stops a run when its own time is over.
    fn watch_time(&self, run: &Arc<Run>) {
        let Some(limit) = run.settings().run_timeout else {
            return;
        };
        let (engine, run) = (self.clone(), Arc::clone(run));
        self.tasks.spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(limit) => engine.stop(&run, &[], Stop::RunTimeout, None).await,
                () = run.ended() => {}
                () = engine.closing.cancelled() => {}
            }
        });
    }

    /// Stops items of a run, all if none is named: the waiting ones at once, the running ones with their processes.
    pub(super) async fn stop(
        &self,
        run: &Arc<Run>,
        items: &[ItemIndex],
        why: Stop,
        grace: Option<std::time::Duration>,
    ) {
        let ended = run.stop(items, why, grace);
        self.journal_ends(run, ended).await;
        self.pools.ring();
    }

    fn stop_all(&self) {
        for run in self.live_runs() {
            run.stop(&[], Stop::Closing, None);
        }
    }
}
