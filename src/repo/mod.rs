//! Git repositories: which ones a call may touch, how they stand, and how work reaches them.
//!
//! Knows git and the file system. Not responsible for workflows, pools or the journal: callers say what to make and
//! keep what they get back. Everything goes through [`Repos`], one cheap handle for the whole process.
//!
//! Locks, in the order in which they are taken: the working copy's ([`Lane::WorkingCopy`]), then git's own data
//! ([`Lane::GitData`]); never two of the same lane.

mod apply;
mod base;
mod clean;
mod copy_files;
mod discover;
mod error;
mod files;
mod git;
mod head;
mod health;
mod index_lock;
mod inner;
mod journal;
mod layout;
mod list;
mod lock;
mod plan;
mod plumbing;
mod record;
mod recover;
mod roots;
mod status;
mod worktree;

pub use apply::{ApplyOutcome, ApplyRequest, AtHome, Change, How, Obstacles};
pub use clean::{CleanRequest, Cleaned, Kept, Removed};
pub use copy_files::is_inside;
pub use discover::Selection;
pub use error::RepoError;
pub use head::Head;
pub use health::Health;
pub use journal::is_expired;
pub use layout::{Form, Layout};
pub use list::{ListRequest, Row};
pub use lock::{Lane, RepoLock};
pub use record::WorktreeRecord;
pub use recover::{Recovered, Recovery};
pub use roots::{RepoPath, Roots};
pub use status::{Kind, Status};
pub use worktree::{Committed, NewWorktree, SetupRan, Worktree};

use crate::model::{BaseRef, WorkflowId};
use apply::Applier;
use clean::Cleaner;
use git::Git;
use journal::Journal;
use plumbing::Spot;
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::task::TaskTracker;
use worktree::Maker;

/// What the layer is told by `main`; it reads no environment itself.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The config's `roots`; empty: the start directory.
    pub roots: Vec<PathBuf>,
    /// The directory the program was started in.
    pub start_dir: PathBuf,
    /// The user's home directory, for `~`.
    pub home: Option<PathBuf>,
    /// The config file that was read or would be, for hints.
    pub config_file: PathBuf,
    /// Where locks and worktrees are kept.
    pub state_dir: PathBuf,
    /// A file that is locked as long as this process or a program that it started lives; none: only the process counts.
    pub alive: Option<PathBuf>,
    /// The git program.
    pub git: PathBuf,
    /// The environment git runs in; variables that point git at a repository are left out of it.
    pub env: Vec<(OsString, OsString)>,
}

/// The handle to every repository under the roots; cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Repos(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    roots: Roots,
    locks: lock::Locks,
    git: Git,
    /// One folder per worktree.
    worktrees: PathBuf,
    /// One folder per apply that can be undone.
    applies: PathBuf,
    /// Temporary indexes.
    scratch: PathBuf,
    /// See [`Setup::alive`].
    alive: Option<PathBuf>,
    /// Steps that run to their end although their caller has gone.
    steps: TaskTracker,
}

impl Inner {
    fn maker(&self) -> Maker<'_> {
        Maker {
            git: &self.git,
            locks: &self.locks,
            dir: &self.worktrees,
            scratch: &self.scratch,
            alive: self.alive.as_deref(),
        }
    }

    fn applier(&self) -> Applier<'_> {
        Applier {
            git: &self.git,
            locks: &self.locks,
            journal: Journal::new(&self.applies),
            scratch: &self.scratch,
        }
    }

    fn cleaner(&self) -> Cleaner<'_> {
        Cleaner {
            maker: self.maker(),
            journal: Journal::new(&self.applies),
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
        .without(&setup.state_dir);
        Self(Arc::new(Inner {
            roots,
            locks: lock::Locks::new(setup.state_dir.join("locks")),
            git: Git::new(setup.git, setup.env),
            worktrees: setup.state_dir.join("worktrees"),
            applies: setup.state_dir.join("applies"),
            scratch: setup.state_dir.join("tmp"),
            alive: setup.alive,
            steps: TaskTracker::new(),
        }))
    }

    /// Returns the directories under which repositories may be touched.
    pub fn roots(&self) -> &Roots {
        &self.0.roots
    }

    /// Returns the repository that `spec` (a path or a name) means.
    ///
    /// A path costs a few system calls; a name costs a walk over the roots, so ask for many with [`Self::expand`].
    ///
    /// # Errors
    ///
    /// What [`Roots::resolve`] refuses.
    pub async fn resolve(&self, spec: &str) -> Result<RepoPath, RepoError> {
        let one = Selection {
            specs: vec![spec.to_owned()],
            ..Selection::default()
        };
        let found = self.expand(one).await?;
        match found.as_slice() {
            [repo] => Ok(repo.clone()),
            _ => Err(RepoError::Ambiguous {
                spec: spec.to_owned(),
                candidates: found,
            }),
        }
    }

    /// Returns the repository at an absolute path that was resolved before, and where its git data is.
    ///
    /// # Errors
    ///
    /// [`RepoError::OutsideRoots`] where a link leads there now, [`RepoError::NotFound`],
    /// [`RepoError::NotARepository`].
    pub fn at(&self, path: &str) -> Result<(RepoPath, Layout), RepoError> {
        self.0.roots.check(Path::new(path))
    }

    /// Returns the repositories that `selection` means, each once, in the order in which they were named.
    ///
    /// # Errors
    ///
    /// A path or a name that [`Roots::resolve`] refuses, a glob that is none or that fits nothing, and filters that
    /// leave nothing.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the walk.
    pub async fn expand(&self, selection: Selection) -> Result<Vec<RepoPath>, RepoError> {
        let inner = Arc::clone(&self.0);
        discover::off_the_runtime(move |stop| inner.roots.expand(&selection, stop)).await
    }

    /// Returns every repository under the roots, sorted by path. Submodules belong to the repository around them and
    /// are left out.
    ///
    /// # Errors
    ///
    /// [`RepoError::NoRoots`], or a root that cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the walk.
    pub async fn discover(&self) -> Result<Vec<RepoPath>, RepoError> {
        let inner = Arc::clone(&self.0);
        discover::off_the_runtime(move |stop| inner.roots.discover(stop)).await
    }

    /// Returns the commit and branch that the repository's HEAD names.
    ///
    /// Reads git's files itself, in about 20 µs; git is asked only where they have a form that is not known here.
    ///
    /// # Errors
    ///
    /// The repository is gone or git cannot read it.
    pub async fn head(&self, repo: &RepoPath) -> Result<Head, RepoError> {
        self.head_at(&Layout::of(repo)?).await
    }

    /// Returns the same of a repository whose layout is known.
    ///
    /// # Errors
    ///
    /// As [`Self::head`].
    pub async fn head_at(&self, layout: &Layout) -> Result<Head, RepoError> {
        head::of(&self.0.git, layout).await
    }

    /// Returns the commit, and the branch where there is one, that a worktree of `base` would begin from; for
    /// [`BaseRef::WorkingCopy`] a snapshot that nothing keeps.
    ///
    /// # Errors
    ///
    /// The ref does not exist, the repository has no commit or is gone, or git cannot read it.
    pub async fn base(&self, repo: &RepoPath, base: &BaseRef) -> Result<Head, RepoError> {
        let layout = Layout::of(repo)?;
        let found = base::find(&self.0.git, repo, &layout, base, &self.0.scratch).await?;
        Ok(Head {
            commit: Some(found.commit),
            branch: found.branch,
        })
    }

    /// Returns how the repository stands: branch, default branch, dirty files, kinds.
    ///
    /// # Errors
    ///
    /// The repository is gone or git cannot read it.
    pub async fn status(&self, repo: &RepoPath) -> Result<Status, RepoError> {
        status::of(&self.0.git, repo).await
    }

    /// Returns the repository's lock of `lane` if nobody, in any process, holds it.
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

    /// Makes a worktree, by itself or not at all.
    ///
    /// # Errors
    ///
    /// [`RepoError::NoCommits`], [`RepoError::BadRef`], [`RepoError::CopyFile`], or what git and the system say.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future lets the step run to its end; `clean` then finds the worktree, unchanged and unused.
    pub async fn create_worktree(&self, wanted: NewWorktree) -> Result<Worktree, RepoError> {
        self.step(|inner| async move { inner.maker().create(&wanted).await })
            .await
    }

    /// Goes on in the worktree at `path`, which an earlier attempt has left. What lies there uncommitted is
    /// committed as work.
    ///
    /// # Errors
    ///
    /// [`RepoError::WorktreeGone`], [`RepoError::WorktreeInUse`], or what git and the system say.
    ///
    /// # Cancel safety
    ///
    /// Safe at any point; call it again.
    pub async fn open_worktree(&self, path: &Path) -> Result<Worktree, RepoError> {
        self.0.maker().open(path).await
    }

    /// Fixes what counts as the base in `worktree`: call it after `setup`, before the worker starts, and also
    /// where `setup` has failed. Work of earlier attempts stays work.
    ///
    /// # Errors
    ///
    /// What git and the system say.
    ///
    /// # Cancel safety
    ///
    /// Safe at any point; call it again.
    pub async fn seal_base(
        &self,
        worktree: &mut Worktree,
        setup: SetupRan,
    ) -> Result<(), RepoError> {
        self.0.maker().seal(worktree, setup).await
    }

    /// Commits the work in `worktree`: all tracked and new, not ignored changes, on its own branch.
    ///
    /// # Errors
    ///
    /// [`RepoError::WorktreeGone`], or what git and the system say; the files stay as they are.
    ///
    /// # Cancel safety
    ///
    /// Safe at any point; call it again.
    pub async fn commit_work(
        &self,
        worktree: &mut Worktree,
        message: &str,
    ) -> Result<Committed, RepoError> {
        self.0.maker().commit(worktree, message).await
    }

    /// Returns the text of the difference between two commits or trees, at most `max_bytes` of it.
    ///
    /// # Errors
    ///
    /// What git says.
    pub async fn diff(
        &self,
        repo: &RepoPath,
        old: &str,
        new: &str,
        max_bytes: u64,
    ) -> Result<Vec<u8>, RepoError> {
        let layout = Layout::of(repo)?;
        base::diff_text(&Spot::user(&self.0.git, &layout), old, new, max_bytes).await
    }

    /// Brings work home, all or nothing, or says what stands in the way.
    ///
    /// # Errors
    ///
    /// [`RepoError::InUse`], [`RepoError::InProgress`], [`RepoError::NoWorkingCopy`], [`RepoError::NoSuchCommit`],
    /// [`RepoError::BranchExists`], [`RepoError::Raced`]: nothing was changed then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future lets the step run to its end.
    pub async fn apply(&self, request: ApplyRequest) -> Result<ApplyOutcome, RepoError> {
        self.step(|inner| async move { inner.applier().apply(&request).await })
            .await
    }

    /// Takes an apply back, exactly.
    ///
    /// # Errors
    ///
    /// [`RepoError::UndoUnknown`], [`RepoError::UndoStale`] naming what has changed since, [`RepoError::InUse`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future lets the step run to its end.
    pub async fn undo(&self, token: &str) -> Result<(), RepoError> {
        let token = token.to_owned();
        self.step(|inner| async move {
            let allowed = |repo: &str| inner.roots.resolve(repo);
            inner.applier().undo(&token, allowed).await
        })
        .await
    }

    /// Returns what `token` would take back.
    ///
    /// # Errors
    ///
    /// [`RepoError::UndoUnknown`], and [`RepoError::UndoForeign`] where it is not of `workflow`.
    pub fn behind_undo(&self, token: &str, workflow: WorkflowId) -> Result<AtHome, RepoError> {
        self.0.applier().behind(token, workflow)
    }

    /// Returns the work that is home and can be taken back, the oldest first.
    ///
    /// # Errors
    ///
    /// The state directory cannot be read.
    pub async fn at_home(&self) -> Result<Vec<AtHome>, RepoError> {
        let inner = Arc::clone(&self.0);
        discover::off_the_runtime(move |_| inner.applier().at_home()).await
    }

    /// Returns for each of `repos` how many worktrees hold committed work that neither was applied nor is on a branch or
    /// tag of the user's. Repositories without such work are left out.
    ///
    /// # Errors
    ///
    /// The state directory cannot be read.
    pub async fn unapplied(&self, repos: &[RepoPath]) -> Result<HashMap<String, u64>, RepoError> {
        self.0.cleaner().unapplied(repos).await
    }

    /// Finishes or takes back every apply and undo that a crash has interrupted. Call it at the start; `apply` and
    /// `undo` do it for their repository too.
    ///
    /// # Errors
    ///
    /// The state directory cannot be read. What could not be recovered says so in its own outcome and stays recorded.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future lets the step run to its end.
    pub async fn recover(&self) -> Result<Vec<Recovered>, RepoError> {
        self.step(|inner| async move { inner.applier().recover().await })
            .await
    }

    /// Removes worktrees and branches that are no longer needed.
    ///
    /// # Errors
    ///
    /// The state directory cannot be read; what stands in the way of one worktree is its reason to stay.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future lets the step run to its end.
    pub async fn clean(&self, request: CleanRequest) -> Result<Cleaned, RepoError> {
        self.step(|inner| async move { inner.cleaner().clean(&request).await })
            .await
    }

    /// Returns how worktrees and applies look, for `check_health`.
    ///
    /// # Errors
    ///
    /// The state directory cannot be read.
    pub async fn health(&self) -> Result<Health, RepoError> {
        self.0.cleaner().health().await
    }

    /// Waits until every step that was begun has ended; for the end of the process.
    pub async fn settle(&self) {
        self.0.steps.close();
        self.0.steps.wait().await;
    }

    /// Runs a step that must not stop half-way when its caller goes away.
    async fn step<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T, RepoError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, RepoError>> + Send + 'static,
    {
        match self.0.steps.spawn(work(Arc::clone(&self.0))).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(RepoError::Abandoned),
            },
        }
    }
}
