//! `copy_files`: files that are not in the base, such as `.env`, brought from the working copy into a worktree.
//!
//! Nothing is read from outside the repository and nothing is written outside the worktree, whatever links there are.

use super::layout::is_absent;
use super::{RepoError, RepoPath};
use globset::GlobBuilder;
use ignore::WalkBuilder;
use std::fs;
use std::io;
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
        let refuse = |why| RepoError::CopyFile {
            repo: repo.clone(),
            file: file.clone(),
            why,
        };
        let relative = relative(file).ok_or_else(|| {
            refuse("it is not a path inside the repository (no leading '/', no '..', not '.git')")
        })?;
        let named = from.join(&relative).symlink_metadata().is_ok();
        let found = match named || !is_glob(file) {
            true => vec![relative],
            false => matching(from, &relative).ok_or_else(|| refuse("it is no valid glob"))?,
        };
        if found.is_empty() {
            return Err(refuse("no file matches it"));
        }
        for relative in found {
            copy_one(from, to, &relative, &refuse)?;
        }
    }
    Ok(())
}

/// Copies one file or folder, or refuses it.
fn copy_one(
    from: &Path,
    to: &Path,
    relative: &Path,
    refuse: &impl Fn(&'static str) -> RepoError,
) -> Result<(), RepoError> {
    let source = match fs::canonicalize(from.join(relative)) {
        Ok(source) => source,
        Err(error) if is_absent(&error) => return Err(refuse("it does not exist")),
        Err(error) => return Err(RepoError::io("resolve", &from.join(relative))(error)),
    };
    if !source.starts_with(from) || source.starts_with(from.join(".git")) {
        return Err(refuse("it leads out of the repository"));
    }
    match copy_tree(from, &source, to, relative) {
        Ok(true) => Ok(()),
        Ok(false) => Err(refuse(
            "it holds a link that leads out of the repository, or something that is no file",
        )),
        Err(error) => Err(RepoError::io("copy", &source)(error)),
    }
}

fn is_glob(file: &str) -> bool {
    file.contains(['*', '?', '[', '{'])
}

/// Returns the files below `top` that a glob fits, ignored ones too, by path; none where it is no glob.
fn matching(top: &Path, glob: &Path) -> Option<Vec<PathBuf>> {
    let glob = GlobBuilder::new(glob.to_str()?)
        .literal_separator(true)
        .build()
        .ok()?
        .compile_matcher();
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
    Some(found.collect())
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

/// Copies one file or folder; false where it is refused.
fn copy_tree(top: &Path, source: &Path, to: &Path, relative: &Path) -> io::Result<bool> {
    let meta = fs::metadata(source)?;
    let target = to.join(relative);
    if meta.is_dir() {
        fs::create_dir_all(&target)?;
        if !fs::canonicalize(&target)?.starts_with(to) {
            return Ok(false);
        }
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            if entry.file_name() == ".git" {
                continue;
            }
            let below = fs::canonicalize(entry.path())?;
            // A link back up would be copied for ever.
            let fits = below.starts_with(top) && !source.starts_with(&below);
            if !fits || !copy_tree(top, &below, to, &relative.join(entry.file_name()))? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    if !meta.is_file() {
        return Ok(false);
    }
    let parent = target.parent().unwrap_or(to);
    fs::create_dir_all(parent)?;
    if !fs::canonicalize(parent)?.starts_with(to) {
        return Ok(false);
    }
    // A link that is checked out at this place is replaced, not followed.
    match fs::remove_file(&target) {
        Err(error) if !is_absent(&error) => return Err(error),
        _ => {}
    }
    fs::copy(source, &target).map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_finds_ignored_files_but_nothing_of_git() {
        let dir = tempfile::tempdir().expect("a folder");
        for file in [".env", ".env.local", "deep/.env", ".git/.env", "other"] {
            let file = dir.path().join(file);
            fs::create_dir_all(file.parent().expect("below")).expect("made");
            fs::write(file, "x").expect("written");
        }
        fs::write(dir.path().join(".gitignore"), ".env*\n").expect("written");
        let found = |glob: &str| matching(dir.path(), Path::new(glob)).expect("a glob");
        let paths = |files: &[&str]| files.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(found(".env*"), paths(&[".env", ".env.local"]));
        assert_eq!(found("**/.env"), paths(&[".env", "deep/.env"]));
        assert_eq!(found("*.none"), paths(&[]));
        assert!(matching(dir.path(), Path::new("a[")).is_none());
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
