//! The workflow engine: journal first, then start; items are bound to a pool when a slot frees.
//!
//! ```text
//! start, resume ─► run (items and their states) ─► dispatch (which item next, in which slot) ─► attempt (one try)
//! ```
//!
//! A run is what this server works on now; everything else is read from the store. Not responsible for what callers
//! see of a run, nor for reading their arguments.
//!
//! Lock order: the map of runs or the dispatch queue, then run, then router. None is held across an await.

mod attempt;
mod cause;
mod dispatch;
mod journal;
mod ledger;
mod live;
mod run;
mod workspace;

pub(super) use cause::groups;
pub(super) use live::Stop;
pub(super) use run::{Run, View};
pub(super) use workspace::WROTE_IN_READ_ONLY;

use super::logs;
use super::memory::Memories;
use super::notices::Notices;
use super::routing::pools::Pools;
use super::routing::quarantine::Quarantine;
use crate::config::Limits;
use crate::model::{ItemIndex, WorkflowId};
use crate::process::Environment;
use crate::repo::Repos;
use crate::store::Store;
use crate::worker::command::Host;
use dispatch::Queue;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The longest that programs may take to end when the server does: their ends are to be journaled before it is gone.
const CLOSING_GRACE: Duration = Duration::from_secs(1);

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
    pub(super) line_env: Environment,
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
    /// Held to read while a workflow is journaled and taken up, to write while one is looked at and taken up again, so
    /// that a journaled item without a run is one that nobody works on.
    taking_up: RwLock<()>,
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
            taking_up: RwLock::default(),
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
            dispatcher.close_runs().await;
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

    /// Waits for the right to journal new workflows and to take them up.
    pub(super) async fn starting(&self) -> RwLockReadGuard<'_, ()> {
        self.0.taking_up.read().await
    }

    /// Waits for the right to take up again what is journaled, which only one caller has at a time.
    pub(super) async fn resuming(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.taking_up.write().await
    }

    /// Takes up a journaled run: its queued items wait for slots from now on.
    pub(super) fn take_up(&self, run: &Arc<Run>) {
        self.keep(run);
        self.line_up(run);
    }

    /// Lets `resume` put items of a run in line again; returns whether it did, which it does not where the run has ended
    /// meanwhile.
    pub(super) fn go_on(&self, run: &Arc<Run>, resume: impl FnOnce(&Run)) -> bool {
        let runs = self.runs();
        // Under this lock a run that is over cannot be forgotten before it has ready items again.
        let lives = runs
            .get(&run.id())
            .is_some_and(|known| Arc::ptr_eq(known, run));
        if lives {
            resume(run);
        }
        drop(runs);
        if lives {
            self.line_up(run);
        }
        lives
    }

    fn keep(&self, run: &Arc<Run>) {
        self.runs().insert(run.id(), Arc::clone(run));
        self.watch_time(run);
    }

    /// Forgets a run that is over: from now on the store answers for it.
    fn finish(&self, run: &Arc<Run>) {
        let mut runs = self.runs();
        let known = runs
            .get(&run.id())
            .is_some_and(|known| Arc::ptr_eq(known, run));
        if known && run.is_over() {
            runs.remove(&run.id());
        }
    }

    /// Returns the folder that an attempt's streams are logged in.
    pub(super) fn logs(&self, id: WorkflowId, item: ItemIndex, attempt: u32) -> PathBuf {
        logs::of_attempt(self.store.state_dir(), id, item, attempt)
    }

    /// Stops a run when its own time is over.
    fn watch_time(&self, run: &Arc<Run>) {
        let Some(limit) = run.record().settings.run_timeout else {
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
        grace: Option<Duration>,
    ) {
        let ended = run.stop(items, why, grace);
        self.journal_ends(run, ended).await;
        self.pools.ring();
    }

    /// Stops every run because the server ends, and leaves word of each.
    async fn close_runs(&self) {
        let runs = self.live_runs();
        // All at once: what runs ends while the others are written down.
        let stopped: Vec<_> = runs
            .iter()
            .map(|run| {
                let counts = run.counts();
                let ended = run.stop(
                    &[],
                    Stop::Closing,
                    Some(self.limits.grace.min(CLOSING_GRACE)),
                );
                (run, counts.queued + counts.running, ended)
            })
            .collect();
        for (run, left, ended) in stopped {
            if let Err(error) = self.store.tell_interrupted(&run.record(), left).await {
                tracing::warn!(%error, "no word could be left of an interrupted workflow");
            }
            self.journal_ends(run, ended).await;
        }
    }
}

#[cfg(test)]
mod tests;
