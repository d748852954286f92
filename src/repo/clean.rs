//! Removes worktrees and branches that are no longer needed.
//!
//! A worktree is removed only where nothing is lost with it (`removable`). With `include_unapplied` the others are
//! removed too, after everything in them is committed and held by a ref under `refs/mahavishnu/kept/`.

use super::RepoError;
use super::blocking::off_the_runtime;
use super::change::How;
use super::disk_use::size;
use super::in_use;
use super::journal::UNDO_KEPT;
use super::json_file::folders;
use super::leftovers::is_without_record;
use super::record::WorktreeRecord;
use super::removable::{Applied, Verdict};
use super::repos::{Context, Repos};
use crate::model::{At, ItemIndex, WorkflowId};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Why a worktree is kept that another item or call uses.
pub(super) const BUSY: &str = "an item works in it";

/// Which worktrees to inspect, and how far to go.
#[derive(Debug, Clone, Default)]
pub struct CleanRequest {
    /// Only those of this workflow.
    pub workflow: Option<WorkflowId>,
    /// Only those of these items; empty: all.
    pub items: Vec<ItemIndex>,
    /// Only those made at least this long ago.
    pub older_than: Option<Duration>,
    /// Also those with work that was never applied; a ref keeps it.
    pub include_unapplied: bool,
    /// Only report what would be removed.
    pub dry_run: bool,
    /// Only those after this one, in the order of [`Cleaned::next`].
    pub after: Option<String>,
    /// How long it may take; what is left then is for another call. None: as long as it takes.
    pub budget: Option<Duration>,
}

/// A worktree that was inspected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
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
}

/// A worktree that was, or would be, removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The worktree.
    pub worktree: Inspected,
    /// The ref that keeps its unapplied work.
    pub kept_ref: Option<String>,
}

/// A worktree that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The worktree.
    pub worktree: Inspected,
    /// Why it stays.
    pub reason: String,
}

/// What [`Repos::clean`] did or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// The worktrees that were removed.
    pub removed: Vec<Removed>,
    /// The worktrees that stay.
    pub kept: Vec<Kept>,
    /// The size of what was removed.
    pub bytes: u64,
    /// Where to continue if the time was over before the end: the key of the last one inspected.
    pub next: Option<String>,
}

/// The ref that keeps the work of a removed worktree, or the reason why it stays.
type Outcome = Result<Option<String>, String>;

impl Repos {
    /// Removes worktrees and branches that are no longer needed.
    ///
    /// # Errors
    ///
    /// The state directory cannot be read; a failure at one worktree is its reason to stay.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future lets the step run to its end.
    pub async fn clean(&self, request: CleanRequest) -> Result<Cleaned, RepoError> {
        self.step(|context| async move {
            if !request.dry_run {
                let repositories = context.repositories().await;
                context.remove_leftovers(repositories).await?;
            }
            let cleaned = context.clean(&request).await;
            context.disk_use.forget();
            cleaned
        })
        .await
    }
}

impl Context {
    /// Removes what `request` allows to.
    pub(super) async fn clean(&self, request: &CleanRequest) -> Result<Cleaned, RepoError> {
        let mut cleaned = Cleaned::default();
        let applied = self.applied()?;
        let began = Instant::now();
        let mut last = None;
        for folder in folders(&self.worktrees)? {
            let key = key_of(&folder);
            if request.after.as_ref().is_some_and(|after| key <= *after) {
                continue;
            }
            let is_late = request
                .budget
                .is_some_and(|budget| began.elapsed() >= budget);
            if is_late && last.is_some() {
                cleaned.next = last;
                return Ok(cleaned);
            }
            self.clean_one(folder, request, &applied, &mut cleaned)
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
        folder: PathBuf,
        request: &CleanRequest,
        applied: &Applied,
        cleaned: &mut Cleaned,
    ) -> Result<(), RepoError> {
        let record = WorktreeRecord::load(&folder);
        if !request.covers(record.as_ref().ok()) {
            return Ok(());
        }
        let sized = folder.clone();
        let bytes = off_the_runtime(move |_| Ok(size(&sized))).await?;
        let claim = match in_use::claim(&folder, self.alive.as_deref()) {
            // Another call has removed it meanwhile.
            _ if !folder.is_dir() => return Ok(()),
            claim => claim?,
        };
        let outcome = match (&claim, &record) {
            (None, _) => Err(BUSY.to_owned()),
            (Some(_), Ok(record)) => self.remove_or_keep(record, request, applied).await,
            (Some(_), Err(error)) => remove_recordless(&folder, request, error),
        };
        drop(claim);
        cleaned.add(Inspected::new(&folder, record.ok(), bytes), outcome);
        Ok(())
    }

    async fn remove_or_keep(
        &self,
        record: &WorktreeRecord,
        request: &CleanRequest,
        applied: &Applied,
    ) -> Outcome {
        let kept_ref = match self.judge(record, applied).await {
            Ok(Verdict::Removable) => None,
            Ok(Verdict::Unapplied(_)) if request.include_unapplied => Some(record.kept_ref()),
            Ok(Verdict::Unapplied(reason)) => return Err(reason.to_owned()),
            Ok(Verdict::Untouchable(reason)) => return Err(reason),
            Err(error) => return Err(format!("its state cannot be read: {error}")),
        };
        if request.dry_run {
            return Ok(kept_ref);
        }
        if let Some(name) = &kept_ref {
            let uncommitted = self.keep(record, name).await;
            let uncommitted =
                uncommitted.map_err(|error| format!("its work could not be kept: {error}"))?;
            if !uncommitted.is_empty() {
                let names = uncommitted.join(", ");
                return Err(format!(
                    "it holds what no commit of its repository can keep: {names}; move or delete that, then clean again"
                ));
            }
        }
        let removed = self.remove_worktree(record).await;
        removed.map_err(|error| format!("it could not be removed: {error}"))?;
        Ok(kept_ref)
    }

    /// Removes the records of applies that will not be undone any more: old ones whose worktree is gone.
    fn forget_old_applies(&self) -> Result<(), RepoError> {
        let mut in_worktrees = BTreeSet::new();
        for folder in folders(&self.worktrees)? {
            if let Ok(record) = WorktreeRecord::load(&folder) {
                in_worktrees.extend(record.commit);
            }
        }
        let journal = self.journal();
        for apply in journal.all()? {
            let is_needed = apply.how != How::Branch
                && apply
                    .commits
                    .iter()
                    .any(|commit| in_worktrees.contains(commit));
            if apply.is_applied() && age(apply.at) >= UNDO_KEPT && !is_needed {
                journal.forget(&apply.id)?;
            }
        }
        Ok(())
    }
}

impl CleanRequest {
    /// Returns whether it is about the worktree; one without a record belongs to no workflow and no item.
    fn covers(&self, record: Option<&WorktreeRecord>) -> bool {
        let Some(record) = record else {
            return self.workflow.is_none() && self.items.is_empty();
        };
        self.workflow
            .is_none_or(|workflow| workflow == record.workflow)
            && (self.items.is_empty() || self.items.contains(&record.item))
            && self
                .older_than
                .is_none_or(|least| age(record.created_at) >= least)
    }
}

impl Cleaned {
    fn add(&mut self, worktree: Inspected, outcome: Outcome) {
        match outcome {
            Ok(kept_ref) => {
                self.bytes += worktree.bytes;
                self.removed.push(Removed { worktree, kept_ref });
            }
            Err(reason) => self.kept.push(Kept { worktree, reason }),
        }
    }
}

impl Inspected {
    fn new(folder: &Path, record: Option<WorktreeRecord>, bytes: u64) -> Self {
        let unknown = Self {
            key: key_of(folder),
            workflow: None,
            item: None,
            repo: None,
            path: folder.to_owned(),
            bytes,
        };
        match record {
            None => unknown,
            Some(record) => Self {
                workflow: Some(record.workflow),
                item: Some(record.item),
                repo: Some(record.repo),
                path: record.path,
                ..unknown
            },
        }
    }
}

/// Removes a folder that a kill left without a record: before the record was first written no item has worked in it, and
/// before the record was removed the worktree was found removable. Anything else is for a person to judge.
fn remove_recordless(folder: &Path, request: &CleanRequest, error: &RepoError) -> Outcome {
    if !is_without_record(folder) {
        return Err(format!("its record cannot be read: {error}"));
    }
    if !request.dry_run {
        let removed = super::layout::remove_folder(folder);
        removed.map_err(|error| format!("it could not be removed: {error}"))?;
    }
    Ok(None)
}

/// Returns the name of a worktree's folder, by which worktrees are sorted.
fn key_of(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or(folder.as_os_str());
    name.to_string_lossy().into_owned()
}

fn age(at: At) -> Duration {
    let ms = At::now().unix_ms().saturating_sub(at.unix_ms());
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
