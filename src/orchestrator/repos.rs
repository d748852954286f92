//! Repositories as callers see them: `list_repos`, `apply_changes`, `clean_worktrees`.

use super::report::{Room, bad_cursor};
use super::{Orchestrator, select, when};
use crate::api::{
    Applied, ApplyChanges, ApplyChangesResult, ApplyHow, CleanWorktrees, CleanWorktreesResult,
    KeptWorktree, ListRepos, ListReposResult, RemovedWorktree, RepoRow,
};
use crate::error::{ErrorKind, Fault, Problem};
use crate::model::{At, CheckStatus, ItemRecord, ItemState, WorkflowId};
use crate::repo::{ApplyRequest, Change, CleanRequest, How, ListRequest, RepoPath, Row};
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// How many repositories' status one page asks git for.
const PAGE_ROWS: usize = 40;

/// The most bytes of JSON that the rows of one page take.
const PAGE_BYTES: usize = 7_000;

/// How many file names one row lists.
const FILES_LISTED: usize = 20;

impl Orchestrator {
    /// Answers `list_repos`.
    pub(super) async fn repos(&self, args: ListRepos) -> Result<ListReposResult, Problem> {
        let repos = &self.0.repos;
        let fault = |error: crate::repo::RepoError| error.problem();
        let found = repos
            .list(ListRequest {
                matching: args.matching,
                has_file: args.has_file,
                grep: args.grep,
                dirty: args.dirty,
            })
            .await
            .map_err(fault)?;
        let total = found.len() as u64;
        let after = args.cursor.as_deref();
        if after.is_some_and(|after| !after.starts_with('/')) {
            return Err(bad_cursor());
        }
        let rest: Vec<RepoPath> = found
            .into_iter()
            .filter(|repo| after.is_none_or(|after| repo.as_str() > after))
            .collect();
        let page: Vec<RepoPath> = rest.iter().take(PAGE_ROWS).cloned().collect();
        let unapplied = self.unapplied().await?;
        let mut room = Room::new(PAGE_BYTES);
        let mut rows = Vec::new();
        for row in repos.rows(page).await {
            let row = repo_row(row, &unapplied);
            if !room.take(&row) {
                break;
            }
            rows.push(row);
        }
        let cursor = rows
            .last()
            .filter(|_| rows.len() < rest.len())
            .map(|row| row.repo.clone());
        let roots = repos.roots();
        Ok(ListReposResult {
            total,
            repos: rows,
            roots: roots
                .dirs()
                .map_err(fault)?
                .iter()
                .map(|root| root.display().to_string())
                .collect(),
            how_to_add_root: roots.how_to_add(),
            cursor,
        })
    }

    /// Returns how many results of each repository were never applied.
    async fn unapplied(&self) -> Result<HashMap<String, u64>, Problem> {
        let request = CleanRequest {
            workflow: None,
            items: Vec::new(),
            older_than: None,
            include_unapplied: false,
            dry_run: true,
        };
        let cleaned = self.0.repos.clean(request).await;
        let mut counts = HashMap::new();
        for kept in cleaned.map_err(|error| error.problem())?.kept {
            if let Some(repo) = kept.repo {
                *counts.entry(repo).or_default() += 1;
            }
        }
        Ok(counts)
    }

    /// Answers `apply_changes`.
    pub(super) async fn apply(&self, args: ApplyChanges) -> Result<ApplyChangesResult, Problem> {
        let id = args.workflow_id;
        let snapshot = self.snapshot(id).await?;
        let mut items = snapshot.into_records();
        let (rows, changed) = if args.undo.is_empty() {
            let chosen = chosen(&items, &args)?;
            self.bring_home(&chosen, &args).await
        } else {
            self.take_back(&items, &args.undo).await
        };
        let mut saved = Vec::new();
        for (item, applied) in changed {
            if let Some(record) = items.get_mut(item as usize) {
                record.applied = applied;
                saved.push(record.clone());
            }
        }
        self.note_applied(id, saved).await;
        Ok(fit(id, rows))
    }

    /// Applies items, all of one repository at once or none of them.
    async fn bring_home(
        &self,
        chosen: &[ItemRecord],
        args: &ApplyChanges,
    ) -> (Vec<Applied>, Marks) {
        let mut by_repo: BTreeMap<&str, Vec<&ItemRecord>> = BTreeMap::new();
        for record in chosen {
            by_repo.entry(&record.repo).or_default().push(record);
        }
        let how = match args.how.unwrap_or_default() {
            ApplyHow::WorkingCopy => How::WorkingCopy,
            ApplyHow::Merge => How::Merge,
            ApplyHow::Branch => How::Branch,
        };
        let (mut rows, mut marks) = (Vec::new(), Vec::new());
        for (repo, records) in by_repo {
            // A branch holds one item's work; the files and the current branch take several, one after the other.
            let groups: Vec<Vec<&ItemRecord>> = match how {
                How::Branch => records.into_iter().map(|record| vec![record]).collect(),
                How::WorkingCopy | How::Merge => vec![records],
            };
            for group in groups {
                let applied = self.apply_group(repo, &group, how, args).await;
                if !args.check_only {
                    let done = applied.iter().filter(|row| row.applied);
                    let mark = format!("{} at {}", how_text(how), At::now());
                    marks.extend(done.map(|row| (row.item, Some(mark.clone()))));
                }
                rows.extend(applied);
            }
        }
        rows.sort_by_key(|row| row.item);
        (rows, marks)
    }

    async fn apply_group(
        &self,
        repo: &str,
        group: &[&ItemRecord],
        how: How,
        args: &ApplyChanges,
    ) -> Vec<Applied> {
        let outcome = async {
            let request = ApplyRequest {
                repo: self.0.repos.resolve(repo).await?,
                changes: group
                    .iter()
                    .filter_map(|record| change(args.workflow_id, record))
                    .collect(),
                how,
                check_only: args.check_only,
            };
            self.0.repos.apply(request).await
        };
        match outcome.await {
            Ok(outcome) => outcome
                .items
                .iter()
                .map(|item| Applied {
                    item: item.item,
                    repo: repo.to_owned(),
                    applied: outcome.applied,
                    conflicts: item.conflicts.iter().take(FILES_LISTED).cloned().collect(),
                    overlaps_dirty: item
                        .overlaps_dirty
                        .iter()
                        .take(FILES_LISTED)
                        .cloned()
                        .collect(),
                    undo: outcome.undo.clone(),
                    error: (!outcome.applied).then(|| stands_in_the_way(item)),
                })
                .collect(),
            Err(error) => group
                .iter()
                .map(|record| refused(record.item, repo, error.problem()))
                .collect(),
        }
    }

    /// Takes earlier applications back.
    async fn take_back(&self, items: &[ItemRecord], undo: &[String]) -> (Vec<Applied>, Marks) {
        let (mut rows, mut marks) = (Vec::new(), Vec::new());
        let mut tokens: Vec<&String> = undo.iter().collect();
        tokens.dedup();
        // The last one first: each restores what was there before it.
        for token in tokens.into_iter().rev() {
            match self.0.repos.undo(token).await {
                Ok(repo) => {
                    for record in items.iter().filter(|record| record.repo == repo.as_str()) {
                        if record.applied.is_some() {
                            marks.push((record.item, None));
                            rows.push(Applied {
                                applied: false,
                                error: None,
                                ..refused(record.item, repo.as_str(), undone())
                            });
                        }
                    }
                }
                Err(error) => rows.push(refused(0, "", error.problem())),
            }
        }
        (rows, marks)
    }

    /// Notes in the journal what is applied. What was applied is recorded beside the repository as well, so a failure
    /// here loses nothing but the note.
    async fn note_applied(&self, id: WorkflowId, records: Vec<ItemRecord>) {
        if records.is_empty() {
            return;
        }
        let store = &self.0.store;
        let saved = match store.adopt(id).await {
            Ok(crate::store::Adopted::Ours) => store.save_items(id, records).await,
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = saved {
            tracing::warn!(%error, "what was applied could not be noted");
            self.0.notices.add(format!(
                "the changes of workflow {id} were applied, but that could not be noted in the store: {error}"
            ));
        }
    }

    /// Answers `clean_worktrees`.
    pub(super) async fn clean(
        &self,
        args: CleanWorktrees,
    ) -> Result<CleanWorktreesResult, Problem> {
        let items = match (args.workflow_id, args.items.is_empty()) {
            (_, true) => Vec::new(),
            (Some(id), false) => {
                let snapshot = self.snapshot(id).await?;
                select::items(&snapshot.items, &args.items)?
                    .into_iter()
                    .collect()
            }
            (None, false) => {
                return Err(Problem::argument(
                    "items",
                    "items of no workflow",
                    "items together with workflow_id",
                ));
            }
        };
        let dry_run = args.dry_run.unwrap_or(true);
        let cleaned = self
            .0
            .repos
            .clean(CleanRequest {
                workflow: args.workflow_id,
                items,
                older_than: args.older_than.as_deref().map(age).transpose()?,
                include_unapplied: args.include_unapplied,
                dry_run,
            })
            .await
            .map_err(|error| error.problem())?;
        let mut room = Room::new(PAGE_BYTES);
        let mut result = CleanWorktreesResult {
            dry_run,
            bytes: cleaned.bytes,
            removed: Vec::new(),
            kept: Vec::new(),
            truncated: false,
        };
        for gone in cleaned.removed {
            let row = RemovedWorktree {
                workflow_id: gone.workflow,
                item: gone.item,
                repo: gone.repo,
                worktree: gone.path.display().to_string(),
                bytes: gone.bytes,
                kept_ref: gone.kept_ref,
            };
            if room.take(&row) {
                result.removed.push(row);
            } else {
                result.truncated = true;
            }
        }
        for kept in cleaned.kept {
            let row = KeptWorktree {
                workflow_id: kept.workflow,
                item: kept.item,
                repo: kept.repo,
                worktree: kept.path.display().to_string(),
                bytes: kept.bytes,
                reason: kept.reason,
            };
            if room.take(&row) {
                result.kept.push(row);
            } else {
                result.truncated = true;
            }
        }
        Ok(result)
    }
}

/// Items whose note of being applied changes: to how and when, or to none.
type Marks = Vec<(u32, Option<String>)>;

fn repo_row(row: Row, unapplied: &HashMap<String, u64>) -> RepoRow {
    let repo = row.repo.as_str().to_owned();
    let (status, error) = match row.status {
        Ok(status) => (Some(status), None),
        Err(problem) => (None, Some(problem)),
    };
    let unapplied = unapplied.get(&repo).copied().unwrap_or(0);
    let name = row.repo.name().to_owned();
    match status {
        Some(status) => RepoRow {
            name,
            branch: status.head.branch,
            default_branch: status.default_branch,
            dirty: u64::from(status.dirty),
            kinds: status.kinds.into_iter().map(str::to_owned).collect(),
            unapplied,
            error,
            repo,
        },
        None => RepoRow {
            name,
            branch: None,
            default_branch: None,
            dirty: 0,
            kinds: Vec::new(),
            unapplied,
            error,
            repo,
        },
    }
}

/// Returns the items to apply: those named, or all that changed something and passed `verify`.
fn chosen(items: &[ItemRecord], args: &ApplyChanges) -> Result<Vec<ItemRecord>, Problem> {
    let named = select::items(items, &args.items)?;
    let by_name = !args.items.is_empty();
    let mut chosen = Vec::new();
    for record in items {
        if by_name && !named.contains(&record.item) {
            continue;
        }
        match unfit(record, args.allow_unverified) {
            None => chosen.push(record.clone()),
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
    Ok(chosen)
}

/// Returns why an item cannot be applied.
fn unfit(record: &ItemRecord, allow_unverified: bool) -> Option<&'static str> {
    if record.worktree.is_none() {
        return Some("did not work in a worktree");
    }
    if record.changed != Some(true) || record.commit.is_none() || record.base_commit.is_none() {
        return Some("changed nothing");
    }
    if !record.status.is_final() {
        return Some("is still running");
    }
    let passed = record.status == ItemState::Succeeded
        && record
            .verify
            .as_ref()
            .is_none_or(|verify| verify.status == CheckStatus::Passed);
    if !passed && !allow_unverified {
        return Some("did not pass; give allow_unverified to apply it all the same");
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

fn stands_in_the_way(item: &crate::repo::Obstacles) -> Problem {
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

fn refused(item: u32, repo: &str, problem: Problem) -> Applied {
    Applied {
        item,
        repo: repo.to_owned(),
        applied: false,
        conflicts: Vec::new(),
        overlaps_dirty: Vec::new(),
        undo: None,
        error: Some(problem),
    }
}

fn undone() -> Problem {
    Problem::new(ErrorKind::Cancelled, "taken back")
}

fn how_text(how: How) -> &'static str {
    match how {
        How::WorkingCopy => "working_copy",
        How::Merge => "merge",
        How::Branch => "branch",
    }
}

fn fit(id: WorkflowId, rows: Vec<Applied>) -> ApplyChangesResult {
    let mut room = Room::new(PAGE_BYTES);
    let all = rows.len();
    let items: Vec<Applied> = rows.into_iter().take_while(|row| room.take(row)).collect();
    ApplyChangesResult {
        workflow_id: id,
        truncated: items.len() < all,
        items,
        cursor: None,
    }
}

fn age(text: &str) -> Result<Duration, Problem> {
    let now = At::now();
    let at = when::instant("older_than", text, now)?;
    let ms = now.unix_ms().saturating_sub(at.unix_ms());
    Ok(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}
