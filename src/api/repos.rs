//! `list_repos`, `apply_changes`, `clean_worktrees`.

use super::ItemSelector;
use crate::error::Problem;
use crate::model::{ItemIndex, RiskKind, WorkflowId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Arguments of `list_repos`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ListRepos {
    /// Globs over repository names and paths, such as `web-*`; any may match. Default: all.
    #[serde(rename = "match")]
    pub matching: Vec<String>,
    /// Only repositories with all of these tracked files; globs such as `Cargo.toml` or `**/*.tf`. Default: any.
    pub has_file: Vec<String>,
    /// Only repositories whose tracked files hold this text; a regular expression. Default: any.
    pub grep: Option<String>,
    /// Only repositories with (true) or without (false) uncommitted changes. Default: both.
    pub dirty: Option<bool>,
    /// The `cursor` of the answer before, for the next page. Default: the first page.
    pub cursor: Option<String>,
}

/// One repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RepoRow {
    /// The canonical absolute path.
    pub repo: String,
    /// The path's last component, by which it can be named where no other has the same.
    pub name: String,
    /// The branch that is checked out; absent where HEAD is detached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The branch that new work starts from by custom, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_branch: Option<String>,
    /// How many files are changed, staged, in conflict or new.
    pub dirty: u64,
    /// What it is made of: rust, node, python, ...
    pub kinds: Vec<String>,
    /// How many items' changes were never applied.
    pub unapplied: u64,
    /// Why its state could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// Result of `list_repos`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListReposResult {
    /// How many repositories match in all.
    pub total: u64,
    /// The repositories, by path.
    pub repos: Vec<RepoRow>,
    /// The folders below which repositories are looked for and tasks may run.
    pub roots: Vec<String>,
    /// What to do so that another folder counts.
    pub how_to_add_root: String,
    /// Which roots lie inside a repository, so that it is not found below them; absent where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Give it back as `cursor` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// How changes are applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApplyHow {
    /// Uncommitted, into the files of the working copy.
    #[default]
    WorkingCopy,
    /// A merge commit on the branch that is checked out.
    Merge,
    /// A branch in the repository; nothing that is checked out changes.
    Branch,
}

/// Arguments of `apply_changes`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
pub struct ApplyChanges {
    /// The workflow whose changes to apply.
    pub workflow_id: WorkflowId,
    /// The items: indexes from 0, or repository names or paths. Default: all that changed something, passed `verify` and
    /// are not applied yet.
    #[serde(default)]
    pub items: Vec<ItemSelector>,
    /// How to apply them. Default: working_copy.
    pub how: Option<ApplyHow>,
    /// Only report what would happen. Default: false.
    #[serde(default)]
    pub check_only: bool,
    /// Also items that failed `verify` or had none to pass. Default: false.
    #[serde(default)]
    pub allow_unverified: bool,
    /// Also items with risks of these kinds, as the items' `risks` name them. Default: none.
    #[serde(default)]
    pub allow_risks: Vec<RiskKind>,
    /// Undo earlier applies instead, the latest first: the `undo` values of an earlier answer or of the items. Goes with
    /// workflow_id alone. Default: none.
    #[serde(default)]
    pub undo: Vec<String>,
    /// The `cursor` of the answer before, for the rows that did not fit into it; applies nothing. Default: the first rows.
    pub cursor: Option<String>,
}

/// What became of one item's change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Applied {
    /// The item's place in the workflow, from 0.
    pub item: ItemIndex,
    /// The repository's canonical absolute path.
    pub repo: String,
    /// Whether the change is applied now.
    pub applied: bool,
    /// Whether nothing keeps the change from being applied (with `check_only`).
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub would_apply: bool,
    /// Files that both sides changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<String>,
    /// Uncommitted files of the working copy that the change touches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overlaps_dirty: Vec<String>,
    /// Give it back in `undo` to undo the apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<String>,
    /// Whether this call has undone the change.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub undone: bool,
    /// Why nothing was applied, or undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// Result of `apply_changes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApplyChangesResult {
    /// The workflow.
    pub workflow_id: WorkflowId,
    /// How many of all rows, shown or not, are applied now (or could be, with `check_only`); for `undo`, how many were undone.
    pub done_count: u64,
    /// How many are not, each for the reason in its row.
    pub refused_count: u64,
    /// One row per item.
    pub items: Vec<Applied>,
    /// Whether rows or file names were left out for size.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub truncated: bool,
    /// Give it back as `cursor` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// Arguments of `clean_worktrees`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CleanWorktrees {
    /// The workflow whose worktrees to remove. Default: all workflows.
    pub workflow_id: Option<WorkflowId>,
    /// Only what ended longer ago than this, such as `7d` or `12h`, or before an RFC 3339 instant. Default: any age.
    pub older_than: Option<String>,
    /// The items of the workflow: indexes from 0, or repository names or paths. Default: all.
    pub items: Vec<ItemSelector>,
    /// Only report what would be removed. Default: true; give false to remove.
    pub dry_run: Option<bool>,
    /// Also worktrees whose changes were never applied; a ref keeps them. Default: false.
    #[serde(default)]
    pub include_unapplied: bool,
    /// The `cursor` of the answer before, to go on after its last worktree. Default: from the first.
    pub cursor: Option<String>,
}

/// A worktree that was or would be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemovedWorktree {
    /// The workflow it belongs to; absent where no record of it is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<WorkflowId>,
    /// The item's place in the workflow, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<ItemIndex>,
    /// The repository's canonical absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// The worktree's folder.
    pub worktree: String,
    /// Its size, in bytes.
    pub bytes: u64,
    /// The ref that keeps its work reachable, where that was never applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_ref: Option<String>,
}

/// A worktree that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeptWorktree {
    /// The workflow it belongs to; absent where no record of it is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_id: Option<WorkflowId>,
    /// The item's place in the workflow, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<ItemIndex>,
    /// The repository's canonical absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// The worktree's folder.
    pub worktree: String,
    /// Its size, in bytes.
    pub bytes: u64,
    /// Why it stays.
    pub reason: String,
}

/// Result of `clean_worktrees`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CleanWorktreesResult {
    /// Whether nothing was removed, only looked at.
    pub dry_run: bool,
    /// Bytes on disk of what was or would be removed.
    pub bytes: u64,
    /// How many worktrees this call removed or would remove.
    pub removed_count: u64,
    /// How many it looked at that stay.
    pub kept_count: u64,
    /// What was or would be removed.
    pub removed: Vec<RemovedWorktree>,
    /// What stays, and why.
    pub kept: Vec<KeptWorktree>,
    /// Whether rows were left out for size; the figures count them.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub truncated: bool,
    /// Give it back as `cursor` for the rows, or the worktrees, that are left; absent where none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}
