//! `list_repos`: the repositories under the roots and their state.

use super::blocking::off_the_runtime;
use super::globs::{FileGlobs, Globs};
use super::repos::Repos;
use super::status::Status;
use super::{Layout, RepoError, RepoPath};
use crate::error::Problem;
use futures_util::{StreamExt, stream};
use std::sync::Arc;

/// How many repositories are asked at once: git is a process each, and most of its time is waiting for the disk.
const AT_ONCE: usize = 8;

/// Which repositories to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// Globs over name, path from a root, and path; one must match. Empty: all.
    pub matching: Vec<String>,
    /// Globs of files from the top; each must match a file.
    pub has_file: Vec<String>,
    /// Text that a tracked file must hold.
    pub grep: Option<String>,
    /// Only repositories with (or without) uncommitted files.
    pub dirty: Option<bool>,
}

/// A repository and its state.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The repository.
    pub repo: RepoPath,
    /// Its state, or why it cannot be read.
    pub status: Result<Status, Problem>,
}

impl Repos {
    /// Returns the repositories that `request` selects, sorted by path; [`Self::rows`] returns their state.
    ///
    /// A repository that git cannot read is listed too, unless a filter would have to read it.
    ///
    /// # Errors
    ///
    /// An invalid glob, no usable root, or a root that cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the walk and the git processes.
    pub async fn list(&self, request: ListRequest) -> Result<Vec<RepoPath>, RepoError> {
        let context = Arc::clone(&self.0);
        let matching = Globs::new("match", &request.matching)?;
        let has_file = FileGlobs::new("has_file", &request.has_file)?;
        let all_match = request.matching.is_empty();
        let mut found = off_the_runtime(move |stop| {
            let found = context.roots.discover(stop)?;
            let mut repos = found.repos;
            repos.extend(found.unreadable);
            repos.sort_unstable();
            repos.retain(|repo| {
                (all_match || matching.matches(&context.roots, repo))
                    && has_file.match_in(repo.as_path())
            });
            Ok(repos)
        })
        .await?;
        if let Some(text) = &request.grep {
            found = self.keep(found, |repo| self.holds(repo, text)).await;
        }
        if let Some(wanted) = request.dirty {
            let fits = |repo| async move { Ok((self.status(&repo).await?.dirty > 0) == wanted) };
            found = self.keep(found, fits).await;
        }
        Ok(found)
    }

    /// Returns the state of `repos`, in their order.
    pub async fn rows(&self, repos: Vec<RepoPath>) -> Vec<Row> {
        let rows = stream::iter(repos).map(|repo| async move {
            let status = self.status(&repo).await.map_err(Problem::from);
            Row { repo, status }
        });
        rows.buffered(AT_ONCE).collect().await
    }

    /// Keeps the repositories for which `fits` returns true; one that cannot be read is left out.
    async fn keep<F>(&self, repos: Vec<RepoPath>, fits: impl Fn(RepoPath) -> F) -> Vec<RepoPath>
    where
        F: Future<Output = Result<bool, RepoError>>,
    {
        let kept = stream::iter(repos).map(|repo| {
            let fits = fits(repo.clone());
            async move {
                match fits.await {
                    Ok(fits) => fits.then_some(repo),
                    Err(error) => {
                        tracing::debug!(%repo, %error, "left out of a list");
                        None
                    }
                }
            }
        });
        let kept = kept.buffered(AT_ONCE).filter_map(std::future::ready);
        kept.collect().await
    }

    /// Returns whether a tracked text file holds `text`.
    async fn holds(&self, repo: RepoPath, text: &str) -> Result<bool, RepoError> {
        let layout = Layout::of(&repo)?;
        let git = self.0.user(&layout);
        let mut cmd = git.read("grep -I -q -F -e").arg(text).accept(&[1]);
        if !layout.has_working_copy() {
            cmd = cmd.arg("HEAD");
        }
        Ok(cmd.run().await?.code == 0)
    }
}
