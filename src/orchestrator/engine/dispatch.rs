//! Which item starts next, and in which slot.
//!
//! Runs take turns, so that a run of 10,000 items does not hold up one of two. An item is bound to a pool when a slot
//! is free (late binding); a routed single task that found every slot taken waits in the queue of the pool it was
//! routed to. Those tasks and the runs have the first choice of freed slots by turns. An `in_place` item waits, without a
//! slot, while another item of this process works on its repository.

use super::handle::Engine;
use super::queue::Queue;
use super::run::{Next, Run};
use super::stop::Stop;
use crate::model::{Filter, ItemIndex, ItemWork, PoolName};
use crate::orchestrator::routing::pools::{Assignment, Slot};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

/// How long an item waits that found its repository locked by another process.
const LOCKED_ELSEWHERE: Duration = Duration::from_millis(200);

/// What came of serving a run.
enum Served {
    /// An item of it started.
    Started,
    /// It has ready items that cannot start now.
    Waits,
    /// It has no ready item.
    Nothing,
}

impl Engine {
    /// Takes up a routed single task with the slot or the place it was given; returns the pool's name.
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
                queue.add_routed(run, place);
                drop(queue);
                self.pools.ring();
                name
            }
        }
    }

    /// Starts a single task in its slot, unless its repository is busy: then it waits as any item does.
    fn launch(&self, queue: &mut Queue, run: &Arc<Run>, slot: Slot) {
        match run.next() {
            Next::Item(work) if queue.block_if_busy(run, &work) => {}
            Next::Item(work) => self.start_item(queue, run, &work, slot),
            Next::Later => queue.add(Arc::clone(run)),
            Next::Nothing => {}
        }
    }

    /// Starts a ready item; does nothing where it is not ready any more.
    fn start_item(&self, queue: &mut Queue, run: &Arc<Run>, work: &ItemWork, slot: Slot) {
        let Some(begun) = run.begin(work.item, &slot.pool.name, self.limits.grace) else {
            return;
        };
        queue.enter_repo(run, &work.repo);
        let (engine, run) = (self.clone(), Arc::clone(run));
        self.tasks
            .spawn(async move { engine.attempt(run, begun, slot).await });
    }

    /// Starts all that can start now.
    pub(super) fn dispatch(&self) {
        let queue = &mut *self.queue();
        queue.runs_first = !queue.runs_first;
        if queue.runs_first {
            self.dispatch_runs(queue);
            self.dispatch_routed(queue);
        } else {
            self.dispatch_routed(queue);
            self.dispatch_runs(queue);
        }
    }

    /// Starts the routed tasks whose pools have free slots, in order for each pool.
    fn dispatch_routed(&self, queue: &mut Queue) {
        for mut line in queue.take_routed() {
            while let Some((run, place)) = line.pop_front() {
                if matches!(run.next(), Next::Nothing) {
                    continue;
                }
                if !place.is_open() {
                    // Its pool is closing: it waits for any other like an item of a workflow.
                    queue.add(run);
                    continue;
                }
                match place.promote() {
                    Ok(slot) => self.launch(queue, &run, slot),
                    Err(place) => {
                        line.push_front((run, place));
                        break;
                    }
                }
            }
            queue.put_routed(line);
        }
    }

    /// Serves the runs in turn, one item each, until a whole round has started nothing.
    fn dispatch_runs(&self, queue: &mut Queue) {
        let mut idle = 0;
        let mut full: HashSet<Filter> = HashSet::new();
        while idle < queue.runs() {
            let Some(run) = queue.pop() else {
                return;
            };
            match self.serve(queue, &run, &mut full) {
                Served::Started => idle = 0,
                Served::Waits => idle += 1,
                Served::Nothing => continue,
            }
            queue.add(run);
        }
    }

    /// Starts the next item of a run; `full` has the choices of pools that are known to have no free slot.
    fn serve(&self, queue: &mut Queue, run: &Arc<Run>, full: &mut HashSet<Filter>) -> Served {
        loop {
            let work = match run.next() {
                Next::Item(work) => work,
                Next::Nothing => return Served::Nothing,
                Next::Later => return Served::Waits,
            };
            if queue.block_if_busy(run, &work) {
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

    /// Lets others have the repository that an item of this run worked on.
    pub(super) fn leave_repo(&self, run: &Run, repo: &str) {
        self.queue().leave_repo(run, repo);
        self.pools.ring();
    }

    /// Makes an item whose repository another process works on ready again after a moment.
    pub(super) fn wait_for_repo(&self, run: &Arc<Run>, item: ItemIndex) {
        let (engine, run) = (self.clone(), Arc::clone(run));
        self.tasks.spawn(async move {
            let pause = engine
                .closing
                .run_until_cancelled(tokio::time::sleep(LOCKED_ELSEWHERE));
            if pause.await.is_some() && run.unblock(item) {
                engine.line_up(&run);
            }
        });
    }

    /// Puts a run with ready items in line.
    pub(super) fn line_up(&self, run: &Arc<Run>) {
        self.queue().add(Arc::clone(run));
        self.pools.ring();
    }

    /// Ends the waiting items of runs that no pool is left for; running ones go on.
    pub(crate) async fn end_unroutable(&self) {
        for run in self.live_runs() {
            if !self.pools.any(&run.filter()) {
                self.stop(&run, &[], Stop::NoPool, None).await;
            }
        }
    }
}
