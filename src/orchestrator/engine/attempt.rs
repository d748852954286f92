//! One attempt at one item: journal, set up, run, verify, journal the end.

use super::live::{Live, Stop};
use super::run::{Begun, Run};
use super::workspace::{Folder, NotEntered, Workspace};
use super::{Engine, cause};
use crate::error::{ErrorKind, Fault, Problem};
use crate::model::{
    At, CheckStatus, ItemRecord, ItemState, NewMemory, Settings, Stage, VerifyResult,
};
use crate::orchestrator::memory;
use crate::orchestrator::routing::pool::Pool;
use crate::orchestrator::routing::pools::Slot;
use crate::panic::Panicked;
use crate::process::{Job, Program};
use crate::redact::{CONTEXT_BYTES, redact};
use crate::worker::command::outcome;
use crate::worker::{End, Event, Events, Outcome, RepoRef, Task};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// By how much the wall clock may run ahead of the monotonic one before the machine is taken to have slept.
const SLEPT: Duration = Duration::from_secs(5);

/// How long committing an attempt's work may take after its deadline, or after it was stopped.
const KEEP_LIMIT: Duration = Duration::from_secs(60);

/// How an attempt ended, before it is written down.
struct Verdict {
    stage: Stage,
    outcome: Outcome,
    verify: Option<VerifyResult>,
}

/// Another process works on the repository: the attempt is as if it had not begun.
struct RepoLocked;

impl Engine {
    /// Makes one attempt at an item that was begun, and journals its end.
    pub(crate) async fn attempt(&self, run: Arc<Run>, begun: Begun, slot: Slot) {
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
        let took = begun.live.started.elapsed();
        slot.pool.stats.record(succeeded, took);
        let ends = run.end(&record, may_retry(&record));
        // Only now: the next user of the slot or the repository must see that this attempt has ended.
        drop(slot);
        self.leave_repo(&run, &begun.work.repo);
        self.write_ends(&run, ends, memory).await;
    }

    /// Makes an item wait for its repository as if its attempt had not begun, or ends it where it was stopped.
    async fn take_back(&self, run: &Arc<Run>, begun: &Begun) {
        let item = begun.record.item;
        let ended = run.unbegin(item);
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
        let clocks = Clocks::start();
        let limit = begun.settings.settings.timeout.or(slot.pool.timeout);
        let deadline = limit.map(|limit| begun.live.started + limit);
        // Entering can wait for another process's git; it stops where it is, which leaves nothing half made.
        let entered = tokio::select! {
            biased;
            entered = self.enter(run, begun, &slot.pool, record) => entered,
            end = over(&begun.live, deadline) => Err(Some(end)),
        };
        let verdict = match entered {
            Ok(mut workspace) => {
                self.work(run, begun, &slot.pool, deadline, &mut workspace, record)
                    .await
            }
            Err(Some(end)) => Verdict::unstarted(end),
            Err(None) => return Err(RepoLocked),
        };
        if let (Stage::Run, End::NotStarted(_)) = (verdict.stage, &verdict.outcome.end) {
            let filter = &begun.settings.settings.filter;
            self.quarantine.suspect(slot, filter).await;
        }
        self.conclude(record, verdict, &begun.live, &clocks);
        let worker = slot.pool.worker_name.clone();
        Ok(memory::outcome(
            run.id(),
            record,
            &begun.work.work,
            Some(worker),
        ))
    }

    /// Makes ready to start: repository, lock or worktree, base, journal. The error is the attempt's end, and none where
    /// another process works on the repository.
    async fn enter(
        &self,
        run: &Arc<Run>,
        begun: &Begun,
        pool: &Pool,
        record: &mut ItemRecord,
    ) -> Result<Workspace, Option<End>> {
        let settings = &begun.settings.settings;
        let needs = Folder::needed(settings, pool.worker.capabilities());
        let workspace = Workspace::enter(&self.repos, run.id(), settings, needs, record)
            .await
            .map_err(|error| match error {
                NotEntered::Locked => None,
                NotEntered::Problem(problem) => Some(End::NotStarted(problem)),
            })?;
        let journaled = self.journal_begin(run, record).await;
        let revision = journaled.map_err(|error| Some(End::NotStarted(error.problem())))?;
        run.begun(record, revision);
        Ok(workspace)
    }

    /// Runs the stages and keeps what they left in the workspace.
    async fn work(
        &self,
        run: &Run,
        begun: &Begun,
        pool: &Pool,
        deadline: Option<Instant>,
        workspace: &mut Workspace,
        record: &mut ItemRecord,
    ) -> Verdict {
        let stages = self.stages(run, begun, pool, deadline, workspace, record);
        let mut verdict = stages.await;
        begun.live.doing("keep the work");
        let message = format!(
            "{}\n\nItem {} of workflow {}, attempt {}.",
            begun.settings.title,
            record.item,
            run.id(),
            record.attempt
        );
        let keeping = workspace.keep(&self.repos, &message, record);
        let kept = tokio::select! {
            kept = keeping => kept.map_err(End::Failed),
            end = over_keeping(&begun.live, deadline) => Err(end),
        };
        match (kept, &mut verdict.outcome.end) {
            (Ok(()), _) => {}
            (Err(why), end @ End::Succeeded) => {
                verdict.stage = Stage::Run;
                *end = why;
            }
            // It had failed already: what it left could not be kept either.
            (
                Err(End::Failed(lost) | End::TimedOut(lost)),
                End::Failed(problem) | End::NotStarted(problem) | End::TimedOut(problem),
            ) => {
                problem.message = format!("{}; and {}", problem.message, lost.message);
            }
            (Err(why), _) => {
                tracing::warn!(?why, "the work of a stopped item was not committed");
            }
        }
        verdict
    }

    async fn stages(
        &self,
        run: &Run,
        begun: &Begun,
        pool: &Pool,
        deadline: Option<Instant>,
        workspace: &mut Workspace,
        record: &mut ItemRecord,
    ) -> Verdict {
        let settings = &begun.settings.settings;
        let logs = self.logs(run.id(), record.item, record.attempt);
        let dir = workspace.dir().to_owned();
        let lines = Lines {
            engine: self,
            settings,
            live: &begun.live,
            dir: &dir,
            logs: &logs,
            deadline,
        };
        if let Some((outcome, _)) = lines.run(Stage::Setup, &settings.setup).await {
            return Verdict {
                stage: Stage::Setup,
                outcome,
                verify: None,
            };
        }
        let sealing = workspace.seal(&self.repos, !settings.setup.is_empty(), record);
        let sealed = tokio::select! {
            sealed = sealing => sealed.map_err(End::NotStarted),
            end = over(&begun.live, deadline) => Err(end),
        };
        if let Err(end) = sealed {
            return Verdict::unstarted(end);
        }
        begun.live.doing("run");
        let task = Task {
            workflow: run.id(),
            item: record.item,
            attempt: record.attempt,
            work: begun.work.work.clone(),
            repo: RepoRef {
                path: workspace.repo().as_path().to_owned(),
                remote_url: None,
                commit: record.base_commit.clone(),
            },
            dir: dir.clone(),
            logs: logs.clone(),
            deadline,
            stall: settings.stall,
            grace: begun.live.grace.clone(),
        };
        let worker = &pool.worker;
        let events = events(&begun.live);
        let outcome = worker.run(task, events, begun.live.cancel.clone()).await;
        if outcome.end != End::Succeeded || settings.verify.is_empty() {
            let skipped = !settings.verify.is_empty();
            return Verdict {
                stage: Stage::Run,
                verify: skipped.then_some(verified(CheckStatus::Skipped, None, None)),
                outcome,
            };
        }
        match lines.run(Stage::Verify, &settings.verify).await {
            None => Verdict {
                stage: Stage::Run,
                verify: Some(verified(CheckStatus::Passed, Some(0), None)),
                outcome,
            },
            Some((failed, status)) => Verdict {
                stage: Stage::Verify,
                verify: Some(verified(
                    status,
                    failed.exit_code,
                    Some(redact(&tail_of(&failed)).into_string()),
                )),
                outcome: failed,
            },
        }
    }

    /// Writes the verdict into the record.
    fn conclude(&self, record: &mut ItemRecord, verdict: Verdict, live: &Live, clocks: &Clocks) {
        let Verdict {
            stage,
            outcome,
            verify,
        } = verdict;
        record.duration_ms = u64::try_from(live.started.elapsed().as_millis()).ok();
        record.exit_code = outcome.exit_code;
        record.usage = outcome.usage;
        record.verify = verify;
        let tail =
            redact(outcome.final_text.as_deref().unwrap_or(&tail_of(&outcome))).into_string();
        record.output_tail = (!tail.is_empty()).then_some(tail);
        let (status, problem) = match outcome.end {
            End::Succeeded => (ItemState::Succeeded, None),
            End::Failed(problem) => (ItemState::Failed, Some((stage, problem))),
            End::NotStarted(problem) => (ItemState::Failed, Some((Stage::Start, problem))),
            End::TimedOut(problem) => (ItemState::TimedOut, Some((stage, problem))),
            End::Cancelled => {
                let why = live.stopped().unwrap_or(Stop::Closing);
                let (status, problem) = why.verdict();
                (status, Some((stage, problem)))
            }
        };
        record.status = status;
        let Some((stage, mut problem)) = problem else {
            return;
        };
        let ran = matches!(status, ItemState::Failed | ItemState::TimedOut);
        if ran && clocks.slept() {
            problem = Problem::new(
                ErrorKind::Interrupted,
                "host_slept: the machine slept while it ran",
            )
            .with_hint("resume_workflow runs it again");
        }
        problem.message = redact(&problem.message).into_string();
        record.stage = Some(stage);
        let cause = cause::of(&problem, &record.repo, record.output_tail.as_deref());
        // Colours that were taken out can have stood within a secret.
        record.cause = Some(redact(&cause).into_string());
        record.error = Some(problem);
    }
}

/// Command lines of one stage, run in order with one deadline.
struct Lines<'a> {
    engine: &'a Engine,
    settings: &'a Settings,
    live: &'a Live,
    dir: &'a Path,
    logs: &'a Path,
    deadline: Option<Instant>,
}

impl Lines<'_> {
    /// Runs the lines until one fails; returns how that one ended, or none where all exited 0.
    async fn run(&self, stage: Stage, lines: &[Vec<String>]) -> Option<(Outcome, CheckStatus)> {
        let name = match stage {
            Stage::Setup => "setup",
            _ => "verify",
        };
        for (number, argv) in lines.iter().enumerate() {
            self.live.doing(format!("{name}: {}", argv.join(" ")));
            let ended = self.line(name, number, argv).await;
            let status = match &ended.end {
                End::Succeeded => continue,
                End::TimedOut(_) => CheckStatus::TimedOut,
                // It found nothing: somebody stopped it.
                End::Cancelled => CheckStatus::Skipped,
                _ => CheckStatus::Failed,
            };
            return Some((ended, status));
        }
        None
    }

    async fn line(&self, name: &str, number: usize, argv: &[String]) -> Outcome {
        let host = &self.engine.host;
        let Some((program, args)) = argv.split_first() else {
            let problem = Problem::argument(name, "a line is empty", "a command line");
            return Outcome::of(End::NotStarted(problem));
        };
        let program = match host.find(program, self.dir) {
            Ok(program) => program,
            Err(problem) => return Outcome::of(End::NotStarted(problem)),
        };
        let log = |stream: &str| self.logs.join(format!("{name}-{number}.{stream}"));
        let job = Job {
            program: Program {
                program,
                args: args.iter().map(OsString::from).collect(),
                cwd: self.dir.to_owned(),
                env: Arc::clone(&self.engine.line_env),
            },
            stdin: None,
            stdout_log: log("stdout"),
            stderr_log: log("stderr"),
            log_cap_bytes: host.log_cap_bytes,
            tail_bytes: host.tail_bytes,
            context_bytes: CONTEXT_BYTES,
            deadline: self.deadline,
            stall: self.settings.stall,
            grace: self.live.grace.clone(),
        };
        let mut alive = |_, _: &[u8]| self.live.alive();
        outcome(host.processes.run(job, &mut alive, &self.live.cancel).await)
    }
}

fn verified(
    status: CheckStatus,
    exit_code: Option<i32>,
    output_tail: Option<String>,
) -> VerifyResult {
    VerifyResult {
        status,
        exit_code,
        output_tail,
    }
}

impl Verdict {
    /// Returns the verdict on an attempt of which nothing ran.
    fn unstarted(end: End) -> Self {
        Self {
            stage: Stage::Start,
            outcome: Outcome::of(end),
            verify: None,
        }
    }
}

/// Waits until a running attempt is stopped or out of time, and returns which.
async fn over(live: &Live, deadline: Option<Instant>) -> End {
    let late = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = live.cancel.cancelled() => End::Cancelled,
        () = late => End::TimedOut(Problem::new(
            ErrorKind::TimedOut,
            "its time was over before it could start: the repository could not be had",
        )
        .with_hint("see what holds the repository's git lock, or give more timeout_s")),
    }
}

/// Waits until keeping an attempt's work is to be given up, and returns what that makes of the attempt: when it is stopped
/// meanwhile, or well after its deadline. The work of one that was stopped before gets as long.
async fn over_keeping(live: &Live, deadline: Option<Instant>) -> End {
    let stopped = live.cancel.is_cancelled();
    let from = deadline.or(stopped.then(Instant::now));
    let late = async {
        match from {
            Some(from) => {
                tokio::time::sleep_until((from.max(Instant::now()) + KEEP_LIMIT).into()).await
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = live.cancel.cancelled(), if !stopped => End::Cancelled,
        () = late => End::TimedOut(Problem::new(
            ErrorKind::TimedOut,
            "its work could not be committed in time; the files are in the worktree",
        )
        .with_hint("see whether a filter or a lock holds git up; resume_workflow commits what is there")),
    }
}

/// Returns the end of an attempt that met a defect of this program.
fn panicked(record: ItemRecord, panic: &Panicked) -> ItemRecord {
    let problem = Problem::new(
        ErrorKind::Internal,
        format!(
            "the attempt met a defect of mahavishnu: {}",
            redact(&panic.0)
        ),
    )
    .with_hint("please report it; resume_workflow runs the item again");
    ItemRecord {
        status: ItemState::Failed,
        stage: Some(Stage::Run),
        cause: Some("internal".to_owned()),
        error: Some(problem),
        ..record
    }
}

/// Returns the end of what was written, of the stream that tells more: stderr where it failed and stderr has text.
fn tail_of(outcome: &Outcome) -> String {
    let failed = outcome.end != End::Succeeded;
    let stderr_tells = failed && !outcome.stderr_tail.trim().is_empty();
    if stderr_tells || outcome.stdout_tail.trim().is_empty() {
        outcome.stderr_tail.clone()
    } else {
        outcome.stdout_tail.clone()
    }
}

/// Returns whether another attempt could end better: it ran and failed, or what stopped its start may pass.
fn may_retry(record: &ItemRecord) -> bool {
    match (record.status, record.stage) {
        (ItemState::Failed, Some(Stage::Start)) => {
            record.error.as_ref().is_some_and(|error| error.retryable)
        }
        (ItemState::Failed, _) => true,
        (ItemState::TimedOut, _) => true,
        _ => false,
    }
}

fn events(live: &Arc<Live>) -> Events {
    let live = Arc::clone(live);
    Arc::new(move |event| {
        live.alive();
        if let Event::Doing(what) = event {
            live.doing(redact(&what));
        }
    })
}

/// Both clocks at an attempt's start, to tell later whether the machine slept in between.
struct Clocks {
    wall: At,
    monotonic: Instant,
}

impl Clocks {
    fn start() -> Self {
        Self {
            wall: At::now(),
            monotonic: Instant::now(),
        }
    }

    fn slept(&self) -> bool {
        let wall = At::now().unix_ms().saturating_sub(self.wall.unix_ms());
        let wall = Duration::from_millis(u64::try_from(wall).unwrap_or(0));
        wall.saturating_sub(self.monotonic.elapsed()) > SLEPT
    }
}
