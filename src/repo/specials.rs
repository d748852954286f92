//! What git ignores in a worktree without a word: sockets, pipes and devices, and folders that cannot be read.

use super::blocking::Stop;
use super::plumbing::shown;
use ignore::{DirEntry, Error, WalkBuilder, WalkState};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How many threads look: git reads the same folders at the same time.
const THREADS: usize = 2;

/// Returns the names of such files and folders below `top`, but for ignored ones. Reads folders, no files.
pub(super) fn find(top: &Path, stop: &Stop) -> BTreeSet<String> {
    // Held for one insertion, from the walker's own threads; never across an await.
    let found = Mutex::new(BTreeSet::new());
    WalkBuilder::new(top)
        .hidden(false)
        .ignore(false)
        .parents(false)
        .filter_entry(|entry| entry.file_name() != ".git")
        .threads(THREADS)
        .build_parallel()
        .run(|| {
            Box::new(|entry| {
                let path = match &entry {
                    Ok(entry) if is_special(entry) => Some(entry.path()),
                    Ok(_) => None,
                    Err(error) => unreadable(error),
                };
                let name = path.and_then(|path| path.strip_prefix(top).ok());
                found
                    .lock()
                    .extend(name.map(|name| shown(name.as_os_str().as_bytes())));
                match stop.check() {
                    Ok(()) => WalkState::Continue,
                    Err(_) => WalkState::Quit,
                }
            })
        });
    found.into_inner()
}

fn is_special(entry: &DirEntry) -> bool {
    let kind = entry.file_type();
    kind.is_some_and(|kind| !kind.is_dir() && !kind.is_file() && !kind.is_symlink())
}

/// Returns the path that a walk could not read; what vanished while it walked is no trouble.
fn unreadable(error: &Error) -> Option<&Path> {
    let denied = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    if !error.io_error().is_some_and(denied) {
        return None;
    }
    path_of(error).map(PathBuf::as_path)
}

fn path_of(error: &Error) -> Option<&PathBuf> {
    match error {
        Error::WithPath { path, .. } => Some(path),
        Error::WithDepth { err, .. } | Error::WithLineNumber { err, .. } => path_of(err),
        _ => None,
    }
}
