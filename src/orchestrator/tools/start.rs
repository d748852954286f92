//! The starters `route_least_loaded` and `execute_workflow_parallel`: arguments to a checked plan, the journal, then the
//! engine, then waiting for the end.

use super::plan::Plan;
use super::route_why::{all_full, route_why};
use super::wait::Until;
use crate::api::{Caller, StartMany, StartOne, StartOptions, Wait, WorkflowResult};
use crate::error::{ErrorKind, Problem};
use crate::model::{
    At, ItemIndex, ItemRecord, ItemState, ItemWork, PoolName, WorkflowId, WorkflowRecord,
};
use crate::orchestrator::engine::Run;
use crate::orchestrator::routing::Why;
use crate::orchestrator::{Core, Orchestrator};
use crate::panic;
use crate::repo::{RepoPath, Selection};
use crate::store::Created;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// How many candidates and excluded pools a route's explanation names.
const WHY_ROWS: usize = 10;

/// The longest idempotency key, in bytes.
const KEY_BYTES: usize = 200;

/// A start as it was asked for.
struct Request {
    /// The argument that names the repositories: `repo` or `repos`.
    field: &'static str,
    specs: Vec<String>,
    options: StartOptions,
}

/// The caller's idempotency key, and the SHA-256 (hex) of its arguments, by which another request under the same key is
/// recognised.
struct Identity {
    key: Option<String>,
    hash: String,
}

/// A workflow that was begun.
struct Started {
    id: WorkflowId,
    /// Whether an earlier call with the same key began it.
    existing: bool,
    /// The pool that a single task went to; none for a plan and for items that wait for slots.
    pool: Option<PoolName>,
    /// Why it went there, or would.
    why: Option<Why>,
}

impl Started {
    fn new(id: WorkflowId) -> Self {
        Self {
            id,
            existing: false,
            pool: None,
            why: None,
        }
    }

    fn existing(id: WorkflowId) -> Self {
        Self {
            existing: true,
            ..Self::new(id)
        }
    }
}

/// What journaling a request found or made.
enum Journaled {
    New(Arc<Run>),
    Existing(WorkflowId),
}

impl Orchestrator {
    /// Answers `route_least_loaded`.
    pub(super) async fn route_least_loaded(
        &self,
        args: StartOne,
        caller: &Caller,
    ) -> Result<WorkflowResult, Problem> {
        let (repo, options) = args.split();
        self.start("repo", vec![repo], options, caller).await
    }

    /// Answers `execute_workflow_parallel`.
    pub(super) async fn execute_workflow_parallel(
        &self,
        args: StartMany,
        caller: &Caller,
    ) -> Result<WorkflowResult, Problem> {
        let (specs, options) = args.split();
        if specs.is_empty() {
            return Err(Problem::argument(
                "repos",
                "repos is empty",
                "at least one path, name or glob",
            )
            .with_hint("list_repos lists the repositories; [\"*\"] means all of them"));
        }
        self.start("repos", specs, options, caller).await
    }

    async fn start(
        &self,
        field: &'static str,
        specs: Vec<String>,
        options: StartOptions,
        caller: &Caller,
    ) -> Result<WorkflowResult, Problem> {
        let wait = caller.wait(options.wait_s, Caller::DEFAULT_WAIT)?;
        let request = Request {
            field,
            specs,
            options,
        };
        let started = self.begin(request).await?;
        self.answer_started(started, wait, caller).await
    }

    /// Begins the workflow that is asked for, or finds the workflow that the same key began.
    ///
    /// # Cancel safety
    ///
    /// A journaled workflow is taken up even if the future is dropped.
    async fn begin(&self, request: Request) -> Result<Started, Problem> {
        let identity = identity(&request)?;
        // First of all: the workflow is the same whatever happened to pools and repositories since.
        if let Some(id) = self.0.known(&identity).await? {
            return Ok(Started::existing(id));
        }
        let field = request.field;
        let selection = Selection {
            specs: request.specs,
            exclude: request.options.exclude.clone(),
            has_file: request.options.has_file.clone(),
        };
        let plan = self.0.plan(request.options).await?;
        let repos = self.0.expand(selection, field).await?;
        if let ("repo", [first, second, ..]) = (field, repos.as_slice()) {
            return Err(Problem::argument(
                "repo",
                format!("it matches several repositories, such as {first} and {second}"),
                "one repository",
            )
            .with_hint("execute_workflow_parallel takes many"));
        }
        let single = field == "repo" && plan.settings.repeat <= 1;
        let core = self.clone();
        let begun = async move { core.take_up(plan, repos, identity, single).await };
        let begun = panic::propagate(self.0.tasks.spawn(begun).await);
        begun.unwrap_or_else(|| Err(Problem::new(ErrorKind::Internal, "the start was aborted")))
    }

    /// Journals a workflow and takes it up. A single task takes its slot first, so that a refusal leaves no trace.
    async fn take_up(
        &self,
        plan: Plan,
        repos: Vec<RepoPath>,
        identity: Identity,
        single: bool,
    ) -> Result<Started, Problem> {
        let core = &self.0;
        let dry_run = plan.dry_run;
        let routed = match single && !dry_run {
            true => {
                let (routed, why) = core.pools.route(&plan.settings.filter, WHY_ROWS);
                Some((routed.ok_or_else(|| all_full(&why))?, why))
            }
            false => None,
        };
        let _turn = core.engine.starting().await;
        let run = match core.journal(plan, repos, identity, single).await? {
            Journaled::Existing(id) => return Ok(Started::existing(id)),
            Journaled::New(run) => run,
        };
        let mut started = Started::new(run.id());
        match routed {
            Some((routed, why)) => {
                started.pool = Some(core.engine.take_up_routed(run, routed));
                started.why = Some(why);
            }
            None if dry_run => started.why = Some(core.pools.explain(&run.filter(), WHY_ROWS)),
            None => core.engine.take_up(&run),
        }
        Ok(started)
    }

    /// Waits for a workflow that was begun and answers.
    async fn answer_started(
        &self,
        started: Started,
        wait: Wait,
        caller: &Caller,
    ) -> Result<WorkflowResult, Problem> {
        let id = started.id;
        let waited = self.wait(id, wait.duration, Until::Done, caller).await?;
        Ok(WorkflowResult {
            existing: started.existing,
            wait_capped_s: wait.capped_s,
            pool: started.pool,
            why: started.why.map(route_why),
            ..self.answer(waited, id).await?
        })
    }
}

impl Core {
    async fn expand(&self, selection: Selection, field: &str) -> Result<Vec<RepoPath>, Problem> {
        let found = self.repos.expand(selection).await;
        found.map_err(|error| {
            let mut problem = Problem::from(error);
            // The starters name the same argument differently.
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

    /// Returns the workflow that an earlier request with the same key and arguments began.
    async fn known(&self, identity: &Identity) -> Result<Option<WorkflowId>, Problem> {
        let Some(key) = &identity.key else {
            return Ok(None);
        };
        let known = self.store.workflow_by_key(key.clone()).await?;
        known
            .map(|known| same_request(known, &identity.hash))
            .transpose()
    }

    /// Journals a workflow with its items.
    async fn journal(
        &self,
        plan: Plan,
        repos: Vec<RepoPath>,
        identity: Identity,
        single: bool,
    ) -> Result<Journaled, Problem> {
        let items = self.items(&plan, &repos).await?;
        let record = WorkflowRecord {
            id: WorkflowId::new(),
            title: plan.title(),
            owner: self.store.server_id(),
            created_at: At::now(),
            single,
            settings: plan.settings,
            idempotency_key: identity.key,
            arguments_hash: identity.hash,
        };
        let items = Arc::new(items);
        let created = self
            .store
            .create_workflow(record.clone(), Arc::clone(&items))
            .await;
        // The store holds them no longer, so that nothing is copied.
        let items = Arc::unwrap_or_clone(items);
        match created? {
            Created::New => Ok(Journaled::New(Arc::new(Run::new(record, items, 1)))),
            // Another call with the same key was faster.
            Created::Existing(existing) => {
                same_request(existing, &record.arguments_hash).map(Journaled::Existing)
            }
        }
    }

    /// Returns the items of a plan, each repository `repeat` times in a row.
    async fn items(
        &self,
        plan: &Plan,
        repos: &[RepoPath],
    ) -> Result<Vec<(ItemWork, ItemRecord)>, Problem> {
        let repeat = plan.settings.repeat as usize;
        let count = ItemIndex::try_from(repos.len() * repeat).unwrap_or(ItemIndex::MAX);
        let limit = self.config.limits.max_items;
        if count > limit {
            return Err(Problem::argument(
                "repos",
                format!("{count} items are too many for one workflow"),
                format!("up to {limit} items (repositories times repeat)"),
            )
            .with_hint(format!(
                "split the repositories over several calls, or raise `max_items` under [limits] in {}",
                self.config_file.display()
            )));
        }
        let state = match plan.dry_run {
            true => ItemState::Planned,
            false => ItemState::Queued,
        };
        let repeated = repos
            .iter()
            .flat_map(|repo| std::iter::repeat_n(repo, repeat));
        let (works, mut records): (Vec<_>, Vec<_>) = (0..count)
            .zip(repeated)
            .map(|(item, repo)| {
                let work = ItemWork {
                    item,
                    repo: repo.as_str().to_owned(),
                    work: plan.work_on(repo),
                };
                let record = ItemRecord::unstarted(item, work.repo.clone(), state);
                (work, record)
            })
            .unzip();
        if plan.dry_run {
            self.preview(&plan.settings, repos, &mut records).await;
        }
        Ok(works.into_iter().zip(records).collect())
    }
}

/// Returns the identity of a request.
fn identity(request: &Request) -> Result<Identity, Problem> {
    let mut options = request.options.clone();
    // How long to wait makes no other workflow.
    options.wait_s = None;
    let key = options.idempotency_key.take();
    if key
        .as_ref()
        .is_some_and(|key| !(1..=KEY_BYTES).contains(&key.len()))
    {
        return Err(Problem::argument(
            "idempotency_key",
            "it is empty or too long",
            format!("1 to {KEY_BYTES} bytes"),
        ));
    }
    let arguments = (request.field, &request.specs, options);
    let json = serde_json::to_vec(&arguments).map_err(|error| {
        Problem::new(ErrorKind::Internal, format!("hash the arguments: {error}"))
    })?;
    let hash = Sha256::digest(json);
    let hash = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Identity { key, hash })
}

/// Returns the id of `existing`, refusing a request whose arguments are not the ones it was started with.
fn same_request(existing: WorkflowRecord, hash: &str) -> Result<WorkflowId, Problem> {
    if existing.arguments_hash == hash {
        return Ok(existing.id);
    }
    let message = format!(
        "key {:?} belongs to workflow {} ({}), which was started with other arguments",
        existing.idempotency_key.unwrap_or_default(),
        existing.id,
        existing.title
    );
    let allowed = "the same arguments as before, or another key";
    Err(Problem {
        kind: ErrorKind::Conflict,
        ..Problem::argument("idempotency_key", message, allowed)
    }
    .with_hint(format!("get_workflow {} shows that workflow", existing.id)))
}
