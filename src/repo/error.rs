//! What can go wrong with a repository, and the next step for each failure.
//!
//! Variants exist only where a caller or a test tells them apart. Everything else is a [`RepoError::Refused`], written
//! where the refusal happens.

use super::path::RepoPath;
use crate::error::{ErrorKind, Fault, Problem};
use crate::process::SpawnError;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many candidates or names one message lists.
const LISTED: usize = 5;

/// A failure of the repository layer.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    /// An argument, or the state of a repository, does not allow the call.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// No repository has this path or name, or no repository matches the glob.
    #[error("no repository {spec:?} under the roots")]
    NotFound {
        /// The path, name or glob.
        spec: String,
        /// The most similar name there is.
        nearest: Option<String>,
    },
    /// The directory is not a git repository.
    #[error("{path:?} is not a git repository")]
    NotARepository {
        /// The directory.
        path: PathBuf,
        /// The nearest repository above it.
        above: Option<PathBuf>,
    },
    /// Several repositories have the name.
    #[error("{spec:?} matches {} repositories: {}", .candidates.len(), list(.candidates))]
    Ambiguous {
        /// The path or name.
        spec: String,
        /// The repositories that match.
        candidates: Vec<RepoPath>,
    },
    /// The repository has no commit to start from.
    #[error("{repo} has no commit yet")]
    NoCommits {
        /// The repository.
        repo: RepoPath,
    },
    /// The worktree was removed, or this program did not make it.
    #[error("there is no worktree of this server at {path:?}")]
    WorktreeGone {
        /// The worktree.
        path: PathBuf,
    },
    /// Another item, or another server, uses the worktree.
    #[error("the worktree {path:?} is in use")]
    WorktreeInUse {
        /// The worktree.
        path: PathBuf,
    },
    /// The undo token names no apply that can be undone.
    #[error("{token:?} cannot be undone: {why}")]
    UndoUnknown {
        /// The token.
        token: String,
        /// The reason.
        why: &'static str,
    },
    /// A file operation failed.
    #[error("{action} {path:?}")]
    Io {
        /// The operation, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The git program cannot be started.
    #[error("start {program:?}")]
    GitMissing {
        /// The program.
        program: PathBuf,
        /// The system's error.
        #[source]
        source: SpawnError,
    },
    /// git exited with a failure.
    #[error("git {command} failed in {dir:?}: {stderr}")]
    Git {
        /// The subcommand.
        command: String,
        /// The directory it ran in.
        dir: PathBuf,
        /// The exit code; none where a signal ended it.
        code: Option<i32>,
        /// The end of its stderr.
        stderr: String,
    },
    /// git did not end in time.
    #[error("git {command} did not end within {} s in {dir:?}", .limit.as_secs())]
    GitTimedOut {
        /// The subcommand.
        command: String,
        /// The directory it ran in.
        dir: PathBuf,
        /// The time it had.
        limit: Duration,
    },
    /// git's output does not have the documented form.
    #[error("the output of git {command} in {dir:?} has an unknown form")]
    GitAnswer {
        /// The subcommand.
        command: String,
        /// The directory it ran in.
        dir: PathBuf,
    },
    /// The operation was abandoned because the process is ending.
    #[error("the operation was abandoned because the server is ending")]
    Abandoned,
}

impl RepoError {
    /// Returns the refusal of argument `field`; see [`Problem::argument`].
    pub(super) fn argument(
        field: &'static str,
        message: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Problem::argument(field, message, allowed).into()
    }

    /// Returns a refusal of `kind` with the next step.
    pub(super) fn refused(
        kind: ErrorKind,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Problem::new(kind, message).with_hint(hint).into()
    }

    /// Returns a closure that wraps a system error.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Returns kind, hint, field and allowed values; the message lacks the causes, which [`Fault::problem`] adds.
    fn describe(&self) -> Problem {
        let argument = |allowed: &str| Problem::argument("repos", self.to_string(), allowed);
        let plain = |kind| Problem::new(kind, self.to_string());
        match self {
            Self::Refused(problem) => Problem::clone(problem),
            Self::NotFound { nearest, .. } => {
                let hint = "list_repos shows all repositories".to_owned();
                let hint = match nearest {
                    Some(name) => format!("did you mean {name:?}? {hint}"),
                    None => hint,
                };
                Problem {
                    kind: ErrorKind::NotFound,
                    ..argument("a repository's path, name, or a glob over both").with_hint(hint)
                }
            }
            Self::NotARepository { path, above } => {
                argument("a git repository").with_hint(match above {
                    Some(above) => format!("name the repository around it, {above:?}"),
                    None => format!("run `git init` in {path:?}, or name another directory"),
                })
            }
            Self::Ambiguous { candidates, .. } => {
                argument(&list(candidates)).with_hint("give the path of the one you mean")
            }
            Self::NoCommits { .. } => plain(ErrorKind::Failed)
                .with_hint("make a first commit, or use base_ref working_copy"),
            Self::WorktreeGone { .. } => plain(ErrorKind::NotFound)
                .with_hint("resume the item with from fresh; committed work is on its branch"),
            Self::WorktreeInUse { .. } => {
                plain(ErrorKind::Busy).with_hint("wait until the item has ended, or cancel it")
            }
            Self::UndoUnknown { .. } => Problem {
                field: Some("undo".to_owned()),
                ..plain(ErrorKind::NotFound)
                    .with_hint("give the undo that apply_changes returned, once")
            },
            Self::Git { stderr, .. } if stderr.contains("dubious ownership") => plain(
                ErrorKind::Failed,
            )
            .with_hint("the directory belongs to another user; allow it with git's safe.directory"),
            // A branch of this name leaves no room for branches below it.
            Self::Git { stderr, .. } if stderr.contains("refs/heads/mahavishnu' exists") => plain(
                ErrorKind::Conflict,
            )
            .with_hint("rename the branch `mahavishnu`: items' branches are below that name"),
            Self::Git { .. } | Self::GitAnswer { .. } => plain(ErrorKind::Failed),
            Self::GitMissing { .. } => {
                plain(ErrorKind::Unavailable).with_hint("install git 2.41 or newer")
            }
            Self::GitTimedOut { .. } => plain(ErrorKind::TimedOut)
                .with_hint("check for a slow network file system, or a lock that git waits for"),
            Self::Io { .. } => plain(ErrorKind::Unavailable),
            Self::Abandoned => plain(ErrorKind::Cancelled),
        }
    }
}

impl From<Problem> for RepoError {
    fn from(problem: Problem) -> Self {
        Self::Refused(Box::new(problem))
    }
}

impl Fault for RepoError {
    fn kind(&self) -> ErrorKind {
        self.describe().kind
    }

    fn hint(&self) -> Option<String> {
        self.describe().hint
    }

    fn field(&self) -> Option<String> {
        self.describe().field
    }

    fn allowed(&self) -> Option<String> {
        self.describe().allowed
    }
}

/// Returns the first few of `items`, and how many more there are.
pub(super) fn list(items: &[impl AsRef<Path>]) -> String {
    let mut text = items
        .iter()
        .take(LISTED)
        .map(|item| item.as_ref().display().to_string())
        .collect::<Vec<_>>()
        .join(", ");
    if items.len() > LISTED {
        text.push_str(&format!(" and {} more", items.len() - LISTED));
    }
    text
}
