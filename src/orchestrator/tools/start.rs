//! Starting a workflow: arguments to a checked plan, the journal, then the engine.

use super::arguments;
use super::arguments::MAX_SECONDS;
use super::route_why::{all_full, route_why};
use super::watch::Until;
use crate::api::{Caller, StartMany, StartOne, StartOptions, Wait, WorkflowResult};
use crate::error::{ErrorKind, Fault, Problem};
use crate::model::{
    At, BaseRef, Filter, Isolation, ItemRecord, ItemState, ItemWork, PoolName, Settings, Work,
    WorkflowId, WorkflowRecord,
};
use crate::orchestrator::engine::Run;
use crate::orchestrator::routing::Why;
use crate::orchestrator::{Core, Orchestrator};
use crate::repo::{RepoPath, Selection, is_inside};
use crate::store::Created;
use crate::worker::Worker;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// How many pools of each sort a route's reasons name.
const WHY_ROWS: usize = 10;

/// The longest title, in characters.
const TITLE_CHARS: usize = 80;

/// The longest idempotency key, in bytes.
const KEY_BYTES: usize = 200;

/// A checked request, before the repositories are looked for.
struct Plan {
    work: Work,
    settings: Settings,
    per_repo: Vec<(globset::GlobMatcher, String)>,
    dry_run: bool,
    key: Option<String>,
    hash: String,
}

/// What is asked for, as it came.
struct Request {
    /// The argument that names the repositories.
    field: &'static str,
    specs: Vec<String>,
    options: StartOptions,
    hash: String,
}

impl Request {
    fn new(field: &'static str, specs: Vec<String>, options: StartOptions) -> Self {
        Self {
            field,
            hash: hash(field, &specs, &options),
            specs,
            options,
        }
    }

    fn selection(&self) -> Selection {
        Selection {
            specs: self.specs.clone(),
            exclude: self.options.exclude.clone(),
            has_file: self.options.has_file.clone(),
        }
    }
}

/// What was journaled.
enum Journaled {
    New(Arc<Run>),
    Existing(WorkflowId),
}

/// What was begun.
struct Started {
    id: WorkflowId,
    /// Whether an earlier call with the same key began it.
    existing: bool,
    /// Where a single task went; none of a plan and of what waits for slots.
    pool: Option<PoolName>,
    /// Why it goes there, or would.
    why: Option<Why>,
}

impl Started {
    fn existing(id: WorkflowId) -> Self {
        Self {
            id,
            existing: true,
            pool: None,
            why: None,
        }
    }
}

impl Orchestrator {
    /// Runs one task on the freest worker.
    pub(crate) async fn start_one(
        &self,
        args: StartOne,
        caller: &Caller,
    ) -> Result<WorkflowResult, Problem> {
        let wait = caller.wait(args.wait_s, Caller::DEFAULT_WAIT)?;
        let (repo, options) = args.split();
        let request = Request::new("repo", vec![repo], options);
        let started = self.begin(request).await?;
        self.started(started, wait, caller).await
    }

    /// Runs a task over many repositories.
    pub(crate) async fn start_many(
        &self,
        args: StartMany,
        caller: &Caller,
    ) -> Result<WorkflowResult, Problem> {
        let wait = caller.wait(args.wait_s, Caller::DEFAULT_WAIT)?;
        let (specs, options) = args.split();
        if specs.is_empty() {
            return Err(Problem::argument(
                "repos",
                "repos is empty",
                "at least one path, name or glob",
            )
            .with_hint("list_repos lists what there is; [\"*\"] means all of it"));
        }
        let started = self.begin(Request::new("repos", specs, options)).await?;
        self.started(started, wait, caller).await
    }

    /// Begins what is asked for, or finds the workflow that the same key began.
    ///
    /// # Cancel safety
    ///
    /// What is journaled is taken up even if the future is dropped.
    async fn begin(&self, request: Request) -> Result<Started, Problem> {
        // Before anything else is looked at: the workflow is the same whatever has become of pools and repositories.
        if let Some(id) = self.0.known(&request).await? {
            return Ok(Started::existing(id));
        }
        let single =
            request.field == "repo" && request.options.repeat.is_none_or(|count| count <= 1);
        let field = request.field;
        let selection = request.selection();
        let plan = self.0.plan(request)?;
        let repos = self.0.expand(selection, field).await?;
        if let ("repo", [first, second, ..]) = (field, repos.as_slice()) {
            return Err(Problem::argument(
                "repo",
                format!("it fits several repositories, {first} and {second} among them"),
                "one repository",
            )
            .with_hint("execute_workflow_parallel takes many"));
        }
        let core = self.clone();
        let begun = self
            .0
            .tasks
            .spawn(async move { core.take_up(plan, repos, single).await });
        begun.await.map_err(|error| {
            Problem::new(ErrorKind::Internal, format!("the start failed: {error}"))
        })?
    }

    /// Journals a workflow and takes it up; a single task takes its slot before, so that a refusal leaves no trace.
    async fn take_up(
        &self,
        plan: Plan,
        repos: Vec<RepoPath>,
        single: bool,
    ) -> Result<Started, Problem> {
        let planned = plan.dry_run;
        let routed = match single && !planned {
            true => {
                let (routed, why) = self.0.pools.route(&plan.settings.filter, WHY_ROWS);
                Some((routed.ok_or_else(|| all_full(&why))?, why))
            }
            false => None,
        };
        let _turn = self.0.engine.starting().await;
        let run = match self.0.journal(plan, repos, single).await? {
            Journaled::Existing(id) => return Ok(Started::existing(id)),
            Journaled::New(run) => run,
        };
        let id = run.id();
        let (pool, why) = match routed {
            Some((routed, why)) => (Some(self.0.engine.take_up_routed(run, routed)), Some(why)),
            None if planned => (None, Some(self.0.pools.explain(&run.filter(), WHY_ROWS))),
            None => {
                self.0.engine.take_up(&run);
                (None, None)
            }
        };
        Ok(Started {
            id,
            existing: false,
            pool,
            why,
        })
    }

    /// Waits for what was begun and answers.
    async fn started(
        &self,
        started: Started,
        wait: Wait,
        caller: &Caller,
    ) -> Result<WorkflowResult, Problem> {
        let id = started.id;
        let waited = self.wait(id, wait.duration, Until::Done, caller).await?;
        let mut result = self.answer(waited, id).await?;
        result.existing = started.existing;
        result.wait_capped_s = wait.capped_s;
        result.pool = started.pool;
        result.why = started.why.map(route_why);
        Ok(result)
    }
}

impl Core {
    async fn expand(&self, selection: Selection, field: &str) -> Result<Vec<RepoPath>, Problem> {
        let found = self.repos.expand(selection).await;
        found.map_err(|error| {
            let mut problem = error.problem();
            // The starters call the same argument differently.
            if problem
                .field
                .as_deref()
                .is_none_or(|named| named == "repos")
            {
                problem.field = Some(field.to_owned());
            }
            problem
        })
    }

    /// Returns the workflow that a request with the same key and arguments began.
    async fn known(&self, request: &Request) -> Result<Option<WorkflowId>, Problem> {
        let Some(key) = &request.options.idempotency_key else {
            return Ok(None);
        };
        if key.is_empty() || key.len() > KEY_BYTES {
            return Err(Problem::argument(
                "idempotency_key",
                "it is empty or too long",
                format!("1 to {KEY_BYTES} bytes"),
            ));
        }
        let known = self.store.workflow_by_key(key.clone()).await;
        let known = known.map_err(|error| error.problem())?;
        known
            .map(|known| same_request(known, &request.hash))
            .transpose()
    }

    /// Checks all that can be checked without looking for repositories.
    fn plan(&self, request: Request) -> Result<Plan, Problem> {
        let Request { options, hash, .. } = request;
        let key = options.idempotency_key.clone();
        let work = arguments::work(options.task, options.command)?;
        let setup = arguments::lines("setup", &options.setup)?;
        let verify = arguments::lines("verify", &options.verify)?;
        let wanted = Filter {
            pools: options.pools,
            labels: options.labels,
            workers: options.workers,
        };
        let filter = self.narrow(wanted.clone(), &work, &setup, &verify)?;
        let per_repo = per_repo(&options.per_repo, &work)?;
        let isolation = options.isolation.unwrap_or(match work {
            Work::Task(_) => Isolation::Worktree,
            Work::Command(_) => Isolation::InPlace,
        });
        let wants_base = options.base_ref.is_some();
        let base_ref = base_ref(options.base_ref)?;
        needs_worktree("base_ref", wants_base, isolation)?;
        needs_worktree("copy_files", !options.copy_files.is_empty(), isolation)?;
        copied_files(&options.copy_files)?;
        let limit = |field, value| arguments::seconds(field, value, 0.001..=MAX_SECONDS);
        let settings = Settings {
            filter,
            asked: Some(wanted),
            isolation,
            isolation_by_default: options.isolation.is_none(),
            base_ref,
            setup,
            verify,
            copy_files: options.copy_files,
            max_parallel: arguments::count("max_parallel", options.max_parallel, 1..=1_000_000)?,
            timeout: limit("timeout_s", options.timeout_s)?,
            stall: limit("stall_s", options.stall_s)?,
            run_timeout: limit("run_timeout_s", options.run_timeout_s)?,
            retries: arguments::count("retries", options.retries, 0..=10)?.unwrap_or(0),
            repeat: arguments::count("repeat", options.repeat, 1..=20)?.unwrap_or(1),
            max_failures: arguments::count("max_failures", options.max_failures, 1..=1_000_000)?,
            on_interrupt: options.on_interrupt.unwrap_or_default(),
        };
        Ok(Plan {
            work,
            settings,
            per_repo,
            dry_run: options.dry_run,
            key,
            hash,
        })
    }

    /// Narrows a choice of pools to those whose workers would take the work, and refuses one that leaves none.
    pub(crate) fn narrow(
        &self,
        mut filter: Filter,
        work: &Work,
        setup: &[Vec<String>],
        verify: &[Vec<String>],
    ) -> Result<Filter, Problem> {
        self.known_pools(&filter.pools)?;
        for worker in &filter.workers {
            if !self.workers.contains_key(worker) {
                return Err(arguments::unknown(
                    "workers",
                    "worker kind",
                    worker,
                    self.workers.keys().map(String::as_str),
                    "the config file defines the worker kinds",
                ));
            }
        }
        let (matching, are_all) = self.pools.kinds_in(&filter);
        if matching.is_empty() {
            return Err(no_pool(&filter));
        }
        let mut refusal = None;
        let mut willing = Vec::new();
        let kinds = matching.len();
        for name in matching {
            let Some(worker) = self.workers.get(&name) else {
                continue;
            };
            match takes(
                worker.as_ref(),
                work,
                &[("setup", setup), ("verify", verify)],
            ) {
                Ok(()) => willing.push(name),
                Err(problem) => refusal = Some(better(refusal, problem)),
            }
        }
        if let (true, Some(problem)) = (willing.is_empty(), refusal) {
            return Err(problem);
        }
        filter.workers = if are_all && willing.len() == kinds {
            Vec::new()
        } else {
            willing
        };
        Ok(filter)
    }

    /// Refuses names that no pool has.
    pub(crate) fn known_pools(&self, pools: &[PoolName]) -> Result<(), Problem> {
        let Some(missing) = self.pools.missing(pools) else {
            return Ok(());
        };
        let names = self.pools.names();
        Err(arguments::unknown(
            "pools",
            "pool",
            missing.as_str(),
            names.iter().map(PoolName::as_str),
            "list_pools lists the pools",
        ))
    }

    /// Journals a workflow with its items.
    async fn journal(
        &self,
        plan: Plan,
        repos: Vec<RepoPath>,
        single: bool,
    ) -> Result<Journaled, Problem> {
        let items = repos.len() * plan.settings.repeat as usize;
        let limit = self.config.limits.max_items;
        if items > limit as usize {
            return Err(Problem::argument(
                "repos",
                format!("{items} items are too many for one workflow"),
                format!("up to {limit} items (repositories times repeat)"),
            )
            .with_hint(format!(
                "split the repositories over several calls, or raise `max_items` under [limits] in {}",
                self.config_file.display()
            )));
        }
        let state = if plan.dry_run {
            ItemState::Planned
        } else {
            ItemState::Queued
        };
        let mut works = Vec::with_capacity(items);
        for repo in &repos {
            for _ in 0..plan.settings.repeat {
                let item = u32::try_from(works.len()).unwrap_or(u32::MAX);
                works.push(ItemWork {
                    item,
                    repo: repo.as_str().to_owned(),
                    work: work_for(&plan, repo),
                });
            }
        }
        let mut records: Vec<ItemRecord> = works
            .iter()
            .map(|work| ItemRecord::unstarted(work.item, work.repo.clone(), state))
            .collect();
        if plan.dry_run {
            self.foresee(&plan.settings, &repos, &mut records).await;
        }
        let record = WorkflowRecord {
            id: WorkflowId::new(),
            title: title(&plan.work),
            owner: self.store.server_id(),
            created_at: At::now(),
            single,
            settings: plan.settings,
            idempotency_key: plan.key,
            arguments_hash: plan.hash,
        };
        let pairs: Vec<(ItemWork, ItemRecord)> = works.into_iter().zip(records).collect();
        let pairs = Arc::new(pairs);
        let created = self
            .store
            .create_workflow(record.clone(), Arc::clone(&pairs))
            .await;
        // The store has let go of them by now, so that nothing is copied.
        let pairs = Arc::unwrap_or_clone(pairs);
        match created.map_err(|error| error.problem())? {
            Created::New => Ok(Journaled::New(Arc::new(Run::new(record, pairs, 1)))),
            // A call with the same key was faster.
            Created::Existing(existing) => {
                same_request(existing, &record.arguments_hash).map(Journaled::Existing)
            }
        }
    }
}

/// Returns the id of the workflow that `existing` is, which must have been asked for in the same words.
fn same_request(existing: WorkflowRecord, hash: &str) -> Result<WorkflowId, Problem> {
    if existing.arguments_hash == hash {
        return Ok(existing.id);
    }
    Err(Problem {
        kind: ErrorKind::Conflict,
        ..Problem::argument(
            "idempotency_key",
            format!(
                "key {:?} belongs to workflow {} ({}), which was started with other arguments",
                existing.idempotency_key.unwrap_or_default(),
                existing.id,
                existing.title
            ),
            "the same arguments as before, or another key",
        )
    }
    .with_hint(format!(
        "get_workflow {} tells how that one stands",
        existing.id
    )))
}

/// Returns the SHA-256 of what the caller asked for, apart from how long to wait.
fn hash(field: &str, specs: &[String], options: &StartOptions) -> String {
    let mut options = options.clone();
    options.wait_s = None;
    options.idempotency_key = None;
    // These structs serialise to JSON without fail: their maps have string keys and their numbers are checked.
    let json = serde_json::to_vec(&(field, specs, options)).unwrap_or_default();
    Sha256::digest(json)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn takes(
    worker: &dyn Worker,
    work: &Work,
    stages: &[(&str, &[Vec<String>])],
) -> Result<(), Problem> {
    worker.check(work)?;
    for (field, lines) in stages {
        for program in lines.iter().filter_map(|line| line.first()) {
            worker.check_program(field, program)?;
        }
    }
    Ok(())
}

/// Returns the refusal that says more: one by `allow` before one of the kind.
fn better(old: Option<Problem>, new: Problem) -> Problem {
    match old {
        Some(old) if old.kind == ErrorKind::Forbidden => old,
        _ => new,
    }
}

fn no_pool(filter: &Filter) -> Problem {
    let (field, allowed) = if filter.labels.is_empty() {
        ("workers", "worker kinds of the pools asked for")
    } else {
        ("labels", "labels that at least one of the pools has all of")
    };
    Problem::argument(field, "no pool fits what was asked for", allowed)
        .with_hint("list_pools tells each pool's worker and labels")
}

fn base_ref(text: Option<String>) -> Result<BaseRef, Problem> {
    match text.as_deref() {
        None | Some("head") => Ok(BaseRef::Head),
        Some("default_branch") => Ok(BaseRef::DefaultBranch),
        Some("working_copy") => Ok(BaseRef::WorkingCopy),
        Some(name) if name.is_empty() || name.starts_with('-') || name.contains(['\0', '\n']) => {
            Err(Problem::argument(
                "base_ref",
                format!("{name:?} cannot be a ref"),
                "head, default_branch, working_copy, or a branch, tag or commit",
            ))
        }
        Some(name) => Ok(BaseRef::Ref(name.to_owned())),
    }
}

/// Refuses an argument that means nothing where an item works in the user's own working copy.
fn needs_worktree(field: &str, given: bool, isolation: Isolation) -> Result<(), Problem> {
    if !given || isolation != Isolation::InPlace {
        return Ok(());
    }
    Err(Problem::argument(
        field,
        format!("{field} means nothing with isolation in_place, which works in the working copy as it is"),
        format!("{field} with isolation worktree or read_only"),
    )
    .with_hint("a command's isolation is in_place unless you say another"))
}

/// Refuses paths and globs of `copy_files` that lead out of the repository.
fn copied_files(files: &[String]) -> Result<(), Problem> {
    match files.iter().position(|file| !is_inside(file)) {
        None => Ok(()),
        Some(at) => Err(Problem::argument(
            format!("copy_files[{at}]"),
            format!("{:?} is not a path inside the repository", files[at]),
            "paths or globs from the repository's top, without a leading '/', '..' or '.git'",
        )),
    }
}

fn per_repo(lines: &[String], work: &Work) -> Result<Vec<(globset::GlobMatcher, String)>, Problem> {
    const ALLOWED: &str = "\"GLOB: text\", such as \"web-*: also update the lock file\"";
    if let (false, Work::Command(_)) = (lines.is_empty(), work) {
        return Err(Problem::argument(
            "per_repo",
            "per_repo adds to a `task`, and this is a `command`",
            "per_repo with `task` only",
        ));
    }
    let parse = |(number, line): (usize, &String)| {
        let place = format!("per_repo[{number}]");
        let refuse = |why: String| Problem::argument(place.clone(), why, ALLOWED);
        let (glob, text) = line
            .split_once(": ")
            .ok_or_else(|| refuse(format!("{line:?} has no \": \"")))?;
        let glob = globset::Glob::new(glob.trim()).map_err(|error| refuse(error.to_string()))?;
        Ok((glob.compile_matcher(), text.trim().to_owned()))
    };
    lines.iter().enumerate().map(parse).collect()
}

fn work_for(plan: &Plan, repo: &RepoPath) -> Work {
    let Work::Task(task) = &plan.work else {
        return plan.work.clone();
    };
    let mut task = task.clone();
    for (glob, text) in &plan.per_repo {
        if glob.is_match(repo.name()) || glob.is_match(repo.as_str()) {
            task.push_str("\n\n");
            task.push_str(text);
        }
    }
    Work::Task(task)
}

fn title(work: &Work) -> String {
    let text = match work {
        Work::Task(task) => task.lines().next().unwrap_or_default().to_owned(),
        Work::Command(argv) => shell_words::join(argv),
    };
    let text = crate::redact::redact(&text);
    match text.char_indices().nth(TITLE_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_string(),
    }
}
