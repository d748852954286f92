//! Where an attempt works: the user's working copy under its lock, a worktree of its own, or nowhere on this machine.

use crate::error::{ErrorKind, Fault, Problem};
use crate::model::{BaseRef, Isolation, ItemRecord, Settings, WorkflowId};
use crate::repo::{
    Head, Lane, Layout, NewWorktree, RepoError, RepoLock, RepoPath, Repos, SetupRan, Worktree,
};
use crate::worker::Capabilities;
use std::path::Path;

/// The beginning of the error of a `read_only` item that changed files.
pub(crate) const WROTE_IN_READ_ONLY: &str = "wrote_in_read_only";

/// What an attempt works in; dropping it frees the repository.
pub(super) struct Workspace {
    repo: RepoPath,
    layout: Layout,
    site: Site,
    isolation: Isolation,
}

/// Whether an attempt needs a folder to work in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Folder {
    /// It does.
    Needed,
    /// Nothing of it happens in a folder.
    Useless,
}

impl Folder {
    /// Returns whether one is needed. None is where the call chose no isolation, the worker does not work on files of this
    /// machine, and no other argument needs a folder.
    pub(super) fn needed(settings: &Settings, can: Capabilities) -> Self {
        let unused = settings.isolation_by_default
            && !can.local
            && settings.setup.is_empty()
            && settings.verify.is_empty()
            && settings.copy_files.is_empty()
            && settings.base_ref == BaseRef::Head;
        if unused { Self::Useless } else { Self::Needed }
    }
}

enum Site {
    /// It only names the repository.
    Elsewhere,
    InPlace {
        before: Head,
        _lock: RepoLock,
    },
    Worktree(Box<Worktree>),
}

/// Why an attempt has no workspace.
pub(super) enum NotEntered {
    /// Another process works on the repository.
    Locked,
    /// It cannot be had.
    Problem(Problem),
}

impl<E: Fault> From<E> for NotEntered {
    fn from(error: E) -> Self {
        Self::Problem(error.problem())
    }
}

impl Workspace {
    /// Locks the working copy, reopens the worktree that `record` names, or makes a new one; notes it in `record`.
    pub(super) async fn enter(
        repos: &Repos,
        workflow: WorkflowId,
        settings: &Settings,
        folder: Folder,
        record: &mut ItemRecord,
    ) -> Result<Self, NotEntered> {
        let (repo, layout) = repos.at(&record.repo)?;
        if folder == Folder::Useless {
            let head = repos.head_at(&layout).await?;
            record.base_commit = head.commit;
            record.base_branch = head.branch;
            return Ok(Self {
                repo,
                layout,
                site: Site::Elsewhere,
                isolation: settings.isolation,
            });
        }
        let isolation = settings.isolation;
        let site = match isolation {
            Isolation::InPlace => {
                let lock = repos.try_lock(&layout, Lane::WorkingCopy)?;
                let lock = lock.ok_or(NotEntered::Locked)?;
                let before = repos.head_at(&layout).await?;
                record.base_commit.clone_from(&before.commit);
                record.base_branch.clone_from(&before.branch);
                Site::InPlace {
                    before,
                    _lock: lock,
                }
            }
            Isolation::Worktree | Isolation::ReadOnly => {
                let worktree = open_or_make(repos, workflow, settings, &repo, record).await?;
                note(&worktree, record);
                Site::Worktree(Box::new(worktree))
            }
        };
        Ok(Self {
            repo,
            layout,
            site,
            isolation,
        })
    }

    /// Returns the folder to work in.
    pub(super) fn dir(&self) -> &Path {
        match &self.site {
            Site::Elsewhere | Site::InPlace { .. } => self.repo.as_path(),
            Site::Worktree(worktree) => worktree.path(),
        }
    }

    /// Fixes what counts as the base, after `setup` and before the worker.
    pub(super) async fn seal(
        &mut self,
        repos: &Repos,
        setup_ran: bool,
        record: &mut ItemRecord,
    ) -> Result<(), Problem> {
        let Site::Worktree(worktree) = &mut self.site else {
            return Ok(());
        };
        let setup = if setup_ran {
            SetupRan::Yes
        } else {
            SetupRan::No
        };
        repos.seal_base(worktree, setup).await?;
        note(worktree, record);
        Ok(())
    }

    /// Keeps what the attempt left: commits it where it has a branch, and notes it in `record`.
    ///
    /// # Errors
    ///
    /// git could not commit it (the files stay where they are), or an item that may only look has written.
    pub(super) async fn keep(
        &mut self,
        repos: &Repos,
        message: &str,
        record: &mut ItemRecord,
    ) -> Result<(), Problem> {
        match &mut self.site {
            Site::Elsewhere => Ok(()),
            Site::InPlace { before, .. } => {
                // A repository that cannot be read any more is the attempt's own failure; its outcome says so.
                if let Ok(after) = repos.head_at(&self.layout).await
                    && after.commit != before.commit
                {
                    record.changed = Some(true);
                    record.commit = after.commit;
                    record.branch = after.branch;
                }
                Ok(())
            }
            Site::Worktree(worktree) => {
                if !worktree.is_sealed() {
                    // No worker has run: all that is there comes from `setup`, which failed.
                    repos.seal_base(worktree, SetupRan::Yes).await?;
                }
                let committed = repos.commit_work(worktree, message).await?;
                note(worktree, record);
                record.changed = Some(committed.changed);
                record.uncommitted = committed.uncommitted;
                record.risks = committed.risks;
                if committed.changed {
                    record.commit = Some(committed.commit);
                    record.diff = Some(committed.diff);
                }
                if committed.changed && self.isolation == Isolation::ReadOnly {
                    return Err(wrote_in_read_only());
                }
                Ok(())
            }
        }
    }
}

async fn open_or_make(
    repos: &Repos,
    workflow: WorkflowId,
    settings: &Settings,
    repo: &RepoPath,
    record: &ItemRecord,
) -> Result<Worktree, RepoError> {
    if let Some(path) = record
        .worktree
        .as_ref()
        .filter(|_| settings.isolation == Isolation::Worktree)
    {
        match repos.open_worktree(Path::new(path)).await {
            // Deleted by hand: its commits are on the branch, and the work begins anew.
            Err(RepoError::WorktreeGone { .. }) => {}
            opened => return opened,
        }
    }
    // A plan was made for this very commit.
    let planned = record.base_commit.clone().filter(|_| record.attempt == 1);
    let base = match planned {
        Some(commit) => BaseRef::Ref(commit),
        None => settings.base_ref.clone(),
    };
    repos
        .create_worktree(NewWorktree {
            repo: repo.clone(),
            workflow,
            item: record.item,
            attempt: record.attempt,
            isolation: settings.isolation,
            base,
            copy_files: settings.copy_files.clone(),
        })
        .await
}

fn note(worktree: &Worktree, record: &mut ItemRecord) {
    let known = worktree.record();
    record.worktree = Some(worktree.path().display().to_string());
    record.branch.clone_from(&known.branch);
    record.base_commit = Some(known.base_commit.clone());
    // A planned commit is named by itself; its branch is the plan's.
    if known.base_branch.is_some() {
        record.base_branch.clone_from(&known.base_branch);
    }
    record.left_out_dirty = known.left_out_dirty;
}

fn wrote_in_read_only() -> Problem {
    Problem::new(
        ErrorKind::Failed,
        format!("{WROTE_IN_READ_ONLY}: it changed files although it was only to look"),
    )
    .with_hint("read_output with stream diff shows what it changed; start it with isolation worktree to let it write")
}
