//! Submodules that were checked out inside a worktree.
//!
//! Their git data lies below the worktree's own (`worktrees/NAME/modules/`) and is removed with it. So commits that were
//! made in one are fetched into the user's copy of that submodule, under the worktree's kept ref; what cannot be fetched,
//! and what is not committed, is reported.

use super::layout::bytes_path;
use super::plumbing::{Name, Plumbing, Ref, object_id};
use super::record::WorktreeRecord;
use super::repos::Context;
use super::trees::GITLINK;
use super::{Layout, RepoError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How deep submodules of submodules are followed.
const DEEPEST: usize = 8;

/// Why a submodule must not be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtRisk {
    /// It holds changes that are not committed.
    Uncommitted,
    /// It holds commits that are in no other repository.
    Commits,
}

/// What to do with commits that exist only in a submodule of the worktree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rescue {
    /// Fetch them into the user's copy of the submodule.
    Fetch,
    /// Only report them.
    Report,
}

/// A submodule that is checked out.
struct Submodule {
    /// Its path from the top of the worktree.
    name: Name,
    layout: Layout,
    /// The commit that the repository around it named at the base.
    pinned: Option<String>,
}

/// Returns whether submodules may be checked out in the worktree; costs no process.
pub(super) fn are_possible(record: &WorktreeRecord) -> bool {
    let own = record.git_dir.as_ref().map(|dir| dir.join("modules"));
    own.is_some_and(|dir| dir.is_dir()) || record.path.join(".gitmodules").exists()
}

impl Context {
    /// Returns the checked-out submodules of the worktree that hold something which exists nowhere else, with the reason.
    pub(super) async fn submodules_at_risk(
        &self,
        record: &WorktreeRecord,
        git: &Plumbing<'_>,
        rescue: Rescue,
    ) -> Result<Vec<(Name, AtRisk)>, RepoError> {
        let inspection = Inspection {
            context: self,
            record,
            user: record.repository(),
            rescue,
        };
        let mut found = Vec::new();
        // Level by level, because async functions do not recurse without boxing.
        let base = Some(record.base_commit.as_str());
        let mut level = checked_out(git, &record.path, b"", base).await?;
        for _ in 0..DEEPEST {
            let mut below = Vec::new();
            for submodule in &level {
                let git = self.inside(submodule);
                if let Some(why) = inspection.risk_of(submodule, &git).await? {
                    found.push((submodule.name.clone(), why));
                }
                let (dir, base) = (&submodule.layout.dir, submodule.pinned.as_deref());
                below.extend(checked_out(&git, dir, &submodule.name, base).await?);
            }
            level = below;
        }
        Ok(found)
    }

    fn inside(&self, submodule: &Submodule) -> Plumbing<'_> {
        Plumbing::worktree(&self.git, &submodule.layout.dir, &submodule.layout.git_dir)
    }
}

/// Returns the submodules of the repository at `top` that are checked out, those of `base` and those that came since.
async fn checked_out(
    git: &Plumbing<'_>,
    top: &Path,
    above: &[u8],
    base: Option<&str>,
) -> Result<Vec<Submodule>, RepoError> {
    let mut listed = BTreeMap::new();
    let index = git.read("ls-files -s -z").run().await?;
    listed.extend(links(&index.stdout).map(|(name, _)| (name, None)));
    // In a shallow or partial copy the base may be missing; then nothing counts as known.
    if let Some(base) = base
        && git.commit(base).await?.is_some()
    {
        let tree = git
            .read("ls-tree -r -z --full-tree")
            .arg(base)
            .run()
            .await?;
        listed.extend(links(&tree.stdout).map(|(name, pinned)| (name, Some(pinned))));
    }
    let mut found = Vec::new();
    for (name, pinned) in listed {
        let Ok(Some(layout)) = Layout::at(&top.join(bytes_path(&name))) else {
            continue;
        };
        if layout.has_working_copy() {
            let separator: &[u8] = if above.is_empty() { b"" } else { b"/" };
            found.push(Submodule {
                name: [above, separator, &name].concat(),
                layout,
                pinned,
            });
        }
    }
    Ok(found)
}

/// Reads the submodules' entries out of `ls-files -s -z` or `ls-tree -z`: `MODE ... OBJECT ...TAB name NUL`.
fn links(listing: &[u8]) -> impl Iterator<Item = (Name, String)> {
    let records = listing.split(|byte| *byte == 0);
    records.filter_map(|record| {
        let rest = record.strip_prefix(GITLINK.as_bytes())?;
        let tab = rest.iter().position(|byte| *byte == b'\t')?;
        let head = std::str::from_utf8(&rest[..tab]).ok()?;
        let object = head.split(' ').find_map(object_id)?;
        Some((rest[tab + 1..].to_vec(), object))
    })
}

struct Inspection<'a> {
    context: &'a Context,
    record: &'a WorktreeRecord,
    /// The user's repository, where it still is the worktree's.
    user: Option<Layout>,
    rescue: Rescue,
}

impl Inspection<'_> {
    async fn risk_of(
        &self,
        submodule: &Submodule,
        git: &Plumbing<'_>,
    ) -> Result<Option<AtRisk>, RepoError> {
        let status = git.status().await?;
        let mut are_safe = true;
        for found in self.own_refs(submodule, git).await? {
            are_safe &= self.is_safe(submodule, &found).await?;
        }
        Ok(match (are_safe, status.is_empty()) {
            (false, _) => Some(AtRisk::Commits),
            (true, false) => Some(AtRisk::Uncommitted),
            (true, true) => None,
        })
    }

    /// Returns the refs of the submodule with commits that neither came from its remotes nor were there at the base.
    async fn own_refs(
        &self,
        submodule: &Submodule,
        git: &Plumbing<'_>,
    ) -> Result<Vec<Ref>, RepoError> {
        let mut refs = git.refs(None, &["refs/heads", "refs/stash"]).await?;
        refs.extend(git.commit("HEAD").await?.map(|commit| Ref {
            name: "HEAD".to_owned(),
            commit,
        }));
        let mut own = Vec::new();
        for found in refs {
            let beyond = git
                .read("rev-list --max-count=1 --ignore-missing")
                .args([&found.commit, "--not", "--remotes"])
                .args(&submodule.pinned)
                .run()
                .await?;
            if !beyond.stdout.is_empty() {
                own.push(found);
            }
        }
        Ok(own)
    }

    /// Returns whether the user's copy of the submodule holds the commit of `found`, after fetching it where asked to.
    async fn is_safe(&self, submodule: &Submodule, found: &Ref) -> Result<bool, RepoError> {
        let Some(copy) = self.users_copy(submodule) else {
            return Ok(false);
        };
        let git = Plumbing::worktree(&self.context.git, &copy, &copy);
        if holds(&git, &found.commit).await? {
            return Ok(true);
        }
        if self.rescue == Rescue::Report {
            return Ok(false);
        }
        let short = found.name.strip_prefix("refs/").unwrap_or(&found.name);
        let to = format!("{}/{short}", self.record.kept_ref());
        let fetched = git
            .write("fetch --quiet --no-tags --no-recurse-submodules --no-write-fetch-head --")
            .arg(&submodule.layout.git_dir)
            .arg(format!("+{}:{to}", found.name))
            .done()
            .await;
        if let Err(error) = fetched {
            tracing::warn!(%error, "commits of a submodule could not be kept");
            return Ok(false);
        }
        holds(&git, &found.commit).await
    }

    /// Returns the git directory of the user's copy of the submodule.
    fn users_copy(&self, submodule: &Submodule) -> Option<PathBuf> {
        let user = self.user.as_ref()?;
        if let Ok(Some(layout)) = Layout::at(&user.dir.join(bytes_path(&submodule.name))) {
            return Some(layout.git_dir);
        }
        let own = self.record.git_dir.as_ref()?;
        let below = submodule.layout.git_dir.strip_prefix(own).ok()?;
        Some(user.git_dir.join(below)).filter(|dir| dir.join("objects").is_dir())
    }
}

/// Returns whether a ref of the repository holds `commit`.
async fn holds(git: &Plumbing<'_>, commit: &str) -> Result<bool, RepoError> {
    Ok(git.commit(commit).await?.is_some() && !git.refs(Some(commit), &[]).await?.is_empty())
}
