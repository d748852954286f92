//! `copy_files`: files that are not in the base, such as `.env`, brought from the working copy into a worktree.
//!
//! Nothing is read from outside the repository and nothing is written outside the worktree, whatever links there are.

use super::layout::is_absent;
use super::{RepoError, RepoPath};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Copies `files` (paths from the top, files or folders) from the working copy `from` into the worktree `to`.
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
        let source = match fs::canonicalize(from.join(&relative)) {
            Ok(source) => source,
            Err(error) if is_absent(&error) => return Err(refuse("it does not exist")),
            Err(error) => return Err(RepoError::io("resolve", &from.join(&relative))(error)),
        };
        if !source.starts_with(from) || source.starts_with(from.join(".git")) {
            return Err(refuse("it leads out of the repository"));
        }
        let copied = copy_tree(from, &source, to, &relative);
        match copied {
            Ok(true) => {}
            Ok(false) => {
                return Err(refuse(
                    "it holds a link that leads out of the repository, or something that is no file",
                ));
            }
            Err(error) => return Err(RepoError::io("copy", &source)(error)),
        }
    }
    Ok(())
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
