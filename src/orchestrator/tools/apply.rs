//! `apply_changes`: applies items' commits to the user's repositories, all of one repository or none.

use super::applied::{has_changes, is_applied_as, row};
use super::page::{Budget, PAGE_BYTES, bad_cursor};
use super::select;
use crate::api::{Applied, ApplyChanges, ApplyChangesResult, ApplyHow};
use crate::error::{ErrorKind, Problem};
use crate::model::{CheckStatus, ItemIndex, ItemRecord, ItemState, Risk, RiskKind, WorkflowId};
use crate::orchestrator::Orchestrator;
use crate::repo::{ApplyOutcome, ApplyRequest, Change, How, Obstacles};
use futures_util::{StreamExt, stream};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How many file names one row lists.
const FILES_LISTED: usize = 20;

/// How many repositories are worked on at once.
const AT_ONCE: usize = 4;

/// How long one call continues with further repositories; hosts wait for 60 s at least.
const BUDGET: Duration = Duration::from_secs(30);

/// How the items of one call are applied.
#[derive(Clone, Copy)]
struct Order {
    id: WorkflowId,
    how: How,
    /// Only report what would happen.
    check_only: bool,
    /// When no further repository is begun.
    deadline: Instant,
}

impl Orchestrator {
    /// Answers `apply_changes`.
    pub(super) async fn apply_changes(
        &self,
        args: ApplyChanges,
    ) -> Result<ApplyChangesResult, Problem> {
        let id = args.workflow_id;
        let mut snapshot = self.snapshot(id).await?;
        self.fill_in_applied(&mut snapshot).await?;
        if !args.undo.is_empty() {
            let rows = self.undo_applies(&args, &snapshot.items).await?;
            return Ok(ApplyChangesResult {
                // A call for the next page would undo again.
                cursor: None,
                ..page(id, rows)
            });
        }
        let from = args.cursor.as_deref().map(str::parse::<ItemIndex>);
        let from = from.transpose().map_err(|_| bad_cursor())?;
        let mut chosen = choose(&snapshot.items, &args)?;
        chosen.retain(|record| record.item >= from.unwrap_or(0));
        let order = Order {
            id,
            how: how(&args),
            // What the first page's call did is only reported again.
            check_only: args.check_only || from.is_some(),
            deadline: Instant::now() + BUDGET,
        };
        let rows = self.apply_items(order, chosen, &args.allow_risks).await;
        if !order.check_only {
            self.note_applied(id).await;
        }
        Ok(page(id, rows))
    }

    async fn apply_items(
        &self,
        order: Order,
        chosen: Vec<ItemRecord>,
        allowed: &[RiskKind],
    ) -> Vec<Applied> {
        let mut rows = Vec::new();
        let mut by_repo: BTreeMap<String, Vec<ItemRecord>> = BTreeMap::new();
        for record in chosen {
            if is_applied_as(&record, order.how) {
                rows.push(already_applied(&record, record.undo.clone()));
            } else if let Some(problem) = refused_risks(&record, allowed) {
                rows.push(refused(&record, &problem));
            } else {
                by_repo.entry(record.repo.clone()).or_default().push(record);
            }
        }
        let new = stream::iter(by_repo)
            .map(|(repo, records)| self.apply_to_repo(order, repo, records))
            .buffered(AT_ONCE)
            .concat();
        rows.extend(new.await);
        rows.sort_by_key(|row| row.item);
        rows
    }

    async fn apply_to_repo(
        &self,
        order: Order,
        repo: String,
        records: Vec<ItemRecord>,
    ) -> Vec<Applied> {
        // A branch holds one item's work; files and the current branch take several, one after the other.
        let groups: Vec<&[ItemRecord]> = match order.how {
            How::Branch => records.chunks(1).collect(),
            How::WorkingCopy | How::Merge => vec![&records],
        };
        let mut rows = Vec::new();
        for group in groups {
            let outcome = match Instant::now() < order.deadline {
                true => self.apply_group(order, &repo, group).await,
                false => Err(out_of_time()),
            };
            match outcome {
                Ok(outcome) => rows.extend(outcome_rows(order, group, &outcome)),
                Err(problem) => rows.extend(group.iter().map(|record| refused(record, &problem))),
            }
        }
        rows
    }

    async fn apply_group(
        &self,
        order: Order,
        repo: &str,
        group: &[ItemRecord],
    ) -> Result<ApplyOutcome, Problem> {
        let changes = group.iter().filter_map(|record| change(order.id, record));
        let request = ApplyRequest {
            repo: self.0.repos.resolve(repo).await?,
            workflow: order.id,
            changes: changes.collect(),
            how: order.how,
            check_only: order.check_only,
        };
        Ok(self.0.repos.apply(request).await?)
    }
}

fn how(args: &ApplyChanges) -> How {
    match args.how.unwrap_or_default() {
        ApplyHow::WorkingCopy => How::WorkingCopy,
        ApplyHow::Merge => How::Merge,
        ApplyHow::Branch => How::Branch,
    }
}

/// Returns the items to apply: those named, or all that changed something, passed `verify` and are not applied yet. Where
/// all are applied, those: the answer then shows how.
fn choose(items: &[Arc<ItemRecord>], args: &ApplyChanges) -> Result<Vec<ItemRecord>, Problem> {
    let named = select::items(items, &args.items)?;
    let by_name = !args.items.is_empty();
    let mut chosen = Vec::new();
    for record in items
        .iter()
        .filter(|record| !by_name || named.contains(&record.item))
    {
        match unfit(record, args) {
            None => chosen.push(ItemRecord::clone(record)),
            Some(why) if by_name => {
                return Err(Problem::argument(
                    "items",
                    format!("item {} ({}) {why}", record.item, record.repo),
                    "items that changed something in a worktree and passed `verify`",
                )
                .with_hint("get_workflow shows each item's `changed` and `verify`"));
            }
            Some(_) => {}
        }
    }
    if chosen.is_empty() {
        return Err(Problem::new(
            ErrorKind::NotFound,
            "no item of this workflow has changes to apply",
        )
        .with_hint("get_workflow shows which items `changed` something; allow_unverified also takes those that did not pass"));
    }
    let new = chosen.iter().any(|record| record.applied.is_none());
    if new && !by_name && args.cursor.is_none() {
        chosen.retain(|record| record.applied.is_none());
    }
    Ok(chosen)
}

/// Returns why an item cannot be applied at all.
fn unfit(record: &ItemRecord, args: &ApplyChanges) -> Option<String> {
    let why = if record.worktree.is_none() {
        "did not work in a worktree"
    } else if !record.status.is_final() {
        "is still running"
    } else if !has_changes(record) || record.base_commit.is_none() {
        "changed nothing"
    } else if record.commit == record.base_commit {
        return Some(format!(
            "changed only what no commit of its repository keeps: {} in {}",
            record.uncommitted.join(", "),
            record.worktree.as_deref().unwrap_or_default()
        ));
    } else if !args.allow_unverified && !has_passed(record) {
        "did not pass; give allow_unverified to apply it all the same"
    } else {
        return None;
    };
    Some(why.to_owned())
}

fn has_passed(record: &ItemRecord) -> bool {
    let verify = record.verify.as_ref();
    record.status == ItemState::Succeeded
        && verify.is_none_or(|verify| verify.status == CheckStatus::Passed)
}

/// Returns the refusal of an item with risks of kinds that are not `allowed`.
fn refused_risks(record: &ItemRecord, allowed: &[RiskKind]) -> Option<Problem> {
    let is_refused = |risk: &&Risk| !allowed.contains(&risk.kind);
    let refused: Vec<&Risk> = record.risks.iter().filter(is_refused).collect();
    let named = |risk: &&Risk| format!("{} ({})", risk.kind.as_str(), risk.path);
    let shown: Vec<String> = refused.iter().take(FILES_LISTED).map(named).collect();
    let kinds: BTreeSet<&str> = refused.iter().map(|risk| risk.kind.as_str()).collect();
    let kinds: Vec<&str> = kinds.into_iter().collect();
    (!refused.is_empty()).then(|| {
        Problem {
            kind: ErrorKind::Forbidden,
            ..Problem::argument(
                "allow_risks",
                format!("the item did more than plain work on files: {}", shown.join(", ")),
                kinds.join(", "),
            )
        }
        .with_hint(format!(
            "look at these files in its worktree, {}; if they are as you want them, apply it with allow_risks {}",
            record.worktree.as_deref().unwrap_or_default(),
            json!(kinds)
        ))
    })
}

fn change(id: WorkflowId, record: &ItemRecord) -> Option<Change> {
    Some(Change {
        item: record.item,
        base: record.base_commit.clone()?,
        commit: record.commit.clone()?,
        message: format!("Apply item {} of workflow {id}", record.item),
        branch: format!("mahavishnu/{id}-{}", record.item),
    })
}

/// Returns the rows of a group that was applied, checked or refused as a whole.
fn outcome_rows<'a>(
    order: Order,
    group: &'a [ItemRecord],
    outcome: &'a ApplyOutcome,
) -> impl Iterator<Item = Applied> + 'a {
    let listed = |files: &[String]| files.iter().take(FILES_LISTED).cloned().collect();
    let rows = group.iter().zip(&outcome.items);
    rows.map(move |(record, obstacles)| {
        // Applied by another call while this one waited for the repository.
        let earlier = outcome
            .earlier
            .iter()
            .find(|(item, _)| *item == record.item);
        if let Some((_, undo)) = earlier {
            return already_applied(record, Some(undo.clone()));
        }
        Applied {
            applied: outcome.applied && !order.check_only,
            would_apply: outcome.applied && order.check_only,
            conflicts: listed(&obstacles.conflicts),
            overlaps_dirty: listed(&obstacles.overlaps_dirty),
            undo: outcome.undo.clone(),
            error: (!outcome.applied).then(|| obstructed(obstacles)),
            ..row(record)
        }
    })
}

fn already_applied(record: &ItemRecord, undo: Option<String>) -> Applied {
    Applied {
        applied: true,
        undo,
        ..row(record)
    }
}

fn refused(record: &ItemRecord, problem: &Problem) -> Applied {
    Applied {
        error: Some(problem.clone()),
        ..row(record)
    }
}

/// Returns the error of an item that files keep from being applied.
fn obstructed(obstacles: &Obstacles) -> Problem {
    let (message, hint) = match (obstacles.conflicts.len(), obstacles.overlaps_dirty.len()) {
        (0, 0) => (
            "another item of this repository cannot be applied, and all of a repository are applied or none".to_owned(),
            "see the other rows of this repository, or name the items to apply in `items`",
        ),
        (0, dirty) => (
            format!("it changes {dirty} file(s) with uncommitted changes of yours"),
            "commit or stash them, or apply with how branch",
        ),
        (conflicts, _) => (
            format!("{conflicts} file(s) conflict with what the branch has now"),
            "run the item again from the present state (resume_workflow with from fresh), or apply with how branch and merge by hand",
        ),
    };
    Problem::new(ErrorKind::Conflict, message).with_hint(hint)
}

fn out_of_time() -> Problem {
    let message = "not tried: the call had taken long enough";
    Problem::new(ErrorKind::TimedOut, message).with_hint(
        "call apply_changes again with the same arguments; what is applied already is skipped",
    )
}

/// Returns the rows that fit, with the figures of all and where to continue.
fn page(id: WorkflowId, rows: Vec<Applied>) -> ApplyChangesResult {
    let refused_count = rows.iter().filter(|row| row.error.is_some()).count() as u64;
    let done_count = rows.len() as u64 - refused_count;
    let mut shrunk = false;
    let (items, next) = Budget::new(PAGE_BYTES).fill(rows, |row, _| {
        shrunk = true;
        row.conflicts.clear();
        row.overlaps_dirty.clear();
    });
    ApplyChangesResult {
        workflow_id: id,
        done_count,
        refused_count,
        items,
        truncated: shrunk || next.is_some(),
        cursor: next.map(|row| row.item.to_string()),
    }
}
