//! Whether anything is lost when a worktree is removed.
//!
//! Nothing is where no item works in it, nothing in it is uncommitted, and its commits change nothing, were applied, or
//! are held by a ref of the user's.

use super::RepoError;
use super::head;
use super::record::WorktreeRecord;
use super::repos::Context;
use super::submodules::{self, Rescue};
use std::collections::BTreeSet;

/// The commits that are applied and not undone.
pub(super) type Applied = BTreeSet<String>;

/// Whether a worktree can be removed.
pub(super) enum Verdict {
    /// Nothing is lost with it.
    Removable,
    /// It holds work that exists nowhere else.
    Unapplied(&'static str),
    /// It must not be removed.
    Untouchable(String),
}

impl Context {
    /// Returns the commits that are applied and not undone.
    pub(super) fn applied(&self) -> Result<Applied, RepoError> {
        let records = self.journal().all()?.into_iter();
        let applied = records.filter(|record| record.is_applied());
        Ok(applied.flat_map(|record| record.commits).collect())
    }

    /// Returns whether the worktree can be removed.
    pub(super) async fn judge(
        &self,
        record: &WorktreeRecord,
        applied: &Applied,
    ) -> Result<Verdict, RepoError> {
        let exists = record.path.is_dir();
        let Some(layout) = record.repository() else {
            return Ok(match exists {
                true => Verdict::Untouchable(format!(
                    "its repository {} was moved or deleted; its files may exist nowhere else",
                    record.repo
                )),
                false => Verdict::Removable,
            });
        };
        let git = self.user(&layout);
        let mut commits: BTreeSet<String> = record.commit.clone().into_iter().collect();
        if let Some(name) = record.branch_ref() {
            commits.extend(head::ref_at(&git, &layout, &name).await?);
        }
        if exists && record.ready {
            let Ok(inside) = self.in_worktree(record) else {
                let why = "git does not know it any more, but it holds files";
                return Ok(Verdict::Untouchable(why.to_owned()));
            };
            commits.extend(inside.commit("HEAD").await?);
            if !inside.status().await?.is_empty() {
                let why = "it holds changes that are not committed";
                return Ok(Verdict::Unapplied(why));
            }
            if submodules::are_possible(record)
                && !self
                    .submodules_at_risk(record, &inside, Rescue::Report)
                    .await?
                    .is_empty()
            {
                let why = "a submodule in it holds work that exists nowhere else";
                return Ok(Verdict::Unapplied(why));
            }
        }
        for commit in &commits {
            let is_base = *commit == record.base_commit || *commit == record.start_commit;
            let is_held = is_base
                || applied.contains(commit)
                || git.is_users(commit).await?
                || !git
                    .refs(Some(commit), &["refs/mahavishnu/kept"])
                    .await?
                    .is_empty();
            if !is_held {
                return Ok(Verdict::Unapplied("its changes were never applied"));
            }
        }
        Ok(Verdict::Removable)
    }

    /// Commits the work and sets the ref `name` to it; returns the files that no commit can hold, and keeps nothing then.
    pub(super) async fn keep(
        &self,
        record: &WorktreeRecord,
        name: &str,
    ) -> Result<Vec<String>, RepoError> {
        let gone = || super::layout::not_a_repository(record.repo.as_ref());
        let git_layout = record.repository().ok_or_else(gone)?;
        let git = self.user(&git_layout);
        let mut commits = Vec::new();
        if record.path.is_dir() {
            let done = self
                .commit_all(record, "Work that was not applied\n")
                .await?;
            if !done.uncommitted.is_empty() {
                return Ok(done.uncommitted);
            }
            commits.push(done.commit);
        }
        if let Some(branch) = record.branch_ref() {
            commits.extend(git.commit(&branch).await?);
        }
        commits.extend(record.commit.clone());
        let mut seen = BTreeSet::new();
        commits.retain(|commit| seen.insert(commit.clone()));
        let why = "mahavishnu: keep unapplied work";
        for (nth, commit) in commits.iter().enumerate() {
            if nth == 0 {
                git.update_ref(name, commit, None, why).await?;
            } else if !git.is_ancestor(commit, &commits[0]).await? {
                git.update_ref(&format!("{name}-{nth}"), commit, None, why)
                    .await?;
            }
        }
        Ok(Vec::new())
    }
}
