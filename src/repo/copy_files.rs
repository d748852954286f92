//! `copy_files`: files that are not in the base, such as `.env` or `node_modules`, copied from the working copy into a
//! worktree.
//!
//! Links stay links. Nothing is read from outside the repository and nothing is written outside the worktree, whatever
//! links there are. File systems that can share blocks between files do so; else files are copied on several threads.

use super::globs::{is_glob, parse_glob};
use super::layout::{is_absent, remove_file};
use super::{RepoError, RepoPath};
use crate::error::Problem;
use ignore::{DirEntry, WalkBuilder, WalkState};
use parking_lot::Mutex;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

/// Returns whether `file` is a path or a glob that stays inside a repository and out of its `.git`.
pub fn is_inside(file: &str) -> bool {
    relative(file).is_some()
}

/// Copies `files` (paths or globs from the top, files or folders) from the working copy `from` into the worktree `to`.
pub(super) fn copy(
    repo: &RepoPath,
    from: &Path,
    to: &Path,
    files: &[String],
) -> Result<(), RepoError> {
    for file in files {
        let refuse = |why: &str| {
            let message = format!("cannot copy {file:?} of {repo}: {why}");
            let allowed = "files and folders inside the repository, by their path from its top";
            RepoError::from(Problem::argument("copy_files", message, allowed))
        };
        let relative = relative(file).ok_or_else(|| {
            refuse("it is not a path inside the repository (no leading '/', no '..', not '.git')")
        })?;
        let is_named = from.join(&relative).symlink_metadata().is_ok();
        let found = match is_named || !is_glob(file) {
            true => vec![relative],
            false => matching(from, file)?,
        };
        if found.is_empty() {
            return Err(refuse("no file matches it"));
        }
        for relative in found {
            let copied = Copying { from, to }.named(&relative);
            copied.map_err(|failed| match failed {
                Failed::Refused(why) => refuse(why),
                Failed::Io(path, error) => RepoError::io("copy", &path)(error),
            })?;
        }
    }
    Ok(())
}

/// Returns the files below `top` that a glob matches, ignored ones too, sorted by path.
fn matching(top: &Path, pattern: &str) -> Result<Vec<PathBuf>, RepoError> {
    let glob = parse_glob("copy_files", pattern.trim_start_matches("./"))?.compile_matcher();
    let files = WalkBuilder::new(top)
        .standard_filters(false)
        .filter_entry(|entry| entry.file_name() != ".git")
        .sort_by_file_path(Path::cmp)
        .build();
    let found = files.filter_map(|entry| {
        let path = entry.ok()?.into_path();
        let relative = path.strip_prefix(top).ok()?;
        (path.is_file() && glob.is_match(relative)).then(|| relative.to_owned())
    });
    Ok(found.collect())
}

/// Returns `file` as a path of plain names, or none.
fn relative(file: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in Path::new(file).components() {
        match part {
            Component::Normal(name) if path.as_os_str().is_empty() && name == ".git" => {
                return None;
            }
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            _ => return None,
        }
    }
    (!path.as_os_str().is_empty()).then_some(path)
}

/// Why a file was not copied.
#[derive(Debug)]
enum Failed {
    Refused(&'static str),
    Io(PathBuf, io::Error),
}

/// One copy, from a working copy into a worktree.
#[derive(Debug, Clone, Copy)]
struct Copying<'a> {
    from: &'a Path,
    to: &'a Path,
}

impl Copying<'_> {
    /// Copies the file, link or folder `relative`.
    fn named(self, relative: &Path) -> Result<(), Failed> {
        let source = self.from.join(relative);
        let failed = |error| Failed::Io(source.clone(), error);
        let parent = source.parent().unwrap_or(self.from);
        let parent = match fs::canonicalize(parent) {
            Err(error) if is_absent(&error) => return Err(Failed::Refused("it does not exist")),
            parent => parent.map_err(failed)?,
        };
        if !self.is_inside(&parent) {
            return Err(Failed::Refused("it leads out of the repository"));
        }
        let kind = match fs::symlink_metadata(&source) {
            Err(error) if is_absent(&error) => return Err(Failed::Refused("it does not exist")),
            meta => meta.map_err(failed)?.file_type(),
        };
        if kind.is_dir() {
            return self.folder(&source);
        }
        if !kind.is_file() && !kind.is_symlink() {
            return Err(Failed::Refused("it is neither a file, a link nor a folder"));
        }
        let above = relative.parent().unwrap_or(Path::new(""));
        self.make_folder(above)?;
        self.place(&source, relative).map_err(failed)?;
        self.link_target(&source)
    }

    /// Copies what the link `source` leads to, where that is in the repository and not in the worktree.
    fn link_target(self, source: &Path) -> Result<(), Failed> {
        match fs::canonicalize(source) {
            Ok(target) if target != source && self.is_inside(&target) => {
                let relative = self.relative(&target);
                match self.to.join(relative).symlink_metadata() {
                    Ok(_) => Ok(()),
                    Err(_) => self.named(relative),
                }
            }
            // A file, a link out of the repository, or one that leads nowhere: the link alone is the copy.
            _ => Ok(()),
        }
    }

    fn is_inside(self, path: &Path) -> bool {
        path.starts_with(self.from) && !path.starts_with(self.from.join(".git"))
    }

    fn relative(self, path: &Path) -> &Path {
        path.strip_prefix(self.from).unwrap_or(path)
    }

    /// Copies a folder on several threads, without repositories' git data and what is neither file, link nor folder.
    fn folder(self, source: &Path) -> Result<(), Failed> {
        // Held for one assignment, from the walker's own threads; never across an await.
        let failed = Mutex::new(None);
        self.make_folder(self.relative(source))?;
        WalkBuilder::new(source)
            .standard_filters(false)
            .filter_entry(|entry| entry.file_name() != ".git")
            .build_parallel()
            .run(|| {
                Box::new(|entry| match self.entry(entry) {
                    Ok(()) => WalkState::Continue,
                    Err(error) => {
                        failed.lock().get_or_insert(error);
                        WalkState::Quit
                    }
                })
            });
        failed.into_inner().map_or(Ok(()), Err)
    }

    fn entry(self, entry: Result<DirEntry, ignore::Error>) -> Result<(), Failed> {
        let entry = entry.map_err(|error| {
            let text = error.to_string();
            let error = error.into_io_error();
            Failed::Io(
                self.from.to_owned(),
                error.unwrap_or_else(|| io::Error::other(text)),
            )
        })?;
        let relative = self.relative(entry.path());
        match entry.file_type() {
            Some(kind) if kind.is_dir() => self.make_folder(relative),
            Some(kind) if kind.is_file() || kind.is_symlink() => self
                .place(entry.path(), relative)
                .map_err(|error| Failed::Io(entry.path().to_owned(), error)),
            _ => Ok(()),
        }
    }

    /// Makes the folder `relative` in the worktree, unless a link that is checked out there leads out of it.
    fn make_folder(self, relative: &Path) -> Result<(), Failed> {
        let dir = self.to.join(relative);
        let made = fs::create_dir_all(&dir).and_then(|()| fs::canonicalize(&dir));
        match made {
            Ok(real) if real.starts_with(self.to) => Ok(()),
            Ok(_) => Err(Failed::Refused("a link in the worktree leads out of it")),
            Err(error) => Err(Failed::Io(dir, error)),
        }
    }

    /// Copies a file or a link. A link that is checked out at its place is replaced, not followed.
    fn place(self, source: &Path, relative: &Path) -> io::Result<()> {
        let target = self.to.join(relative);
        remove_file(&target)?;
        if !source.symlink_metadata()?.is_symlink() {
            return reflink_copy::reflink_or_copy(source, &target).map(drop);
        }
        let leads_to = fs::read_link(source)?;
        // An absolute link into the working copy would let work in the worktree change it.
        let leads_to = match leads_to.strip_prefix(self.from) {
            Ok(inside) => self.to.join(inside),
            Err(_) => leads_to,
        };
        symlink(leads_to, target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_finds_ignored_files_but_nothing_in_git() {
        let dir = tempfile::tempdir().expect("a folder");
        for file in [".env", ".env.local", "deep/.env", ".git/.env", "other"] {
            let file = dir.path().join(file);
            fs::create_dir_all(file.parent().expect("below")).expect("made");
            fs::write(file, "x").expect("written");
        }
        fs::write(dir.path().join(".gitignore"), ".env*\n").expect("written");
        let found = |glob: &str| matching(dir.path(), glob).expect("a glob");
        let paths = |files: &[&str]| files.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(found(".env*"), paths(&[".env", ".env.local"]));
        assert_eq!(found("**/.env"), paths(&[".env", "deep/.env"]));
        assert_eq!(found("*.none"), paths(&[]));
        assert!(matching(dir.path(), "a[").is_err());
    }

    #[test]
    fn only_paths_inside_the_repository_pass() {
        for good in [".env", "./a/b", "a/.git-notes"] {
            assert!(relative(good).is_some(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/../b",
            "/etc/passwd",
            ".git/config",
            "./.git",
        ] {
            assert!(relative(bad).is_none(), "{bad}");
        }
    }
}
