//! `list_repos`: which repositories there are, and how they stand.

use super::discover::{FileGlobs, Globs, off_the_runtime};
use super::git::Mode;
use super::plumbing::Spot;
use super::status::Status;
use super::{Layout, RepoError, RepoPath, Repos};
use crate::error::{Fault, Problem};
use futures_util::{StreamExt, stream};
use std::sync::Arc;

/// How many repositories are asked at once: git is a process each, and most of its time is waiting for the disk.
const AT_ONCE: usize = 8;

/// Which repositories to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// Globs over name, path from a root, and path; any may fit. Empty: all.
    pub matching: Vec<String>,
    /// Globs of files from the top; each must fit one.
    pub has_file: Vec<String>,
    /// Text that a tracked file must hold.
    pub grep: Option<String>,
    /// Only repositories with (or without) uncommitted files.
    pub dirty: Option<bool>,
}

/// A repository and how it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The repository.
    pub repo: RepoPath,
    /// How it stands, or why that cannot be told.
    pub status: Result<Status, Problem>,
}

impl Repos {
    /// Returns the repositories that `request` wants, sorted by path; [`Self::rows`] tells how they stand.
    ///
    /// # Errors
    ///
    /// [`RepoError::BadGlob`], [`RepoError::NoRoots`]. A repository that cannot be read is not listed where a filter
    /// would have to read it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the walk and what git does.
    pub async fn list(&self, request: ListRequest) -> Result<Vec<RepoPath>, RepoError> {
        let inner = Arc::clone(&self.0);
        let matching = Globs::new("match", &request.matching)?;
        let has_file = FileGlobs::new("has_file", &request.has_file)?;
        let all_match = request.matching.is_empty();
        let mut found = off_the_runtime(move |stop| {
            let mut found = inner.roots.discover(stop)?;
            found.retain(|repo| {
                (all_match || matching.fits(&inner.roots, repo)) && has_file.fit(repo.as_path())
            });
            Ok(found)
        })
        .await?;
        if let Some(text) = &request.grep {
            found = self.keep(found, |repo| self.holds(repo, text)).await;
        }
        if let Some(wanted) = request.dirty {
            found = self
                .keep(found, |repo| async move {
                    let status = self.status(&repo).await?;
                    Ok((status.dirty > 0) == wanted)
                })
                .await;
        }
        Ok(found)
    }

    /// Returns how `repos` stand, in their order.
    pub async fn rows(&self, repos: Vec<RepoPath>) -> Vec<Row> {
        stream::iter(repos)
            .map(|repo| async move {
                let status = self.status(&repo).await.map_err(|error| error.problem());
                Row { repo, status }
            })
            .buffered(AT_ONCE)
            .collect()
            .await
    }

    async fn keep<F>(&self, repos: Vec<RepoPath>, fits: impl Fn(RepoPath) -> F) -> Vec<RepoPath>
    where
        F: Future<Output = Result<bool, RepoError>>,
    {
        stream::iter(repos)
            .map(|repo| {
                let fits = fits(repo.clone());
                async move {
                    match fits.await {
                        Ok(true) => Some(repo),
                        Ok(false) => None,
                        Err(error) => {
                            tracing::debug!(%repo, %error, "left out of a list");
                            None
                        }
                    }
                }
            })
            .buffered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await
    }

    /// Returns whether a tracked text file holds `text`.
    async fn holds(&self, repo: RepoPath, text: &str) -> Result<bool, RepoError> {
        let layout = Layout::of(&repo)?;
        let spot = Spot::user(&self.0.git, &layout);
        let mut cmd = spot
            .cmd(Mode::Read, "grep")
            .args(["-I", "-q", "-F", "-e", text])
            .accept(&[1]);
        if !layout.has_working_copy() {
            cmd = cmd.arg("HEAD");
        }
        Ok(cmd.run().await?.code == 0)
    }
}
