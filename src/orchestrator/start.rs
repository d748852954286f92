//! Starting a workflow: arguments to a checked plan, the journal, then the engine.

use super::arguments::{self, MAX_SECONDS};
use super::follow::Until;
use super::router::{Exclusion, Why};
use super::workflow::Run;
use super::{Core, Orchestrator};
use crate::api::{
    Caller, Candidate, Excluded, RouteWhy, StartMany, StartOne, StartOptions, WorkflowResult,
};
use crate::error::{ErrorKind, Fault, Problem};
use crate::model::{
    At, BaseRef, Filter, Isolation, ItemRecord, ItemState, ItemWork, PoolName, Settings, Work,
    WorkflowId, WorkflowRecord,
};
use crate::pool::worker::Worker;
use crate::repo::{RepoPath, Selection};
use crate::store::Created;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
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

/// What was journaled.
enum Journaled {
    New(Arc<Run>),
    Existing(WorkflowId),
}

impl Orchestrator {
    /// Runs one task on the freest worker.
    pub(super) async fn start_one(
        &self,
        args: StartOne,
        caller: &Caller,
    ) -> Result<WorkflowResult, Problem> {
        let wait = caller.wait(args.wait_s, Caller::DEFAULT_WAIT)?;
        let (repo, options) = args.split();
        let selection = Selection {
            specs: vec![repo],
            exclude: options.exclude.clone(),
            has_file: options.has_file.clone(),
        };
        let plan = self.0.plan("repo", &selection.specs, options)?;
        let repos = self.0.expand(selection, "repo").await?;
        if let [first, second, ..] = repos.as_slice() {
            return Err(Problem::argument(
                "repo",
                format!("it fits several repositories, {first} and {second} among them"),
                "one repository",
            )
            .with_hint("execute_workflow_parallel takes many"));
        }
        let filter = plan.settings.filter.clone();
        let planned = plan.dry_run;
        let repeated = plan.settings.repeat > 1;
        let why = self.0.pools.explain(&filter, WHY_ROWS);
        // The slot is taken before anything is journaled: a refusal leaves no trace.
        let routed = match planned || repeated {
            true => None,
            false => Some(self.0.engine.route(&filter)?),
        };
        let mut pool = None;
        let (id, existing) = match self.0.journal(plan, repos, !repeated).await? {
            Journaled::Existing(id) => (id, true),
            Journaled::New(run) => {
                let id = run.id();
                match routed {
                    Some(routed) => pool = Some(self.0.engine.take_up_routed(run, routed)),
                    None if !planned => self.0.engine.take_up(run),
                    None => {}
                }
                (id, false)
            }
        };
        self.wait(id, wait.duration, Until::Done, caller).await?;
        let mut result = self.answer(id).await?;
        result.existing = existing;
        result.wait_capped_s = wait.capped_s;
        if pool.is_some() {
            result.pool = pool;
            result.why = Some(route_why(why));
        }
        Ok(result)
    }

    /// Runs a task over many repositories.
    pub(super) async fn start_many(
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
        let selection = Selection {
            specs,
            exclude: options.exclude.clone(),
            has_file: options.has_file.clone(),
        };
        let plan = self.0.plan("repos", &selection.specs, options)?;
        let planned = plan.dry_run;
        let repos = self.0.expand(selection, "repos").await?;
        let (id, existing) = match self.0.journal(plan, repos, false).await? {
            Journaled::Existing(id) => (id, true),
            Journaled::New(run) => {
                let id = run.id();
                if !planned {
                    self.0.engine.take_up(run);
                }
                (id, false)
            }
        };
        self.wait(id, wait.duration, Until::Done, caller).await?;
        let mut result = self.answer(id).await?;
        result.existing = existing;
        result.wait_capped_s = wait.capped_s;
        Ok(result)
    }
}

impl Core {
    async fn expand(&self, selection: Selection, field: &str) -> Result<Vec<RepoPath>, Problem> {
        let found = self.repos.expand(selection).await;
        found.map_err(|error| {
            let mut problem = error.problem();
            problem.field.get_or_insert_with(|| field.to_owned());
            problem
        })
    }

    /// Checks all that can be checked without looking for repositories.
    fn plan(&self, field: &str, specs: &[String], options: StartOptions) -> Result<Plan, Problem> {
        let hash = hash(field, specs, &options);
        let key = options.idempotency_key.clone();
        if key
            .as_ref()
            .is_some_and(|key| key.is_empty() || key.len() > KEY_BYTES)
        {
            return Err(Problem::argument(
                "idempotency_key",
                "it is empty or too long",
                format!("1 to {KEY_BYTES} bytes"),
            ));
        }
        let work = arguments::work(options.task, options.command)?;
        let setup = arguments::lines("setup", &options.setup)?;
        let verify = arguments::lines("verify", &options.verify)?;
        let wanted = Filter {
            pools: options.pools,
            labels: options.labels,
            workers: options.workers,
        };
        let filter = self.narrow(wanted, &work, &[("setup", &setup), ("verify", &verify)])?;
        let per_repo = per_repo(&options.per_repo, &work)?;
        let isolation = options.isolation.unwrap_or(match work {
            Work::Task(_) => Isolation::Worktree,
            Work::Command(_) => Isolation::InPlace,
        });
        let limit = |field, value| arguments::seconds(field, value, 0.001..=MAX_SECONDS);
        let settings = Settings {
            filter,
            isolation,
            isolation_by_default: options.isolation.is_none(),
            base_ref: base_ref(options.base_ref)?,
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
    fn narrow(
        &self,
        mut filter: Filter,
        work: &Work,
        stages: &[(&str, &[Vec<String>])],
    ) -> Result<Filter, Problem> {
        let names = self.pools.names();
        for pool in &filter.pools {
            if !names.contains(pool) {
                return Err(arguments::unknown(
                    "pools",
                    "pool",
                    pool.as_str(),
                    names.iter().map(PoolName::as_str),
                    "list_pools lists the pools",
                ));
            }
        }
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
        let standing = self.pools.all();
        let all: BTreeSet<&str> = standing
            .iter()
            .map(|pool| pool.spec.worker.as_str())
            .collect();
        let matching: BTreeSet<&str> = standing
            .iter()
            .filter(|pool| filter.pools.is_empty() || filter.pools.contains(&pool.spec.name))
            .filter(|pool| {
                filter
                    .labels
                    .iter()
                    .all(|label| pool.spec.labels.contains(label))
            })
            .map(|pool| pool.spec.worker.as_str())
            .filter(|worker| {
                filter.workers.is_empty() || filter.workers.iter().any(|name| name == worker)
            })
            .collect();
        if matching.is_empty() {
            return Err(no_pool(&filter));
        }
        let mut refusal = None;
        let mut willing = BTreeSet::new();
        for name in matching {
            let Some(worker) = self.workers.get(name) else {
                continue;
            };
            match takes(worker.as_ref(), work, stages) {
                Ok(()) => {
                    willing.insert(name);
                }
                Err(problem) => refusal = Some(better(refusal, problem)),
            }
        }
        if let (true, Some(problem)) = (willing.is_empty(), refusal) {
            return Err(problem);
        }
        filter.workers = if willing == all {
            Vec::new()
        } else {
            willing.into_iter().map(str::to_owned).collect()
        };
        Ok(filter)
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
        let records: Vec<ItemRecord> = works
            .iter()
            .map(|work| ItemRecord::unstarted(work.item, work.repo.clone(), state))
            .collect();
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
        let pairs = works.iter().cloned().zip(records.iter().cloned()).collect();
        let created = self.store.create_workflow(record.clone(), pairs).await;
        match created.map_err(|error| error.problem())? {
            Created::New => Ok(Journaled::New(Arc::new(Run::new(record, works, records, 1)))),
            Created::Existing(existing) if existing.arguments_hash == record.arguments_hash => {
                Ok(Journaled::Existing(existing.id))
            }
            Created::Existing(existing) => Err(Problem {
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
            .with_hint(format!("get_workflow {} tells how that one stands", existing.id))),
        }
    }
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
        None => text.into_owned(),
    }
}

fn route_why(why: Why) -> RouteWhy {
    RouteWhy {
        rule: "least (in_flight + queued) / max_workers; then fewest outstanding tasks; then least recently routed to"
            .to_owned(),
        candidates: why
            .candidates
            .into_iter()
            .map(|(name, load)| Candidate {
                name,
                load: load.ratio(),
                in_flight: load.in_flight,
                queued: load.queued,
                max_workers: load.max_workers,
            })
            .collect(),
        excluded: why
            .excluded
            .into_iter()
            .map(|(name, exclusion)| Excluded {
                name,
                reason: match exclusion {
                    Exclusion::Draining => "draining".to_owned(),
                    Exclusion::Unhealthy => "unreachable".to_owned(),
                    Exclusion::Full => "full".to_owned(),
                    Exclusion::Label(label) => format!("lacks label {label}"),
                    Exclusion::NotNamed => "not among `pools`".to_owned(),
                    Exclusion::Worker => "its worker cannot take this".to_owned(),
                },
            })
            .collect(),
    }
}
