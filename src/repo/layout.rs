//! Where a repository keeps its git data: plain, linked worktree, submodule or bare.
//!
//! Follows gitrepository-layout(5): `.git` is a directory or a file `gitdir: PATH`, and a linked worktree's git
//! directory names the shared one in `commondir`. No git process is started.

use super::{RepoError, RepoPath};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What sort of repository a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A working copy with its own git data.
    Main,
    /// A working copy that `git worktree add` made.
    Linked,
    /// A submodule's working copy.
    Submodule,
    /// Git data without a working copy.
    Bare,
}

/// A repository's directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// What sort of repository it is.
    pub form: Form,
    /// The working copy; for a bare repository, the git directory.
    pub dir: PathBuf,
    /// HEAD, the index and what else belongs to this working copy alone.
    pub git_dir: PathBuf,
    /// Objects and refs, shared by all worktrees of the repository.
    pub common_dir: PathBuf,
}

impl Layout {
    /// Returns the layout of a repository that was found before.
    ///
    /// # Errors
    ///
    /// [`RepoError::NotARepository`] where it is gone.
    pub fn of(repo: &RepoPath) -> Result<Self, RepoError> {
        Self::at(repo.as_path())
            .ok()
            .flatten()
            .ok_or_else(|| RepoError::not_a_repository(repo.as_path()))
    }

    /// Returns the layout of `dir`, or none where it is no repository.
    pub(super) fn at(dir: &Path) -> io::Result<Option<Self>> {
        let dot_git = dir.join(".git");
        match fs::metadata(&dot_git) {
            Ok(meta) if meta.is_dir() => Ok(is_git_dir(&dot_git).then(|| Self {
                form: Form::Main,
                dir: dir.to_owned(),
                common_dir: dot_git.clone(),
                git_dir: dot_git,
            })),
            Ok(_) => Self::behind_file(dir, &dot_git),
            Err(error) if is_absent(&error) => Ok(is_git_dir(dir).then(|| Self {
                form: Form::Bare,
                dir: dir.to_owned(),
                git_dir: dir.to_owned(),
                common_dir: dir.to_owned(),
            })),
            Err(error) => Err(error),
        }
    }

    fn behind_file(dir: &Path, dot_git: &Path) -> io::Result<Option<Self>> {
        let text = read_small(dot_git)?;
        let Some(target) = text.strip_prefix(b"gitdir: ") else {
            return Ok(None);
        };
        let Ok(git_dir) = fs::canonicalize(dir.join(bytes_path(target))) else {
            return Ok(None);
        };
        let (form, common_dir) = match read_small(&git_dir.join("commondir")) {
            Ok(text) => (
                Form::Linked,
                fs::canonicalize(git_dir.join(bytes_path(&text)))?,
            ),
            Err(error) if is_absent(&error) && is_submodule(&git_dir) => {
                (Form::Submodule, git_dir.clone())
            }
            Err(error) if is_absent(&error) => (Form::Main, git_dir.clone()),
            Err(error) => return Err(error),
        };
        let complete =
            git_dir.join("HEAD").symlink_metadata().is_ok() && common_dir.join("objects").is_dir();
        Ok(complete.then(|| Self {
            form,
            dir: dir.to_owned(),
            git_dir,
            common_dir,
        }))
    }

    /// Returns whether there is a working copy.
    pub fn has_working_copy(&self) -> bool {
        self.form != Form::Bare
    }
}

/// Git's own test (setup.c, `is_git_directory`): HEAD, objects and refs.
fn is_git_dir(dir: &Path) -> bool {
    dir.join("HEAD").symlink_metadata().is_ok()
        && dir.join("objects").is_dir()
        && dir.join("refs").is_dir()
}

/// Git keeps a submodule's data in its superproject's `modules` directory.
fn is_submodule(git_dir: &Path) -> bool {
    git_dir
        .components()
        .any(|part| part.as_os_str() == "modules")
}

/// Returns whether `error` says that there is no such file.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Reads one of git's one-line files, without the line's end.
pub(super) fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    read_line(File::open(path)?)
}

/// Reads the one line of an open file, without the line's end.
pub(super) fn read_line(mut file: File) -> io::Result<Vec<u8>> {
    // Longer than any such line; a file is read to its end where it fills less.
    const USUAL_BYTES: usize = 1024;
    let mut text = vec![0; USUAL_BYTES];
    let count = file.read(&mut text)?;
    text.truncate(count);
    if count == USUAL_BYTES {
        file.read_to_end(&mut text)?;
    }
    while text
        .last()
        .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
    {
        text.pop();
    }
    Ok(text)
}

/// Returns the path that `bytes` name.
pub(super) fn bytes_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
