//! `apply_changes`: items' work comes home, and goes back again.
//!
//! What is home is recorded beside the repositories ([`crate::repo::Repos::at_home`]); the journal's `applied` and `undo`
//! are notes of it, so that a crash between the two loses nothing.

use super::select;
use super::view::{Room, Snapshot, bad_cursor};
use crate::api::{Applied, ApplyChanges, ApplyChangesResult, ApplyHow};
use crate::error::{ErrorKind, Fault, Problem};
use crate::model::{CheckStatus, ItemIndex, ItemRecord, ItemState, WorkflowId};
use crate::orchestrator::Orchestrator;
use crate::repo::{ApplyRequest, Change, How, Obstacles, RepoError, UndoRecord};
use crate::store::HomeNote;
use futures_util::{StreamExt, stream};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The most bytes of JSON that the rows of one page take.
const PAGE_BYTES: usize = 7_000;

/// How many file names one row lists.
const FILES_LISTED: usize = 20;

/// How many repositories are worked on at once.
const AT_ONCE: usize = 4;

/// How long one call goes on with further repositories; hosts wait for 60 s at the least.
const BUDGET: Duration = Duration::from_secs(30);

/// What a call is to do with the items it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Bring them home.
    Apply,
    /// Only say what would happen.
    Check,
}

impl Orchestrator {
    /// Answers `apply_changes`.
    pub(crate) async fn apply(&self, args: ApplyChanges) -> Result<ApplyChangesResult, Problem> {
        let id = args.workflow_id;
        let mut snapshot = self.snapshot(id).await?;
        self.see_what_is_home(&mut snapshot).await?;
        if !args.undo.is_empty() {
            refuse_beside_undo(&args)?;
            let rows = self.take_back(id, &snapshot.items, &args.undo).await?;
            let mut told = page(id, rows, |row| row.undone);
            // Whoever asks again for the rest would ask for another undo.
            told.cursor = None;
            return Ok(told);
        }
        let from: Option<ItemIndex> = match &args.cursor {
            Some(cursor) => Some(cursor.parse().map_err(|_| bad_cursor())?),
            None => None,
        };
        let mut chosen = chosen(&snapshot.items, &args)?;
        chosen.retain(|record| from.is_none_or(|from| record.item >= from));
        let mode = match args.check_only || from.is_some() {
            true => Mode::Check,
            false => Mode::Apply,
        };
        let how = how_of(&args);
        let rows = self.bring_home(id, chosen, how, mode).await;
        if mode == Mode::Apply {
            self.note_homecoming(id).await;
        }
        Ok(page(id, rows, |row| row.applied))
    }

    /// Fills in what the repositories' own records say of the items: what is home, how, and how it is taken back.
    pub(crate) async fn see_what_is_home(&self, snapshot: &mut Snapshot) -> Result<(), Problem> {
        let id = snapshot.record.id;
        if !snapshot.items.iter().any(|record| has_work(record)) {
            return Ok(());
        }
        let at_home = self.at_home(id).await?;
        for record in snapshot.items.iter_mut().filter(|record| has_work(record)) {
            let (applied, undo) = standing(record, &at_home);
            let record = Arc::make_mut(record);
            record.applied = applied;
            record.undo = undo;
        }
        Ok(())
    }

    /// Returns what is home of a workflow, by commit; the latest where it came home more than once.
    async fn at_home(&self, id: WorkflowId) -> Result<HashMap<String, UndoRecord>, Problem> {
        let all = self.0.repos.undo_records().await;
        let mut found = HashMap::new();
        for home in all.map_err(|error| error.problem())? {
            if home.workflow == id {
                for commit in &home.commits {
                    found.insert(commit.clone(), home.clone());
                }
            }
        }
        Ok(found)
    }

    /// Notes in the store what is home now, so that it is known still when the repositories' records have expired. A
    /// failure loses nothing but that.
    async fn note_homecoming(&self, id: WorkflowId) {
        let noted = async {
            let mut snapshot = self.snapshot(id).await?;
            self.see_what_is_home(&mut snapshot).await?;
            let items = snapshot.into_records().into_iter().filter(has_work);
            let notes = items.filter_map(|record| {
                Some(HomeNote {
                    item: record.item,
                    commit: record.commit?,
                    applied: record.applied,
                    undo: record.undo,
                })
            });
            let noted = self.0.store.note_home(id, notes.collect()).await;
            noted.map_err(|error| error.problem())
        };
        if let Err(problem) = noted.await {
            tracing::warn!(%problem, "what was applied could not be noted in the store");
        }
    }

    /// Brings items home, all of one repository at once or none of them.
    async fn bring_home(
        &self,
        id: WorkflowId,
        chosen: Vec<ItemRecord>,
        how: How,
        mode: Mode,
    ) -> Vec<Applied> {
        let (there, left): (Vec<_>, Vec<_>) = chosen
            .into_iter()
            .partition(|record| is_home_by(record, how));
        let mut by_repo: BTreeMap<String, Vec<ItemRecord>> = BTreeMap::new();
        for record in left {
            by_repo.entry(record.repo.clone()).or_default().push(record);
        }
        let deadline = Instant::now() + BUDGET;
        let brought = stream::iter(by_repo)
            .map(|(repo, records)| self.bring_repo_home(id, repo, records, how, mode, deadline))
            .buffered(AT_ONCE)
            .concat();
        let mut rows: Vec<Applied> = there.iter().map(home_already).collect();
        rows.extend(brought.await);
        rows.sort_by_key(|row| row.item);
        rows
    }

    async fn bring_repo_home(
        &self,
        id: WorkflowId,
        repo: String,
        records: Vec<ItemRecord>,
        how: How,
        mode: Mode,
        deadline: Instant,
    ) -> Vec<Applied> {
        // A branch holds one item's work; the files and the current branch take several, one after the other.
        let groups: Vec<Vec<ItemRecord>> = match how {
            How::Branch => records.into_iter().map(|record| vec![record]).collect(),
            How::WorkingCopy | How::Merge => vec![records],
        };
        let mut rows = Vec::new();
        for group in groups {
            if Instant::now() >= deadline {
                rows.extend(group.iter().map(|record| refused(record, out_of_time())));
            } else {
                rows.extend(self.bring_group_home(id, &repo, &group, how, mode).await);
            }
        }
        rows
    }

    async fn bring_group_home(
        &self,
        id: WorkflowId,
        repo: &str,
        group: &[ItemRecord],
        how: How,
        mode: Mode,
    ) -> Vec<Applied> {
        let outcome = async {
            let request = ApplyRequest {
                repo: self.0.repos.resolve(repo).await?,
                workflow: id,
                changes: group
                    .iter()
                    .filter_map(|record| change(id, record))
                    .collect(),
                how,
                check_only: mode == Mode::Check,
            };
            self.0.repos.apply(request).await
        };
        let outcome = match outcome.await {
            Ok(outcome) => outcome,
            Err(error) => {
                let refuse = |record| refused(record, error.problem());
                return group.iter().map(refuse).collect();
            }
        };
        let rows = group.iter().zip(&outcome.items);
        rows.map(|(record, obstacles)| Applied {
            applied: outcome.applied,
            conflicts: listed(&obstacles.conflicts),
            overlaps_dirty: listed(&obstacles.overlaps_dirty),
            undo: outcome.undo.clone(),
            error: (!outcome.applied).then(|| stands_in_the_way(obstacles)),
            ..row(record)
        })
        .collect()
    }

    /// Takes earlier applications back. All tokens are looked at before the first is used.
    async fn take_back(
        &self,
        id: WorkflowId,
        items: &[Arc<ItemRecord>],
        undo: &[String],
    ) -> Result<Vec<Applied>, Problem> {
        let mut homes = Vec::new();
        for token in undo.iter().collect::<BTreeSet<_>>() {
            let home = self.0.repos.undo_record(token, id);
            homes.push(home.map_err(|error| error.problem())?);
        }
        // The latest first: each restores what was there before it. Tokens sort by time.
        homes.sort_by(|a, b| b.token().cmp(&a.token()));
        let mut rows = Vec::new();
        for home in &homes {
            let undone = self.0.repos.undo(&home.token()).await;
            rows.extend(taken_back(home, items, undone.err().as_ref()));
        }
        self.note_homecoming(id).await;
        rows.sort_by_key(|row| row.item);
        Ok(rows)
    }
}

/// Returns one row for each item that `home` brought home.
fn taken_back<'a>(
    home: &'a UndoRecord,
    items: &'a [Arc<ItemRecord>],
    error: Option<&'a RepoError>,
) -> impl Iterator<Item = Applied> + 'a {
    let records = home
        .items
        .iter()
        .filter_map(|item| items.get(*item as usize));
    records.map(move |record| Applied {
        applied: error.is_some(),
        undo: error.map(|_| home.token()),
        undone: error.is_none(),
        error: error.map(Fault::problem),
        ..row(record)
    })
}

/// Returns what an item's `applied` and `undo` are.
fn standing(
    record: &ItemRecord,
    at_home: &HashMap<String, UndoRecord>,
) -> (Option<String>, Option<String>) {
    let commit = record.commit.as_deref().unwrap_or_default();
    if let Some(home) = at_home.get(commit) {
        let applied = format!("{} at {}", how_text(home.how), home.at);
        return (Some(applied), Some(home.token()));
    }
    match &record.undo {
        // It was taken back, and the note of that was lost.
        Some(undo) if !crate::repo::is_expired(undo) => (None, None),
        _ => (record.applied.clone(), None),
    }
}

fn has_work(record: &ItemRecord) -> bool {
    record.worktree.is_some() && record.changed == Some(true) && record.commit.is_some()
}

fn is_home_by(record: &ItemRecord, how: How) -> bool {
    let by = |applied: &String| applied.split(' ').next() == Some(how_text(how));
    record.applied.as_ref().is_some_and(by)
}

/// Refuses arguments that mean nothing beside `undo`.
fn refuse_beside_undo(args: &ApplyChanges) -> Result<(), Problem> {
    let beside = [
        ("items", !args.items.is_empty()),
        ("how", args.how.is_some()),
        ("check_only", args.check_only),
        ("allow_unverified", args.allow_unverified),
        ("cursor", args.cursor.is_some()),
    ];
    match beside.into_iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((field, _)) => Err(Problem::argument(
            field,
            format!("{field} means nothing beside undo"),
            "undo with workflow_id alone",
        )
        .with_hint("an undo takes back all that came home in the same step; call it first, then apply what is to stay")),
    }
}

/// Returns the items to apply: those named, or all that changed something, passed `verify` and are not home. Where all
/// are home, those: the answer then tells how they came home.
fn chosen(items: &[Arc<ItemRecord>], args: &ApplyChanges) -> Result<Vec<ItemRecord>, Problem> {
    let named = select::items(items, &args.items)?;
    let by_name = !args.items.is_empty();
    let mut chosen = Vec::new();
    for record in items {
        if by_name && !named.contains(&record.item) {
            continue;
        }
        match unfit(record, args.allow_unverified) {
            None => chosen.push(ItemRecord::clone(record)),
            Some(why) if by_name => {
                return Err(Problem::argument(
                    "items",
                    format!("item {} ({}) {why}", record.item, record.repo),
                    "items that changed something in a worktree and passed `verify`",
                ));
            }
            Some(_) => {}
        }
    }
    if chosen.is_empty() {
        return Err(Problem::new(
            ErrorKind::NotFound,
            "no item of this workflow has changes to apply",
        )
        .with_hint("get_workflow tells which items `changed` something; allow_unverified also takes those that did not pass"));
    }
    let new = chosen.iter().any(|record| record.applied.is_none());
    if new && !by_name && args.cursor.is_none() {
        chosen.retain(|record| record.applied.is_none());
    }
    Ok(chosen)
}

/// Returns why an item cannot be applied.
fn unfit(record: &ItemRecord, allow_unverified: bool) -> Option<String> {
    if record.worktree.is_none() {
        return Some("did not work in a worktree".to_owned());
    }
    if !record.status.is_final() {
        return Some("is still running".to_owned());
    }
    if !has_work(record) || record.base_commit.is_none() {
        return Some("changed nothing".to_owned());
    }
    if record.commit == record.base_commit {
        return Some(format!(
            "changed only what no commit of its repository keeps: {} in {}",
            record.uncommitted.join(", "),
            record.worktree.as_deref().unwrap_or_default()
        ));
    }
    let passed = record.status == ItemState::Succeeded
        && record
            .verify
            .as_ref()
            .is_none_or(|verify| verify.status == CheckStatus::Passed);
    if !passed && !allow_unverified {
        return Some("did not pass; give allow_unverified to apply it all the same".to_owned());
    }
    None
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

fn stands_in_the_way(item: &Obstacles) -> Problem {
    let (message, hint) = if !item.conflicts.is_empty() {
        (
            format!(
                "{} file(s) conflict with what the branch has now",
                item.conflicts.len()
            ),
            "run the item again from the present state (resume_workflow with from fresh), or apply with how branch and merge by hand",
        )
    } else if !item.overlaps_dirty.is_empty() {
        (
            format!(
                "{} uncommitted file(s) of the working copy would be touched",
                item.overlaps_dirty.len()
            ),
            "commit or stash them, or apply with how branch",
        )
    } else {
        (
            "another item of this repository stands in the way; all or nothing is applied"
                .to_owned(),
            "see the other rows of this repository, or name the items to apply",
        )
    };
    Problem::new(ErrorKind::Conflict, message).with_hint(hint)
}

fn out_of_time() -> Problem {
    Problem::new(
        ErrorKind::TimedOut,
        "it was not tried: the call had taken long enough",
    )
    .with_hint("call apply_changes again with the same arguments; what is home is skipped")
}

fn row(record: &ItemRecord) -> Applied {
    Applied {
        item: record.item,
        repo: record.repo.clone(),
        applied: false,
        conflicts: Vec::new(),
        overlaps_dirty: Vec::new(),
        undo: None,
        undone: false,
        error: None,
    }
}

fn refused(record: &ItemRecord, problem: Problem) -> Applied {
    Applied {
        error: Some(problem),
        ..row(record)
    }
}

/// Returns the row of an item that came home before, in the same way.
fn home_already(record: &ItemRecord) -> Applied {
    Applied {
        applied: true,
        undo: record.undo.clone(),
        ..row(record)
    }
}

fn listed(files: &[String]) -> Vec<String> {
    files.iter().take(FILES_LISTED).cloned().collect()
}

fn how_of(args: &ApplyChanges) -> How {
    match args.how.unwrap_or_default() {
        ApplyHow::WorkingCopy => How::WorkingCopy,
        ApplyHow::Merge => How::Merge,
        ApplyHow::Branch => How::Branch,
    }
}

fn how_text(how: How) -> &'static str {
    match how {
        How::WorkingCopy => "working_copy",
        How::Merge => "merge",
        How::Branch => "branch",
    }
}

/// Returns the rows that fit, with the figures of all and where to go on.
fn page(
    id: WorkflowId,
    rows: Vec<Applied>,
    is_done: impl Fn(&Applied) -> bool,
) -> ApplyChangesResult {
    let mut room = Room::new(PAGE_BYTES);
    let done_count = rows.iter().filter(|row| is_done(row)).count() as u64;
    let refused_count = rows.len() as u64 - done_count;
    let mut items = Vec::new();
    let mut cursor = None;
    let mut truncated = false;
    for mut row in rows {
        if !room.take(&row) {
            truncated = true;
            if !items.is_empty() {
                cursor = Some(row.item.to_string());
                break;
            }
            // One row always fits, or asking for the rest would not get any further.
            row.conflicts.clear();
            row.overlaps_dirty.clear();
        }
        items.push(row);
    }
    ApplyChangesResult {
        workflow_id: id,
        done_count,
        refused_count,
        items,
        truncated,
        cursor,
    }
}
