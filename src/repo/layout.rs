//! Where a repository keeps its git data: plain, linked worktree, submodule or bare.
//!
//! Follows gitrepository-layout(5): `.git` is a directory or a file `gitdir: PATH`, and a linked worktree's git
//! directory names the shared one in `commondir`. No git process is started.

use super::RepoError;
use super::path::RepoPath;
use crate::error::ErrorKind::Unavailable;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The kind of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A working copy with its own git data.
    Main,
    /// A working copy with its own git data whose `core.bare` is on, so that git refuses to work in it.
    MarkedBare,
    /// A working copy that `git worktree add` made.
    Linked,
    /// A submodule's working copy.
    Submodule,
    /// Git data without a working copy; its folder may hold a `.git` file that points to the data.
    Bare,
}

/// A repository's directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The kind of repository.
    pub(super) form: Form,
    /// The working copy; for a bare repository, the git directory or the folder with the `.git` file.
    pub(super) dir: PathBuf,
    /// HEAD, the index and what else belongs to this working copy alone.
    pub(super) git_dir: PathBuf,
    /// Objects and refs, shared by all worktrees of the repository.
    pub(super) common_dir: PathBuf,
}

impl Layout {
    /// Returns the layout of a repository that was found before.
    ///
    /// # Errors
    ///
    /// [`RepoError::NotARepository`] where it is gone, and what `Self::at` refuses.
    pub fn of(repo: &RepoPath) -> Result<Self, RepoError> {
        Self::required(repo.as_path())
    }

    /// Returns the layout of `dir`, which must be a repository.
    pub(super) fn required(dir: &Path) -> Result<Self, RepoError> {
        Self::at(dir)?.ok_or_else(|| not_a_repository(dir))
    }

    /// Returns the layout of `dir`, or none where it is not a repository.
    ///
    /// # Errors
    ///
    /// It is one, but its git data cannot be read; the error names what is wrong and the command that mends it.
    pub(super) fn at(dir: &Path) -> Result<Option<Self>, RepoError> {
        let dot_git = dir.join(".git");
        match fs::metadata(&dot_git) {
            Ok(meta) if meta.is_dir() && is_git_dir(&dot_git) => Ok(Some(Self::main(dir, dot_git))),
            Ok(meta) if meta.is_dir() => match damage(&dot_git) {
                None => Ok(None),
                Some(why) => Err(broken(
                    dir,
                    &why,
                    "restore its .git directory, or clone it again",
                )),
            },
            Ok(_) => Self::behind_file(dir, &dot_git).map(Some),
            Err(error) if is_absent(&error) => Ok(is_git_dir(dir).then(|| Self {
                form: Form::Bare,
                dir: dir.to_owned(),
                git_dir: dir.to_owned(),
                common_dir: dir.to_owned(),
            })),
            Err(error) => Err(RepoError::io("read", &dot_git)(error)),
        }
    }

    fn main(dir: &Path, git_dir: PathBuf) -> Self {
        Self {
            form: match is_bare(&git_dir) {
                true => Form::MarkedBare,
                false => Form::Main,
            },
            dir: dir.to_owned(),
            common_dir: git_dir.clone(),
            git_dir,
        }
    }

    /// Follows a `.git` file.
    fn behind_file(dir: &Path, dot_git: &Path) -> Result<Self, RepoError> {
        let failed = |path: &Path| RepoError::io("read", path);
        let text = read_small(dot_git).map_err(failed(dot_git))?;
        let Some(target) = text.strip_prefix(b"gitdir: ") else {
            let why = "its .git file does not begin with `gitdir: `";
            return Err(broken(
                dir,
                why,
                "remove the file, or write `gitdir: PATH` into it",
            ));
        };
        let target = dir.join(bytes_path(target));
        let git_dir = fs::canonicalize(&target).map_err(|error| {
            let why = format!("its .git file names {}, {error}", target.display());
            broken(dir, &why, REPAIR)
        })?;
        let common_file = git_dir.join("commondir");
        let (form, common_dir) = match read_small(&common_file) {
            Ok(text) => {
                let common_dir = git_dir.join(bytes_path(&text));
                let common_dir = fs::canonicalize(&common_dir).map_err(failed(&common_dir))?;
                (Form::Linked, common_dir)
            }
            Err(error) if !is_absent(&error) => return Err(failed(&common_file)(error)),
            Err(_) if is_submodule(&git_dir) => (Form::Submodule, git_dir.clone()),
            Err(_) if is_bare(&git_dir) => (Form::Bare, git_dir.clone()),
            Err(_) => (Form::Main, git_dir.clone()),
        };
        if !exists(&git_dir.join("HEAD")) || !common_dir.join("objects").is_dir() {
            let why = format!(
                "its .git file names {}, which is incomplete",
                git_dir.display()
            );
            return Err(broken(dir, &why, REPAIR));
        }
        Ok(Self {
            form,
            dir: dir.to_owned(),
            git_dir,
            common_dir,
        })
    }

    /// Returns whether there is a working copy.
    pub(super) fn has_working_copy(&self) -> bool {
        self.form != Form::Bare
    }

    /// Refuses a repository in whose files git cannot work.
    pub(super) fn require_working_copy(&self) -> Result<(), RepoError> {
        let dir = self.dir.display();
        match self.form {
            Form::Main | Form::Linked | Form::Submodule => Ok(()),
            Form::MarkedBare => Err(RepoError::refused(
                Unavailable,
                format!(
                    "{dir} has files, but its setting core.bare is on, so git refuses to work in them"
                ),
                format!("run `git -C {dir} config core.bare false`"),
            )),
            Form::Bare => Err(crate::error::Problem::argument(
                "how",
                format!("{dir} is bare: it has no working copy"),
                "branch",
            )
            .with_hint("use how branch")
            .into()),
        }
    }
}

/// What mends a worktree or submodule whose git data was moved.
const REPAIR: &str = "if the main repository was moved, run `git worktree repair` there with this path; else clone it again";

fn broken(dir: &Path, why: &str, hint: &str) -> RepoError {
    let message = format!("the repository {} cannot be read: {why}", dir.display());
    RepoError::refused(Unavailable, message, hint)
}

/// Returns the refusal of `path`, naming the nearest repository above it.
pub(super) fn not_a_repository(path: &Path) -> RepoError {
    RepoError::NotARepository {
        path: path.to_owned(),
        above: repository_above(path),
    }
}

/// Returns the nearest repository that `path` lies in.
pub(super) fn repository_above(path: &Path) -> Option<PathBuf> {
    let mut above = path.ancestors().skip(1);
    above
        .find(|dir| Layout::at(dir).is_ok_and(|layout| layout.is_some()))
        .map(Path::to_owned)
}

/// Git's own test (setup.c, `is_git_directory`): HEAD, objects and refs.
fn is_git_dir(dir: &Path) -> bool {
    exists(&dir.join("HEAD")) && dir.join("objects").is_dir() && dir.join("refs").is_dir()
}

/// Returns why the `.git` directory `dir` is of no use to git; none where there is nothing of a repository in it.
fn damage(dir: &Path) -> Option<String> {
    let missing = ["HEAD", "objects", "refs"]
        .into_iter()
        .filter(|name| !exists(&dir.join(name)))
        .collect::<Vec<_>>();
    match fs::read_dir(dir) {
        Err(error) => Some(error.to_string()),
        Ok(_) if missing.len() == 3 => None,
        Ok(_) => Some(format!("its .git directory lacks {}", missing.join(", "))),
    }
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Returns whether `core.bare` is on. Read as git reads it at discovery (setup.c, `read_repository_format`): from the
/// repository's own files, without includes; the last value counts, and `config.worktree` only where it is enabled.
fn is_bare(git_dir: &Path) -> bool {
    let shared = Settings::read(&git_dir.join("config"));
    match shared.worktree_config {
        true => Settings::read(&git_dir.join("config.worktree"))
            .bare
            .or(shared.bare)
            .unwrap_or(false),
        false => shared.bare.unwrap_or(false),
    }
}

/// The settings of one config file that decide whether there is a working copy.
#[derive(Debug, Default, PartialEq, Eq)]
struct Settings {
    bare: Option<bool>,
    worktree_config: bool,
}

impl Settings {
    fn read(file: &Path) -> Self {
        Self::parse(&String::from_utf8_lossy(
            &fs::read(file).unwrap_or_default(),
        ))
    }

    fn parse(text: &str) -> Self {
        let mut settings = Self::default();
        let mut section = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(header) = line.strip_prefix('[') {
                section = header.split(']').next().unwrap_or_default().to_lowercase();
                continue;
            }
            let code = line.split(['#', ';']).next().unwrap_or_default();
            let (key, value) = code.split_once('=').unwrap_or((code, "true"));
            let value = value.trim().trim_matches('"').to_lowercase();
            let is_on = matches!(value.as_str(), "true" | "yes" | "on" | "1");
            match (section.trim(), key.trim().to_lowercase().as_str()) {
                ("core", "bare") => settings.bare = Some(is_on),
                ("extensions", "worktreeconfig") => settings.worktree_config = is_on,
                _ => {}
            }
        }
        settings
    }
}

/// Git keeps a submodule's data in its superproject's `modules` directory.
fn is_submodule(git_dir: &Path) -> bool {
    git_dir
        .components()
        .any(|part| part.as_os_str() == "modules")
}

/// Returns whether `error` means that there is no such file.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Removes the file `path`; one that is not there is removed already.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if !is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Removes the folder `path` with all in it; one that is not there is removed already.
pub(super) fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if !is_absent(&error) => Err(error),
        _ => Ok(()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_settings_are_read_as_git_reads_them() {
        let bare = |text: &str| Settings::parse(text).bare;
        assert_eq!(bare("[core]\n\tbare = true\n"), Some(true));
        assert_eq!(bare("[CORE]\nBARE=yes ; by a tool\n"), Some(true));
        assert_eq!(bare("[core]\nbare\n"), Some(true));
        assert_eq!(bare("[core]\nbare = true\nbare = false\n"), Some(false));
        assert_eq!(
            bare("[core \"x\"]\nbare = true\n[remote]\nbare = true\n"),
            None
        );
        let extension = Settings::parse("[extensions]\n\tworktreeConfig = true\n");
        assert!(extension.worktree_config);
    }
}
