//! `clean_worktrees`: removes worktrees that are no longer needed, in pages.

use super::page::{Budget, PAGE_BYTES};
use super::select;
use crate::api::{CleanWorktrees, CleanWorktreesResult, KeptWorktree, RemovedWorktree};
use crate::error::Problem;
use crate::model::{At, ItemIndex};
use crate::orchestrator::{Orchestrator, instants};
use crate::repo::{CleanRequest, Cleaned};
use serde::Serialize;
use std::time::Duration;

/// How long one call removes worktrees: hosts wait for 60 s at least. The next call continues.
const BUDGET: Duration = Duration::from_secs(30);

/// A row of either list.
#[derive(Serialize)]
#[serde(untagged)]
enum Row {
    Removed(RemovedWorktree),
    Kept(KeptWorktree),
}

impl Orchestrator {
    /// Answers `clean_worktrees`.
    pub(super) async fn clean_worktrees(
        &self,
        args: CleanWorktrees,
    ) -> Result<CleanWorktreesResult, Problem> {
        let dry_run = args.dry_run.unwrap_or(true);
        let request = CleanRequest {
            workflow: args.workflow_id,
            items: self.items_to_clean(&args).await?,
            older_than: args.older_than.as_deref().map(age).transpose()?,
            include_unapplied: args.include_unapplied,
            dry_run,
            after: args.cursor,
            budget: Some(BUDGET),
        };
        let cleaned = self.0.repos.clean(request).await?;
        Ok(page(cleaned, dry_run))
    }

    async fn items_to_clean(&self, args: &CleanWorktrees) -> Result<Vec<ItemIndex>, Problem> {
        match args.workflow_id {
            _ if args.items.is_empty() => Ok(Vec::new()),
            Some(id) => {
                let snapshot = self.snapshot(id).await?;
                let items = select::items(&snapshot.items, &args.items)?;
                Ok(items.into_iter().collect())
            }
            None => Err(Problem::argument(
                "items",
                "items are given without a workflow",
                "items together with workflow_id",
            )),
        }
    }
}

/// Returns the rows that fit, in the order of the worktrees, with the figures of all.
fn page(cleaned: Cleaned, dry_run: bool) -> CleanWorktreesResult {
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
    let removed = cleaned.removed.into_iter().map(|removed| {
        let gone = removed.worktree;
        let row = RemovedWorktree {
            workflow_id: gone.workflow,
            item: gone.item,
            repo: gone.repo,
            worktree: gone.path.display().to_string(),
            bytes: gone.bytes,
            kept_ref: removed.kept_ref,
        };
        (gone.key, Row::Removed(row))
    });
    let kept = cleaned.kept.into_iter().map(|kept| {
        let stays = kept.worktree;
        let row = KeptWorktree {
            workflow_id: stays.workflow,
            item: stays.item,
            repo: stays.repo,
            worktree: stays.path.display().to_string(),
            bytes: stays.bytes,
            reason: kept.reason,
        };
        (stays.key, Row::Kept(row))
    });
    let mut rows: Vec<(String, Row)> = removed.chain(kept).collect();
    rows.sort_by(|(a, _), (b, _)| a.cmp(b));
    let (keys, rows): (Vec<String>, Vec<Row>) = rows.into_iter().unzip();
    let (rows, next) = Budget::new(PAGE_BYTES).fill(rows, |_, _| {});
    if next.is_some() {
        result.truncated = true;
        // The first row is always taken.
        result.cursor = keys.into_iter().nth(rows.len() - 1);
    }
    for row in rows {
        match row {
            Row::Removed(row) => result.removed.push(row),
            Row::Kept(row) => result.kept.push(row),
        }
    }
    result
}

/// Reads `older_than`: an age, or an instant as the age it has now.
fn age(text: &str) -> Result<Duration, Problem> {
    let now = At::now();
    let at = instants::instant("older_than", text, now)?;
    let ms = now.unix_ms().saturating_sub(at.unix_ms());
    Ok(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}
