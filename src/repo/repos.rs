//! The handle to every repository under the roots, and what its operations share.

use super::disk_use::DiskUse;
use super::git::Git;
use super::lock::{Lane, Locks, RepoLock};
use super::plumbing::Plumbing;
use super::roots::Roots;
use super::{Layout, RepoError, RepoPath};
use crate::config::NamedBy;
use crate::panic::propagate;
use crate::process::{Processes, SearchPath};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What `main` passes in; this layer reads no environment itself.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The config's `roots`; empty: the start directory.
    pub roots: Vec<PathBuf>,
    /// Where the roots were given, for hints.
    pub roots_by: NamedBy,
    /// The directory the program was started in.
    pub start_dir: PathBuf,
    /// The user's home directory, for `~`.
    pub home: Option<PathBuf>,
    /// The path of the config file, for hints.
    pub config_file: PathBuf,
    /// Where locks, worktrees and undo records are kept.
    pub state_dir: PathBuf,
    /// A file that is locked as long as this process or a program that it started lives; none: only the process counts.
    pub alive: Option<PathBuf>,
    /// How many bytes all worktrees together may take before no further one is made; none: any number.
    pub worktrees_max_bytes: Option<u64>,
    /// What runs git.
    pub processes: Processes,
    /// The git program: a path, or a name that is searched.
    pub git: PathBuf,
    /// Where git is searched, and the PATH that it gets: filters such as git-lfs are programs too.
    pub search: SearchPath,
    /// The environment git runs in; variables that point git at a repository are left out of it.
    pub env: Vec<(OsString, OsString)>,
}

/// The handle to every repository under the roots; cloning it is cheap.
///
/// Its operations are methods in the files that they are about: `select`, `list`, `status`, `worktree`, `apply`, ...
#[derive(Debug, Clone)]
pub struct Repos(pub(super) Arc<Context>);

/// What all operations share.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) roots: Roots,
    pub(super) locks: Arc<Locks>,
    pub(super) git: Git,
    /// Holds one folder per worktree.
    pub(super) worktrees: PathBuf,
    /// Holds one folder per apply that can be undone.
    pub(super) applies: PathBuf,
    /// Holds temporary indexes.
    pub(super) scratch: PathBuf,
    /// See [`Setup::alive`].
    pub(super) alive: Option<PathBuf>,
    pub(super) disk_use: Arc<DiskUse>,
    /// Operations that run to their end although their caller has gone.
    pub(super) steps: TaskTracker,
    /// Ends work in the background.
    pub(super) ending: CancellationToken,
}

impl Context {
    /// Returns git's plumbing in the user's repository.
    pub(super) fn user(&self, layout: &Layout) -> Plumbing<'_> {
        Plumbing::user(&self.git, layout)
    }

    /// Returns the same, whose calls of git are given up when `stop` is cancelled.
    pub(super) fn until(&self, stop: CancellationToken) -> Self {
        Self {
            git: self.git.until(stop),
            ..self.clone()
        }
    }
}

impl Repos {
    /// Makes the handle. Nothing is read but the roots' canonical paths, and nothing is refused yet.
    pub fn new(setup: Setup) -> Self {
        let roots = Roots::new(
            &setup.roots,
            &setup.start_dir,
            setup.home.as_deref(),
            &setup.config_file,
        )
        .named_by(setup.roots_by)
        .without(&setup.state_dir);
        Self(Arc::new(Context {
            roots,
            locks: Arc::new(Locks::new(setup.state_dir.join("locks"))),
            git: Git::new(setup.processes, setup.git, setup.search, setup.env),
            worktrees: setup.state_dir.join("worktrees"),
            applies: setup.state_dir.join("applies"),
            scratch: setup.state_dir.join("tmp"),
            alive: setup.alive,
            disk_use: Arc::new(DiskUse::new(setup.worktrees_max_bytes)),
            steps: TaskTracker::new(),
            ending: CancellationToken::new(),
        }))
    }

    /// Returns the directories under which repositories may be touched.
    pub fn roots(&self) -> &Roots {
        &self.0.roots
    }

    /// Returns the repository's lock of `lane` if it is free in every process.
    ///
    /// # Errors
    ///
    /// The lock file cannot be made.
    pub fn try_lock(&self, layout: &Layout, lane: Lane) -> Result<Option<RepoLock>, RepoError> {
        self.0.locks.try_lock(&layout.common_dir, lane)
    }

    /// Waits for the repository's lock of `lane`. Waiters of this process are served in order.
    ///
    /// # Errors
    ///
    /// The lock file cannot be made.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue; nothing stays locked.
    pub async fn lock(&self, repo: &RepoPath, lane: Lane) -> Result<RepoLock, RepoError> {
        self.0.locks.lock(&Layout::of(repo)?.common_dir, lane).await
    }

    /// Returns the text of the difference between two commits or trees, at most `max_bytes` of it.
    ///
    /// # Errors
    ///
    /// git fails.
    pub async fn diff(
        &self,
        repo: &RepoPath,
        old: &str,
        new: &str,
        max_bytes: u64,
    ) -> Result<Vec<u8>, RepoError> {
        let git = self.0.user(&Layout::of(repo)?);
        git.diff_text(old, new, max_bytes).await
    }

    /// Waits until every operation that was begun has ended; for the end of the process.
    pub async fn settle(&self) {
        self.0.ending.cancel();
        self.0.steps.close();
        self.0.steps.wait().await;
    }

    /// Runs an operation that must not stop half-way when its caller goes away.
    pub(super) async fn step<T, F>(
        &self,
        work: impl FnOnce(Arc<Context>) -> F,
    ) -> Result<T, RepoError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, RepoError>> + Send + 'static,
    {
        let joined = self.0.steps.spawn(work(Arc::clone(&self.0))).await;
        propagate(joined).unwrap_or(Err(RepoError::Abandoned))
    }
}
