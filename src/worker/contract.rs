//! What every worker kind does, and what a task of an attempt is.

use super::outcome::Outcome;
use super::programs::Programs;
use crate::error::Problem;
use crate::model::{Work, WorkflowId};
use crate::process::Grace;
use futures_util::future::BoxFuture;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What a worker kind can do; the engine refuses what it cannot before anything starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// It takes a prompt.
    pub(crate) tasks: bool,
    /// It takes an argv.
    pub(crate) commands: bool,
    /// It works on files of this machine, so that an item gets a worktree where the call does not set `isolation`.
    pub(crate) local: bool,
}

/// One attempt at one item.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// The workflow it belongs to.
    pub(crate) workflow: WorkflowId,
    /// The item's place in the workflow.
    pub(crate) item: u32,
    /// What to do.
    pub(crate) work: Work,
    /// The folder to work in: the worktree or the repository itself.
    pub(crate) dir: PathBuf,
    /// Where the streams are logged: `stdout`, `stderr`, `final`, `events` below this folder, which the worker makes
    /// when it has something to write.
    pub(crate) logs: PathBuf,
    /// When the attempt is out of time.
    pub(crate) deadline: Option<Instant>,
    /// The longest it may write nothing.
    pub(crate) stall: Option<Duration>,
    /// How long it may take to end once it was asked to; it may change while the task runs.
    pub(crate) grace: Grace,
}

#[cfg(test)]
impl Task {
    /// Returns item 7 of a workflow, to be done in `/r`.
    pub(super) fn example() -> Self {
        Self {
            workflow: WorkflowId::new(),
            item: 7,
            work: Work::Command(vec![]),
            dir: "/r".into(),
            logs: "/l".into(),
            deadline: None,
            stall: None,
            grace: Duration::ZERO.into(),
        }
    }
}

/// An event of a worker at work.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// It wrote something, just now.
    Alive,
    /// What it does now, in its own words.
    Doing(String),
}

/// Receives a worker's events; called from the worker's own task, so it must not block.
pub(crate) type Events = Arc<dyn Fn(Event) + Send + Sync>;

/// Workers of one kind, as the config describes them.
pub(crate) trait Worker: Send + Sync {
    /// Returns what this kind can do.
    fn capabilities(&self) -> Capabilities;

    /// Refuses what this worker would never run: a program that `allow` does not name, a prompt it cannot take.
    ///
    /// # Errors
    ///
    /// A [`Problem`] that names the field and the next step. Nothing is started.
    fn check(&self, work: &Work) -> Result<(), Problem>;

    /// Returns the programs of this machine that it runs, the lines of `setup` and `verify` among them.
    fn programs(&self) -> &Programs;

    /// Runs one attempt to its end.
    ///
    /// # Cancel safety
    ///
    /// Cancel with `cancel`: the worker is asked to end, is killed after `task.grace`, and its outcome is
    /// `End::Cancelled`. Dropping the future kills it at once and loses the outcome.
    fn run(&self, task: Task, events: Events, cancel: CancellationToken) -> BoxFuture<'_, Outcome>;

    /// Asks whether the worker could run now, without running anything that costs.
    fn probe(&self) -> BoxFuture<'_, Result<(), Problem>>;
}
