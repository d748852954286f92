//! `list_repos`: the repositories under the roots and their state.

use super::page::{Budget, PAGE_BYTES, bad_cursor};
use crate::api::{ListRepos, ListReposResult, RepoRow};
use crate::error::Problem;
use crate::orchestrator::Orchestrator;
use crate::repo::{ListRequest, RepoPath, Row};
use std::collections::HashMap;

/// How many repositories' status one page asks git for.
const PAGE_ROWS: usize = 40;

impl Orchestrator {
    /// Answers `list_repos`.
    pub(super) async fn list_repos(&self, args: ListRepos) -> Result<ListReposResult, Problem> {
        let repos = &self.0.repos;
        let after = args.cursor.as_deref();
        if after.is_some_and(|after| !after.starts_with('/')) {
            return Err(bad_cursor());
        }
        let request = ListRequest {
            matching: args.matching,
            has_file: args.has_file,
            grep: args.grep,
            dirty: args.dirty,
        };
        let found = repos.list(request).await?;
        let total = found.len();
        let is_left = |repo: &&RepoPath| after.is_none_or(|after| repo.as_str() > after);
        let left = found.iter().filter(is_left).count();
        let page: Vec<RepoPath> = found
            .iter()
            .filter(is_left)
            .take(PAGE_ROWS)
            .cloned()
            .collect();
        let unapplied = repos.unapplied(&page).await?;
        let rows = repos.rows(page).await.into_iter();
        let rows = rows.map(|row| repo_row(row, &unapplied));
        let (rows, _) = Budget::new(PAGE_BYTES).fill(rows, |_, _| {});
        let last = rows.last().filter(|_| rows.len() < left);
        let roots = repos.roots();
        let dirs = roots.dirs()?;
        Ok(ListReposResult {
            total: total as u64,
            cursor: last.map(|row| row.repo.clone()),
            repos: rows,
            roots: dirs.iter().map(|root| root.display().to_string()).collect(),
            how_to_add_root: roots.how_to_add(),
            note: roots.inside_repositories(),
        })
    }
}

fn repo_row(row: Row, unapplied: &HashMap<String, u64>) -> RepoRow {
    let repo = row.repo.as_str().to_owned();
    let unreadable = RepoRow {
        name: row.repo.name().to_owned(),
        branch: None,
        default_branch: None,
        dirty: 0,
        kinds: Vec::new(),
        unapplied: unapplied.get(&repo).copied().unwrap_or(0),
        error: None,
        repo,
    };
    match row.status {
        Ok(status) => RepoRow {
            branch: status.head.branch,
            default_branch: status.default_branch,
            dirty: u64::from(status.dirty),
            kinds: status.kinds.into_iter().map(str::to_owned).collect(),
            ..unreadable
        },
        Err(problem) => RepoRow {
            error: Some(problem),
            ..unreadable
        },
    }
}
