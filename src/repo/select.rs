//! The repositories that a caller's list of paths, names and globs selects.

use super::blocking::{Stop, off_the_runtime};
use super::globs::{FileGlobs, Globs, is_glob};
use super::repos::Repos;
use super::roots::{Lookup, Roots};
use super::{Layout, RepoError, RepoPath};
use crate::error::{Problem, nearest};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// Which repositories a call names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Paths, names and globs; a glob is matched against a repository's name, its path from a root, and its path.
    pub specs: Vec<String>,
    /// Globs (and names) of repositories to leave out.
    pub exclude: Vec<String>,
    /// Globs of files, each of which a repository must have one of (from its top).
    pub has_file: Vec<String>,
}

impl Repos {
    /// Returns the repository that `spec` (a path or a name) names.
    ///
    /// A path costs a few system calls; a name costs a walk over the roots, so ask for many with [`Self::expand`].
    ///
    /// # Errors
    ///
    /// As [`Roots::resolve`].
    pub async fn resolve(&self, spec: &str) -> Result<RepoPath, RepoError> {
        let one = Selection {
            specs: vec![spec.to_owned()],
            ..Selection::default()
        };
        let found = self.expand(one).await?;
        match found.as_slice() {
            [repo] => Ok(repo.clone()),
            _ => Err(RepoError::Ambiguous {
                spec: spec.to_owned(),
                candidates: found,
            }),
        }
    }

    /// Returns the repository at an absolute path that was resolved before, and where its git data is.
    ///
    /// # Errors
    ///
    /// A link leads out of the roots now, the repository is gone ([`RepoError::NotFound`],
    /// [`RepoError::NotARepository`]), or its git data cannot be read.
    pub fn at(&self, path: &str) -> Result<(RepoPath, Layout), RepoError> {
        self.0.roots.check(Path::new(path))
    }

    /// Returns the repositories that `selection` names, each once, in the order in which they were named.
    ///
    /// # Errors
    ///
    /// A path or a name that [`Roots::resolve`] refuses, a glob that is invalid or matches nothing, and filters that
    /// leave nothing.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the walk.
    pub async fn expand(&self, selection: Selection) -> Result<Vec<RepoPath>, RepoError> {
        let context = Arc::clone(&self.0);
        off_the_runtime(move |stop| context.roots.expand(&selection, stop)).await
    }

    /// Returns every readable repository under the roots, sorted by path. Submodules belong to the repository around
    /// them and are left out.
    ///
    /// # Errors
    ///
    /// No usable root, or a root that cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the walk.
    pub async fn discover(&self) -> Result<Vec<RepoPath>, RepoError> {
        let context = Arc::clone(&self.0);
        off_the_runtime(move |stop| Ok(context.roots.discover(stop)?.repos)).await
    }
}

impl Roots {
    /// Returns the repository that `spec` names: an absolute path, a path from a root, `~/...`, or a name.
    ///
    /// A path wins over a name. A name is looked for by walking the roots.
    ///
    /// # Errors
    ///
    /// [`RepoError::NotFound`] with the nearest name, [`RepoError::NotARepository`], [`RepoError::Ambiguous`]; refused
    /// are a path outside the roots or not in UTF-8, and any path where no root can be used.
    pub fn resolve(&self, spec: &str) -> Result<RepoPath, RepoError> {
        match self.by_path(spec)? {
            Lookup::Found(repo) => Ok(repo),
            Lookup::Name(instead) => by_name(spec, instead, &self.walk(&Stop::never())?),
        }
    }

    /// Returns the repositories that `selection` names, each once, in the order in which they were named.
    pub(super) fn expand(
        &self,
        selection: &Selection,
        stop: &Stop,
    ) -> Result<Vec<RepoPath>, RepoError> {
        let exclude = Globs::new("exclude", &selection.exclude)?;
        let has_file = FileGlobs::new("has_file", &selection.has_file)?;
        let mut all: Option<Vec<RepoPath>> = None;
        let mut named = Vec::new();
        for spec in &selection.specs {
            stop.check()?;
            if let Some(glob) = self.as_glob(spec)? {
                let all = walked(&mut all, || self.walk(stop))?;
                let before = named.len();
                named.extend(all.iter().filter(|repo| glob.matches(self, repo)).cloned());
                if named.len() == before {
                    return Err(RepoError::NotFound {
                        spec: spec.clone(),
                        nearest: None,
                    });
                }
                continue;
            }
            named.push(match self.by_path(spec)? {
                Lookup::Found(repo) => repo,
                Lookup::Name(instead) => {
                    by_name(spec, instead, walked(&mut all, || self.walk(stop))?)?
                }
            });
        }
        let mut seen = HashSet::new();
        named.retain(|repo| seen.insert(repo.clone()));
        let count = named.len();
        named.retain(|repo| !exclude.matches(self, repo) && has_file.match_in(repo.as_path()));
        if named.is_empty() && count > 0 {
            return Err(Problem::argument(
                "has_file",
                format!("exclude and has_file leave none of {count} repositories"),
                "globs that match a file of at least one repository",
            )
            .with_hint("loosen exclude or has_file")
            .into());
        }
        Ok(named)
    }

    /// Returns the readable repositories: a glob selects no others, so that one that is broken fails no call.
    fn walk(&self, stop: &Stop) -> Result<Vec<RepoPath>, RepoError> {
        Ok(self.discover(stop)?.repos)
    }

    /// Returns `spec` as a glob, or none where it is a plain name or path.
    fn as_glob(&self, spec: &str) -> Result<Option<Globs>, RepoError> {
        if !is_glob(spec) {
            return Ok(None);
        }
        // A directory may be called `a[b]`; what exists is meant literally.
        if let Ok(Lookup::Found(_)) = self.by_path(spec) {
            return Ok(None);
        }
        Globs::new("repos", &[spec.to_owned()]).map(Some)
    }
}

/// Returns the result of `walk`, which runs at the first call only.
fn walked(
    all: &mut Option<Vec<RepoPath>>,
    walk: impl FnOnce() -> Result<Vec<RepoPath>, RepoError>,
) -> Result<&[RepoPath], RepoError> {
    match all {
        Some(all) => Ok(all),
        None => Ok(all.insert(walk()?)),
    }
}

/// Returns the one repository of `all` whose name is `name`; where there is none, the error `instead`, if given.
fn by_name(
    name: &str,
    instead: Option<RepoError>,
    all: &[RepoPath],
) -> Result<RepoPath, RepoError> {
    let fits: Vec<&RepoPath> = all.iter().filter(|repo| repo.name() == name).collect();
    match fits.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(instead.unwrap_or_else(|| RepoError::NotFound {
            spec: name.to_owned(),
            nearest: nearest(name, all.iter().map(RepoPath::name)).map(str::to_owned),
        })),
        many => Err(RepoError::Ambiguous {
            spec: name.to_owned(),
            candidates: many.iter().map(|repo| (*repo).clone()).collect(),
        }),
    }
}
