//! Removes a worktree with its registration, branch and record.

use super::RepoError;
use super::blocking::off_the_runtime;
use super::head;
use super::layout::{bytes_path, is_absent, read_small, remove_folder};
use super::lock::Lane;
use super::record::WorktreeRecord;
use super::repos::Context;
use std::fs;
use std::path::PathBuf;

/// The name a worktree has while it is being deleted.
pub(super) const TRASH: &str = "trash";

impl Context {
    /// Removes worktree, registration, branch and record. A crash at any point leaves a record of what is left, or a
    /// folder that holds nothing but [`TRASH`].
    pub(super) async fn remove_worktree(&self, record: &WorktreeRecord) -> Result<(), RepoError> {
        let folder = record.folder().to_owned();
        let trash = folder.join(TRASH);
        match fs::rename(&record.path, &trash) {
            Err(error) if !is_absent(&error) => {
                return Err(RepoError::io("move", &record.path)(error));
            }
            _ => {}
        }
        if let Some(layout) = record.repository() {
            let _lock = self.locks.lock(&layout.common_dir, Lane::GitData).await?;
            unregister(record)?;
            if let Some(name) = record.branch_ref() {
                let git = self.user(&layout);
                if let Some(at) = head::ref_at(&git, &layout, &name).await? {
                    git.delete_ref(&name, &at).await?;
                }
            }
        }
        off_the_runtime(move |_| {
            // The record is removed last: the next call continues from it.
            remove_folder(&trash).map_err(RepoError::io("remove", &trash))?;
            remove_folder(&folder).map_err(RepoError::io("remove", &folder))
        })
        .await
    }
}

/// Removes git's registration of the worktree, if it still is this worktree's.
fn unregister(record: &WorktreeRecord) -> Result<(), RepoError> {
    let Some(git_dir) = record.git_dir.clone().or_else(|| find_registration(record)) else {
        return Ok(());
    };
    let registered = match read_small(&git_dir.join("gitdir")) {
        Ok(registered) => registered,
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(RepoError::io("read", &git_dir)(error)),
    };
    if bytes_path(&registered) != dot_git(record) {
        return Ok(());
    }
    fs::remove_dir_all(&git_dir).map_err(RepoError::io("remove", &git_dir))?;
    // As git does, where this was the last one; others keep the folder.
    let _others_keep_it = fs::remove_dir(record.common_dir.join("worktrees"));
    Ok(())
}

/// Returns the path that git registers for the worktree: without symbolic links, also where the worktree is gone.
fn dot_git(record: &WorktreeRecord) -> PathBuf {
    let folder = record.folder();
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let name = record.path.file_name().unwrap_or_default();
    folder.join(name).join(".git")
}

/// Finds the registration that a crash kept from being recorded.
fn find_registration(record: &WorktreeRecord) -> Option<PathBuf> {
    let wanted = dot_git(record);
    fs::read_dir(record.common_dir.join("worktrees"))
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|dir| read_small(&dir.join("gitdir")).is_ok_and(|text| bytes_path(&text) == wanted))
}
