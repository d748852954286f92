//! Worktrees: made from a stated base, worked in, and their work committed by the server.
//!
//! Not responsible for running anything in them, nor for bringing their work home (`apply`) or removing them (`clean`).

use super::git::Git;
use super::inner::{self, Loose, Strays};
use super::lock::{Lane, Locks, make_private_dir};
use super::plumbing::{GITLINK, Merged, Name, Side, Spot, no_object};
use super::record::{self, InUse, WorktreeRecord};
use super::{Layout, RepoError, RepoPath, base, copy_files, head, status};
use crate::model::{At, Attempt, BaseRef, DiffStat, Isolation, ItemIndex, WorkflowId};
use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many letters of the workflow's id a worktree's folder has; paths have limits.
const KEY_CHARS: usize = 12;
/// How many worktrees one attempt may have; more than one only where a crash left some.
const MOST_TWINS: u32 = 1_000;

/// What a worktree is to be.
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
    /// Files and folders to bring from the working copy.
    pub copy_files: Vec<String>,
}

/// A worktree that this process works in; nobody else removes it meanwhile.
#[derive(Debug)]
pub struct Worktree {
    record: WorktreeRecord,
    /// Whether the base of this attempt stands.
    is_sealed: bool,
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

/// What became of the work in a worktree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Whether HEAD moved or files differ from the base.
    pub changed: bool,
    /// The commit that holds the work; the base where nothing changed.
    pub commit: String,
    /// How large the change is.
    pub diff: DiffStat,
    /// Folders that are repositories of their own, submodules included, in which something is that no commit of this
    /// repository keeps; it exists only in the worktree.
    pub nested: Vec<String>,
}

impl Worktree {
    /// Returns what is known of it.
    pub fn record(&self) -> &WorktreeRecord {
        &self.record
    }

    /// Returns whether the base of this attempt stands: `setup` is over, and what changes now is work.
    pub fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// Returns its folder.
    pub fn path(&self) -> &Path {
        &self.record.path
    }
}

/// Makes worktrees in one state directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maker<'a> {
    pub(super) git: &'a Git,
    pub(super) locks: &'a Locks,
    /// Holds one folder per worktree.
    pub(super) dir: &'a Path,
    /// Holds temporary indexes.
    pub(super) scratch: &'a Path,
    /// See [`super::Setup::alive`].
    pub(super) alive: Option<&'a Path>,
}

impl Maker<'_> {
    /// Makes a worktree. What was begun is removed again when a step fails.
    pub(super) async fn create(&self, wanted: &NewWorktree) -> Result<Worktree, RepoError> {
        let layout = Layout::of(&wanted.repo)?;
        let base = base::find(self.git, &wanted.repo, &layout, &wanted.base, self.scratch).await?;
        let mut worktree = self.reserve(wanted, &layout, base)?;
        let filled = async {
            self.add(&mut worktree, &layout).await?;
            let dirty = async {
                match worktree.record.left_out_dirty {
                    0 => Ok(0),
                    _ => status::dirty_count(self.git, &layout).await,
                }
            };
            let (dirty, ()) = tokio::try_join!(dirty, self.fill(&worktree))?;
            worktree.record.left_out_dirty = dirty;
            copy_files::copy(
                &wanted.repo,
                &layout.dir,
                &worktree.record.path,
                &wanted.copy_files,
            )?;
            if !wanted.copy_files.is_empty() {
                self.take_as_base(&mut worktree.record).await?;
            }
            worktree.record.ready = true;
            worktree.record.save()
        };
        match filled.await {
            Ok(()) => Ok(worktree),
            Err(error) => {
                self.discard(&worktree.record).await;
                Err(error)
            }
        }
    }

    /// Makes an empty folder for a worktree. One that is there already was left by a crash before the attempt was
    /// journaled: nobody has worked in it, and `clean` takes it away.
    fn make_home(&self, key: &str, wanted: &NewWorktree) -> Result<(PathBuf, u32), RepoError> {
        for twin in 0.. {
            let name = record::attempt_name(wanted.item, wanted.attempt, twin);
            let home = self.dir.join(format!("{key}-{name}"));
            match DirBuilder::new().mode(0o700).create(&home) {
                Ok(()) => return Ok((home, twin)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && twin < MOST_TWINS => {
                }
                Err(error) => {
                    return Err(RepoError::io("make the worktree's directory", &home)(error));
                }
            }
        }
        unreachable!("the loop ends at MOST_TWINS")
    }

    /// Makes the folder and its record, before git is asked for anything.
    fn reserve(
        &self,
        wanted: &NewWorktree,
        layout: &Layout,
        base: base::Base,
    ) -> Result<Worktree, RepoError> {
        make_private_dir(self.dir)?;
        let id = wanted.workflow.to_string().to_lowercase();
        let key = &id[id.len().saturating_sub(KEY_CHARS)..];
        let (home, twin) = self.make_home(key, wanted)?;
        let in_use = InUse::claim(&home, self.alive)?
            .ok_or_else(|| RepoError::WorktreeInUse { path: home.clone() })?;
        let name = wanted.repo.name();
        let record = WorktreeRecord {
            repo: wanted.repo.as_str().to_owned(),
            common_dir: layout.common_dir.clone(),
            workflow: wanted.workflow,
            item: wanted.item,
            attempt: wanted.attempt,
            twin,
            path: home.join(if name == "/" { "worktree" } else { name }),
            git_dir: None,
            branch: (wanted.isolation != Isolation::ReadOnly).then(|| {
                let name = record::attempt_name(wanted.item, wanted.attempt, twin);
                format!("mahavishnu/{}/{name}", wanted.workflow)
            }),
            base_commit: base.commit.clone(),
            start_commit: base.commit,
            base_branch: base.branch,
            // Counted later; whether it must be is known now.
            left_out_dirty: u32::from(!base.with_dirty),
            commit: None,
            ready: false,
            created_at: At::now(),
        };
        record.save()?;
        Ok(Worktree {
            record,
            is_sealed: false,
            _in_use: in_use,
        })
    }

    /// Registers worktree and branch with git; files come later, because that may take long and needs no lock.
    async fn add(&self, worktree: &mut Worktree, layout: &Layout) -> Result<(), RepoError> {
        let record = &mut worktree.record;
        let _lock = self.locks.lock(&layout.common_dir, Lane::GitData).await?;
        let mut cmd = Spot::user(self.git, layout)
            .cmd(super::git::Mode::Write, "worktree")
            .args(["add", "--quiet", "--no-checkout", "--no-guess-remote"]);
        cmd = match &record.branch {
            Some(branch) => cmd.args(["--no-track", "-b", branch]),
            None => cmd.arg("--detach"),
        };
        cmd.arg("--")
            .arg(&record.path)
            .arg(&record.start_commit)
            .run()
            .await?;
        let made = Layout::at(&record.path)
            .map_err(RepoError::io("read", &record.path))?
            .ok_or_else(|| RepoError::not_a_repository(&record.path))?;
        record.git_dir = Some(made.git_dir);
        record.save()
    }

    /// Writes the files, as `git worktree add` would: sparse patterns and filters hold.
    async fn fill(&self, worktree: &Worktree) -> Result<(), RepoError> {
        self.spot(&worktree.record)?
            .cmd(super::git::Mode::Write, "reset")
            .args(["--hard", "--quiet", "--no-recurse-submodules"])
            .run()
            .await
            .map(drop)
    }

    /// Goes on in a worktree that was made before. What lies in it and was not committed is kept as work: a crash left
    /// it, or somebody who looked after the last attempt.
    pub(super) async fn open(&self, path: &Path) -> Result<Worktree, RepoError> {
        let gone = || RepoError::WorktreeGone {
            path: path.to_owned(),
        };
        let home = path.parent().filter(|home| home.parent() == Some(self.dir));
        let home = home.ok_or_else(gone)?;
        if !path.is_dir() {
            return Err(gone());
        }
        let in_use = InUse::claim(home, self.alive)?.ok_or_else(|| RepoError::WorktreeInUse {
            path: path.to_owned(),
        })?;
        let mut worktree = Worktree {
            record: WorktreeRecord::load(home)?,
            is_sealed: false,
            _in_use: in_use,
        };
        if !worktree.record.ready {
            return Err(gone());
        }
        let message = "Left between two attempts\n";
        let (commit, _) = self.commit_all(&worktree.record, message).await?;
        worktree.record.commit = (commit != worktree.record.base_commit).then_some(commit);
        worktree.record.save()?;
        Ok(worktree)
    }

    /// Fixes the base of this attempt: what `setup` did until now is not the worker's change.
    pub(super) async fn seal(
        &self,
        worktree: &mut Worktree,
        setup: SetupRan,
    ) -> Result<(), RepoError> {
        if setup == SetupRan::Yes {
            self.take_as_base(&mut worktree.record).await?;
            worktree.record.save()?;
        }
        worktree.is_sealed = true;
        Ok(())
    }

    /// Commits what `setup` did and counts it as base. Where there is work of earlier attempts already, it stays work.
    async fn take_as_base(&self, record: &mut WorktreeRecord) -> Result<(), RepoError> {
        let (now, _) = self
            .commit_all(record, "Base: copied files and setup\n")
            .await?;
        match record.commit.clone() {
            None => record.base_commit = now,
            Some(work) if work != now => self.rebase(record, &work, &now).await?,
            Some(_) => {}
        }
        Ok(())
    }

    /// Makes a base that has, beside the old one, what was done between `work` and `now`. A commit with both as parents
    /// keeps it reachable. Where `setup` and the work touch the same lines nobody can tell them apart: all is work.
    async fn rebase(
        &self,
        record: &mut WorktreeRecord,
        work: &str,
        now: &str,
    ) -> Result<(), RepoError> {
        let spot = self.spot(record)?;
        let base = record.base_commit.clone();
        let mut tip = now.to_owned();
        if let Merged::Clean(tree) = spot.merge(work, &base, now).await? {
            let why = "Base: the setup of a later attempt\n";
            let new_base = spot.commit_tree(&tree, &[&base], why).await?;
            let tree = spot.tree_of(now).await?;
            tip = spot.commit_tree(&tree, &[now, &new_base], why).await?;
            let name = match &record.branch {
                Some(branch) => format!("refs/heads/{branch}"),
                None => "HEAD".to_owned(),
            };
            spot.update_ref(&name, &tip, Some(now), "mahavishnu: setup")
                .await?;
            record.base_commit = new_base;
        }
        record.commit = Some(tip);
        Ok(())
    }

    /// Commits all tracked and new, not ignored changes to the worktree's branch.
    pub(super) async fn commit(
        &self,
        worktree: &mut Worktree,
        message: &str,
    ) -> Result<Committed, RepoError> {
        let record = &mut worktree.record;
        let (commit, nested) = self.commit_all(record, message).await?;
        let changed = commit != record.base_commit;
        let diff = match changed {
            true => {
                self.spot(record)?
                    .stat(&record.base_commit, &commit)
                    .await?
            }
            false => DiffStat {
                files: 0,
                insertions: 0,
                deletions: 0,
            },
        };
        record.commit = changed.then(|| commit.clone());
        record.save()?;
        Ok(Committed {
            changed: changed || !nested.is_empty(),
            commit,
            diff,
            nested,
        })
    }

    /// Commits what differs from HEAD, wherever the worker left HEAD, and sets the worktree's branch to it.
    pub(super) async fn commit_all(
        &self,
        record: &WorktreeRecord,
        message: &str,
    ) -> Result<(String, Vec<String>), RepoError> {
        let spot = self.spot(record)?;
        let layout = self.layout(record)?;
        free_index(&layout.git_dir).await?;
        let at = head::of_spot(&layout, &spot).await?;
        spot.add_all().await?;
        let nested = match &at.commit {
            Some(commit) => self.drop_nested(&spot, record, commit).await?,
            None => Index::Differs(Vec::new()),
        };
        let (commit, nested) = match (nested, &at.commit) {
            (Index::IsHead(nested), Some(commit)) => (commit.clone(), nested),
            (Index::IsHead(nested) | Index::Differs(nested), parent) => {
                let tree = spot.write_tree().await?;
                let parents: Vec<&str> = parent.as_deref().into_iter().collect();
                (spot.commit_tree(&tree, &parents, message).await?, nested)
            }
        };
        self.point_at(&spot, record, &layout, &at, &commit).await?;
        Ok((commit, nested))
    }

    /// Takes entries for repositories inside the worktree out of the index whose commits exist nowhere else: an entry
    /// would promise what nobody can fetch. Brings commits of submodules to safety first. Tells whether anything else
    /// differs from `head`.
    async fn drop_nested(
        &self,
        spot: &Spot<'_>,
        record: &WorktreeRecord,
        head: &str,
    ) -> Result<Index, RepoError> {
        let staged = spot.staged(head).await?;
        let mut links = staged.clone();
        links.retain(|_, delta| delta.new.as_ref().is_some_and(|new| new.mode == GITLINK));
        let mut loose = Vec::new();
        if !links.is_empty() || inner::are_possible(record) {
            loose = inner::loose(self.git, record, spot, Strays::Secure).await?;
        }
        let mut undeclared = links.clone();
        undeclared.retain(|_, delta| delta.old.is_none());
        if !undeclared.is_empty() {
            let declared = declared_submodules(spot, &record.path).await?;
            undeclared.retain(|name, _| !declared.contains(name));
        }
        links.retain(|name, _| {
            undeclared.contains_key(name) || loose.contains(&(name.clone(), Loose::Strays))
        });
        if !links.is_empty() {
            spot.set_entries(&links, Side::Old).await?;
        }
        let mut nested: BTreeSet<Name> = links.keys().cloned().collect();
        nested.extend(loose.into_iter().map(|(name, _)| name));
        let nested = nested
            .iter()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect();
        Ok(match staged.len() == links.len() {
            true => Index::IsHead(nested),
            false => Index::Differs(nested),
        })
    }

    /// Brings the worktree's branch, and HEAD with it, to `commit`; what that leaves unreachable is kept by a ref.
    async fn point_at(
        &self,
        spot: &Spot<'_>,
        record: &WorktreeRecord,
        layout: &Layout,
        at: &head::Head,
        commit: &str,
    ) -> Result<(), RepoError> {
        let why = "mahavishnu: commit the work";
        let Some(branch) = &record.branch else {
            if at.commit.as_deref() != Some(commit) {
                let old = at.commit.clone().unwrap_or_else(|| no_object(commit));
                spot.update_ref("HEAD", commit, Some(&old), why).await?;
            }
            return Ok(());
        };
        let name = format!("refs/heads/{branch}");
        let old = match head::read_ref(&layout.common_dir, &name) {
            Some(old) => old,
            None => spot.commit(&name).await?,
        };
        // The worker may have moved the branch away from what it held when it was last committed.
        for earlier in old.iter().chain(&record.commit) {
            let is_parent = Some(earlier) == at.commit.as_ref();
            if earlier != commit && !is_parent && !spot.is_ancestor(earlier, commit).await? {
                let kept = format!("{}-{}", record.kept_ref(), &earlier[..KEY_CHARS]);
                spot.update_ref(&kept, earlier, None, why).await?;
            }
        }
        if old.as_deref() != Some(commit) {
            let old = old.unwrap_or_else(|| no_object(commit));
            spot.update_ref(&name, commit, Some(&old), why).await?;
        }
        if at.branch.as_ref() != Some(branch) {
            spot.cmd(super::git::Mode::Write, "symbolic-ref")
                .args(["-m", why, "HEAD", &name])
                .run()
                .await?;
        }
        Ok(())
    }

    /// Returns the place where git works in the worktree.
    pub(super) fn spot(&self, record: &WorktreeRecord) -> Result<Spot<'_>, RepoError> {
        let layout = self.layout(record)?;
        Ok(Spot::worktree(self.git, &record.path, &layout.git_dir))
    }

    /// Returns the worktree's layout from its record, because a worker may have removed `.git`.
    fn layout(&self, record: &WorktreeRecord) -> Result<Layout, RepoError> {
        let git_dir = record.git_dir.clone().filter(|git_dir| git_dir.is_dir());
        match git_dir {
            Some(git_dir) if record.path.is_dir() => Ok(Layout {
                form: super::Form::Linked,
                dir: record.path.clone(),
                git_dir,
                common_dir: record.common_dir.clone(),
            }),
            _ if record.path.is_dir() && record.git_dir.is_some() => {
                Err(RepoError::RepositoryGone {
                    repo: record.repo.clone(),
                    path: record.path.clone(),
                })
            }
            _ => Err(RepoError::WorktreeGone {
                path: record.path.clone(),
            }),
        }
    }

    /// Removes a worktree that could not be finished; nobody has worked in it.
    async fn discard(&self, record: &WorktreeRecord) {
        if let Err(error) = super::clean::remove(self, record, None).await {
            tracing::warn!(%error, path = ?record.path, "an unfinished worktree stays until clean_worktrees");
        }
    }
}

/// Removes the lock that a killed git has left on a worktree's index. Whoever calls holds the worktree, so a lock that
/// stays belongs to a git that is dead, or that is about to end because its server was killed.
async fn free_index(git_dir: &Path) -> Result<(), RepoError> {
    const STALE: Duration = Duration::from_secs(5);
    const PAUSE: Duration = Duration::from_millis(100);
    let lock = git_dir.join("index.lock");
    loop {
        let Ok(meta) = fs::symlink_metadata(&lock) else {
            return Ok(());
        };
        let age = meta.modified().ok().and_then(|at| at.elapsed().ok());
        if age.is_none_or(|age| age >= STALE) {
            tracing::info!(?lock, "removed the lock of a git that was killed");
            return match fs::remove_file(&lock) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(RepoError::io("remove", &lock)(error))
                }
                _ => Ok(()),
            };
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What an index holds, with the repositories inside that hold what it cannot.
enum Index {
    /// The same as HEAD.
    IsHead(Vec<String>),
    /// Something else.
    Differs(Vec<String>),
}

/// Returns the paths that `.gitmodules` declares.
async fn declared_submodules(spot: &Spot<'_>, top: &Path) -> Result<Vec<Vec<u8>>, RepoError> {
    let file: PathBuf = top.join(".gitmodules");
    if fs::symlink_metadata(&file).is_err() {
        return Ok(Vec::new());
    }
    let answer = spot
        .cmd(super::git::Mode::Read, "config")
        .arg("-f")
        .arg(&file)
        .args(["-z", "--get-regexp", r"^submodule\..*\.path$"])
        .accept(&[1])
        .run()
        .await?;
    let paths = answer.records().filter_map(|record| {
        let value = record.splitn(2, |byte| *byte == b'\n').nth(1)?;
        Some(value.to_vec())
    });
    Ok(paths.collect())
}
