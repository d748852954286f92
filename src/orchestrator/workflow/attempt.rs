//! One attempt at one item: journal, set up, run, verify, journal the end.

use super::run::{Begun, Live, Run, Stop};
use super::workspace::{Folder, NotEntered, Workspace};
use super::{Engine, cause};
use crate::error::{ErrorKind, Fault, Problem};
use crate::model::{
    At, CheckStatus, ItemIndex, ItemRecord, ItemState, Settings, Stage, VerifyResult,
};
use crate::orchestrator::memory;
use crate::orchestrator::pools::Slot;
use crate::pool::worker::command::outcome;
use crate::pool::worker::{End, Event, Events, Outcome, RepoRef, Task};
use crate::process::Job;
use crate::redact::redact;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The pauses before a write to the journal that failed is tried again.
const JOURNAL_PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// By how much the wall clock may run ahead of the monotonic one before the machine is taken to have slept.
const SLEPT: Duration = Duration::from_secs(5);

/// How an attempt ended, before it is written down.
struct Verdict {
    stage: Stage,
    outcome: Outcome,
    verify: Option<VerifyResult>,
}

impl Engine {
    /// Makes one attempt at an item that holds `slot`, and journals its end.
    pub(super) async fn attempt(&self, run: Arc<Run>, item: ItemIndex, slot: Slot) {
        let Some(begun) = run.begin(item, &slot.pool.name) else {
            // It was stopped while it waited for its turn; its repository is free for the next one.
            if let Some(repo) = run.repo_of(item) {
                self.leave_repo(&run, &repo);
            }
            return;
        };
        let repo = begun.work.repo.clone();
        let mut record = begun.record.clone();
        let clocks = Clocks::start();
        let verdict = match self.enter(&run, &begun, &slot, &mut record).await {
            Err(NotEntered::Locked) => {
                run.unbegin(item);
                drop(slot);
                self.leave_repo(&run, &repo);
                self.wait_for_repo(&run, item);
                return;
            }
            Err(NotEntered::Problem(problem)) => Verdict::not_started(problem),
            Ok(mut workspace) => {
                self.work(&run, &begun, &slot, &mut workspace, &mut record)
                    .await
            }
        };
        if let (Stage::Run, End::NotStarted(_)) = (verdict.stage, &verdict.outcome.end) {
            let filter = &begun.settings.settings.filter;
            self.quarantine.suspect(&slot, filter).await;
        }
        self.conclude(&mut record, verdict, &begun.live, &clocks);
        let succeeded = record.status == ItemState::Succeeded;
        slot.pool
            .stats
            .record(succeeded, begun.live.started.elapsed());
        let again = retries(&record) && run.may_retry(item);
        let worker = slot.pool.worker_name.clone();
        drop(slot);
        run.end(&record, again);
        self.leave_repo(&run, &repo);
        self.journal_attempt(&run, record, &begun, worker).await;
        if again {
            self.again(&run);
        } else if run.has_failed_enough() {
            self.stop(&run, &[], Stop::MaxFailures, None).await;
        }
        self.finish(&run);
    }

    /// Forgets a run that is over: from now on the store answers for it.
    fn finish(&self, run: &Arc<Run>) {
        if run.is_over() {
            self.runs().remove(&run.id());
        }
    }

    /// Makes ready to start: repository, lock or worktree, base, journal.
    async fn enter(
        &self,
        run: &Run,
        begun: &Begun,
        slot: &Slot,
        record: &mut ItemRecord,
    ) -> Result<Workspace, NotEntered> {
        let settings = &begun.settings.settings;
        let needs = Folder::needed(settings, slot.pool.worker.capabilities());
        let workspace = Workspace::enter(&self.repos, run.id(), settings, needs, record).await?;
        self.store
            .begin_attempt(run.id(), record.clone())
            .await
            .map_err(|error| error.problem())?;
        run.update(record);
        Ok(workspace)
    }

    /// Runs the stages and keeps what they left in the workspace.
    async fn work(
        &self,
        run: &Run,
        begun: &Begun,
        slot: &Slot,
        workspace: &mut Workspace,
        record: &mut ItemRecord,
    ) -> Verdict {
        let mut verdict = self.stages(run, begun, slot, workspace, record).await;
        begun.live.doing("keep the work");
        let message = format!(
            "{}\n\nItem {} of workflow {}, attempt {}.",
            begun.settings.title,
            record.item,
            run.id(),
            record.attempt
        );
        let kept = workspace.keep(&self.repos, &message, record).await;
        match (kept, &mut verdict.outcome.end) {
            (Ok(()), _) => {}
            (Err(problem), end @ End::Succeeded) => {
                verdict.stage = Stage::Run;
                *end = End::Failed(problem);
            }
            // It had failed already: what it left could not be kept either.
            (
                Err(lost),
                End::Failed(problem) | End::NotStarted(problem) | End::TimedOut(problem),
            ) => {
                problem.message = format!("{}; and {}", problem.message, lost.message);
            }
            (Err(lost), End::Cancelled) => {
                tracing::warn!(problem = %lost, "the work of a stopped item was not committed");
            }
        }
        verdict
    }

    async fn stages(
        &self,
        run: &Run,
        begun: &Begun,
        slot: &Slot,
        workspace: &mut Workspace,
        record: &mut ItemRecord,
    ) -> Verdict {
        let settings = &begun.settings.settings;
        let logs = self.logs(run.id(), record.item, record.attempt);
        let limit = settings.timeout.or(slot.pool.timeout);
        let deadline = limit.map(|limit| begun.live.started + limit);
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
        if let Err(problem) = workspace
            .seal(&self.repos, !settings.setup.is_empty(), record)
            .await
        {
            return Verdict::not_started(problem);
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
            grace: begun.live.grace().unwrap_or(self.limits.grace),
        };
        let worker = &slot.pool.worker;
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
                    Some(redact(&tail_of(&failed)).into_owned()),
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
        let tail = redact(outcome.final_text.as_deref().unwrap_or(&tail_of(&outcome))).into_owned();
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
        problem.message = redact(&problem.message).into_owned();
        record.stage = Some(stage);
        record.cause = Some(cause::of(
            &problem,
            &record.repo,
            record.output_tail.as_deref(),
        ));
        record.error = Some(problem);
    }

    /// Journals an attempt's end with its memory.
    async fn journal_attempt(&self, run: &Run, record: ItemRecord, begun: &Begun, worker: String) {
        let memory = memory::outcome(run.id(), &record, &begun.work.work, worker);
        let saved = self
            .persist(|| {
                let memories = memory.clone().into_iter().collect();
                self.store.finish_items(
                    run.id(),
                    vec![record.clone()],
                    memories,
                    self.memories.forward_to(),
                )
            })
            .await;
        self.memories.stored();
        self.tell_unsaved(run, saved.is_ok(), 1);
    }

    /// Journals items that ended while they waited.
    pub(super) async fn journal_ends(&self, run: &Arc<Run>, ended: Vec<ItemRecord>) {
        if ended.is_empty() {
            return;
        }
        let count = u32::try_from(ended.len()).unwrap_or(u32::MAX);
        let saved = self
            .persist(|| self.store.save_items(run.id(), ended.clone()))
            .await;
        self.tell_unsaved(run, saved.is_ok(), count);
        self.finish(run);
    }

    fn tell_unsaved(&self, run: &Run, saved: bool, count: u32) {
        if !saved {
            self.notices.add(format!(
                "the end of {count} item(s) of workflow {} could not be written to the store; a later server will show them as interrupted. Run check_health.",
                run.id()
            ));
        }
        run.saved(count);
    }

    /// Writes to the journal, again after a pause where it fails.
    async fn persist<T, F>(&self, write: impl Fn() -> F) -> Result<T, crate::store::StoreError>
    where
        F: Future<Output = Result<T, crate::store::StoreError>>,
    {
        for pause in JOURNAL_PAUSES {
            match write().await {
                Ok(done) => return Ok(done),
                Err(error) => {
                    tracing::warn!(%error, "an end could not be journaled; trying again");
                    if self
                        .closing
                        .run_until_cancelled(tokio::time::sleep(pause))
                        .await
                        .is_none()
                    {
                        break;
                    }
                }
            }
        }
        write()
            .await
            .inspect_err(|error| tracing::error!(%error, "an end was not journaled"))
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
            program,
            args: args.iter().map(OsString::from).collect(),
            cwd: self.dir.to_owned(),
            env: self.engine.line_env.to_vec(),
            stdin: None,
            stdout_log: log("stdout"),
            stderr_log: log("stderr"),
            log_cap_bytes: host.log_cap_bytes,
            tail_bytes: host.tail_bytes,
            deadline: self.deadline,
            stall: self.settings.stall,
            grace: self.engine.limits.grace,
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
    fn not_started(problem: Problem) -> Self {
        Self {
            stage: Stage::Start,
            outcome: Outcome::of(End::NotStarted(problem)),
            verify: None,
        }
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
fn retries(record: &ItemRecord) -> bool {
    match (record.status, record.stage) {
        (ItemState::Failed, Some(Stage::Start)) => {
            record.error.as_ref().is_some_and(|error| error.retryable)
        }
        (ItemState::Failed, _) => true,
        (ItemState::TimedOut, _) => record
            .error
            .as_ref()
            .is_some_and(|error| error.message != Stop::RunTimeout.verdict().1.message),
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
