//! The record of a worktree, kept beside it, so that a crash of the server or the loss of its store orphans nothing.
//!
//! `worktrees/KEY/` holds `record.json`, `in-use` (locked by the process that works in it) and the worktree itself
//! under the repository's own name, because programs take names from folders.

use super::json_file::{self, Durable};
use super::layout::Form;
use super::{Layout, RepoError};
use crate::error::ErrorKind;
use crate::model::{At, Attempt, ItemIndex, Risk, WorkflowId};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The record's file name.
pub(super) const RECORD: &str = "record.json";

/// What is known of a worktree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorktreeRecord {
    /// The user's repository.
    pub repo: String,
    /// Its shared git directory.
    pub common_dir: PathBuf,
    /// The workflow it was made for.
    pub workflow: WorkflowId,
    /// The item.
    pub item: ItemIndex,
    /// The attempt it was made for; later ones may go on in it.
    pub attempt: Attempt,
    /// How many worktrees of the same attempt there were before it; more than none only where a crash left one.
    #[serde(default, alias = "twin")]
    pub copy_number: u32,
    /// The worktree.
    pub path: PathBuf,
    /// The worktree's own git directory; none until git has made it.
    pub git_dir: Option<PathBuf>,
    /// Its branch; none where the isolation is read-only.
    pub branch: Option<String>,
    /// The commit it was made from.
    pub start_commit: String,
    /// The branch that commit was the head of.
    pub base_branch: Option<String>,
    /// The commit that the work is compared with: the start, with what `copy_files` and every attempt's `setup` did.
    pub base_commit: String,
    /// How many uncommitted files of the working copy are not in it; none where git could not list them.
    pub left_out_dirty: Option<u32>,
    /// The commit that holds the work; none before the work was committed.
    pub commit: Option<String>,
    /// What its attempts did beside plain work on files.
    #[serde(default)]
    pub risks: Vec<Risk>,
    /// Whether it was made completely; before that no item has worked in it.
    pub ready: bool,
    /// When it was made.
    pub created_at: At,
}

impl WorktreeRecord {
    /// Returns the folder that holds record and worktree.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Writes the record in one step.
    pub(super) fn save(&self) -> Result<(), RepoError> {
        json_file::save(&self.folder().join(RECORD), self, Durable::No)
    }

    /// Reads the record of the worktree in `folder`.
    pub(super) fn load(folder: &Path) -> Result<Self, RepoError> {
        json_file::load(&folder.join(RECORD))
    }

    /// Returns the ref under which the work is kept when branch and worktree are removed.
    pub(super) fn kept_ref(&self) -> String {
        let attempt = attempt_name(self.item, self.attempt, self.copy_number);
        format!("refs/mahavishnu/kept/{}/{attempt}", self.workflow)
    }

    /// Returns the full name of its branch.
    pub(super) fn branch_ref(&self) -> Option<String> {
        let branch = self.branch.as_ref()?;
        Some(format!("refs/heads/{branch}"))
    }

    /// Returns the layout of the user's repository, or none where it was moved or deleted.
    pub(super) fn repository(&self) -> Option<Layout> {
        let layout = Layout::at(Path::new(&self.repo)).ok().flatten();
        layout.filter(|layout| layout.common_dir == self.common_dir)
    }

    /// Returns the worktree's own layout. It is taken from the record, because a worker may have removed `.git`.
    ///
    /// # Errors
    ///
    /// [`RepoError::WorktreeGone`], or git's data of the worktree is gone with the user's repository.
    pub(super) fn layout(&self) -> Result<Layout, RepoError> {
        let gone = || RepoError::WorktreeGone {
            path: self.path.clone(),
        };
        let git_dir = self.git_dir.clone().ok_or_else(gone)?;
        if !self.path.is_dir() {
            return Err(gone());
        }
        if !git_dir.is_dir() {
            let (repo, path) = (&self.repo, &self.path);
            let message =
                format!("its repository {repo} was moved or deleted; the files are in {path:?}");
            let hint = "put the repository back and resume, or take the files from there";
            return Err(RepoError::refused(ErrorKind::NotFound, message, hint));
        }
        Ok(Layout {
            form: Form::Linked,
            dir: self.path.clone(),
            git_dir,
            common_dir: self.common_dir.clone(),
        })
    }
}

/// Returns the last part of an attempt's branch and refs: `ITEM-ATTEMPT`, and a number for every further copy.
pub(super) fn attempt_name(item: ItemIndex, attempt: Attempt, copy_number: u32) -> String {
    match copy_number {
        0 => format!("{item}-{attempt}"),
        _ => format!("{item}-{attempt}-{copy_number}"),
    }
}
