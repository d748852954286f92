//! Removes worktrees and branches that are no longer needed.
//!
//! A worktree goes only where nothing is lost with it: nobody works in it, nothing is uncommitted, and its commits
//! change nothing, were applied, or are held by a ref of the user's. With `include_unapplied` the rest goes too, after
//! everything in it is committed and held by a ref under `refs/mahavishnu/kept/`.

use super::apply::How;
use super::discover::off_the_runtime;
use super::git::Mode;
use super::inner::{self, Strays};
use super::journal::{Journal, Phase, UNDO_KEPT};
use super::layout::{bytes_path, is_absent, read_small};
use super::lock::Lane;
use super::plan::refs_with;
use super::plumbing::Spot;
use super::record::{self, WorktreeRecord};
use super::worktree::Maker;
use super::{Layout, RepoError, head};
use crate::model::{At, ItemIndex, WorkflowId};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The name a worktree has while it is being deleted.
const TRASH: &str = "trash";

/// Which worktrees to look at, and how far to go.
#[derive(Debug, Clone, Default)]
pub struct CleanRequest {
    /// Only those of this workflow.
    pub workflow: Option<WorkflowId>,
    /// Only those of these items; empty: all.
    pub items: Vec<ItemIndex>,
    /// Only those made at least this long ago.
    pub older_than: Option<Duration>,
    /// Also what was never applied; a ref keeps it.
    pub include_unapplied: bool,
    /// Only say what would happen.
    pub dry_run: bool,
    /// Only those after this one, in the order of [`Cleaned::next`].
    pub after: Option<String>,
    /// How long it may take; what is left then is for another call. None: as long as it takes.
    pub budget: Option<Duration>,
}

/// A worktree that was, or would be, removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Its place in the order of worktrees.
    pub key: String,
    /// The workflow it was made for; none where no record was left.
    pub workflow: Option<WorkflowId>,
    /// The item.
    pub item: Option<ItemIndex>,
    /// The user's repository.
    pub repo: Option<String>,
    /// The worktree.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The ref that keeps its unapplied work.
    pub kept_ref: Option<String>,
}

/// A worktree that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its place in the order of worktrees.
    pub key: String,
    /// The workflow it was made for; none where no record was left.
    pub workflow: Option<WorkflowId>,
    /// The item.
    pub item: Option<ItemIndex>,
    /// The user's repository.
    pub repo: Option<String>,
    /// The worktree.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Why it stays.
    pub reason: String,
}

/// What [`super::Repos::clean`] did or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// What went.
    pub removed: Vec<Removed>,
    /// What stays.
    pub kept: Vec<Kept>,
    /// The size of what went.
    pub bytes: u64,
    /// Where to go on, where the time was over before the end: the key of the last one looked at.
    pub next: Option<String>,
}

/// What a look at a worktree says.
enum Verdict {
    /// Nothing is lost with it.
    Needless,
    /// It holds work that is nowhere else.
    Unapplied(&'static str),
    /// It must not be touched.
    Untouchable(String),
}

/// Cleans one state directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cleaner<'a> {
    pub(super) maker: Maker<'a>,
    pub(super) journal: Journal<'a>,
}

impl Cleaner<'_> {
    /// Removes what `request` allows to.
    pub(super) async fn clean(&self, request: &CleanRequest) -> Result<Cleaned, RepoError> {
        let mut cleaned = Cleaned::default();
        let applied = self.applied()?;
        let began = Instant::now();
        let mut last = None;
        for home in record::homes(self.maker.dir)? {
            let key = key_of(&home);
            if request.after.as_ref().is_some_and(|after| key <= *after) {
                continue;
            }
            if last.is_some()
                && request
                    .budget
                    .is_some_and(|budget| began.elapsed() >= budget)
            {
                cleaned.next = last;
                return Ok(cleaned);
            }
            self.clean_one(&home, request, &applied, &mut cleaned)
                .await?;
            last = Some(key);
        }
        if !request.dry_run {
            self.forget_old_applies()?;
        }
        Ok(cleaned)
    }

    async fn clean_one(
        &self,
        home: &Path,
        request: &CleanRequest,
        applied: &BTreeSet<String>,
        cleaned: &mut Cleaned,
    ) -> Result<(), RepoError> {
        let record = match WorktreeRecord::load(home) {
            Ok(record) => record,
            Err(error) => return self.clean_recordless(home, request, &error, cleaned),
        };
        if !request.covers(&record) {
            return Ok(());
        }
        let sized = record.path.clone();
        let bytes = off_the_runtime(move |_| Ok(size(&sized))).await?;
        let claim = record::claim(home, self.maker.alive)?;
        let verdict = match claim {
            None => Verdict::Untouchable("an item works in it".to_owned()),
            Some(_) => match self.judge(&record, applied).await {
                Ok(verdict) => verdict,
                Err(error) => Verdict::Untouchable(format!("it cannot be judged: {error}")),
            },
        };
        let outcome = match verdict {
            Verdict::Needless if request.dry_run => Ok(None),
            Verdict::Needless => self.drop_it(&record, None).await,
            Verdict::Unapplied(_) if request.include_unapplied && request.dry_run => {
                Ok(Some(record.kept_ref()))
            }
            Verdict::Unapplied(_) if request.include_unapplied => self.keep_and_drop(&record).await,
            Verdict::Unapplied(reason) => Err(reason.to_owned()),
            Verdict::Untouchable(reason) => Err(reason),
        };
        drop(claim);
        let (workflow, item) = (Some(record.workflow), Some(record.item));
        let (repo, path) = (Some(record.repo), record.path);
        let key = key_of(home);
        match outcome {
            Ok(kept_ref) => {
                cleaned.bytes += bytes;
                cleaned.removed.push(Removed {
                    key,
                    workflow,
                    item,
                    repo,
                    path,
                    bytes,
                    kept_ref,
                });
            }
            Err(reason) => cleaned.kept.push(Kept {
                key,
                workflow,
                item,
                repo,
                path,
                bytes,
                reason,
            }),
        }
        Ok(())
    }

    /// A crash before the record was written leaves an empty folder; anything else is for a person to judge.
    fn clean_recordless(
        &self,
        home: &Path,
        request: &CleanRequest,
        error: &RepoError,
        cleaned: &mut Cleaned,
    ) -> Result<(), RepoError> {
        if request.workflow.is_some() || !request.items.is_empty() {
            return Ok(());
        }
        let bytes = size(home).saturating_sub(record::mark_bytes(home));
        let is_free = record::claim(home, self.maker.alive)?.is_some();
        if bytes == 0 && is_free {
            if !request.dry_run {
                fs::remove_dir_all(home).map_err(RepoError::io("remove", home))?;
            }
            cleaned.removed.push(Removed {
                key: key_of(home),
                workflow: None,
                item: None,
                repo: None,
                path: home.to_owned(),
                bytes,
                kept_ref: None,
            });
        } else {
            cleaned.kept.push(Kept {
                key: key_of(home),
                workflow: None,
                item: None,
                repo: None,
                path: home.to_owned(),
                bytes,
                reason: format!("its record cannot be read: {error}"),
            });
        }
        Ok(())
    }

    /// Returns the commits that are applied and not undone.
    pub(super) fn applied(&self) -> Result<BTreeSet<String>, RepoError> {
        let records = self.journal.all()?.into_iter();
        Ok(records
            .filter(|record| record.phase == Phase::Applied)
            .flat_map(|record| record.commits)
            .collect())
    }

    async fn judge(
        &self,
        record: &WorktreeRecord,
        applied: &BTreeSet<String>,
    ) -> Result<Verdict, RepoError> {
        let exists = record.path.is_dir();
        let layout = match Layout::at(Path::new(&record.repo)) {
            Ok(Some(layout)) if layout.common_dir == record.common_dir => layout,
            _ if !exists => return Ok(Verdict::Needless),
            _ => {
                return Ok(Verdict::Untouchable(format!(
                    "its repository {} was moved or deleted; what is in the worktree may be nowhere else",
                    record.repo
                )));
            }
        };
        let spot = Spot::user(self.maker.git, &layout);
        let mut commits: BTreeSet<String> = record.commit.clone().into_iter().collect();
        if let Some(branch) = &record.branch {
            commits.extend(ref_at(&spot, &layout, &format!("refs/heads/{branch}")).await?);
        }
        if exists && record.ready {
            let inside = match self.maker.spot(record) {
                Ok(inside) => inside,
                Err(_) => {
                    return Ok(Verdict::Untouchable(
                        "git does not know it any more, but it holds files".to_owned(),
                    ));
                }
            };
            let head = inside.commit("HEAD").await?;
            commits.extend(head);
            let status = inside
                .cmd(Mode::Read, "status")
                .args([
                    "--porcelain",
                    "-z",
                    "--untracked-files=normal",
                    "--ignore-submodules=none",
                    "--no-renames",
                ])
                .run()
                .await?;
            if !status.stdout.is_empty() {
                return Ok(Verdict::Unapplied(
                    "it holds changes that are not committed",
                ));
            }
            if inner::are_possible(record)
                && !inner::loose(self.maker.git, record, &inside, Strays::Tell)
                    .await?
                    .is_empty()
            {
                return Ok(Verdict::Unapplied(
                    "a submodule in it holds work that is nowhere else",
                ));
            }
        }
        for commit in &commits {
            let is_base = *commit == record.base_commit || *commit == record.start_commit;
            if !is_base && !applied.contains(commit) && !held(&spot, commit).await? {
                return Ok(Verdict::Unapplied("its changes were never applied"));
            }
        }
        Ok(Verdict::Needless)
    }

    async fn drop_it(
        &self,
        record: &WorktreeRecord,
        kept_ref: Option<String>,
    ) -> Result<Option<String>, String> {
        match remove(&self.maker, record, Some(TRASH)).await {
            Ok(()) => Ok(kept_ref),
            Err(error) => Err(format!("it could not be removed: {error}")),
        }
    }

    /// Commits and keeps everything, then removes.
    async fn keep_and_drop(&self, record: &WorktreeRecord) -> Result<Option<String>, String> {
        let name = record.kept_ref();
        match self.keep(record, &name).await {
            Ok(None) => self.drop_it(record, Some(name)).await,
            Ok(Some(nested)) => Err(format!(
                "a repository in it holds what no commit of this one can keep: {nested}"
            )),
            Err(error) => Err(format!("its work could not be kept: {error}")),
        }
    }

    /// Sets `name` to the work; returns a folder that cannot be kept that way.
    async fn keep(&self, record: &WorktreeRecord, name: &str) -> Result<Option<String>, RepoError> {
        let layout = Layout::at(Path::new(&record.repo))
            .ok()
            .flatten()
            .ok_or_else(|| RepoError::not_a_repository(Path::new(&record.repo)))?;
        let spot = Spot::user(self.maker.git, &layout);
        let why = "mahavishnu: keep unapplied work";
        let tip = if record.path.is_dir() {
            let message = "Work that was not applied\n";
            let (commit, nested) = self.maker.commit_all(record, message).await?;
            if let Some(nested) = nested.into_iter().next() {
                return Ok(Some(nested));
            }
            Some(commit)
        } else {
            None
        };
        let mut commits: Vec<String> = tip.into_iter().collect();
        if let Some(branch) = &record.branch {
            commits.extend(spot.commit(&format!("refs/heads/{branch}")).await?);
        }
        commits.extend(record.commit.clone());
        let mut seen = BTreeSet::new();
        commits.retain(|commit| seen.insert(commit.clone()));
        for (nth, commit) in commits.iter().enumerate() {
            let of_first = nth > 0 && spot.is_ancestor(commit, &commits[0]).await?;
            if !of_first {
                let name = if nth == 0 {
                    name.to_owned()
                } else {
                    format!("{name}-{nth}")
                };
                spot.update_ref(&name, commit, None, why).await?;
            }
        }
        Ok(None)
    }

    /// Forgets applies that nobody will undo any more.
    fn forget_old_applies(&self) -> Result<(), RepoError> {
        let mut alive = BTreeSet::new();
        for home in record::homes(self.maker.dir)? {
            if let Ok(record) = WorktreeRecord::load(&home) {
                alive.extend(record.commit);
            }
        }
        for apply in self.journal.all()? {
            let is_old = age(apply.at) >= UNDO_KEPT;
            let is_needed = apply.commits.iter().any(|commit| alive.contains(commit));
            if apply.phase == Phase::Applied && is_old && (!is_needed || apply.how == How::Branch) {
                self.journal.forget(&apply.id)?;
            }
        }
        Ok(())
    }
}

impl CleanRequest {
    fn covers(&self, record: &WorktreeRecord) -> bool {
        self.workflow
            .is_none_or(|workflow| workflow == record.workflow)
            && (self.items.is_empty() || self.items.contains(&record.item))
            && self
                .older_than
                .is_none_or(|least| age(record.created_at) >= least)
    }
}

/// Removes worktree, registration, branch and record; a crash at any point leaves a record that says what is left.
pub(super) async fn remove(
    maker: &Maker<'_>,
    record: &WorktreeRecord,
    trash: Option<&str>,
) -> Result<(), RepoError> {
    let home = record.home().unwrap_or(&record.path).to_owned();
    let aside = home.join(trash.unwrap_or(TRASH));
    match fs::rename(&record.path, &aside) {
        Err(error) if !is_absent(&error) => return Err(RepoError::io("move", &record.path)(error)),
        _ => {}
    }
    if let Ok(Some(layout)) = Layout::at(Path::new(&record.repo))
        && layout.common_dir == record.common_dir
    {
        let _lock = maker.locks.lock(&layout.common_dir, Lane::GitData).await?;
        unregister(record)?;
        if let Some(branch) = &record.branch {
            let spot = Spot::user(maker.git, &layout);
            let name = format!("refs/heads/{branch}");
            if let Some(at) = ref_at(&spot, &layout, &name).await? {
                spot.delete_ref(&name, &at).await?;
            }
        }
    }
    off_the_runtime(move |_| fs::remove_dir_all(&home).map_err(RepoError::io("remove", &home)))
        .await
}

/// Returns the commit that the shared ref `name` is at.
async fn ref_at(spot: &Spot<'_>, layout: &Layout, name: &str) -> Result<Option<String>, RepoError> {
    match head::read_ref(&layout.common_dir, name) {
        Some(at) => Ok(at),
        None => spot.commit(name).await,
    }
}

/// Removes git's registration of the worktree, if it still is this worktree's.
fn unregister(record: &WorktreeRecord) -> Result<(), RepoError> {
    let Some(git_dir) = record.git_dir.clone().or_else(|| find_registration(record)) else {
        return Ok(());
    };
    let registered = match read_small(&git_dir.join("gitdir")) {
        Ok(registered) => registered,
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(RepoError::io("read", &git_dir)(error)),
    };
    if bytes_path(&registered) != record.path.join(".git") {
        return Ok(());
    }
    fs::remove_dir_all(&git_dir).map_err(RepoError::io("remove", &git_dir))?;
    // As git does, where this was the last one; others keep the folder.
    let _others_keep_it = fs::remove_dir(record.common_dir.join("worktrees"));
    Ok(())
}

/// Finds the registration that a crash kept from being recorded.
fn find_registration(record: &WorktreeRecord) -> Option<PathBuf> {
    let wanted = record.path.join(".git");
    fs::read_dir(record.common_dir.join("worktrees"))
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|dir| read_small(&dir.join("gitdir")).is_ok_and(|text| bytes_path(&text) == wanted))
}

/// Returns whether a ref of the user's, or a kept one, holds `commit`.
async fn held(spot: &Spot<'_>, commit: &str) -> Result<bool, RepoError> {
    if !refs_with(spot, commit).await?.is_empty() {
        return Ok(true);
    }
    let kept = spot
        .cmd(Mode::Read, "for-each-ref")
        .args([
            "--count=1",
            "--format=%(refname)",
            "--contains",
            commit,
            "refs/mahavishnu/kept",
        ])
        .run()
        .await?;
    Ok(!kept.stdout.is_empty())
}

/// Returns the name of a worktree's folder: what they are sorted by.
fn key_of(home: &Path) -> String {
    let name = home.file_name().unwrap_or(home.as_os_str());
    name.to_string_lossy().into_owned()
}

fn age(at: At) -> Duration {
    let ms = At::now().unix_ms().saturating_sub(at.unix_ms());
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// Returns the size of all files below `dir`, links not followed.
fn size(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
