//! What an apply is asked to do, and what it did.

use super::RepoPath;
use crate::model::{ItemIndex, WorkflowId};
use serde::{Deserialize, Serialize};

/// How work is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The files change; nothing is committed or staged.
    WorkingCopy,
    /// The current branch gets the work: fast-forward, a merge, or one commit where its base is no commit of the
    /// user's.
    Merge,
    /// A branch of its own in the user's repository; no file changes.
    Branch,
}

/// One item's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The item.
    pub item: ItemIndex,
    /// The commit that the work is compared with ([`super::WorktreeRecord::base_commit`]).
    pub base: String,
    /// The commit that holds the work.
    pub commit: String,
    /// The message of a commit that must be made.
    pub message: String,
    /// The branch to make, for [`How::Branch`].
    pub branch: String,
}

/// Work to apply to one repository.
#[derive(Debug, Clone)]
pub struct ApplyRequest {
    /// The repository.
    pub repo: RepoPath,
    /// The workflow that the work belongs to.
    pub workflow: WorkflowId,
    /// The work, in the order in which it is applied.
    pub changes: Vec<Change>,
    /// How.
    pub how: How,
    /// Only report what would happen.
    pub check_only: bool,
}

/// The files that keep one item from being applied; none where both lists are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Obstacles {
    /// The item.
    pub item: ItemIndex,
    /// Files that cannot be merged with HEAD.
    pub conflicts: Vec<String>,
    /// Files that the user has changed and not committed.
    pub overlaps_dirty: Vec<String>,
}

/// The result of an apply.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApplyOutcome {
    /// Whether the work is applied now; with `check_only`, whether it could be.
    pub applied: bool,
    /// One entry per change, in their order.
    pub items: Vec<Obstacles>,
    /// The token that undoes it; none where nothing had to be changed.
    pub undo: Option<String>,
    /// Items that another call had applied before this one got its turn, with the token that undoes each.
    pub earlier: Vec<(ItemIndex, String)>,
    /// The commit that the ref is at now, for [`How::Merge`] and [`How::Branch`].
    pub commit: Option<String>,
}
