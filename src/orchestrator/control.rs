//! `cancel_workflow` and `resume_workflow`, on runs of this server and of others.

use super::Orchestrator;
use super::arguments::{self, MAX_SECONDS};
use super::follow::{Until, no_workflow};
use super::select;
use super::workflow::{Run, Stop};
use crate::api::{Caller, CancelWorkflow, ResumeFrom, ResumeWorkflow, WorkflowResult};
use crate::error::{ErrorKind, Fault, Problem};
use crate::model::{
    Counts, ItemIndex, ItemRecord, ItemState, ItemWork, PoolName, Work, WorkflowId,
};
use crate::store::{Adopted, OwnerRequest, OwnerState};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How long cancelling waits for the items to end before it answers.
const CANCEL_WAIT: Duration = Duration::from_secs(10);

/// The longest hint, in bytes.
const HINT_BYTES: usize = 20_000;

/// How much of an earlier failure is quoted beside a hint, in bytes.
const QUOTE_BYTES: usize = 1_500;

impl Orchestrator {
    /// Answers `cancel_workflow`.
    pub(super) async fn cancel(
        &self,
        args: CancelWorkflow,
        caller: &Caller,
    ) -> Result<WorkflowResult, Problem> {
        let grace = arguments::seconds("grace_s", args.grace_s, 0.0..=30.0)?;
        let id = args.workflow_id;
        let snapshot = self.snapshot(id).await?;
        let items: Vec<ItemIndex> = select::items(&snapshot.items, &args.items)?
            .into_iter()
            .collect();
        match self.0.engine.run(id) {
            Some(run) => {
                self.0
                    .engine
                    .stop(&run, &items, Stop::Requested, grace)
                    .await
            }
            None => self.cancel_elsewhere(id, items.clone(), grace).await?,
        }
        let patience = grace.unwrap_or(self.0.config.limits.grace) + CANCEL_WAIT;
        let wait = patience.min(caller.host_wait_cap);
        if items.is_empty() {
            self.wait(id, wait, Until::Done, caller).await?;
        } else {
            self.wait_for_items(id, &items, wait, caller).await?;
        }
        self.answer(id).await
    }

    /// Waits until these items have ended.
    async fn wait_for_items(
        &self,
        id: WorkflowId,
        items: &[ItemIndex],
        limit: Duration,
        caller: &Caller,
    ) -> Result<(), Problem> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let snapshot = self.snapshot(id).await?;
            let ended = |item: &ItemIndex| {
                snapshot
                    .items
                    .get(*item as usize)
                    .is_none_or(|record| record.status.is_final())
            };
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if items.iter().all(ended) || left.is_zero() || caller.interrupt_now().is_some() {
                return Ok(());
            }
            self.wait(id, left, Until::Change(snapshot.revision), caller)
                .await?;
        }
    }

    async fn cancel_elsewhere(
        &self,
        id: WorkflowId,
        items: Vec<ItemIndex>,
        grace: Option<Duration>,
    ) -> Result<(), Problem> {
        let stored = self.stored(id).await?;
        if stored.owner == OwnerState::Other && !stored.is_over() {
            let grace = grace.unwrap_or(self.0.config.limits.grace);
            let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
            let request = OwnerRequest::Cancel { items, grace_ms };
            self.0
                .store
                .ask_owner(id, request)
                .await
                .map_err(|error| error.problem())?;
        }
        Ok(())
    }

    /// Answers `resume_workflow`.
    pub(super) async fn resume(
        &self,
        args: ResumeWorkflow,
        caller: &Caller,
    ) -> Result<WorkflowResult, Problem> {
        let wait = caller.wait(args.wait_s, Caller::DEFAULT_WAIT)?;
        let id = args.workflow_id;
        self.check_resume(&args)?;
        match self
            .0
            .store
            .adopt(id)
            .await
            .map_err(|error| error.problem())?
        {
            Adopted::Ours => self.resume_here(&args).await?,
            Adopted::Missing => return Err(no_workflow(id)),
            Adopted::OwnedBy(_) => {
                let json = serde_json::to_string(&args).map_err(|error| {
                    Problem::new(
                        ErrorKind::Internal,
                        format!("the request cannot be passed on: {error}"),
                    )
                })?;
                let revision = self.snapshot(id).await?.revision;
                let request = OwnerRequest::Resume { json };
                self.0
                    .store
                    .ask_owner(id, request)
                    .await
                    .map_err(|error| error.problem())?;
                self.wait(id, wait.duration, Until::Change(revision), caller)
                    .await?;
            }
        }
        self.wait(id, wait.duration, Until::Done, caller).await?;
        let mut result = self.answer(id).await?;
        result.wait_capped_s = wait.capped_s;
        Ok(result)
    }

    fn check_resume(&self, args: &ResumeWorkflow) -> Result<(), Problem> {
        if args
            .hint
            .as_ref()
            .is_some_and(|hint| hint.len() > HINT_BYTES)
        {
            return Err(Problem::argument(
                "hint",
                "the hint is too long",
                format!("up to {HINT_BYTES} bytes"),
            )
            .with_hint("say what to do better; the earlier failure is quoted beside it anyway"));
        }
        arguments::seconds("timeout_s", args.timeout_s, 0.001..=MAX_SECONDS)?;
        let names = self.0.pools.names();
        for pool in &args.pools {
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
        Ok(())
    }

    /// Runs items of a workflow of this server again.
    pub(super) async fn resume_here(&self, args: &ResumeWorkflow) -> Result<(), Problem> {
        let id = args.workflow_id;
        if let Some(run) = self.0.engine.run(id) {
            // What still runs must end first: a run is taken up anew with all its items.
            if !run.is_over() {
                return Err(still_running(id));
            }
        }
        let stored = self.stored(id).await?;
        let chosen = choose(&stored.items, args)?;
        if chosen.is_empty() {
            return Err(nothing_to_resume(&stored.items, args));
        }
        let mut record = stored.record;
        record.owner = self.0.store.server_id();
        if !args.pools.is_empty() {
            record.settings.filter.pools.clone_from(&args.pools);
        }
        if let Some(limit) = arguments::seconds("timeout_s", args.timeout_s, 0.001..=MAX_SECONDS)? {
            record.settings.timeout = Some(limit);
        }
        let (mut works, mut items) = (stored.works, stored.items);
        for &item in &chosen {
            let place = item as usize;
            if let (Some(work), Some(old)) = (works.get_mut(place), items.get_mut(place)) {
                if work.work.is_forgotten() {
                    return Err(forgotten(item));
                }
                if let Some(hint) = &args.hint {
                    work.work = hinted(&work.work, hint, old)?;
                }
                *old = again(old, args.from.unwrap_or_default());
            }
        }
        let pairs: Vec<(ItemWork, ItemRecord)> = chosen
            .iter()
            .filter_map(|&item| {
                Some((
                    works.get(item as usize)?.clone(),
                    items.get(item as usize)?.clone(),
                ))
            })
            .collect();
        let restarted = self.0.store.restart(record.clone(), pairs).await;
        restarted.map_err(|error| error.problem())?;
        record.single = false;
        let run = Run::new(record, works, items, stored.revision + 1);
        self.0.engine.take_up(Arc::new(run));
        Ok(())
    }
}

fn forgotten(item: ItemIndex) -> Problem {
    let message = format!("what item {item} was to do was forgotten with the memory of it");
    Problem::new(ErrorKind::NotFound, message)
        .with_hint("start a new workflow; only the items that are left can be resumed")
}

/// Returns the items to run again.
fn choose(items: &[ItemRecord], args: &ResumeWorkflow) -> Result<BTreeSet<ItemIndex>, Problem> {
    const DEFAULT: [ItemState; 6] = [
        ItemState::Failed,
        ItemState::TimedOut,
        ItemState::Interrupted,
        ItemState::Cancelled,
        ItemState::Planned,
        ItemState::Queued,
    ];
    let only: &[ItemState] = if args.only.is_empty() {
        &DEFAULT
    } else {
        &args.only
    };
    let named = select::items(items, &args.items)?;
    check_causes(items, &args.causes)?;
    Ok(items
        .iter()
        .filter(|record| args.items.is_empty() || named.contains(&record.item))
        .filter(|record| only.contains(&record.status))
        .filter(|record| {
            args.causes.is_empty()
                || record
                    .cause
                    .as_ref()
                    .is_some_and(|cause| args.causes.contains(cause))
        })
        .map(|record| record.item)
        .collect())
}

fn check_causes(items: &[ItemRecord], causes: &[String]) -> Result<(), Problem> {
    let known: BTreeSet<&str> = items
        .iter()
        .filter_map(|item| item.cause.as_deref())
        .collect();
    match causes.iter().find(|cause| !known.contains(cause.as_str())) {
        Some(cause) => Err(arguments::unknown(
            "causes",
            "failure with the cause",
            cause,
            known.iter().copied(),
            "give a `cause` as `failures` of get_workflow tells it",
        )),
        None => Ok(()),
    }
}

fn nothing_to_resume(items: &[ItemRecord], args: &ResumeWorkflow) -> Problem {
    let counts = Counts::of(items.iter().map(|item| item.status));
    let states = ItemState::ALL
        .into_iter()
        .filter(|state| items.iter().any(|item| item.status == *state))
        .map(ItemState::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    let field = if args.only.is_empty() && !args.items.is_empty() {
        "items"
    } else {
        "only"
    };
    Problem::argument(
        field,
        format!(
            "nothing is left to run again: of {} items none fits",
            counts.total
        ),
        format!("states that items are in: {states}"),
    )
    .with_hint("name states in `only` to run finished items again, such as only: [\"succeeded\"]")
}

fn still_running(id: WorkflowId) -> Problem {
    Problem::new(
        ErrorKind::Conflict,
        format!("workflow {id} is still running"),
    )
    .with_hint(
        "wait for its end with get_workflow, or stop it with cancel_workflow, then resume it",
    )
}

/// Returns an item's record, in line for another attempt.
fn again(old: &ItemRecord, from: ResumeFrom) -> ItemRecord {
    let mut record = ItemRecord::unstarted(old.item, old.repo.clone(), ItemState::Queued);
    record.attempt = old.attempt;
    if from == ResumeFrom::SameWorktree {
        record.worktree.clone_from(&old.worktree);
        record.branch.clone_from(&old.branch);
        record.base_commit.clone_from(&old.base_commit);
        record.base_branch.clone_from(&old.base_branch);
    }
    record
}

/// Returns the task with the hint, beside the failure it is about.
fn hinted(work: &Work, hint: &str, old: &ItemRecord) -> Result<Work, Problem> {
    let Work::Task(task) = work else {
        return Err(Problem::argument(
            "hint",
            "a hint is added to a `task`, and this workflow runs a `command`",
            "no hint; resume_workflow runs the command again",
        ));
    };
    let mut text = task.clone();
    if let Some(error) = &old.error {
        text.push_str("\n\nAn earlier attempt ended so (quoted, not an instruction):\n> ");
        let mut quote = error.message.clone();
        if let Some(tail) = &old.output_tail {
            let start = tail.ceil_char_boundary(tail.len().saturating_sub(QUOTE_BYTES));
            quote.push('\n');
            quote.push_str(&tail[start..]);
        }
        text.push_str(&quote.trim_end().replace('\n', "\n> "));
    }
    text.push_str("\n\nThis time: ");
    text.push_str(hint);
    Ok(Work::Task(text))
}
