//! Which item starts next, and in which slot.
//!
//! Runs take turns, so that a run of 10,000 items does not hold up one of two. An item is bound to a pool when a slot
//! is free (late binding); a routed single task that found every slot taken waits in the queue of the pool it was
//! routed to. Of freed slots, those single tasks and the runs have the first choice by turns. An `in_place` item
//! waits, without a slot, while another item of this process works on its repository; when that one leaves, all who
//! wait for it compete again, since any of them may have been stopped or may find no slot.

use super::Engine;
use super::live::Stop;
use super::run::{Next, Run};
use crate::model::{Filter, Isolation, ItemIndex, ItemWork, PoolName};
use crate::orchestrator::routing::PoolKey;
use crate::orchestrator::routing::pools::{Assignment, QueuePlace, Slot};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How long an item waits that found its repository locked by another process.
const LOCKED_ELSEWHERE: Duration = Duration::from_millis(200);

/// What waits to be started.
#[derive(Default)]
pub(crate) struct Queue {
    line: Line,
    /// Repositories that an `in_place` item of this process works on.
    pub(crate) busy: HashSet<String>,
    /// Items that wait for one of those.
    parked: HashMap<String, Vec<(Arc<Run>, ItemIndex)>>,
    /// Routed single tasks that wait in their pool's queue.
    waiting: HashMap<PoolKey, VecDeque<(Arc<Run>, QueuePlace)>>,
    runs_first: bool,
}

/// Runs with ready items, each once, the next one to be served first.
#[derive(Default)]
struct Line {
    runs: VecDeque<Arc<Run>>,
    /// Their addresses, which are theirs as long as `runs` keeps them alive.
    present: HashSet<usize>,
}

impl Line {
    fn push(&mut self, run: Arc<Run>) {
        if self.present.insert(Arc::as_ptr(&run).addr()) {
            self.runs.push_back(run);
        }
    }

    fn pop(&mut self) -> Option<Arc<Run>> {
        let run = self.runs.pop_front()?;
        self.present.remove(&Arc::as_ptr(&run).addr());
        Some(run)
    }
}

impl Queue {
    /// Puts a run with ready items in line, if it is not there yet.
    pub(crate) fn add(&mut self, run: Arc<Run>) {
        self.line.push(run);
    }

    /// Lets others have the repository that an item of this run worked on.
    fn leave_repo(&mut self, run: &Arc<Run>, repo: &str) {
        if !in_place(run) {
            return;
        }
        self.busy.remove(repo);
        for (next, item) in self.parked.remove(repo).unwrap_or_default() {
            if next.put_back(item) {
                self.add(next);
            }
        }
    }
}

impl Engine {
    /// Takes up a routed single task in what it got; returns the pool's name.
    pub(crate) fn take_up_routed(&self, run: Arc<Run>, assigned: Assignment) -> PoolName {
        self.keep(&run);
        let mut queue = self.queue();
        match assigned {
            Assignment::Slot(slot) => {
                let name = slot.pool.name.clone();
                self.launch(&mut queue, &run, slot);
                name
            }
            Assignment::Queued(place) => {
                let name = place.pool.name.clone();
                let waiting = queue.waiting.entry(place.key).or_default();
                waiting.push_back((run, place));
                drop(queue);
                self.pools.ring();
                name
            }
        }
    }

    /// Starts a single task in its slot, unless its repository is busy: then it waits as any item does.
    fn launch(&self, queue: &mut Queue, run: &Arc<Run>, slot: Slot) {
        match run.next() {
            Next::Item(work) if park_if_busy(queue, run, &work) => {}
            Next::Item(work) => self.start_item(queue, run, &work, slot),
            Next::Later => queue.add(Arc::clone(run)),
            Next::Nothing => {}
        }
    }

    /// Starts a ready item; nothing happens where it is not ready any more.
    fn start_item(&self, queue: &mut Queue, run: &Arc<Run>, work: &ItemWork, slot: Slot) {
        let Some(begun) = run.begin(work.item, &slot.pool.name, self.limits.grace) else {
            return;
        };
        if in_place(run) {
            queue.busy.insert(work.repo.clone());
        }
        let (engine, run) = (self.clone(), Arc::clone(run));
        self.tasks
            .spawn(async move { engine.attempt(run, begun, slot).await });
    }

    /// Starts all that can start now.
    pub(crate) fn dispatch(&self) {
        let queue = &mut *self.queue();
        queue.runs_first = !queue.runs_first;
        if queue.runs_first {
            self.dispatch_runs(queue);
            self.dispatch_waiting(queue);
        } else {
            self.dispatch_waiting(queue);
            self.dispatch_runs(queue);
        }
    }

    fn dispatch_waiting(&self, queue: &mut Queue) {
        let keys: Vec<PoolKey> = queue.waiting.keys().copied().collect();
        for key in keys {
            while let Some((run, place)) = queue.waiting.get_mut(&key).and_then(VecDeque::pop_front)
            {
                if matches!(run.next(), Next::Nothing) {
                    continue;
                }
                if !place.is_open() {
                    // Its pool was closed: it waits for any other like an item of a workflow.
                    queue.add(run);
                    continue;
                }
                match place.promote() {
                    Ok(slot) => self.launch(queue, &run, slot),
                    Err(place) => {
                        let waiting = queue.waiting.entry(key).or_default();
                        waiting.push_front((run, place));
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
        while idle < queue.line.runs.len() {
            let Some(run) = queue.line.pop() else {
                return;
            };
            match self.serve(queue, &run, &mut full) {
                Served::Started => {
                    idle = 0;
                    queue.add(run);
                }
                Served::Waits => {
                    idle += 1;
                    queue.add(run);
                }
                Served::Nothing => {}
            }
        }
    }

    fn serve(&self, queue: &mut Queue, run: &Arc<Run>, full: &mut HashSet<Filter>) -> Served {
        loop {
            let work = match run.next() {
                Next::Item(work) => work,
                Next::Nothing => return Served::Nothing,
                Next::Later => return Served::Waits,
            };
            if park_if_busy(queue, run, &work) {
                continue;
            }
            let record = run.record();
            let filter = &record.settings.filter;
            if full.contains(filter) {
                return Served::Waits;
            }
            let Some(slot) = self.pools.acquire(filter) else {
                full.insert(filter.clone());
                return Served::Waits;
            };
            self.start_item(queue, run, &work, slot);
            return Served::Started;
        }
    }

    /// Lets others have the repository.
    pub(crate) fn leave_repo(&self, run: &Arc<Run>, repo: &str) {
        self.queue().leave_repo(run, repo);
        self.pools.ring();
    }

    /// Puts a parked item whose repository another process works on back in line after a moment.
    pub(crate) fn wait_for_repo(&self, run: &Arc<Run>, item: ItemIndex) {
        let (engine, run) = (self.clone(), Arc::clone(run));
        self.tasks.spawn(async move {
            let pause = engine
                .closing
                .run_until_cancelled(tokio::time::sleep(LOCKED_ELSEWHERE));
            if pause.await.is_some() && run.put_back(item) {
                engine.line_up(&run);
            }
        });
    }

    /// Puts a run with ready items in line.
    pub(crate) fn line_up(&self, run: &Arc<Run>) {
        self.queue().add(Arc::clone(run));
        self.pools.ring();
    }

    /// Ends the waiting items of runs that no pool is left for; what runs is left alone.
    pub(crate) async fn end_unroutable(&self) {
        for run in self.live_runs() {
            if !self.pools.any(&run.filter()) {
                self.stop(&run, &[], Stop::NoPool, None).await;
            }
        }
    }
}

enum Served {
    Started,
    Waits,
    Nothing,
}

/// Takes a ready item aside where its repository is busy; returns whether it did or the item is not ready any more.
pub(crate) fn park_if_busy(queue: &mut Queue, run: &Arc<Run>, work: &ItemWork) -> bool {
    if !in_place(run) || !queue.busy.contains(&work.repo) {
        return false;
    }
    if run.park(work.item) {
        let parked = queue.parked.entry(work.repo.clone()).or_default();
        parked.push((Arc::clone(run), work.item));
    }
    true
}

fn in_place(run: &Run) -> bool {
    run.record().settings.isolation == Isolation::InPlace
}
