//! Globs over repositories and over the files in them.

use super::roots::Roots;
use super::{RepoError, RepoPath};
use crate::error::Problem;
use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use ignore::WalkBuilder;
use std::path::{Path, PathBuf};

/// Globs over repositories.
#[derive(Debug)]
pub(super) struct Globs(GlobSet);

impl Globs {
    /// Parses globs; `field` is the argument they came in.
    pub(super) fn new(field: &'static str, patterns: &[String]) -> Result<Self, RepoError> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            set.add(parse_glob(field, pattern)?);
        }
        set.build()
            .map(Self)
            .map_err(|error| bad_glob(field, &patterns.join(" "), &error))
    }

    /// Returns whether a glob matches the repository's name, its path from a root, or its path.
    pub(super) fn matches(&self, roots: &Roots, repo: &RepoPath) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let path = repo.as_path();
        self.0.is_match(repo.name())
            || self.0.is_match(path)
            || roots.dirs().is_ok_and(|roots| {
                roots
                    .iter()
                    .filter_map(|root| path.strip_prefix(root).ok())
                    .any(|relative| self.0.is_match(relative))
            })
    }
}

pub(super) fn parse_glob(field: &'static str, pattern: &str) -> Result<Glob, RepoError> {
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map_err(|error| bad_glob(field, pattern, &error))
}

fn bad_glob(field: &'static str, pattern: &str, error: &globset::Error) -> RepoError {
    let message = format!("{pattern:?} is not a glob: {error}");
    let hint = "in a glob, * stays within one folder, ** crosses folders, {a,b} are alternatives";
    Problem::argument(field, message, "a glob, such as web-* or **/api")
        .with_hint(hint)
        .into()
}

/// Returns whether `text` has characters that only a glob has.
pub(super) fn is_glob(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

/// Globs over the files of a repository; each must match a file.
#[derive(Debug)]
pub(super) struct FileGlobs(Vec<FileGlob>);

#[derive(Debug)]
enum FileGlob {
    /// A plain path from the top.
    Path(PathBuf),
    /// A glob, and how many folders deep it reaches at most.
    Glob(globset::GlobMatcher, usize),
}

impl FileGlobs {
    /// How deep a glob with `**` looks.
    const MAX_DEPTH: usize = 8;

    /// Parses the globs; `field` is the argument they came in.
    pub(super) fn new(field: &'static str, patterns: &[String]) -> Result<Self, RepoError> {
        let globs = patterns.iter().map(|pattern| {
            if !is_glob(pattern) {
                return Ok(FileGlob::Path(PathBuf::from(pattern)));
            }
            let depth = match pattern.contains("**") {
                true => Self::MAX_DEPTH,
                false => pattern.split('/').count(),
            };
            Ok(FileGlob::Glob(
                parse_glob(field, pattern)?.compile_matcher(),
                depth,
            ))
        });
        globs.collect::<Result<_, _>>().map(Self)
    }

    /// Returns whether the repository at `top` has a file for every glob.
    pub(super) fn match_in(&self, top: &Path) -> bool {
        self.0.iter().all(|glob| match glob {
            FileGlob::Path(path) => top.join(path).symlink_metadata().is_ok(),
            FileGlob::Glob(glob, depth) => WalkBuilder::new(top)
                .hidden(false)
                .max_depth(Some(*depth))
                .filter_entry(|entry| entry.file_name() != ".git")
                .build()
                .flatten()
                .any(|entry| {
                    let path = entry.path();
                    glob.is_match(path.strip_prefix(top).unwrap_or(path))
                }),
        })
    }
}
