//! One attempt at one item: enter the workspace, journal the begin, set up, run, verify, keep the work, journal the end.

use super::clock::{self, Clocks};
use super::handle::Engine;
use super::lines::Lines;
use super::live::LiveAttempt;
use super::outcome::{conclude, may_retry, panicked, verify_failed, verify_result};
use super::run::{Begun, Run};
use super::workspace::{Folder, NotEntered, Workspace};
use crate::error::{ErrorKind, Problem};
use crate::model::{CheckStatus, ItemRecord, ItemState, NewMemory, Settings, Stage};
use crate::orchestrator::memory;
use crate::orchestrator::routing::pool::Pool;
use crate::orchestrator::routing::pools::Slot;
use crate::redact::redact;
use crate::worker::{End, Event, Events, Outcome, Task};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;

/// How long committing an attempt's work may take after its deadline, or after it was stopped.
const KEEP_LIMIT: Duration = Duration::from_secs(60);

/// Another process works on the repository: the attempt is as if it had not begun.
struct RepoLocked;

/// An attempt while it is made.
struct Execution<'a> {
    engine: &'a Engine,
    run: &'a Arc<Run>,
    begun: &'a Begun,
    pool: &'a Pool,
    deadline: Option<Instant>,
}

impl Engine {
    /// Makes one attempt at an item that was begun, and journals its end.
    pub(super) async fn attempt(&self, run: Arc<Run>, begun: Begun, slot: Slot) {
        let mut record = begun.record.clone();
        // Boxed: the task would be copied several times with all that it may once hold.
        let tried = Box::pin(self.try_once(&run, &begun, &slot, &mut record));
        let memory = match crate::panic::catch(tried).await {
            Ok(Ok(memory)) => memory,
            Ok(Err(RepoLocked)) => {
                drop(slot);
                return self.take_back(&run, &begun).await;
            }
            Err(panic) => {
                record = panicked(record, &panic);
                None
            }
        };
        let succeeded = record.status == ItemState::Succeeded;
        slot.pool
            .stats
            .record(succeeded, begun.live.started.elapsed());
        let ends = run.end(&record, may_retry(&record));
        // Only now: the next user of the slot or the repository must see that this attempt has ended.
        drop(slot);
        self.leave_repo(&run, &begun.work.repo);
        self.write_ends(&run, ends, memory).await;
    }

    /// Makes an item wait for its repository as if its attempt had not begun, or ends it where it was stopped.
    async fn take_back(&self, run: &Arc<Run>, begun: &Begun) {
        let item = begun.record.item;
        let ended = run.undo_begin(item);
        self.leave_repo(run, &begun.work.repo);
        match ended {
            Some(end) => self.write_ends(run, vec![end], None).await,
            None => self.wait_for_repo(run, item),
        }
    }

    /// Makes one attempt and writes its end into `record`; returns what is to be remembered of it.
    async fn try_once(
        &self,
        run: &Arc<Run>,
        begun: &Begun,
        slot: &Slot,
        record: &mut ItemRecord,
    ) -> Result<Option<NewMemory>, RepoLocked> {
        let _room = self.enter_room(&slot.pool, &begun.live).await;
        let started = Clocks::now();
        let settings = &begun.workflow.settings;
        let limit = settings.timeout.or(slot.pool.timeout);
        let execution = Execution {
            engine: self,
            run,
            begun,
            pool: &slot.pool,
            deadline: limit.map(|limit| Instant::now() + limit),
        };
        let (stage, outcome) = execution.run(record).await?;
        if let (Stage::Run, End::NotStarted(_)) = (stage, &outcome.end) {
            self.quarantine.suspect(slot, &settings.filter).await;
        }
        let slept = started.slept_until(&Clocks::now());
        conclude(record, (stage, outcome), &begun.live, slept);
        let worker = Some(slot.pool.worker_name.clone());
        Ok(memory::outcome(run.id(), record, &begun.work.work, worker))
    }
}

impl Engine {
    /// Waits until the limit of open files allows one more attempt on this machine; its time does not run meanwhile. None
    /// where the pool's attempts are elsewhere, or the attempt is stopped.
    async fn enter_room(&self, pool: &Pool, live: &LiveAttempt) -> Option<OwnedSemaphorePermit> {
        if !pool.worker.capabilities().local {
            return None;
        }
        let room = &self.host.room;
        if room.is_full() {
            live.doing("wait for open files");
        }
        tokio::select! {
            biased;
            permit = room.enter() => permit,
            () = live.cancel.cancelled() => None,
        }
    }
}

impl Execution<'_> {
    fn settings(&self) -> &Settings {
        &self.begun.workflow.settings
    }

    /// Makes the attempt; returns how it ended and in which stage.
    async fn run(&self, record: &mut ItemRecord) -> Result<(Stage, Outcome), RepoLocked> {
        // Entering can wait for another process's git; it stops where it is, which leaves nothing half made.
        let entered = tokio::select! {
            biased;
            entered = self.enter(record) => entered,
            end = self.stopped() => return Ok((Stage::Start, Outcome::of(end))),
        };
        match entered {
            Ok(mut workspace) => Ok(self.work(&mut workspace, record).await),
            Err(NotEntered::Locked) => Err(RepoLocked),
            Err(NotEntered::Problem(problem)) => {
                Ok((Stage::Start, Outcome::of(End::NotStarted(problem))))
            }
        }
    }

    /// Enters the workspace and journals the begin: only then may anything run.
    async fn enter(&self, record: &mut ItemRecord) -> Result<Workspace, NotEntered> {
        let Self { engine, run, .. } = self;
        let folder = Folder::needed(self.settings(), self.pool.worker.capabilities());
        let workspace =
            Workspace::enter(&engine.repos, run.id(), self.settings(), folder, record).await?;
        let revision = engine.journal_begin(run, record).await?;
        run.begin_journaled(record, revision);
        Ok(workspace)
    }

    /// Waits until the attempt is stopped or out of time, and returns which.
    async fn stopped(&self) -> End {
        let late = async {
            match self.deadline {
                Some(deadline) => {
                    clock::sleep(deadline.saturating_duration_since(Instant::now())).await
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.begun.live.cancel.cancelled() => End::Cancelled,
            () = late => End::TimedOut(Problem::new(
                ErrorKind::TimedOut,
                "its time was over before it could start: the repository could not be had",
            )
            .with_hint("see what holds the repository's git lock, or give more timeout_s")),
        }
    }

    /// Runs the stages and keeps what they left in the workspace.
    async fn work(&self, workspace: &mut Workspace, record: &mut ItemRecord) -> (Stage, Outcome) {
        let (stage, mut outcome) = self.stages(workspace, record).await;
        self.begun.live.doing("keep the work");
        let message = format!(
            "{}\n\nItem {} of workflow {}, attempt {}.",
            self.begun.workflow.title,
            record.item,
            self.run.id(),
            record.attempt
        );
        let kept = tokio::select! {
            kept = workspace.keep(&self.engine.repos, &message, record) => kept.map_err(End::Failed),
            end = self.stopped_keeping() => Err(end),
        };
        let Err(why) = kept else {
            return (stage, outcome);
        };
        match (why, &mut outcome.end) {
            (why, end @ End::Succeeded) => {
                *end = why;
                return (Stage::Run, outcome);
            }
            // It had failed already: what it left could not be kept either.
            (
                End::Failed(lost) | End::TimedOut(lost),
                End::Failed(problem) | End::NotStarted(problem) | End::TimedOut(problem),
            ) => problem.message = format!("{}; and {}", problem.message, lost.message),
            (why, _) => {
                tracing::warn!(?why, "the work of a stopped item was not committed");
            }
        }
        (stage, outcome)
    }

    /// Waits until committing the work has taken too long, or is stopped; returns which. An attempt that was stopped or
    /// out of time before has [`KEEP_LIMIT`] for it.
    async fn stopped_keeping(&self) -> End {
        let cancel = &self.begun.live.cancel;
        let stopped = cancel.is_cancelled();
        let from = self.deadline.or(stopped.then(Instant::now));
        let late = async {
            match from {
                Some(from) => {
                    let limit = from.max(Instant::now()) + KEEP_LIMIT;
                    tokio::time::sleep_until(limit.into()).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = cancel.cancelled(), if !stopped => End::Cancelled,
            () = late => End::TimedOut(Problem::new(
                ErrorKind::TimedOut,
                "its work could not be committed in time; the files are in the worktree",
            )
            .with_hint("see whether a filter or a lock holds git up; resume_workflow commits what is there")),
        }
    }

    async fn stages(&self, workspace: &mut Workspace, record: &mut ItemRecord) -> (Stage, Outcome) {
        let Self { engine, begun, .. } = self;
        let settings = self.settings();
        let logs = engine.logs(self.run.id(), record.item, record.attempt);
        let dir = workspace.dir().to_owned();
        let lines = Lines {
            programs: self.pool.worker.programs(),
            live: &begun.live,
            dir: &dir,
            logs: &logs,
            deadline: self.deadline,
            stall: settings.stall,
        };
        if let Some(failed) = lines.run("setup", &settings.setup).await {
            return (Stage::Setup, failed);
        }
        let setup_ran = !settings.setup.is_empty();
        let sealed = tokio::select! {
            sealed = workspace.seal(&engine.repos, setup_ran, record) => sealed.map_err(End::NotStarted),
            end = self.stopped() => Err(end),
        };
        if let Err(end) = sealed {
            return (Stage::Start, Outcome::of(end));
        }
        let programs = self.pool.worker.programs();
        if let Err(problem) = programs.exist("verify", &settings.verify).await {
            record.verify = Some(verify_result(CheckStatus::Skipped, None));
            return (Stage::Start, Outcome::of(End::NotStarted(problem)));
        }
        begun.live.doing("run");
        let task = self.task(record, &dir, &logs);
        let cancel = begun.live.cancel.clone();
        let outcome = self.pool.worker.run(task, self.events(), cancel).await;
        if settings.verify.is_empty() {
            return (Stage::Run, outcome);
        }
        if outcome.end != End::Succeeded {
            record.verify = Some(verify_result(CheckStatus::Skipped, None));
            return (Stage::Run, outcome);
        }
        match lines.run("verify", &settings.verify).await {
            None => {
                record.verify = Some(verify_result(CheckStatus::Passed, Some(0)));
                (Stage::Run, outcome)
            }
            Some(failed) => {
                record.verify = Some(verify_failed(&failed));
                (Stage::Verify, failed)
            }
        }
    }

    fn task(&self, record: &ItemRecord, dir: &Path, logs: &Path) -> Task {
        let live = &self.begun.live;
        Task {
            workflow: self.run.id(),
            item: record.item,
            work: self.begun.work.work.clone(),
            dir: dir.to_owned(),
            logs: logs.to_owned(),
            deadline: self.deadline,
            stall: self.settings().stall,
            grace: live.grace.clone(),
        }
    }

    /// Returns what takes the worker's events.
    fn events(&self) -> Events {
        let live = Arc::clone(&self.begun.live);
        Arc::new(move |event| {
            live.alive();
            if let Event::Doing(what) = event {
                live.doing(redact(&what));
            }
        })
    }
}
