//! `cancel_workflow` and `resume_workflow`, on runs of this server and of others.

use super::arguments;
use super::arguments::MAX_SECONDS;
use super::select;
use super::watch::{Until, no_workflow};
use crate::api::{Caller, CancelWorkflow, ResumeFrom, ResumeWorkflow, WorkflowResult};
use crate::error::{ErrorKind, Fault, Problem};
use crate::model::{
    Counts, ItemIndex, ItemRecord, ItemState, ItemWork, PoolName, Settings, Work, WorkflowId,
};
use crate::orchestrator::Orchestrator;
use crate::orchestrator::engine::{Run, Stop};
use crate::store::{Adopted, OwnerRequest, OwnerState};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How long cancelling waits for the items to end before it answers.
const CANCEL_WAIT: Duration = Duration::from_secs(10);

/// How long the owner of a workflow may take to answer a request, and how often its answer is looked for.
const ASK_LIMIT: Duration = Duration::from_secs(10);
const ASK_POLL: Duration = Duration::from_millis(50);

/// The longest hint, in bytes.
const HINT_BYTES: usize = 20_000;

/// How much of an earlier failure is quoted beside a hint, in bytes.
const QUOTE_BYTES: usize = 1_500;

impl Orchestrator {
    /// Answers `cancel_workflow`.
    pub(crate) async fn cancel(
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
            None => {
                self.cancel_elsewhere(id, items.clone(), grace, caller)
                    .await?;
            }
        }
        let patience = grace.unwrap_or(self.0.config.limits.grace) + CANCEL_WAIT;
        let wait = patience.min(caller.host_wait_cap);
        let waited = if items.is_empty() {
            self.wait(id, wait, Until::Done, caller).await?
        } else {
            self.wait_for_items(id, &items, wait, caller).await?;
            None
        };
        self.answer(waited, id).await
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
        caller: &Caller,
    ) -> Result<(), Problem> {
        let stored = self.stored(id).await?;
        if stored.owner == OwnerState::Other && !stored.is_over() {
            let grace = grace.unwrap_or(self.0.config.limits.grace);
            let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
            let request = OwnerRequest::Cancel { items, grace_ms };
            self.ask(id, request, caller).await?;
        }
        Ok(())
    }

    /// Asks a workflow's owner for something and returns its answer.
    async fn ask(
        &self,
        id: WorkflowId,
        request: OwnerRequest,
        caller: &Caller,
    ) -> Result<(), Problem> {
        let store = &self.0.store;
        let number = store.ask_owner(id, request).await;
        let number = number.map_err(|error| error.problem())?;
        let answered = async {
            loop {
                match store.answer_to(number).await {
                    Ok(Some(answer)) => return answer,
                    Ok(None) => tokio::time::sleep(ASK_POLL).await,
                    Err(error) => return Err(error.problem()),
                }
            }
        };
        let answer = tokio::select! {
            answer = tokio::time::timeout(ASK_LIMIT, answered) => answer.unwrap_or_else(|_| Err(unanswered(id))),
            _ = caller.interrupted() => Err(unanswered(id)),
        };
        // What was not taken by now must not be done behind the caller's back.
        if let Err(error) = store.withdraw_request(number).await {
            tracing::warn!(%error, "a request could not be withdrawn");
        }
        answer
    }

    /// Answers `resume_workflow`.
    pub(crate) async fn resume(
        &self,
        args: ResumeWorkflow,
        caller: &Caller,
    ) -> Result<WorkflowResult, Problem> {
        let wait = caller.wait(args.wait_s, Caller::DEFAULT_WAIT)?;
        let id = args.workflow_id;
        self.check_resume(&args)?;
        if let Adopted::OwnedBy(_) = self.resume_mine(&args).await? {
            let json = serde_json::to_string(&args).map_err(|error| {
                Problem::new(
                    ErrorKind::Internal,
                    format!("the request cannot be passed on: {error}"),
                )
            })?;
            self.ask(id, OwnerRequest::Resume { json }, caller).await?;
        }
        let waited = self.wait(id, wait.duration, Until::Done, caller).await?;
        let mut result = self.answer(waited, id).await?;
        result.wait_capped_s = wait.capped_s;
        Ok(result)
    }

    /// Runs items again of a workflow that is this server's, or becomes it because nobody runs it; does nothing where
    /// another live server does.
    pub(crate) async fn resume_mine(&self, args: &ResumeWorkflow) -> Result<Adopted, Problem> {
        let id = args.workflow_id;
        // From here to the taking up: of two calls at once the second one finds what the first one made of it.
        let _turn = self.0.engine.resuming().await;
        let adopted = self.0.store.adopt(id).await;
        let adopted = adopted.map_err(|error| error.problem())?;
        match adopted {
            Adopted::Ours => self.resume_here(args).await?,
            Adopted::Missing => return Err(no_workflow(id)),
            Adopted::OwnedBy(_) => {}
        }
        Ok(adopted)
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
        self.0.known_pools(&args.pools)
    }

    async fn resume_here(&self, args: &ResumeWorkflow) -> Result<(), Problem> {
        let id = args.workflow_id;
        let engine = &self.0.engine;
        let run = engine.run(id).filter(|run| !run.is_over());
        let mut stored = self.stored(id).await?;
        if run.is_none() && !stored.is_over() {
            self.give_up(id).await?;
            stored = self.stored(id).await?;
        }
        let mut chosen = choose(&stored.items, args)?;
        if let Some(run) = &run {
            let busy = |item: &ItemIndex| !may_resume(run, &stored.items, *item);
            let unnamed = args.only.is_empty() && args.causes.is_empty();
            if chosen.iter().all(busy) && (unnamed || !chosen.is_empty()) {
                return Err(still_running(id));
            }
            chosen.retain(|item| !busy(item));
        }
        if chosen.is_empty() {
            return Err(nothing_to_resume(&stored.items, args));
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
        let mut record = stored.record;
        record.owner = self.0.store.server_id();
        if let Some(limit) = arguments::seconds("timeout_s", args.timeout_s, 0.001..=MAX_SECONDS)? {
            record.settings.timeout = Some(limit);
        }
        let all: Vec<(ItemWork, ItemRecord)> = works.into_iter().zip(items).collect();
        let pairs: Vec<_> = all
            .iter()
            .filter(|(work, _)| chosen.contains(&work.item))
            .cloned()
            .collect();
        if let Some((work, _)) = pairs.first() {
            self.narrow_again(&mut record.settings, &args.pools, &work.work)?;
        }
        let restarted = self.0.store.restart(record.clone(), pairs.clone()).await;
        let revision = restarted.map_err(|error| error.problem())?;
        let goes_on = run.is_some_and(|run| {
            engine.go_on(&run, |run| run.resume(record.clone(), pairs, revision))
        });
        if !goes_on {
            engine.take_up(&Arc::new(Run::new(record, all, revision)));
        }
        Ok(())
    }

    /// Narrows the choice of pools anew: they may have changed since, and so may what their workers take.
    fn narrow_again(
        &self,
        settings: &mut Settings,
        pools: &[PoolName],
        work: &Work,
    ) -> Result<(), Problem> {
        let mut asked = settings
            .asked
            .clone()
            .unwrap_or_else(|| settings.filter.clone());
        if !pools.is_empty() {
            asked.pools = pools.to_vec();
        }
        let narrowed = self
            .0
            .narrow(asked.clone(), work, &settings.setup, &settings.verify);
        settings.filter = narrowed.map_err(|problem| match problem.hint {
            Some(_) => problem,
            None => problem.with_hint("give `pools` to run it elsewhere; list_pools lists them"),
        })?;
        settings.asked = Some(asked);
        Ok(())
    }
}

/// Returns whether an item of a live run can be put in line again: it has ended or was never started.
fn may_resume(run: &Run, items: &[ItemRecord], item: ItemIndex) -> bool {
    let waits =
        |record: &ItemRecord| matches!(record.status, ItemState::Queued | ItemState::Running);
    !items.get(item as usize).is_none_or(waits) && run.is_idle(item)
}

fn unanswered(id: WorkflowId) -> Problem {
    Problem::new(
        ErrorKind::TimedOut,
        format!("the server that runs workflow {id} has not answered"),
    )
    .with_hint("get_workflow tells how the workflow stands; then call again")
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
