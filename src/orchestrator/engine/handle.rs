//! The engine's handle: the runs that this server works on, their begin and their end.

use super::clock;
use super::queue::Queue;
use super::run::Run;
use super::stop::Stop;
use crate::config::Limits;
use crate::model::{Attempt, ItemIndex, ItemRecord, WorkflowId};
use crate::orchestrator::logs;
use crate::orchestrator::memory::Memories;
use crate::orchestrator::notices::Notices;
use crate::orchestrator::routing::pools::Pools;
use crate::orchestrator::routing::quarantine::Quarantine;
use crate::repo::Repos;
use crate::store::Store;
use crate::worker::Host;
use futures_util::future::join_all;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The longest that programs may take to end when the server does, so that their ends are journaled in time.
const CLOSING_GRACE: Duration = Duration::from_secs(1);

/// The engine's handle; cloning shares it.
#[derive(Clone)]
pub(crate) struct Engine(Arc<Inner>);

/// What the engine is made of.
pub(crate) struct EngineParts {
    pub(crate) store: Store,
    pub(crate) pools: Pools,
    pub(crate) quarantine: Quarantine,
    pub(crate) repos: Repos,
    pub(crate) host: Host,
    pub(crate) limits: Limits,
    /// Notices for the next answer.
    pub(crate) notices: Notices,
    /// Forwards what attempts leave behind.
    pub(crate) memories: Memories,
    pub(crate) tasks: TaskTracker,
    /// Fires when the server ends: nothing new starts, what runs is stopped.
    pub(crate) closing: CancellationToken,
}

struct Inner {
    parts: EngineParts,
    // Held for map operations only.
    runs: Mutex<HashMap<WorkflowId, Arc<Run>>>,
    // Held while one pass looks for items that can start; see the module's lock order.
    queue: Mutex<Queue>,
    /// Held to read while a workflow is journaled and taken up, to write while a journaled one is inspected and taken up
    /// again, so that a journaled item without a run is one that nothing works on.
    taking_up: RwLock<()>,
}

impl std::ops::Deref for Engine {
    type Target = EngineParts;

    fn deref(&self) -> &EngineParts {
        &self.0.parts
    }
}

impl Engine {
    /// Makes the engine and starts its dispatcher.
    pub(crate) fn start(parts: EngineParts) -> Self {
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
        self.0.runs.lock()
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock()
    }

    /// Returns the run of this workflow, if this server works on it now.
    pub(crate) fn run(&self, id: WorkflowId) -> Option<Arc<Run>> {
        self.runs().get(&id).cloned()
    }

    /// Returns all runs that this server works on now.
    pub(crate) fn live_runs(&self) -> Vec<Arc<Run>> {
        self.runs().values().cloned().collect()
    }

    /// Waits for the right to journal new workflows and to take them up.
    pub(crate) async fn starting(&self) -> RwLockReadGuard<'_, ()> {
        self.0.taking_up.read().await
    }

    /// Waits for the right to take up again what is journaled, which only one caller has at a time.
    pub(crate) async fn resuming(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.taking_up.write().await
    }

    /// Takes up a journaled run: its queued items wait for slots from now on.
    pub(crate) fn take_up(&self, run: &Arc<Run>) {
        self.keep(run);
        self.line_up(run);
    }

    /// Calls `resume`, which makes items of the run ready again; returns false, without calling it, where the run has
    /// ended meanwhile.
    pub(crate) fn go_on(&self, run: &Arc<Run>, resume: impl FnOnce(&Run)) -> bool {
        let runs = self.runs();
        // Under this lock a run that is over cannot be forgotten before it has ready items again.
        let lives = is_known(&runs, run);
        if lives {
            resume(run);
        }
        drop(runs);
        if lives {
            self.line_up(run);
        }
        lives
    }

    pub(super) fn keep(&self, run: &Arc<Run>) {
        self.runs().insert(run.id(), Arc::clone(run));
        self.watch_time(run);
    }

    /// Forgets a run that is over: from now on the store answers for it.
    pub(super) fn finish(&self, run: &Arc<Run>) {
        let mut runs = self.runs();
        if is_known(&runs, run) && run.is_over() {
            runs.remove(&run.id());
        }
    }

    /// Returns the folder with the logs of an attempt.
    pub(crate) fn logs(&self, id: WorkflowId, item: ItemIndex, attempt: Attempt) -> PathBuf {
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
                () = clock::sleep(limit) => engine.stop(&run, &[], Stop::RunTimeout, None).await,
                () = run.ended() => {}
                () = engine.closing.cancelled() => {}
            }
        });
    }

    /// Stops items of a run, all if none is named: waiting ones at once, running ones with their processes.
    pub(crate) async fn stop(
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

    /// Stops every run because the server ends, and leaves a notice of each that has interrupted items.
    async fn close_runs(&self) {
        let grace = Some(self.limits.grace.min(CLOSING_GRACE));
        // All at once: programs end while the other runs are journaled.
        let closing = self.live_runs().into_iter().map(|run| {
            let before = run.counts().interrupted;
            let ended = run.stop(&[], Stop::Closing, grace);
            self.close_run(run, ended, before)
        });
        join_all(closing).await;
    }

    /// Waits until a stopped run has ended, and leaves a notice if that has interrupted items. Where the server does not
    /// live that long, the next one finds them running in the journal and leaves the notice.
    async fn close_run(&self, run: Arc<Run>, ended: Vec<ItemRecord>, before: u32) {
        self.journal_ends(&run, ended).await;
        run.ended().await;
        let interrupted = run.counts().interrupted.saturating_sub(before) as usize;
        if interrupted == 0 {
            return;
        }
        let record = run.record();
        if let Err(error) = self
            .store
            .add_interrupted_notice(&record, interrupted)
            .await
        {
            tracing::warn!(%error, "no notice could be left of an interrupted workflow");
        }
    }
}

fn is_known(runs: &HashMap<WorkflowId, Arc<Run>>, run: &Arc<Run>) -> bool {
    let known = runs.get(&run.id());
    known.is_some_and(|known| Arc::ptr_eq(known, run))
}
