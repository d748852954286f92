//! Commits the work in a worktree: all that git can add, wherever the worker left HEAD.

use super::head::{self, Head};
use super::plan::OPERATIONS;
use super::plumbing::{Name, Plumbing, no_object, shown};
use super::record::WorktreeRecord;
use super::repos::Context;
use super::submodules::{self, AtRisk, Rescue};
use super::trees::Side;
use super::{Layout, RepoError};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How many digits of a commit the name of a kept ref has.
const SHORT_ID: usize = 12;

/// The state of a worktree after all that can be committed was committed.
#[derive(Debug)]
pub(super) struct AllCommitted {
    /// The commit that HEAD is at.
    pub(super) commit: String,
    /// Files and folders that no commit of the repository holds, sorted.
    pub(super) uncommitted: Vec<String>,
}

impl Context {
    /// Returns git's plumbing in a worktree.
    pub(super) fn in_worktree(&self, record: &WorktreeRecord) -> Result<Plumbing<'_>, RepoError> {
        let layout = record.layout()?;
        Ok(Plumbing::worktree(&self.git, &layout.dir, &layout.git_dir))
    }

    /// Commits what differs from HEAD, and sets the worktree's branch to it.
    pub(super) async fn commit_all(
        &self,
        record: &WorktreeRecord,
        message: &str,
    ) -> Result<AllCommitted, RepoError> {
        let git = self.in_worktree(record)?;
        let layout = record.layout()?;
        free_index(&layout.git_dir).await?;
        let head = head::of(&git, &layout).await?;
        let mut uncommitted: BTreeSet<Name> = git.add_all().await?.into_iter().collect();
        let differs = match &head.commit {
            Some(commit) => {
                self.unstage_nested(&git, record, commit, &mut uncommitted)
                    .await?
            }
            None => true,
        };
        let commit = match &head.commit {
            Some(commit) if !differs => commit.clone(),
            parent => {
                let tree = git.write_tree().await?;
                let parents: Vec<&str> = parent.as_deref().into_iter().collect();
                git.commit_tree(&tree, &parents, message).await?
            }
        };
        set_branch(&git, record, &layout, &head, &commit).await?;
        Ok(AllCommitted {
            commit,
            uncommitted: uncommitted.iter().map(|name| shown(name)).collect(),
        })
    }

    /// Takes entries for nested repositories out of the index whose commits exist nowhere else, because nobody could
    /// fetch what they name, and adds those repositories to `uncommitted`. Commits of submodules are kept first. Returns
    /// whether anything else differs from `head`.
    async fn unstage_nested(
        &self,
        git: &Plumbing<'_>,
        record: &WorktreeRecord,
        head: &str,
        uncommitted: &mut BTreeSet<Name>,
    ) -> Result<bool, RepoError> {
        let staged = git.staged(head).await?;
        let mut links = staged.clone();
        links.retain(|_, delta| delta.new.as_ref().is_some_and(|new| new.is_submodule()));
        let mut at_risk = Vec::new();
        if !links.is_empty() || submodules::are_possible(record) {
            at_risk = self.submodules_at_risk(record, git, Rescue::Fetch).await?;
        }
        if !links.is_empty() {
            let declared = git.declared_submodules().await?;
            links.retain(|name, delta| {
                let is_undeclared = delta.old.is_none() && !declared.contains(name);
                is_undeclared || at_risk.contains(&(name.clone(), AtRisk::Commits))
            });
            git.set_entries(&links, Side::Old).await?;
        }
        uncommitted.extend(links.keys().cloned());
        uncommitted.extend(at_risk.into_iter().map(|(name, _)| name));
        Ok(staged.len() != links.len())
    }
}

/// Sets the worktree's branch, and HEAD with it, to `commit`; commits that no branch holds then are kept by a ref.
async fn set_branch(
    git: &Plumbing<'_>,
    record: &WorktreeRecord,
    layout: &Layout,
    head: &Head,
    commit: &str,
) -> Result<(), RepoError> {
    let why = "mahavishnu: commit the work";
    let Some(name) = record.branch_ref() else {
        if head.commit.as_deref() != Some(commit) {
            let old = head.commit.clone().unwrap_or_else(|| no_object(commit));
            git.update_ref("HEAD", commit, Some(&old), why).await?;
        }
        return Ok(());
    };
    let old = head::ref_at(git, layout, &name).await?;
    // The worker may have moved the branch away from what it held when it was last committed.
    for earlier in old.iter().chain(&record.commit) {
        let is_parent = Some(earlier) == head.commit.as_ref();
        if earlier != commit && !is_parent && !git.is_ancestor(earlier, commit).await? {
            let kept = format!("{}-{}", record.kept_ref(), &earlier[..SHORT_ID]);
            git.update_ref(&kept, earlier, None, why).await?;
        }
    }
    if old.as_deref() != Some(commit) {
        let old = old.unwrap_or_else(|| no_object(commit));
        git.update_ref(&name, commit, Some(&old), why).await?;
    }
    if head.branch != record.branch {
        let args = [why, "HEAD", &name];
        git.write("symbolic-ref -m").args(args).done().await?;
    }
    Ok(())
}

/// Returns the files of a merge, rebase or cherry-pick that the worker has not finished; where all of them are resolved,
/// the file in the git directory that marks the operation. To be asked before everything is added to the index.
pub(super) async fn unmerged(
    git: &Plumbing<'_>,
    layout: &Layout,
) -> Result<BTreeSet<String>, RepoError> {
    let markers = OPERATIONS.iter().map(|(file, _)| *file);
    let begun: Vec<&str> = markers
        .filter(|file| layout.git_dir.join(file).exists())
        .collect();
    // git writes AUTO_MERGE at every merge into a working copy, also for `stash pop`, which has no marker.
    if begun.is_empty() && !layout.git_dir.join("AUTO_MERGE").exists() {
        return Ok(BTreeSet::new());
    }
    let listed = git.read("ls-files --unmerged -z").run().await?;
    let names = listed.records().filter_map(|record| {
        let mut fields = record.splitn(2, |byte| *byte == b'\t');
        fields.nth(1).map(shown)
    });
    let names: BTreeSet<String> = names.collect();
    Ok(match names.is_empty() {
        true => begun.into_iter().map(str::to_owned).collect(),
        false => names,
    })
}

/// Removes the lock that a killed git has left on a worktree's index. The caller holds the worktree, so a lock that
/// stays belongs to a git that is dead, or that is about to end because its server was killed.
async fn free_index(git_dir: &Path) -> Result<(), RepoError> {
    const STALE: Duration = Duration::from_secs(5);
    const PAUSE: Duration = Duration::from_millis(100);
    let lock = git_dir.join("index.lock");
    loop {
        let Ok(meta) = fs::symlink_metadata(&lock) else {
            return Ok(());
        };
        let age = meta.modified().ok().and_then(|at| at.elapsed().ok());
        if age.is_none_or(|age| age >= STALE) {
            tracing::info!(?lock, "removed the lock of a git that was killed");
            return super::layout::remove_file(&lock).map_err(RepoError::io("remove", &lock));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
