//! What a worktree is made from.

use super::git::{Git, Mode};
use super::head::{self, Head};
use super::plumbing::{Spot, TempIndex};
use super::{Layout, RepoError, RepoPath, status};
use crate::model::BaseRef;
use std::path::Path;

/// The commit a worktree starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    /// The commit.
    pub(super) commit: String,
    /// The branch that it was the head of, where there is one.
    pub(super) branch: Option<String>,
    /// Whether what is not committed in the working copy is part of it.
    pub(super) with_dirty: bool,
}

/// Finds, or for [`BaseRef::WorkingCopy`] makes, the commit that `wanted` means. No file, index or ref is touched.
pub(super) async fn find(
    git: &Git,
    repo: &RepoPath,
    layout: &Layout,
    wanted: &BaseRef,
    scratch: &Path,
) -> Result<Base, RepoError> {
    let head = head::of(git, layout).await?;
    let spot = Spot::user(git, layout);
    match wanted {
        BaseRef::Head => Ok(Base {
            commit: head
                .commit
                .ok_or_else(|| RepoError::NoCommits { repo: repo.clone() })?,
            branch: head.branch,
            with_dirty: false,
        }),
        BaseRef::DefaultBranch => default_branch(git, repo, layout, head).await,
        BaseRef::WorkingCopy => Ok(Base {
            commit: snapshot(&spot, layout, &head, scratch).await?,
            branch: head.branch,
            with_dirty: true,
        }),
        BaseRef::Ref(name) => {
            let commit = any_ref(&spot, repo, name).await?;
            let is_branch = head::read_ref(&layout.common_dir, &format!("refs/heads/{name}"))
                .is_some_and(|found| found.is_some());
            Ok(Base {
                commit,
                branch: is_branch.then(|| name.clone()),
                with_dirty: false,
            })
        }
    }
}

async fn default_branch(
    git: &Git,
    repo: &RepoPath,
    layout: &Layout,
    head: Head,
) -> Result<Base, RepoError> {
    let spot = Spot::user(git, layout);
    let branch = status::default_branch(git, layout, &head)
        .await?
        .ok_or_else(|| RepoError::NoCommits { repo: repo.clone() })?;
    for name in ["refs/heads/", "refs/remotes/origin/"] {
        if let Some(commit) = spot.commit(&format!("{name}{branch}")).await? {
            return Ok(Base {
                commit,
                branch: Some(branch),
                with_dirty: false,
            });
        }
    }
    Err(RepoError::NoCommits { repo: repo.clone() })
}

async fn any_ref(spot: &Spot<'_>, repo: &RepoPath, name: &str) -> Result<String, RepoError> {
    const SHOWN_CHARS: usize = 200;
    let bad = |why| RepoError::BadRef {
        repo: repo.clone(),
        name: name.chars().take(SHOWN_CHARS).collect(),
        why,
    };
    if name.is_empty() || name.starts_with('-') || name.contains(char::is_control) {
        return Err(bad(
            "it is empty, begins with '-' or holds a control character",
        ));
    }
    spot.commit(name)
        .await?
        .ok_or_else(|| bad("there is no such ref or commit"))
}

/// Makes a commit of HEAD and of what is not committed: tracked and new, not ignored files, as they are now.
///
/// Done in an index of its own, so the user's files, index and refs stay as they are. The commit is reachable only
/// once a ref is set to it.
pub(super) async fn snapshot(
    spot: &Spot<'_>,
    layout: &Layout,
    head: &Head,
    scratch: &Path,
) -> Result<String, RepoError> {
    let tree = working_tree(spot, layout, scratch).await?;
    if let Some(commit) = &head.commit
        && spot.tree_of(commit).await? == tree
    {
        return Ok(commit.clone());
    }
    let parents: Vec<&str> = head.commit.as_deref().into_iter().collect();
    spot.commit_tree(&tree, &parents, "Snapshot of the working copy\n")
        .await
}

/// Writes the working copy, tracked and new, not ignored files, as a tree.
async fn working_tree(
    spot: &Spot<'_>,
    layout: &Layout,
    scratch: &Path,
) -> Result<String, RepoError> {
    let index = TempIndex::in_dir(scratch)?;
    // The copy keeps what git knows of unchanged files, so that they are not read again.
    match std::fs::copy(layout.git_dir.join("index"), index.path()) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(RepoError::io("copy the index of", &layout.git_dir)(error)),
    }
    let apart = spot.with_index(index.path());
    apart.add_all().await?;
    apart.write_tree().await
}

/// Returns the text of the difference between two commits, at most `max_bytes` of it.
pub(super) async fn diff_text(
    spot: &Spot<'_>,
    old: &str,
    new: &str,
    max_bytes: u64,
) -> Result<Vec<u8>, RepoError> {
    let answer = spot
        .cmd(Mode::Read, "diff-tree")
        .args([
            "-r",
            "-p",
            "--no-color",
            "--no-ext-diff",
            "--no-textconv",
            "--find-renames",
        ])
        .args(["--end-of-options", old, new])
        .keep_at_most(max_bytes)
        .run()
        .await?;
    Ok(answer.stdout)
}
