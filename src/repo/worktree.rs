//! Worktrees: made from a stated base, worked in by one item at a time, and their work committed by the server.
//!
//! Not responsible for running anything in them, nor for applying their work (`apply`) or removing them (`clean`).

use super::base::Base;
use super::blocking::off_the_runtime;
use super::in_use::InUse;
use super::lock::{Lane, make_private_dir};
use super::record::{WorktreeRecord, attempt_name};
use super::repos::{Context, Repos};
use super::risks::Surroundings;
use super::trees::Merged;
use super::{Layout, RepoError, RepoPath, commit, copy_files, specials};
use crate::error::ErrorKind;
use crate::model::{At, Attempt, BaseRef, DiffStat, Isolation, ItemIndex, Risk, WorkflowId};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// How many letters of the workflow's id a worktree's folder has; paths have limits.
const KEY_CHARS: usize = 12;
/// How many worktrees one attempt may have; more than one only where a crash left some.
const MOST_COPIES: u32 = 1_000;

/// A worktree to make.
#[derive(Debug, Clone)]
pub struct NewWorktree {
    /// The repository.
    pub repo: RepoPath,
    /// The workflow it is for.
    pub workflow: WorkflowId,
    /// The item it is for.
    pub item: ItemIndex,
    /// The attempt it is for.
    pub attempt: Attempt,
    /// [`Isolation::ReadOnly`]: no branch; anything else: a branch of its own.
    pub isolation: Isolation,
    /// What it is made from.
    pub base: BaseRef,
    /// Files and folders to copy from the working copy.
    pub copy_files: Vec<String>,
}

/// A worktree that this process works in; no other process removes it meanwhile.
#[derive(Debug)]
pub struct Worktree {
    record: WorktreeRecord,
    /// Whether `setup` of this attempt is over.
    is_sealed: bool,
    /// What lay around it before this attempt.
    surroundings: Surroundings,
    _in_use: InUse,
}

/// Whether `setup` lines ran in a worktree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetupRan {
    /// Some did.
    Yes,
    /// There were none.
    No,
}

/// The committed work of a worktree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Whether HEAD moved or files differ from the base.
    pub changed: bool,
    /// The commit that holds the work; the base where nothing changed.
    pub commit: String,
    /// How large the change is.
    pub diff: DiffStat,
    /// What no commit of this repository holds, so that it exists only in the worktree: repositories of their own,
    /// submodules with work of their own, and files that git cannot add.
    pub uncommitted: Vec<String>,
    /// What the attempts did beside plain work on files.
    pub risks: Vec<Risk>,
}

impl Worktree {
    /// Returns its record.
    pub fn record(&self) -> &WorktreeRecord {
        &self.record
    }

    /// Returns whether `setup` of this attempt is over, so that what changes now is work.
    pub fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// Returns its folder.
    pub fn path(&self) -> &Path {
        &self.record.path
    }
}

impl Repos {
    /// Makes a worktree, wholly or not at all.
    ///
    /// # Errors
    ///
    /// [`RepoError::NoCommits`], a base that does not exist, a file of `copy_files` that cannot be copied, or a failure
    /// of git or the system.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops git and removes what was made so far, in the background.
    pub async fn create_worktree(&self, wanted: NewWorktree) -> Result<Worktree, RepoError> {
        let stop = CancellationToken::new();
        let _stops_with_the_caller = stop.clone().drop_guard();
        self.step(|context| async move { context.create(&wanted, stop).await })
            .await
    }

    /// Opens the worktree at `path`, in which an earlier attempt worked. What it holds uncommitted is committed as work:
    /// a crash left it, or a person between two attempts.
    ///
    /// # Errors
    ///
    /// [`RepoError::WorktreeGone`], [`RepoError::WorktreeInUse`], or a failure of git or the system.
    ///
    /// # Cancel safety
    ///
    /// Safe at any point; call it again.
    pub async fn open_worktree(&self, path: &Path) -> Result<Worktree, RepoError> {
        self.0.open(path).await
    }

    /// Ends `setup`: what it did is part of the base, and what changes from now on is work. Call it before the worker
    /// starts, and also where `setup` has failed. Work of earlier attempts stays work.
    ///
    /// # Errors
    ///
    /// A failure of git or the system.
    ///
    /// # Cancel safety
    ///
    /// Safe at any point; call it again.
    pub async fn seal_base(
        &self,
        worktree: &mut Worktree,
        setup: SetupRan,
    ) -> Result<(), RepoError> {
        if setup == SetupRan::Yes {
            self.0.take_as_base(&mut worktree.record).await?;
            worktree.record.save()?;
            // `setup` is the caller's own commands: what it does to hooks and settings is no risk of the item's.
            self.0
                .watch_anew(&worktree.record, &mut worktree.surroundings);
        }
        worktree.is_sealed = true;
        Ok(())
    }

    /// Commits the work in `worktree`: all tracked and new, not ignored changes, on its own branch.
    ///
    /// # Errors
    ///
    /// [`RepoError::WorktreeGone`], or a failure of git or the system; the files stay as they are.
    ///
    /// # Cancel safety
    ///
    /// Safe at any point; call it again.
    pub async fn commit_work(
        &self,
        worktree: &mut Worktree,
        message: &str,
    ) -> Result<Committed, RepoError> {
        let (context, record) = (&self.0, &mut worktree.record);
        let git = context.in_worktree(record)?;
        let unmerged = commit::unmerged(&git, &record.layout()?).await?;
        let before = &worktree.surroundings;
        let path = record.path.clone();
        let (done, after, specials) = tokio::join!(
            context.commit_all(record, message),
            context.copy_after(record, before),
            off_the_runtime(move |stop| Ok(specials::find(&path, stop))),
        );
        let done = done?;
        let (base, commit) = (&record.base_commit, done.commit);
        let changed = commit != *base;
        let (deltas, diff) = match changed {
            true => git.diff_with_stat(base, &commit).await?,
            false => Default::default(),
        };
        record.risks = context.risks(record, &deltas, unmerged, before, after)?;
        record.commit = changed.then(|| commit.clone());
        record.save()?;
        // They hold nothing that a commit could, so they are named but are no change.
        let changed = changed || !done.uncommitted.is_empty();
        let mut uncommitted: BTreeSet<String> = specials?;
        uncommitted.extend(done.uncommitted);
        Ok(Committed {
            changed,
            commit,
            diff,
            uncommitted: uncommitted.into_iter().collect(),
            risks: record.risks.clone(),
        })
    }
}

impl Context {
    /// Makes a worktree. What was begun is removed again when a step fails, or is stopped.
    async fn create(
        self: &Arc<Self>,
        wanted: &NewWorktree,
        stop: CancellationToken,
    ) -> Result<Worktree, RepoError> {
        self.require_room().await?;
        let stoppable = self.until(stop);
        let layout = Layout::of(&wanted.repo)?;
        let base = stoppable.find_base(&wanted.repo, &layout, &wanted.base);
        let (mut record, in_use) = self.reserve(wanted, &layout, base.await?)?;
        match stoppable.fill(wanted, &layout, &mut record).await {
            Ok(surroundings) => Ok(Worktree {
                record,
                is_sealed: false,
                surroundings,
                _in_use: in_use,
            }),
            Err(error) => {
                if let Err(error) = self.remove_worktree(&record).await {
                    let path = &record.path;
                    tracing::warn!(%error, ?path, "an unfinished worktree stays until clean_worktrees");
                }
                Err(error)
            }
        }
    }

    /// Refuses a further worktree where all of them take as much disk space as they may.
    async fn require_room(self: &Arc<Self>) -> Result<(), RepoError> {
        if self.disk_use.max_bytes().is_none() {
            return Ok(());
        }
        let context = Arc::clone(self);
        let measured = off_the_runtime(move |_| Ok(context.disk_use.exceeded(&context.worktrees)));
        let Some((bytes, max)) = measured.await? else {
            return Ok(());
        };
        Err(RepoError::refused(
            ErrorKind::Unavailable,
            format!("all worktrees take {bytes} bytes, and [limits] worktrees_max_bytes is {max}"),
            "clean_worktrees shows which are not needed, and removes them with dry_run false; or raise the limit",
        ))
    }

    /// Makes the folder and its record, before git is asked for anything.
    fn reserve(
        &self,
        wanted: &NewWorktree,
        layout: &Layout,
        base: Base,
    ) -> Result<(WorktreeRecord, InUse), RepoError> {
        make_private_dir(&self.worktrees)?;
        let (folder, copy_number) = self.make_folder(wanted)?;
        let in_use = InUse::claim(&folder, self.alive.as_deref())?.ok_or_else(|| {
            RepoError::WorktreeInUse {
                path: folder.clone(),
            }
        })?;
        let name = wanted.repo.name();
        let attempt = attempt_name(wanted.item, wanted.attempt, copy_number);
        let record = WorktreeRecord {
            repo: wanted.repo.as_str().to_owned(),
            common_dir: layout.common_dir.clone(),
            workflow: wanted.workflow,
            item: wanted.item,
            attempt: wanted.attempt,
            copy_number,
            path: folder.join(if name == "/" { "worktree" } else { name }),
            git_dir: None,
            branch: (wanted.isolation != Isolation::ReadOnly)
                .then(|| format!("mahavishnu/{}/{attempt}", wanted.workflow)),
            base_commit: base.commit.clone(),
            start_commit: base.commit,
            base_branch: base.branch,
            // Counted in `fill`, where it is not known to be none.
            left_out_dirty: base.left_out.or((!layout.has_working_copy()).then_some(0)),
            commit: None,
            risks: Vec::new(),
            ready: false,
            created_at: At::now(),
        };
        record.save()?;
        Ok((record, in_use))
    }

    /// Makes an empty folder for a worktree. One that is there already was left by a crash before the attempt was
    /// journaled: no item has worked in it, and `clean` removes it.
    fn make_folder(&self, wanted: &NewWorktree) -> Result<(PathBuf, u32), RepoError> {
        // Without links, as git registers it.
        let worktrees =
            fs::canonicalize(&self.worktrees).map_err(RepoError::io("resolve", &self.worktrees))?;
        let id = wanted.workflow.to_string().to_lowercase();
        let key = &id[id.len().saturating_sub(KEY_CHARS)..];
        let mut copy_number = 0;
        loop {
            let name = attempt_name(wanted.item, wanted.attempt, copy_number);
            let folder = worktrees.join(format!("{key}-{name}"));
            match DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Ok((folder, copy_number)),
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists
                        && copy_number < MOST_COPIES =>
                {
                    copy_number += 1;
                }
                Err(error) => {
                    return Err(RepoError::io("make the worktree's directory", &folder)(
                        error,
                    ));
                }
            }
        }
    }

    /// Makes the worktree of a new record and all that is in it before `setup`.
    async fn fill(
        &self,
        wanted: &NewWorktree,
        layout: &Layout,
        record: &mut WorktreeRecord,
    ) -> Result<Surroundings, RepoError> {
        self.register(record, layout).await?;
        let git = self.in_worktree(record)?;
        // Writes the files as `git worktree add` would: sparse patterns and filters are followed.
        let files = git.write("reset --hard --quiet --no-recurse-submodules");
        let uncommitted = async { Ok(self.users_uncommitted(layout).await) };
        let (uncommitted, ()) = tokio::try_join!(uncommitted, files.done())?;
        let count = |files: &Vec<_>| u32::try_from(files.len()).unwrap_or(u32::MAX);
        record.left_out_dirty = record
            .left_out_dirty
            .or_else(|| uncommitted.as_ref().map(count));
        let surroundings = self.surroundings(record, uncommitted.as_deref()).await;
        if !wanted.copy_files.is_empty() {
            let (wanted, from, to) = (wanted.clone(), layout.dir.clone(), record.path.clone());
            off_the_runtime(move |_| {
                copy_files::copy(&wanted.repo, &from, &to, &wanted.copy_files)
            })
            .await?;
            self.take_as_base(record).await?;
        }
        record.ready = true;
        record.save()?;
        Ok(surroundings)
    }

    /// Registers worktree and branch with git; files come later, because that may take long and needs no lock.
    async fn register(
        &self,
        record: &mut WorktreeRecord,
        layout: &Layout,
    ) -> Result<(), RepoError> {
        let _lock = self.locks.lock(&layout.common_dir, Lane::GitData).await?;
        let mut cmd = self
            .user(layout)
            .write("worktree add --quiet --no-checkout --no-guess-remote");
        cmd = match &record.branch {
            Some(branch) => cmd.args(["--no-track", "-b", branch]),
            None => cmd.arg("--detach"),
        };
        cmd.arg("--")
            .arg(&record.path)
            .arg(&record.start_commit)
            .done()
            .await?;
        record.git_dir = Some(Layout::required(&record.path)?.git_dir);
        record.save()
    }

    /// Returns the uncommitted files of the user's working copy; none where git cannot list them, which is no reason to
    /// make no worktree of a commit.
    async fn users_uncommitted(&self, layout: &Layout) -> Option<Vec<Vec<u8>>> {
        if !layout.has_working_copy() {
            return None;
        }
        let listed = self.uncommitted(layout).await.inspect_err(|error| {
            let repo = layout.dir.display();
            tracing::warn!(%repo, %error, "the uncommitted files of the working copy cannot be listed");
        });
        listed.ok()
    }

    async fn open(&self, path: &Path) -> Result<Worktree, RepoError> {
        let gone = || RepoError::WorktreeGone {
            path: path.to_owned(),
        };
        let worktrees = fs::canonicalize(&self.worktrees).map_err(|_| gone())?;
        let folder = path
            .parent()
            .filter(|folder| folder.parent() == Some(&worktrees));
        let folder = folder.filter(|_| path.is_dir()).ok_or_else(gone)?;
        let in_use = InUse::claim(folder, self.alive.as_deref())?;
        let in_use = in_use.ok_or_else(|| RepoError::WorktreeInUse {
            path: path.to_owned(),
        })?;
        let mut record = WorktreeRecord::load(folder)?;
        if !record.ready {
            return Err(gone());
        }
        let message = "Left between two attempts\n";
        let commit = self.commit_all(&record, message).await?.commit;
        record.commit = (commit != record.base_commit).then_some(commit);
        record.save()?;
        let uncommitted = match record.repository() {
            Some(layout) => self.users_uncommitted(&layout).await,
            None => None,
        };
        let surroundings = self.surroundings(&record, uncommitted.as_deref()).await;
        Ok(Worktree {
            record,
            is_sealed: false,
            surroundings,
            _in_use: in_use,
        })
    }

    /// Commits what `setup` did and counts it as base. Where there is work of earlier attempts already, it stays work.
    async fn take_as_base(&self, record: &mut WorktreeRecord) -> Result<(), RepoError> {
        let message = "Base: copied files and setup\n";
        let now = self.commit_all(record, message).await?.commit;
        match record.commit.clone() {
            None => record.base_commit = now,
            Some(work) if work != now => self.extend_base(record, &work, now).await?,
            Some(_) => {}
        }
        Ok(())
    }

    /// Makes a base that has, beside the old one, what was done between `work` and `now`. A commit with both as parents
    /// keeps it reachable. Where `setup` and the work change the same lines they cannot be separated: all is work.
    async fn extend_base(
        &self,
        record: &mut WorktreeRecord,
        work: &str,
        now: String,
    ) -> Result<(), RepoError> {
        let git = self.in_worktree(record)?;
        let base = record.base_commit.clone();
        let Merged::Clean(tree) = git.merge(work, &base, &now).await? else {
            record.commit = Some(now);
            return Ok(());
        };
        let why = "Base: the setup of a later attempt\n";
        let new_base = git.commit_tree(&tree, &[&base], why).await?;
        let tree = git.tree_of(&now).await?;
        let tip = git.commit_tree(&tree, &[&now, &new_base], why).await?;
        let name = record.branch_ref().unwrap_or_else(|| "HEAD".to_owned());
        git.update_ref(&name, &tip, Some(&now), "mahavishnu: setup")
            .await?;
        record.base_commit = new_base;
        record.commit = Some(tip);
        Ok(())
    }
}
