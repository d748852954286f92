//! Finds repositories: the walk under the roots, and what a caller's list of paths, names and globs means.

use super::roots::{Lookup, by_name};
use super::{Form, Layout, RepoError, RepoPath, Roots};
use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::{DirEntry, WalkBuilder, WalkState};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Folders of fetched or generated files, skipped unless they are repositories themselves.
const SKIPPED: [&str; 6] = [
    "node_modules",
    "bower_components",
    "__pycache__",
    "site-packages",
    "target",
    "venv",
];

/// Which repositories a call is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Paths, names and globs; a glob is matched against a repository's name, its path from a root, and its path.
    pub specs: Vec<String>,
    /// Globs (and names) of repositories to leave out.
    pub exclude: Vec<String>,
    /// Globs of files, each of which a repository must have one of (from its top).
    pub has_file: Vec<String>,
}

/// Tells a walk that nobody waits for it any more.
#[derive(Debug, Clone)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Returns one that never stops.
    pub(super) fn never() -> Self {
        Self(Arc::default())
    }

    fn check(&self) -> Result<(), RepoError> {
        if self.0.load(Ordering::Relaxed) {
            return Err(RepoError::Abandoned);
        }
        Ok(())
    }
}

/// Runs file system work on a thread where it may block; it is told to stop when the future is dropped.
pub(super) async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce(&Stop) -> Result<T, RepoError> + Send + 'static,
) -> Result<T, RepoError> {
    struct StopOnDrop(Stop);
    impl Drop for StopOnDrop {
        fn drop(&mut self) {
            self.0.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = Stop::never();
    let _stops = StopOnDrop(stop.clone());
    match tokio::task::spawn_blocking(move || work(&stop)).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(RepoError::Abandoned),
        },
    }
}

impl Roots {
    /// Returns every repository under the roots, sorted by path.
    pub(super) fn discover(&self, stop: &Stop) -> Result<Vec<RepoPath>, RepoError> {
        let walk = Walk {
            left_out: self.left_out(),
            ..Walk::default()
        };
        let mut builder: Option<WalkBuilder> = None;
        for root in self.dirs()? {
            match &mut builder {
                None => builder = Some(WalkBuilder::new(root)),
                Some(builder) => {
                    builder.add(root);
                }
            }
        }
        let Some(mut builder) = builder else {
            return Ok(Vec::new());
        };
        let walk = Arc::new(walk);
        let filter = Arc::clone(&walk);
        builder
            .standard_filters(false)
            .filter_entry(move |entry| filter.enters(entry))
            .build_parallel()
            .run(|| {
                Box::new(|entry| match (stop.check(), entry) {
                    (Err(_), _) => WalkState::Quit,
                    (Ok(()), Ok(entry)) => walk.visit(&entry),
                    // A directory that cannot be read hides what is in it; the rest is still worth having.
                    (Ok(()), Err(error)) => {
                        tracing::debug!(%error, "skipped while looking for repositories");
                        WalkState::Continue
                    }
                })
            });
        stop.check()?;
        let mut found =
            std::mem::take(&mut *walk.found.lock().unwrap_or_else(PoisonError::into_inner));
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Returns what `selection` means, each repository once, in the order in which they were named.
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
                let all = walked(&mut all, || self.discover(stop))?;
                let before = named.len();
                named.extend(all.iter().filter(|repo| glob.fits(self, repo)).cloned());
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
                    by_name(spec, instead, walked(&mut all, || self.discover(stop))?)?
                }
            });
        }
        let mut seen = HashSet::new();
        named.retain(|repo| seen.insert(repo.clone()));
        let count = named.len();
        named.retain(|repo| !exclude.fits(self, repo) && has_file.fit(repo.as_path()));
        if named.is_empty() && count > 0 {
            return Err(RepoError::NothingLeft { named: count });
        }
        Ok(named)
    }

    /// Returns `spec` as a glob, or none where it is a plain name or path.
    fn as_glob(&self, spec: &str) -> Result<Option<Globs>, RepoError> {
        if !spec.contains(['*', '?', '[', '{']) {
            return Ok(None);
        }
        // A directory may be called `a[b]`; what exists is meant literally.
        if let Ok(Lookup::Found(_)) = self.by_path(spec) {
            return Ok(None);
        }
        Globs::new("repos", &[spec.to_owned()]).map(Some)
    }
}

/// Returns the walk's result, walking at the first call only.
fn walked(
    all: &mut Option<Vec<RepoPath>>,
    walk: impl FnOnce() -> Result<Vec<RepoPath>, RepoError>,
) -> Result<&[RepoPath], RepoError> {
    match all {
        Some(all) => Ok(all),
        None => Ok(all.insert(walk()?)),
    }
}

/// Globs over repositories.
#[derive(Debug)]
pub(super) struct Globs(GlobSet);

impl Globs {
    /// Reads globs; `field` is the argument they came in.
    pub(super) fn new(field: &'static str, patterns: &[String]) -> Result<Self, RepoError> {
        let mut set = GlobSetBuilder::new();
        for pattern in patterns {
            set.add(read_glob(field, pattern)?);
        }
        set.build().map(Self).map_err(|source| RepoError::BadGlob {
            field,
            pattern: patterns.join(" "),
            source: Box::new(source),
        })
    }

    /// Returns whether a glob fits the repository's name, its path from a root, or its path.
    pub(super) fn fits(&self, roots: &Roots, repo: &RepoPath) -> bool {
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

fn read_glob(field: &'static str, pattern: &str) -> Result<Glob, RepoError> {
    GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map_err(|source| RepoError::BadGlob {
            field,
            pattern: pattern.to_owned(),
            source: Box::new(source),
        })
}

/// Globs over the files of a repository; every one must fit some file.
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

    /// Reads the globs; `field` is the argument they came in.
    pub(super) fn new(field: &'static str, patterns: &[String]) -> Result<Self, RepoError> {
        let globs = patterns.iter().map(|pattern| {
            if !pattern.contains(['*', '?', '[', '{']) {
                return Ok(FileGlob::Path(PathBuf::from(pattern)));
            }
            let depth = match pattern.contains("**") {
                true => Self::MAX_DEPTH,
                false => pattern.split('/').count(),
            };
            Ok(FileGlob::Glob(
                read_glob(field, pattern)?.compile_matcher(),
                depth,
            ))
        });
        globs.collect::<Result<_, _>>().map(Self)
    }

    /// Returns whether the repository at `top` has a file for every glob.
    pub(super) fn fit(&self, top: &Path) -> bool {
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

/// One walk's findings, shared by its threads.
#[derive(Debug, Default)]
struct Walk {
    left_out: Option<PathBuf>,
    // A std mutex: pushed to for a moment, from the walker's own threads.
    found: Mutex<Vec<RepoPath>>,
    // A std lock: written once per repository, read for a moment per folder.
    ignores: RwLock<HashMap<PathBuf, Arc<Gitignore>>>,
}

impl Walk {
    /// Returns whether the walk goes into `entry`.
    fn enters(&self, entry: &DirEntry) -> bool {
        if !entry.file_type().is_some_and(|kind| kind.is_dir()) {
            return false;
        }
        let name = entry.file_name();
        if name == ".git" || Some(entry.path()) == self.left_out.as_deref() {
            return false;
        }
        let doubtful = name.as_bytes().starts_with(b".")
            || SKIPPED.iter().any(|skipped| name == OsStr::new(skipped))
            || self.is_ignored(entry.path());
        !doubtful || entry.path().join(".git").symlink_metadata().is_ok()
    }

    /// Returns whether the nearest repository around `dir` ignores it, by the ignore files at its top.
    ///
    /// Ignore files further down only save time, so they are not read.
    fn is_ignored(&self, dir: &Path) -> bool {
        let ignores = self.ignores.read().unwrap_or_else(PoisonError::into_inner);
        if ignores.is_empty() {
            return false;
        }
        dir.ancestors()
            .skip(1)
            .find_map(|above| ignores.get(above))
            .is_some_and(|ignore| ignore.matched(dir, true).is_ignore())
    }

    fn visit(&self, entry: &DirEntry) -> WalkState {
        let dir = entry.path();
        let layout = match Layout::at(dir) {
            Ok(Some(layout)) => layout,
            Ok(None) => return WalkState::Continue,
            Err(error) => {
                tracing::debug!(?dir, %error, "skipped while looking for repositories");
                return WalkState::Continue;
            }
        };
        if layout.form != Form::Submodule {
            match RepoPath::canonical(dir) {
                Ok(repo) => self
                    .found
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(repo),
                Err(error) => tracing::debug!(%error, "skipped while looking for repositories"),
            }
        }
        if layout.form == Form::Bare {
            return WalkState::Skip;
        }
        self.read_ignores(&layout);
        WalkState::Continue
    }

    /// Reads the repository's ignore files, before any of its folders is judged.
    fn read_ignores(&self, layout: &Layout) {
        let mut builder = GitignoreBuilder::new(&layout.dir);
        for file in [
            layout.dir.join(".gitignore"),
            layout.common_dir.join("info/exclude"),
        ] {
            // A file that is not there or has a bad line ignores less, which only costs time.
            let _costs_time_only = builder.add(file);
        }
        if let Ok(ignore) = builder.build() {
            self.ignores
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(layout.dir.clone(), Arc::new(ignore));
        }
    }
}
