//! What a pool's workers can be asked for, whatever their kind.
//!
//! One trait, one file per kind, one registration line each (`kinds`). A worker runs one attempt's task and tells what
//! happens as events that end in one [`Outcome`]; it knows nothing of workflows, pools or the journal.

pub mod command;
pub mod kinds;
pub mod mcp;
pub mod remote;
mod template;

use crate::error::Problem;
use crate::model::{Usage, Work, WorkflowId};
use crate::process::Grace;
use futures_util::future::BoxFuture;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// What a worker kind can do; the engine refuses what it cannot before anything starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// It takes a prompt.
    pub tasks: bool,
    /// It takes an argv.
    pub commands: bool,
    /// It works on files of this machine, so that an item gets a worktree where the call says nothing of `isolation`.
    pub local: bool,
}

/// The repository an attempt works on, named so that a worker need not be local.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoRef {
    /// The user's repository: a canonical absolute path.
    pub path: PathBuf,
    /// The URL of its `origin`, where it has one.
    pub remote_url: Option<String>,
    /// The commit the attempt begins from, where there is one.
    pub commit: Option<String>,
}

/// One attempt at one item.
#[derive(Debug, Clone)]
pub struct Task {
    /// The workflow it belongs to.
    pub workflow: WorkflowId,
    /// The item's place in the workflow.
    pub item: u32,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// What to do.
    pub work: Work,
    /// The repository.
    pub repo: RepoRef,
    /// The folder to work in: the worktree or the repository itself.
    pub dir: PathBuf,
    /// Where the streams are logged: `stdout`, `stderr`, `final`, `events` below this folder, which the worker makes
    /// when it has something to write.
    pub logs: PathBuf,
    /// When the attempt is out of time.
    pub deadline: Option<Instant>,
    /// The longest it may write nothing.
    pub stall: Option<Duration>,
    /// How long it may take to end once it was asked to; who asks may still change it.
    pub grace: Grace,
}

/// What a worker tells while it works.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It wrote something, just now.
    Alive,
    /// What it is at, in its own words.
    Doing(String),
    /// What it has used so far.
    Used(Usage),
}

/// Takes a worker's events; called from the worker's own task, so it must not block.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// It did what it was asked to.
    Succeeded,
    /// It ran and failed.
    Failed(Problem),
    /// It never ran: the program is missing, the peer is down, the guardian could not be started.
    NotStarted(Problem),
    /// Its deadline passed or it wrote nothing for too long; it was stopped.
    TimedOut(Problem),
    /// It was stopped on request.
    Cancelled,
}

/// What is left of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// The program's exit code, where it is a program that exited by itself.
    pub exit_code: Option<i32>,
    /// The worker's answer, where its kind has one apart from its output.
    pub final_text: Option<String>,
    /// The end of its stdout, at most a few kilobytes.
    pub stdout_tail: String,
    /// The end of its stderr, at most a few kilobytes.
    pub stderr_tail: String,
    /// What it used, where it tells it.
    pub usage: Option<Usage>,
}

impl Outcome {
    /// Returns the outcome of an attempt that wrote nothing.
    pub fn of(end: End) -> Self {
        Self {
            end,
            exit_code: None,
            final_text: None,
            stdout_tail: String::new(),
            stderr_tail: String::new(),
            usage: None,
        }
    }
}

/// Workers of one kind, as the config describes them.
pub trait Worker: Send + Sync {
    /// Returns what this kind can do.
    fn capabilities(&self) -> Capabilities;

    /// Refuses what this worker would never run: a program that `allow` does not name, a prompt it cannot take.
    ///
    /// # Errors
    ///
    /// A [`Problem`] that names the field and the next step. Nothing is started.
    fn check(&self, work: &Work) -> Result<(), Problem>;

    /// Refuses a program of `setup` or `verify`, named by `field`, that this worker's `allow` does not permit.
    ///
    /// # Errors
    ///
    /// A [`Problem`] that names the field, the program and what is allowed.
    fn check_program(&self, field: &str, program: &str) -> Result<(), Problem>;

    /// Runs one attempt to its end.
    ///
    /// # Cancel safety
    ///
    /// Cancel with `cancel`: the worker is asked to end, is killed after `task.grace`, and its outcome is
    /// [`End::Cancelled`]. Dropping the future kills it at once and loses the outcome.
    fn run(&self, task: Task, events: Events, cancel: CancellationToken) -> BoxFuture<'_, Outcome>;

    /// Asks whether the worker could run now, without running anything that costs.
    fn probe(&self) -> BoxFuture<'_, Result<(), Problem>>;
}
