//! The commit that a worktree starts from.

use super::head::{self, Head};
use super::plumbing::Plumbing;
use super::repos::{Context, Repos};
use super::temp_index::TempIndex;
use super::{Layout, RepoError, RepoPath, status};
use crate::error::Problem;
use crate::model::BaseRef;

/// The commit a worktree starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    /// The commit.
    pub(super) commit: String,
    /// The branch that it was the head of, where there is one.
    pub(super) branch: Option<String>,
    /// How many uncommitted files of the working copy are not in it, where that is known without asking git.
    pub(super) left_out: Option<u32>,
}

impl Base {
    fn of(commit: String, branch: Option<String>) -> Self {
        Self {
            commit,
            branch,
            left_out: None,
        }
    }
}

impl Repos {
    /// Returns the commit and branch that the repository's HEAD names.
    ///
    /// Reads git's files itself, in about 20 µs; git is asked only where they have a form that is not known here.
    ///
    /// # Errors
    ///
    /// The repository is gone or git cannot read it.
    pub async fn head(&self, repo: &RepoPath) -> Result<Head, RepoError> {
        self.head_at(&Layout::of(repo)?).await
    }

    /// Returns the same of a repository whose layout is known.
    ///
    /// # Errors
    ///
    /// As [`Self::head`].
    pub async fn head_at(&self, layout: &Layout) -> Result<Head, RepoError> {
        head::of(&self.0.user(layout), layout).await
    }

    /// Returns the commit, and the branch where there is one, that a worktree of `base` would begin from; for
    /// [`BaseRef::WorkingCopy`] a snapshot that no ref keeps.
    ///
    /// # Errors
    ///
    /// The ref does not exist, the repository has no commit or is gone, or git cannot read it.
    pub async fn base(&self, repo: &RepoPath, base: &BaseRef) -> Result<Head, RepoError> {
        let found = self.0.find_base(repo, &Layout::of(repo)?, base).await?;
        Ok(Head {
            commit: Some(found.commit),
            branch: found.branch,
        })
    }
}

impl Context {
    /// Finds, or for [`BaseRef::WorkingCopy`] makes, the commit that `wanted` names. No file, index or ref is touched.
    pub(super) async fn find_base(
        &self,
        repo: &RepoPath,
        layout: &Layout,
        wanted: &BaseRef,
    ) -> Result<Base, RepoError> {
        let git = self.user(layout);
        let head = head::of(&git, layout).await?;
        let no_commits = || RepoError::NoCommits { repo: repo.clone() };
        match wanted {
            BaseRef::Head => {
                let commit = head.commit.ok_or_else(no_commits)?;
                Ok(Base::of(commit, head.branch))
            }
            BaseRef::DefaultBranch => default_branch(&git, layout, head)
                .await?
                .ok_or_else(no_commits),
            BaseRef::WorkingCopy => self.snapshot(layout, head).await,
            BaseRef::Ref(name) => {
                let commit = any_ref(&git, repo, name).await?;
                let branch = head::ref_at(&git, layout, &format!("refs/heads/{name}")).await?;
                Ok(Base::of(commit, branch.map(|_| name.clone())))
            }
        }
    }

    /// Makes a commit of HEAD and of what is not committed: tracked and new, not ignored files, as they are now.
    ///
    /// Done in an index of its own, so the user's files, index and refs stay as they are. The commit is reachable only
    /// once a ref is set to it.
    async fn snapshot(&self, layout: &Layout, head: Head) -> Result<Base, RepoError> {
        layout.require_working_copy()?;
        let git = self.user(layout);
        let index = TempIndex::in_dir(&self.scratch)?;
        // The copy keeps what git knows of unchanged files, so that they are not read again.
        match std::fs::copy(layout.git_dir.join("index"), index.path()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(RepoError::io("copy the index of", &layout.git_dir)(error));
            }
            _ => {}
        }
        let own = git.with_index(index.path());
        let refused = own.add_all().await?.len();
        let tree = own.write_tree().await?;
        let commit = match &head.commit {
            Some(commit) if git.tree_of(commit).await? == tree => commit.clone(),
            head => {
                let parents: Vec<&str> = head.as_deref().into_iter().collect();
                let message = "Snapshot of the working copy\n";
                git.commit_tree(&tree, &parents, message).await?
            }
        };
        Ok(Base {
            commit,
            branch: head.branch,
            left_out: Some(u32::try_from(refused).unwrap_or(u32::MAX)),
        })
    }
}

async fn default_branch(
    git: &Plumbing<'_>,
    layout: &Layout,
    head: Head,
) -> Result<Option<Base>, RepoError> {
    let Some(branch) = status::default_branch(git, layout, &head).await? else {
        return Ok(None);
    };
    for place in ["refs/heads/", "refs/remotes/origin/"] {
        if let Some(commit) = git.commit(&format!("{place}{branch}")).await? {
            return Ok(Some(Base::of(commit, Some(branch))));
        }
    }
    Ok(None)
}

async fn any_ref(git: &Plumbing<'_>, repo: &RepoPath, name: &str) -> Result<String, RepoError> {
    const SHOWN_CHARS: usize = 200;
    let bad = |why| {
        let shown: String = name.chars().take(SHOWN_CHARS).collect();
        let message = format!("{shown:?} cannot be a base in {repo}: {why}");
        let allowed = "head, default_branch, working_copy, or a branch, tag or commit";
        RepoError::from(
            Problem::argument("base_ref", message, allowed)
                .with_hint("give a name that `git rev-parse` knows in this repository"),
        )
    };
    if name.is_empty() || name.starts_with('-') || name.contains(char::is_control) {
        return Err(bad(
            "it is empty, begins with '-' or holds a control character",
        ));
    }
    let found = git.commit(name).await?;
    found.ok_or_else(|| bad("there is no such ref or commit"))
}
