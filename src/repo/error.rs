//! What can go wrong with a repository, and what to do then.

use super::RepoPath;
use crate::error::{ErrorKind, Fault};
use crate::model::WorkflowId;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many candidates or names one message lists.
const LISTED: usize = 5;

/// A failure of the repository layer.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    /// No directory is open to tasks.
    #[error("no directory is open to tasks: {why}")]
    NoRoots {
        /// Why not.
        why: String,
        /// How to name one.
        how_to_add: String,
    },
    /// The path leads out of the roots.
    #[error("{path:?} is outside the roots ({})", list(.roots))]
    OutsideRoots {
        /// What was asked for, after links and `..`.
        path: PathBuf,
        /// The roots.
        roots: Vec<PathBuf>,
        /// How to add one.
        how_to_add: String,
    },
    /// No repository has this path or name, or the glob fits none.
    #[error("no repository {spec:?} under the roots")]
    NotFound {
        /// What was asked for.
        spec: String,
        /// The most similar name there is.
        nearest: Option<String>,
    },
    /// The directory is no git repository.
    #[error("{path:?} is not a git repository")]
    NotARepository {
        /// The directory.
        path: PathBuf,
        /// The nearest repository above it.
        above: Option<PathBuf>,
    },
    /// The path cannot be written in JSON.
    #[error("the path {path:?} is not valid UTF-8")]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// The name fits several repositories.
    #[error("{spec:?} fits {} repositories: {}", .candidates.len(), list(.candidates))]
    Ambiguous {
        /// What was asked for.
        spec: String,
        /// The repositories it fits.
        candidates: Vec<RepoPath>,
    },
    /// The text is no repository name, path or glob.
    #[error("{spec:?} names no repository: {why}")]
    BadSpec {
        /// What was asked for.
        spec: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The glob cannot be read.
    #[error("{pattern:?} is not a glob")]
    BadGlob {
        /// The argument it was in.
        field: &'static str,
        /// The glob.
        pattern: String,
        /// What is wrong with it.
        #[source]
        source: Box<globset::Error>,
    },
    /// `exclude` and `has_file` left nothing.
    #[error("exclude and has_file leave none of {named} repositories")]
    NothingLeft {
        /// How many were named.
        named: usize,
    },
    /// A file operation failed.
    #[error("{action} {path:?}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The git program cannot be started.
    #[error("start {program:?}")]
    GitMissing {
        /// The program.
        program: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// git said no.
    #[error("git {command} failed in {dir:?}: {stderr}")]
    Git {
        /// The subcommand.
        command: String,
        /// Where it ran.
        dir: PathBuf,
        /// The exit code; none where a signal ended it.
        code: Option<i32>,
        /// The end of what it wrote.
        stderr: String,
    },
    /// git did not end in time.
    #[error("git {command} did not end within {} s in {dir:?}", .limit.as_secs())]
    GitTimedOut {
        /// The subcommand.
        command: String,
        /// Where it ran.
        dir: PathBuf,
        /// How long it had.
        limit: Duration,
    },
    /// git wrote what nobody expected.
    #[error("git {command} answered in an unknown form in {dir:?}")]
    GitAnswer {
        /// The subcommand.
        command: String,
        /// Where it ran.
        dir: PathBuf,
    },
    /// The repository has no commit to start from.
    #[error("{repo} has no commit yet")]
    NoCommits {
        /// The repository.
        repo: RepoPath,
    },
    /// The ref cannot be a base.
    #[error("{name:?} is no base in {repo}: {why}")]
    BadRef {
        /// The repository.
        repo: RepoPath,
        /// The ref.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file of `copy_files` cannot be copied.
    #[error("cannot copy {file:?} of {repo}: {why}")]
    CopyFile {
        /// The repository.
        repo: RepoPath,
        /// The file.
        file: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The worktree was removed, or is none of ours.
    #[error("there is no worktree of ours at {path:?}")]
    WorktreeGone {
        /// The worktree.
        path: PathBuf,
    },
    /// The repository went away under its worktree.
    #[error("its repository {repo} was moved or deleted; the files are in {path:?}")]
    RepositoryGone {
        /// The repository.
        repo: String,
        /// The worktree, which git does not know any more.
        path: PathBuf,
    },
    /// Somebody works in the worktree.
    #[error("the worktree {path:?} is in use")]
    WorktreeInUse {
        /// The worktree.
        path: PathBuf,
    },
    /// Somebody works in the repository's working copy.
    #[error("the working copy of {repo} is in use by a running item or another apply")]
    InUse {
        /// The repository.
        repo: RepoPath,
    },
    /// The person is in the middle of something in this repository.
    #[error("a {operation} is in progress in {repo}")]
    InProgress {
        /// The repository.
        repo: RepoPath,
        /// What is in progress.
        operation: &'static str,
    },
    /// The repository has no files to apply to.
    #[error("{repo} is bare: it has no working copy")]
    NoWorkingCopy {
        /// The repository.
        repo: RepoPath,
    },
    /// The branch exists already and holds something else.
    #[error("the branch {branch:?} exists already in {repo}")]
    BranchExists {
        /// The repository.
        repo: RepoPath,
        /// The branch.
        branch: String,
    },
    /// The name cannot be a branch's.
    #[error("{branch:?} cannot be a branch's name")]
    BadBranch {
        /// The name.
        branch: String,
    },
    /// A branch is made for one item at a time.
    #[error("a branch is made for one item at a time")]
    OneBranchPerCall,
    /// The commits to apply are not in the repository.
    #[error("the commit {commit} is not in {repo}")]
    NoSuchCommit {
        /// The repository.
        repo: RepoPath,
        /// The commit.
        commit: String,
    },
    /// There is nothing to undo under this token.
    #[error("{token:?} undoes nothing: {why}")]
    UndoUnknown {
        /// The token.
        token: String,
        /// Why not.
        why: &'static str,
    },
    /// The token is another workflow's.
    #[error("{token:?} undoes changes of workflow {workflow}")]
    UndoForeign {
        /// The token.
        token: String,
        /// The workflow that it belongs to.
        workflow: WorkflowId,
    },
    /// What was applied has changed since.
    #[error("cannot undo in {repo}, changed since: {}", list(.changed))]
    UndoStale {
        /// The repository.
        repo: RepoPath,
        /// The files and refs that are not as they were left.
        changed: Vec<String>,
    },
    /// The user's files changed while changes were being applied.
    #[error("files of {repo} changed while changes were being applied: {}", list(.changed))]
    Raced {
        /// The repository.
        repo: RepoPath,
        /// The files.
        changed: Vec<String>,
    },
    /// The work was given up, because the process is ending.
    #[error("the work was given up")]
    Abandoned,
}

impl RepoError {
    /// Returns the refusal of `path`, naming the nearest repository above it.
    pub(super) fn not_a_repository(path: &Path) -> Self {
        let above = path
            .ancestors()
            .skip(1)
            .find(|dir| super::Layout::at(dir).is_ok_and(|layout| layout.is_some()));
        Self::NotARepository {
            path: path.to_owned(),
            above: above.map(Path::to_owned),
        }
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
}

impl Fault for RepoError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoRoots { .. } | Self::OutsideRoots { .. } => ErrorKind::Forbidden,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::NotARepository { .. }
            | Self::NotUtf8 { .. }
            | Self::Ambiguous { .. }
            | Self::BadSpec { .. }
            | Self::BadGlob { .. }
            | Self::BadRef { .. }
            | Self::CopyFile { .. }
            | Self::NoWorkingCopy { .. }
            | Self::BadBranch { .. }
            | Self::OneBranchPerCall
            | Self::UndoForeign { .. }
            | Self::NothingLeft { .. } => ErrorKind::InvalidArgument,
            Self::NoCommits { .. } | Self::InProgress { .. } => ErrorKind::Failed,
            Self::WorktreeGone { .. }
            | Self::RepositoryGone { .. }
            | Self::NoSuchCommit { .. }
            | Self::UndoUnknown { .. } => ErrorKind::NotFound,
            Self::BranchExists { .. } | Self::UndoStale { .. } => ErrorKind::Conflict,
            Self::WorktreeInUse { .. } | Self::InUse { .. } | Self::Raced { .. } => ErrorKind::Busy,
            Self::Io { .. } | Self::GitMissing { .. } => ErrorKind::Unavailable,
            Self::Git { .. } | Self::GitAnswer { .. } => ErrorKind::Failed,
            Self::GitTimedOut { .. } => ErrorKind::TimedOut,
            Self::Abandoned => ErrorKind::Cancelled,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoRoots { how_to_add, .. } | Self::OutsideRoots { how_to_add, .. } => {
                how_to_add.clone()
            }
            Self::NotFound {
                nearest: Some(name),
                ..
            } => format!("did you mean {name:?}? list_repos shows all repositories"),
            Self::NotFound { nearest: None, .. } | Self::BadSpec { .. } => {
                "list_repos shows all repositories".to_owned()
            }
            Self::NotARepository {
                above: Some(above), ..
            } => format!("name the repository around it, {above:?}"),
            Self::NotARepository { path, above: None } => {
                format!("run `git init` in {path:?}, or name another directory")
            }
            Self::NotUtf8 { .. } => "rename the directory".to_owned(),
            Self::Ambiguous { .. } => "give the path of the one you mean".to_owned(),
            Self::BadGlob { .. } => {
                "in a glob, * stays within one folder, ** crosses folders, {a,b} are alternatives"
                    .to_owned()
            }
            Self::NothingLeft { .. } => "loosen exclude or has_file".to_owned(),
            Self::GitMissing { .. } => "install git 2.40 or newer".to_owned(),
            Self::GitTimedOut { .. } => {
                "see whether a network file system or a lock holds git up".to_owned()
            }
            Self::Git { stderr, .. } if stderr.contains("dubious ownership") => {
                "the directory belongs to another user; allow it with git's safe.directory"
                    .to_owned()
            }
            Self::NoCommits { .. } => {
                "make a first commit, or use base_ref working_copy".to_owned()
            }
            Self::BadRef { .. } => {
                "give a branch, tag or commit that `git rev-parse` knows in this repository, or one of head, \
                 default_branch, working_copy"
                    .to_owned()
            }
            Self::CopyFile { .. } => {
                "name files inside the repository, by their path from its top".to_owned()
            }
            Self::WorktreeGone { .. } => {
                "start the item again from fresh; what was committed is on its branch".to_owned()
            }
            Self::RepositoryGone { .. } => {
                "put the repository back and resume, or take the files from there".to_owned()
            }
            Self::WorktreeInUse { .. } | Self::InUse { .. } => {
                "wait until it has ended, or cancel it".to_owned()
            }
            Self::InProgress { .. } => "finish or abort it first, or use how branch".to_owned(),
            Self::NoWorkingCopy { .. } => "use how branch".to_owned(),
            Self::BadBranch { .. } | Self::OneBranchPerCall => return None,
            Self::BranchExists { .. } => "delete or rename that branch".to_owned(),
            Self::NoSuchCommit { .. } => {
                "fetch it, or run the item again".to_owned()
            }
            Self::UndoUnknown { .. } => {
                "give the undo that apply_changes returned, once".to_owned()
            }
            Self::UndoForeign { workflow, .. } => {
                format!("call apply_changes with workflow_id {workflow} and this undo")
            }
            Self::UndoStale { .. } => {
                "put these files back as apply_changes left them, or revert the change by hand"
                    .to_owned()
            }
            Self::Raced { .. } => "nothing was applied; call again".to_owned(),
            Self::Io { .. } | Self::Git { .. } | Self::GitAnswer { .. } | Self::Abandoned => {
                return None;
            }
        })
    }

    fn field(&self) -> Option<String> {
        match self {
            Self::OutsideRoots { .. }
            | Self::NotFound { .. }
            | Self::NotARepository { .. }
            | Self::NotUtf8 { .. }
            | Self::Ambiguous { .. }
            | Self::BadSpec { .. } => Some("repos".to_owned()),
            Self::BadRef { .. } => Some("base_ref".to_owned()),
            Self::CopyFile { .. } => Some("copy_files".to_owned()),
            Self::NoWorkingCopy { .. } => Some("how".to_owned()),
            Self::UndoUnknown { .. } | Self::UndoForeign { .. } | Self::UndoStale { .. } => {
                Some("undo".to_owned())
            }
            Self::BadGlob { field, .. } => Some((*field).to_owned()),
            Self::NothingLeft { .. } => Some("has_file".to_owned()),
            _ => None,
        }
    }

    fn allowed(&self) -> Option<String> {
        match self {
            Self::OutsideRoots { roots, .. } => Some(format!("repositories under {}", list(roots))),
            Self::Ambiguous { candidates, .. } => Some(list(candidates)),
            Self::NotARepository { .. } => Some("a git repository".to_owned()),
            Self::BadGlob { .. } => Some("a glob, such as web-* or **/api".to_owned()),
            Self::BadSpec { .. } | Self::NotFound { .. } => {
                Some("a repository's path, name, or a glob over both".to_owned())
            }
            _ => None,
        }
    }
}

/// Returns the first few of `items`, and how many more there are.
fn list(items: &[impl AsRef<Path>]) -> String {
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
