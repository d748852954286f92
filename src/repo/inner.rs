//! Submodules that were checked out inside a worktree.
//!
//! Their git data lies below the worktree's own (`worktrees/NAME/modules/`) and goes with it. So commits that were made
//! in one are brought into the user's copy of that submodule, under the worktree's kept ref; what cannot be brought
//! there, and what is not committed, is named.

use super::git::{Git, Mode};
use super::layout::bytes_path;
use super::plumbing::{GITLINK, Name, Spot};
use super::record::WorktreeRecord;
use super::{Layout, RepoError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How deep submodules of submodules are followed.
const DEEPEST: usize = 8;

/// Why a submodule must not be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loose {
    /// It holds changes that are not committed.
    Dirty,
    /// It holds commits that are in no other repository.
    Strays,
}

/// Whether stray commits are brought to safety or only looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strays {
    /// Bring them into the user's copy of the submodule.
    Secure,
    /// Only look.
    Tell,
}

/// A submodule that is checked out.
struct Inner {
    /// Its path from the top of the worktree.
    name: Name,
    layout: Layout,
    /// The commit that the repository around it named at the base.
    pinned: Option<String>,
}

/// Whether submodules may be checked out in the worktree: a look that costs no process.
pub(super) fn are_possible(record: &WorktreeRecord) -> bool {
    let own = record.git_dir.as_ref().map(|dir| dir.join("modules"));
    own.is_some_and(|dir| dir.is_dir()) || record.path.join(".gitmodules").exists()
}

/// Returns the checked-out submodules of the worktree that hold something which is nowhere else, with why.
pub(super) async fn loose(
    git: &Git,
    record: &WorktreeRecord,
    spot: &Spot<'_>,
    strays: Strays,
) -> Result<Vec<(Name, Loose)>, RepoError> {
    let user = Layout::at(Path::new(&record.repo)).ok().flatten();
    let keeper = Keeper {
        git,
        record,
        user: user.filter(|user| user.common_dir == record.common_dir),
        strays,
    };
    let mut found = Vec::new();
    // Depth by depth; async functions do not recurse without boxing.
    let base = Some(record.base_commit.as_str());
    let mut layer = checked_out(spot, &record.path, b"", base).await?;
    for _ in 0..DEEPEST {
        let mut below = Vec::new();
        for inner in &layer {
            let spot = Spot::worktree(git, &inner.layout.dir, &inner.layout.git_dir);
            if let Some(why) = keeper.judge(inner, &spot).await? {
                found.push((inner.name.clone(), why));
            }
            let base = inner.pinned.as_deref();
            below.extend(checked_out(&spot, &inner.layout.dir, &inner.name, base).await?);
        }
        layer = below;
    }
    Ok(found)
}

/// Returns the submodules of the repository at `top` that are checked out, those of `base` and those that came since.
async fn checked_out(
    spot: &Spot<'_>,
    top: &Path,
    above: &[u8],
    base: Option<&str>,
) -> Result<Vec<Inner>, RepoError> {
    let mut listed = BTreeMap::new();
    let index = spot.cmd(Mode::Read, "ls-files").args(["-s", "-z"]);
    for (name, _) in links(&index.run().await?.stdout) {
        listed.insert(name, None);
    }
    // In a shallow or partial copy the base may be missing; then nothing counts as known.
    if let Some(base) = base
        && spot.commit(base).await?.is_some()
    {
        let tree = spot.cmd(Mode::Read, "ls-tree");
        let tree = tree.args(["-r", "-z", "--full-tree", base]).run().await?;
        let known = links(&tree.stdout).into_iter();
        listed.extend(known.map(|(name, pinned)| (name, Some(pinned))));
    }
    let mut found = Vec::new();
    for (name, pinned) in listed {
        let dir = top.join(bytes_path(&name));
        let Ok(Some(layout)) = Layout::at(&dir) else {
            continue;
        };
        if layout.has_working_copy() {
            let mut whole = above.to_vec();
            if !whole.is_empty() {
                whole.push(b'/');
            }
            whole.extend_from_slice(&name);
            found.push(Inner {
                name: whole,
                layout,
                pinned,
            });
        }
    }
    Ok(found)
}

/// Reads the submodules' entries out of `ls-files -s -z` or `ls-tree -z`: `MODE ... OBJECT ...TAB name NUL`.
fn links(listing: &[u8]) -> Vec<(Name, String)> {
    let records = listing.split(|byte| *byte == 0);
    records
        .filter_map(|record| {
            let rest = record.strip_prefix(GITLINK.as_bytes())?;
            let tab = rest.iter().position(|byte| *byte == b'\t')?;
            let head = std::str::from_utf8(&rest[..tab]).ok()?;
            let object = head.split(' ').find_map(super::head::as_commit)?;
            Some((rest[tab + 1..].to_vec(), object))
        })
        .collect()
}

struct Keeper<'a> {
    git: &'a Git,
    record: &'a WorktreeRecord,
    user: Option<Layout>,
    strays: Strays,
}

impl Keeper<'_> {
    async fn judge(&self, inner: &Inner, spot: &Spot<'_>) -> Result<Option<Loose>, RepoError> {
        let status = spot
            .cmd(Mode::Read, "status")
            .args(["--porcelain", "-z", "--untracked-files=normal"])
            .args(["--ignore-submodules=none", "--no-renames"])
            .run()
            .await?;
        let strays = self.stray_refs(inner, spot).await?;
        let mut safe = true;
        for (name, commit) in &strays {
            safe &= self.is_safe(inner, name, commit).await?;
        }
        Ok(match (safe, status.stdout.is_empty()) {
            (false, _) => Some(Loose::Strays),
            (true, false) => Some(Loose::Dirty),
            (true, true) => None,
        })
    }

    /// Returns the refs of the submodule that hold commits which neither came from its remotes nor were there at the
    /// base, each with its commit.
    async fn stray_refs(
        &self,
        inner: &Inner,
        spot: &Spot<'_>,
    ) -> Result<Vec<(String, String)>, RepoError> {
        let heads = spot
            .cmd(Mode::Read, "for-each-ref")
            .args(["--format=%(refname) %(objectname)", "refs/heads"])
            .args(["refs/stash"])
            .run()
            .await?;
        let text = String::from_utf8_lossy(&heads.stdout).into_owned();
        let mut refs: Vec<(String, String)> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, commit)| (name.to_owned(), commit.to_owned()))
            .collect();
        if let Some(commit) = spot.commit("HEAD").await? {
            refs.push(("HEAD".to_owned(), commit));
        }
        let mut strays = Vec::new();
        for (name, commit) in refs {
            let beyond = spot
                .cmd(Mode::Read, "rev-list")
                .args(["--max-count=1", "--ignore-missing", &commit])
                .args(["--not", "--remotes"])
                .args(&inner.pinned)
                .run()
                .await?;
            if !beyond.stdout.is_empty() {
                strays.push((name, commit));
            }
        }
        Ok(strays)
    }

    /// Returns whether the user's copy of the submodule holds `commit`, after bringing it there where that is wanted.
    async fn is_safe(&self, inner: &Inner, name: &str, commit: &str) -> Result<bool, RepoError> {
        let Some(home) = self.users_copy(inner) else {
            return Ok(false);
        };
        let there = Spot::worktree(self.git, &home, &home);
        if holds(&there, commit).await? {
            return Ok(true);
        }
        if self.strays == Strays::Tell {
            return Ok(false);
        }
        let short = name.strip_prefix("refs/").unwrap_or(name);
        let to = format!("{}/{short}", self.record.kept_ref());
        let fetched = there
            .cmd(Mode::Write, "fetch")
            .args(["--quiet", "--no-tags", "--no-recurse-submodules"])
            .args(["--no-write-fetch-head", "--"])
            .arg(&inner.layout.git_dir)
            .arg(format!("+{name}:{to}"))
            .run()
            .await;
        if let Err(error) = fetched {
            tracing::warn!(%error, "commits of a submodule could not be kept");
            return Ok(false);
        }
        holds(&there, commit).await
    }

    /// Returns the git directory of the user's copy of the submodule.
    fn users_copy(&self, inner: &Inner) -> Option<PathBuf> {
        let user = self.user.as_ref()?;
        if let Ok(Some(layout)) = Layout::at(&user.dir.join(bytes_path(&inner.name))) {
            return Some(layout.git_dir);
        }
        let below = inner
            .layout
            .git_dir
            .strip_prefix(self.record.git_dir.as_ref()?)
            .ok()?;
        Some(user.git_dir.join(below)).filter(|dir| dir.join("objects").is_dir())
    }
}

/// Returns whether a ref there holds `commit`.
async fn holds(there: &Spot<'_>, commit: &str) -> Result<bool, RepoError> {
    if there.commit(commit).await?.is_none() {
        return Ok(false);
    }
    let refs = there
        .cmd(Mode::Read, "for-each-ref")
        .args(["--count=1", "--format=%(refname)", "--contains", commit])
        .run()
        .await?;
    Ok(!refs.stdout.is_empty())
}
