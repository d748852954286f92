//! Which item starts next, and in which slot.
//!
//! Runs take turns, so that a run of 10,000 items does not hold up one of two. An item is bound to a pool when a slot
//! is free (late binding); a routed single task that found every slot taken waits in the queue of the pool it was
//! routed to. Of freed slots, those single tasks and the runs have the first choice by turns. An `in_place` item
//! waits, without a slot, while another item of this process works on its repository.

use super::super::pools::{Place, Routed, Slot};
use super::super::router::PoolKey;
use super::Engine;
use super::run::{Run, Stop};
use crate::error::{ErrorKind, Problem};
use crate::model::{Filter, Isolation, ItemIndex, PoolName};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How long an item waits that found its repository locked by another process.
const LOCKED_ELSEWHERE: Duration = Duration::from_millis(200);

/// What waits to be started.
#[derive(Default)]
pub(super) struct Queue {
    /// Runs with ready items, the next one to be served first.
    runs: VecDeque<Arc<Run>>,
    /// Repositories that an `in_place` item of this process works on.
    busy: HashSet<String>,
    /// Items that wait for one of those.
    parked: HashMap<String, VecDeque<(Arc<Run>, ItemIndex)>>,
    /// Routed single tasks that wait in their pool's queue.
    waiting: HashMap<PoolKey, VecDeque<(Arc<Run>, Place)>>,
    runs_first: bool,
}

impl Queue {
    pub(super) fn add(&mut self, run: Arc<Run>) {
        self.runs.push_back(run);
    }
}

impl Engine {
    /// Routes a single task at once: it takes a slot, or a place in the queue of the least-loaded pool.
    ///
    /// # Errors
    ///
    /// No pool has a slot or a place left; retryable. The run stays untouched.
    pub(in crate::orchestrator) fn route(&self, filter: &Filter) -> Result<Routed, Problem> {
        self.pools.acquire_or_queue(filter).ok_or_else(|| {
            Problem::new(
                ErrorKind::Busy,
                "every pool that could take the task is full, draining or unhealthy",
            )
            .with_hint("try again later, raise max_workers with set_pool, or start it with execute_workflow_parallel, which waits")
        })
    }

    /// Takes up a routed single task in what it got; returns the pool's name.
    pub(in crate::orchestrator) fn take_up_routed(
        &self,
        run: Arc<Run>,
        routed: Routed,
    ) -> PoolName {
        self.runs().insert(run.id(), Arc::clone(&run));
        self.watch_time(&run);
        match routed {
            Routed::Slot(slot) => {
                let name = slot.pool.name.clone();
                let mut queue = self.queue();
                self.launch_or_park(&mut queue, run, slot);
                name
            }
            Routed::Queued(place) => {
                let name = place.pool.name.clone();
                let mut queue = self.queue();
                queue
                    .waiting
                    .entry(place.key)
                    .or_default()
                    .push_back((run, place));
                drop(queue);
                self.pools.ring();
                name
            }
        }
    }

    /// Starts a single task in its slot, unless its repository is busy: then it waits as any item does.
    fn launch_or_park(&self, queue: &mut Queue, run: Arc<Run>, slot: Slot) {
        let Some((item, repo)) = run.peek_ready() else {
            return;
        };
        run.take_ready(item);
        self.start_item(queue, run, item, repo, slot);
    }

    fn start_item(
        &self,
        queue: &mut Queue,
        run: Arc<Run>,
        item: ItemIndex,
        repo: String,
        slot: Slot,
    ) {
        if in_place(&run) && !queue.busy.insert(repo.clone()) {
            queue.parked.entry(repo).or_default().push_back((run, item));
            return;
        }
        let engine = self.clone();
        self.tasks
            .spawn(async move { engine.attempt(run, item, slot).await });
    }

    /// Starts all that can start now.
    pub(super) fn dispatch(&self) {
        let mut queue = self.queue();
        queue.runs_first = !queue.runs_first;
        let runs_first = queue.runs_first;
        if runs_first {
            self.dispatch_runs(&mut queue);
        }
        self.dispatch_waiting(&mut queue);
        if !runs_first {
            self.dispatch_runs(&mut queue);
        }
    }

    fn dispatch_waiting(&self, queue: &mut Queue) {
        let keys: Vec<PoolKey> = queue.waiting.keys().copied().collect();
        for key in keys {
            while let Some((run, place)) = queue.waiting.get_mut(&key).and_then(VecDeque::pop_front)
            {
                if run.is_drained() {
                    continue;
                }
                if !place.is_open() {
                    // Its pool was closed: it waits for any other like an item of a workflow.
                    queue.runs.push_back(run);
                    continue;
                }
                match place.promote() {
                    Ok(slot) => self.launch_or_park(queue, run, slot),
                    Err(place) => {
                        queue
                            .waiting
                            .entry(key)
                            .or_default()
                            .push_front((run, place));
                        break;
                    }
                }
            }
            if queue.waiting.get(&key).is_some_and(VecDeque::is_empty) {
                queue.waiting.remove(&key);
            }
        }
    }

    /// Serves the runs in turn, one item each, until a whole round has started nothing.
    fn dispatch_runs(&self, queue: &mut Queue) {
        let mut idle = 0;
        let mut full: HashSet<Filter> = HashSet::new();
        while idle < queue.runs.len() {
            let Some(run) = queue.runs.pop_front() else {
                return;
            };
            match self.serve(queue, &run, &mut full) {
                Served::Started => {
                    idle = 0;
                    queue.runs.push_back(run);
                }
                Served::Nothing => {
                    idle += 1;
                    queue.runs.push_back(run);
                }
                Served::Over => {}
            }
        }
    }

    fn serve(&self, queue: &mut Queue, run: &Arc<Run>, full: &mut HashSet<Filter>) -> Served {
        if run.is_drained() {
            return Served::Over;
        }
        loop {
            let Some((item, repo)) = run.peek_ready() else {
                return Served::Nothing;
            };
            if in_place(run) && queue.busy.contains(&repo) {
                run.take_ready(item);
                let parked = queue.parked.entry(repo).or_default();
                parked.push_back((Arc::clone(run), item));
                continue;
            }
            let record = run.record();
            let filter = &record.settings.filter;
            if full.contains(filter) {
                return Served::Nothing;
            }
            let Some(slot) = self.pools.acquire(filter) else {
                full.insert(filter.clone());
                return Served::Nothing;
            };
            run.take_ready(item);
            self.start_item(queue, Arc::clone(run), item, repo, slot);
            return Served::Started;
        }
    }

    /// Lets the next item have the repository.
    pub(super) fn leave_repo(&self, run: &Arc<Run>, repo: &str) {
        if !in_place(run) {
            return;
        }
        let mut queue = self.queue();
        queue.busy.remove(repo);
        let next = queue.parked.get_mut(repo).and_then(VecDeque::pop_front);
        if queue.parked.get(repo).is_some_and(VecDeque::is_empty) {
            queue.parked.remove(repo);
        }
        if let Some((next, item)) = next {
            next.put_back(item);
            // A single task's run is not among those that take turns; from here on it is one of them.
            if next.is_single() {
                queue.runs.push_back(next);
            }
        }
        drop(queue);
        self.pools.ring();
    }

    /// Takes an item whose repository another process works on back to the queue, for a moment.
    pub(super) fn wait_for_repo(&self, run: &Arc<Run>, item: ItemIndex) {
        let (engine, run) = (self.clone(), Arc::clone(run));
        self.tasks.spawn(async move {
            let pause = engine
                .closing
                .run_until_cancelled(tokio::time::sleep(LOCKED_ELSEWHERE));
            if pause.await.is_none() {
                return;
            }
            run.put_back(item);
            let mut queue = engine.queue();
            if run.is_single() {
                queue.runs.push_back(Arc::clone(&run));
            }
            drop(queue);
            engine.pools.ring();
        });
    }

    /// Puts an item that is to be tried again in line.
    pub(super) fn again(&self, run: &Arc<Run>) {
        if run.is_single() {
            self.queue().runs.push_back(Arc::clone(run));
        }
        self.pools.ring();
    }

    /// Ends the waiting items of runs that no pool is left for.
    pub(in crate::orchestrator) async fn end_unroutable(&self, names: impl Fn(&Filter) -> bool) {
        for run in self.live_runs() {
            let record = run.record();
            if !names(&record.settings.filter) {
                self.stop(&run, &[], Stop::PoolClosed, None).await;
            }
        }
    }
}

enum Served {
    Started,
    Nothing,
    Over,
}

fn in_place(run: &Run) -> bool {
    run.record().settings.isolation == Isolation::InPlace
}
