//! Repositories as callers see them: `list_repos`, `clean_worktrees`.

use super::select;
use super::view::{Room, bad_cursor};
use crate::api::{
    CleanWorktrees, CleanWorktreesResult, KeptWorktree, ListRepos, ListReposResult,
    RemovedWorktree, RepoRow,
};
use crate::error::{Fault, Problem};
use crate::model::At;
use crate::orchestrator::{Orchestrator, instants};
use crate::repo::{CleanRequest, Cleaned, ListRequest, RepoPath, Row};
use std::collections::HashMap;
use std::time::Duration;

/// How many repositories' status one page asks git for.
const PAGE_ROWS: usize = 40;

/// The most bytes of JSON that the rows of one page take.
const PAGE_BYTES: usize = 7_000;

/// How long one call removes worktrees: hosts wait for 60 s at the least. The rest is the next call's.
const CLEAN_BUDGET: Duration = Duration::from_secs(30);

impl Orchestrator {
    /// Answers `list_repos`.
    pub(crate) async fn repos(&self, args: ListRepos) -> Result<ListReposResult, Problem> {
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
        let unapplied = repos.unapplied(&page).await.map_err(fault)?;
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

    /// Answers `clean_worktrees`.
    pub(crate) async fn clean(
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
                after: args.cursor,
                budget: Some(CLEAN_BUDGET),
            })
            .await
            .map_err(|error| error.problem())?;
        Ok(cleaned_page(cleaned, dry_run))
    }
}

/// Returns the rows that fit, in the order of the worktrees, with the figures of all.
fn cleaned_page(cleaned: Cleaned, dry_run: bool) -> CleanWorktreesResult {
    let mut result = CleanWorktreesResult {
        dry_run,
        bytes: cleaned.bytes,
        removed_count: cleaned.removed.len() as u64,
        kept_count: cleaned.kept.len() as u64,
        removed: Vec::new(),
        kept: Vec::new(),
        truncated: false,
        cursor: cleaned.next,
    };
    let mut room = Room::new(PAGE_BYTES);
    let removed = cleaned.removed.into_iter().map(|gone| {
        let row = RemovedWorktree {
            workflow_id: gone.workflow,
            item: gone.item,
            repo: gone.repo,
            worktree: gone.path.display().to_string(),
            bytes: gone.bytes,
            kept_ref: gone.kept_ref,
        };
        (gone.key, CleanedRow::Removed(row))
    });
    let kept = cleaned.kept.into_iter().map(|kept| {
        let row = KeptWorktree {
            workflow_id: kept.workflow,
            item: kept.item,
            repo: kept.repo,
            worktree: kept.path.display().to_string(),
            bytes: kept.bytes,
            reason: kept.reason,
        };
        (kept.key, CleanedRow::Kept(row))
    });
    let mut rows: Vec<(String, CleanedRow)> = removed.chain(kept).collect();
    rows.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut last = None;
    for (key, row) in rows {
        let fits = match &row {
            CleanedRow::Removed(row) => room.take(row),
            CleanedRow::Kept(row) => room.take(row),
        };
        if !fits {
            result.truncated = true;
            result.cursor = last;
            break;
        }
        match row {
            CleanedRow::Removed(row) => result.removed.push(row),
            CleanedRow::Kept(row) => result.kept.push(row),
        }
        last = Some(key);
    }
    result
}

enum CleanedRow {
    Removed(RemovedWorktree),
    Kept(KeptWorktree),
}

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

fn age(text: &str) -> Result<Duration, Problem> {
    let now = At::now();
    let at = instants::instant("older_than", text, now)?;
    let ms = now.unix_ms().saturating_sub(at.unix_ms());
    Ok(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}
