//! What killed processes leave behind, and no record leads to: removed after every start and by every cleaning.
//!
//! Each is removed only under the lock, or the claim, that a live process would hold on it.

use super::blocking::off_the_runtime;
use super::in_use::{self, IN_USE};
use super::journal::UndoRecord;
use super::json_file::folders;
use super::layout::{bytes_path, read_small, remove_folder};
use super::lock::Lane;
use super::record::{RECORD, WorktreeRecord};
use super::recover::{Operation, Recovered};
use super::remove::TRASH;
use super::repos::{Context, Repos};
use super::temp_index;
use super::{Layout, RepoError};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long after a start the roots are searched.
const SEARCH_DELAY: Duration = Duration::from_secs(5);
/// How old a registration must be that git has not finished; a live `git worktree add` needs far less.
const UNFINISHED_AGE: Duration = Duration::from_secs(10 * 60);

impl Repos {
    /// Finishes or rolls back every apply and undo that a crash has interrupted, and removes what else a crash has left
    /// in the state directory. Call it at the start; `apply` and `undo` recover their own repository too.
    ///
    /// # Errors
    ///
    /// The state directory cannot be read. What could not be recovered has the error as its own outcome and stays
    /// recorded.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future lets the step run to its end.
    pub async fn recover(&self) -> Result<Vec<Recovered>, RepoError> {
        self.step(|context| async move {
            let recovered = context.recover().await?;
            for apply in context
                .journal()
                .all()?
                .iter()
                .filter(|apply| apply.is_applied())
            {
                context.clear_staged(apply)?;
            }
            context.remove_recordless().await?;
            context.remove_leftovers(Vec::new()).await?;
            context.search_later();
            Ok(recovered)
        })
        .await
    }
}

impl Context {
    /// Searches the roots in the background for registrations in repositories that no record names. Begins late, so that
    /// short-lived servers do not walk the roots.
    fn search_later(self: &Arc<Self>) {
        let context = Arc::clone(self);
        self.steps.spawn(async move {
            let search = async {
                tokio::time::sleep(SEARCH_DELAY).await;
                let repositories = context.repositories().await;
                context.remove_leftovers(repositories).await
            };
            if let Some(Err(error)) = context.ending.run_until_cancelled(search).await {
                tracing::warn!(%error, "leftovers of killed processes could not be removed");
            }
        });
    }

    /// Removes abandoned indexes, folders of applies without a record, and registrations of worktrees whose folder is
    /// gone, in `repos` and in every repository that a record names.
    ///
    /// # Errors
    ///
    /// The state directory cannot be read. A leftover that cannot be removed is logged and tried again next time.
    pub(super) async fn remove_leftovers(&self, repos: Vec<PathBuf>) -> Result<(), RepoError> {
        temp_index::remove_abandoned(&self.scratch)?;
        self.journal().remove_recordless()?;
        for layout in self.known_repositories(repos)?.into_values() {
            let dir = layout.dir.clone();
            if let Err(error) = self.unregister_missing(layout).await {
                tracing::warn!(?dir, %error, "registrations of missing worktrees could not be removed");
            }
        }
        Ok(())
    }

    /// Returns the layouts of `repos` and of those that worktrees and applies belong to, by their shared git directory.
    fn known_repositories(
        &self,
        repos: Vec<PathBuf>,
    ) -> Result<BTreeMap<PathBuf, Layout>, RepoError> {
        let mut dirs: BTreeSet<PathBuf> = repos.into_iter().collect();
        for folder in folders(&self.worktrees)? {
            dirs.extend(
                WorktreeRecord::load(&folder)
                    .map(|record| record.repo.into())
                    .ok(),
            );
        }
        let applies = self.journal().all()?;
        dirs.extend(applies.into_iter().map(|apply| apply.repo.into()));
        let layouts = dirs.iter().filter_map(|dir| Layout::at(dir).ok().flatten());
        Ok(layouts
            .map(|layout| (layout.common_dir.clone(), layout))
            .collect())
    }

    /// Removes the folders of worktrees that were never made, or whose removal was cut short after the record's.
    async fn remove_recordless(&self) -> Result<(), RepoError> {
        for folder in folders(&self.worktrees)? {
            if !is_without_record(&folder) {
                continue;
            }
            let claim = in_use::claim(&folder, self.alive.as_deref());
            if folder.exists() && claim?.is_some() {
                off_the_runtime(move |_| {
                    remove_folder(&folder).map_err(RepoError::io("remove", &folder))
                })
                .await?;
            }
        }
        Ok(())
    }

    /// Removes git's registrations of this server's worktrees whose folder is gone.
    async fn unregister_missing(&self, layout: Layout) -> Result<(), RepoError> {
        let registered = layout.common_dir.join("worktrees");
        let (Ok(worktrees), true) = (fs::canonicalize(&self.worktrees), registered.is_dir()) else {
            return Ok(());
        };
        let missing = |dir: &PathBuf| is_missing(dir, &worktrees);
        if !folders(&registered)?.iter().any(missing) {
            return Ok(());
        }
        let _lock = self.locks.lock(&layout.common_dir, Lane::GitData).await?;
        for dir in folders(&registered)?.into_iter().filter(missing) {
            let head = super::head::of(&self.user(&layout), &registration(&layout, &dir)).await;
            remove_folder(&dir).map_err(RepoError::io("remove", &dir))?;
            if let Ok(Some(branch)) = head.map(|head| head.branch) {
                self.delete_if_held(&layout, &branch).await?;
            }
        }
        // As git does, where this was the last one; others keep the folder.
        let _others_keep_it = fs::remove_dir(&registered);
        Ok(())
    }

    /// Deletes the branch of an item whose commit a ref of the user's holds too.
    async fn delete_if_held(&self, layout: &Layout, branch: &str) -> Result<(), RepoError> {
        let git = self.user(layout);
        let name = format!("refs/heads/{branch}");
        if branch.starts_with("mahavishnu/")
            && let Some(commit) = git.commit(&name).await?
            && git.is_users(&commit).await?
        {
            git.delete_ref(&name, &commit).await?;
        }
        Ok(())
    }

    /// Removes the staged files of an apply that was complete when its process was killed.
    fn clear_staged(&self, apply: &UndoRecord) -> Result<(), RepoError> {
        let Some(layout) = Layout::at(Path::new(&apply.repo)).ok().flatten() else {
            return Ok(());
        };
        let operation = Operation::new(self, &layout, &apply.id);
        if !operation.staging.has_work() {
            return Ok(());
        }
        // Only a live apply or undo holds the lock, and it needs these files.
        if let Some(_lock) = self.locks.try_lock(&layout.common_dir, Lane::WorkingCopy)? {
            operation.staging.clear_work();
        }
        Ok(())
    }

    /// Returns the repositories under the roots; none where they cannot be walked.
    pub(super) async fn repositories(self: &Arc<Self>) -> Vec<PathBuf> {
        let context = Arc::clone(self);
        let found = off_the_runtime(move |stop| context.roots.discover(stop)).await;
        let repos = found.map(|found| found.repos).unwrap_or_default();
        repos.iter().map(|repo| repo.as_path().to_owned()).collect()
    }
}

/// Returns whether the folder holds only what is left before a record is written, or after it is removed.
pub(super) fn is_without_record(folder: &Path) -> bool {
    let leftovers = [IN_USE, TRASH, "record.tmp"];
    let is_leftover = |entry: fs::DirEntry| leftovers.iter().any(|name| entry.file_name() == *name);
    !folder.join(RECORD).exists()
        && fs::read_dir(folder).is_ok_and(|entries| entries.flatten().all(is_leftover))
}

/// Returns whether a registration is of a worktree below `worktrees` whose folder is gone, or was never finished.
fn is_missing(registration: &Path, worktrees: &Path) -> bool {
    match read_small(&registration.join("gitdir")) {
        Ok(text) => {
            let dot_git = bytes_path(&text);
            dot_git.starts_with(worktrees) && !dot_git.exists()
        }
        Err(_) => {
            let changed = registration.metadata().and_then(|meta| meta.modified());
            let age = changed.ok().and_then(|at| at.elapsed().ok());
            age.is_some_and(|age| age >= UNFINISHED_AGE)
        }
    }
}

/// Returns the layout of a registered worktree without its folder: enough to read HEAD.
fn registration(layout: &Layout, dir: &Path) -> Layout {
    Layout {
        git_dir: dir.to_owned(),
        ..layout.clone()
    }
}
