//! Finds repositories by walking the directories under the roots.

use super::blocking::Stop;
use super::layout::Form;
use super::roots::Roots;
use super::{Layout, RepoError, RepoPath};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::{DirEntry, WalkBuilder, WalkState};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Folders of fetched or generated files, skipped unless they are repositories themselves.
const SKIPPED: [&str; 6] = [
    "node_modules",
    "bower_components",
    "__pycache__",
    "site-packages",
    "target",
    "venv",
];

/// The repositories under the roots, each list sorted by path.
#[derive(Debug, Default)]
pub(super) struct Discovered {
    /// Those that git can read.
    pub(super) repos: Vec<RepoPath>,
    /// Those that it cannot; [`Layout::at`] returns why.
    pub(super) unreadable: Vec<RepoPath>,
}

impl Roots {
    /// Returns every repository under the roots; submodules belong to the repository around them and are left out.
    pub(super) fn discover(&self, stop: &Stop) -> Result<Discovered, RepoError> {
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
            return Ok(Discovered::default());
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
                    // A directory that cannot be read hides what is in it; the rest is still of use.
                    (Ok(()), Err(error)) => {
                        tracing::debug!(%error, "skipped while looking for repositories");
                        WalkState::Continue
                    }
                })
            });
        stop.check()?;
        let mut found = std::mem::take(&mut *walk.found.lock());
        for repos in [&mut found.repos, &mut found.unreadable] {
            repos.sort_unstable();
            repos.dedup();
        }
        Ok(found)
    }
}

/// One walk's findings, shared by its threads.
#[derive(Debug, Default)]
struct Walk {
    left_out: Option<PathBuf>,
    // Held for one push, from the walker's own threads; never across an await.
    found: Mutex<Discovered>,
    // Written once per repository, read for a moment per folder; never across an await.
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
        let ignores = self.ignores.read();
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
                tracing::debug!(?dir, %error, "a repository that cannot be read");
                self.found
                    .lock()
                    .unreadable
                    .extend(RepoPath::canonical(dir));
                return WalkState::Continue;
            }
        };
        if layout.form != Form::Submodule {
            match RepoPath::canonical(dir) {
                Some(repo) => self.found.lock().repos.push(repo),
                None => tracing::debug!(?dir, "skipped: its path is not UTF-8"),
            }
        }
        if layout.form == Form::Bare && layout.git_dir == dir {
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
                .insert(layout.dir.clone(), Arc::new(ignore));
        }
    }
}
