//! Brings items' commits into the user's working copy, all or nothing per repository.
//!
//! First a [`plan`] in memory; then a record of what is about to happen; then files, ref and index, in an
//! order in which every crash can be rolled back or finished:
//!
//! 1. record "applying" (durable), with copies of every file that will change;
//! 2. files, one rename each; 3. the ref, one compare-and-set: from here on a crash is finished, not rolled back;
//! 4. the index, under git's own lock; 5. record "applied", kept for the undo.

use super::files::{self, Edit, Glance, State, Stopped};
use super::git::{Git, Mode};
use super::index_lock::{IndexLock, release_after_crash};
use super::journal::{ApplyHead, ApplyRecord, Journal, Phase, RefMove};
use super::layout::bytes_path;
use super::lock::{Lane, Locks};
use super::plan::{self, Plan, shown};
use super::plumbing::{GITLINK, Name, Side, Spot, TempIndex, listed, no_object};
use super::{Layout, RepoError, RepoPath, head};
use crate::model::{At, ItemIndex, WorkflowId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use ulid::Ulid;

/// How long a busy working copy is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// How work is brought home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The files change; nothing is committed or staged.
    WorkingCopy,
    /// The current branch gets the work: fast-forward, a merge, or one commit where its base is no commit of the
    /// user's.
    Merge,
    /// A branch of its own in the user's repository; no file changes.
    Branch,
}

/// One item's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The item.
    pub item: ItemIndex,
    /// The commit against which the work counts ([`super::WorktreeRecord::base_commit`]).
    pub base: String,
    /// The commit that holds the work.
    pub commit: String,
    /// The message of a commit that must be made.
    pub message: String,
    /// The branch to make, for [`How::Branch`].
    pub branch: String,
}

/// What to bring home to one repository.
#[derive(Debug, Clone)]
pub struct ApplyRequest {
    /// The repository.
    pub repo: RepoPath,
    /// The workflow that the work is of.
    pub workflow: WorkflowId,
    /// The work, in the order in which it is applied.
    pub changes: Vec<Change>,
    /// How.
    pub how: How,
    /// Only say what would happen.
    pub check_only: bool,
}

/// What stands in the way of one item; nothing, where both lists are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Obstacles {
    /// The item.
    pub item: ItemIndex,
    /// Files that cannot be merged with HEAD.
    pub conflicts: Vec<String>,
    /// Files that the user has changed and not committed.
    pub overlaps_dirty: Vec<String>,
}

/// What an apply did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyOutcome {
    /// Whether the work is there now; with `check_only`, whether it could be.
    pub applied: bool,
    /// One entry per change, in their order.
    pub items: Vec<Obstacles>,
    /// Takes it back; none where nothing had to be changed.
    pub undo: Option<String>,
    /// The commit that the ref is at now, for [`How::Merge`] and [`How::Branch`].
    pub commit: Option<String>,
}

/// Work that is home and can be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtHome {
    /// Takes it back, with all that came home in the same step.
    pub undo: String,
    /// The repository.
    pub repo: String,
    /// The workflow that the work is of.
    pub workflow: WorkflowId,
    /// How it was brought home.
    pub how: How,
    /// When.
    pub at: At,
    /// The items.
    pub items: Vec<ItemIndex>,
    /// The commits that hold their work.
    pub commits: Vec<String>,
}

/// Applies and undoes in one state directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Applier<'a> {
    pub(super) git: &'a Git,
    pub(super) locks: &'a Locks,
    pub(super) journal: Journal<'a>,
    pub(super) scratch: &'a Path,
}

impl Applier<'_> {
    /// Applies `request`, or says what stands in the way.
    pub(super) async fn apply(&self, request: &ApplyRequest) -> Result<ApplyOutcome, RepoError> {
        let layout = Layout::of(&request.repo)?;
        if request.how != How::Branch && !layout.has_working_copy() {
            return Err(RepoError::NoWorkingCopy {
                repo: request.repo.clone(),
            });
        }
        let _lock = match request.check_only {
            true => None,
            false => Some(self.lock(&request.repo, &layout).await?),
        };
        if !request.check_only {
            self.recover_repo(&request.repo, &layout).await?;
        }
        let plan = plan::make(self.git, &layout, request, self.scratch).await?;
        let mut outcome = ApplyOutcome {
            applied: plan.is_free(),
            items: plan.items.clone(),
            undo: None,
            commit: plan.tip.clone(),
        };
        if !request.check_only && plan.is_free() && !plan.is_empty() {
            outcome.undo = Some(self.carry_out(request, &layout, plan).await?);
        }
        Ok(outcome)
    }

    async fn lock(&self, repo: &RepoPath, layout: &Layout) -> Result<super::RepoLock, RepoError> {
        let lock = self.locks.lock(&layout.common_dir, Lane::WorkingCopy);
        match tokio::time::timeout(PATIENCE, lock).await {
            Ok(lock) => lock,
            Err(_) => Err(RepoError::InUse { repo: repo.clone() }),
        }
    }

    async fn carry_out(
        &self,
        request: &ApplyRequest,
        layout: &Layout,
        plan: Plan,
    ) -> Result<String, RepoError> {
        let id = Ulid::generate().to_string();
        let result = self.carry_out_as(&id, request, layout, plan).await;
        if result.is_err() && !self.journal.home(&id).join("record.json").exists() {
            // Nothing was touched yet, or all was taken back; only copies are left.
            if let Err(error) = self.journal.stage(&id).clear() {
                tracing::warn!(%error, "copies of an apply that did not happen stay behind");
            }
        }
        result
    }

    async fn carry_out_as(
        &self,
        id: &str,
        request: &ApplyRequest,
        layout: &Layout,
        plan: Plan,
    ) -> Result<String, RepoError> {
        let spot = Spot::user(self.git, layout);
        let top = &layout.dir;
        let edits = self.prepare(id, &spot, top, &plan).await?;
        raced(&request.repo, top, &plan.glances)?;
        let mut record = ApplyRecord {
            id: id.to_owned(),
            repo: request.repo.as_str().to_owned(),
            workflow: request.workflow,
            how: request.how,
            phase: Phase::Applying,
            items: request.changes.iter().map(|change| change.item).collect(),
            commits: request
                .changes
                .iter()
                .map(|change| change.commit.clone())
                .collect(),
            edits,
            deltas: plan.deltas.into_iter().collect(),
            skipped: plan.skipped.into_iter().collect(),
            moved: plan.moved,
            at: At::now(),
        };
        self.journal.save(&record)?;
        if let Err(error) = self
            .touch(&record, &request.repo, layout, &spot, &plan.glances)
            .await
        {
            return match self.roll_back(&mut record, layout, &spot).await? {
                Phase::Applied => Ok(record.token()),
                _ => Err(error),
            };
        }
        record.phase = Phase::Applied;
        self.journal.save(&record)?;
        self.journal.stage(id).clear_after();
        Ok(record.token())
    }

    /// Writes the new contents and copies of the old ones where neither is in the way.
    async fn prepare(
        &self,
        id: &str,
        spot: &Spot<'_>,
        top: &Path,
        plan: &Plan,
    ) -> Result<Vec<Edit>, RepoError> {
        let stage = self.journal.stage(id);
        let mut files = plan.deltas.clone();
        files.retain(|name, delta| {
            let mut entries = [&delta.old, &delta.new].into_iter().flatten();
            entries.all(|entry| entry.mode != GITLINK) && !plan.skipped.contains(name)
        });
        let mut edits = Vec::with_capacity(files.len());
        for name in files.keys() {
            let before =
                State::of(top, name).map_err(RepoError::io("read", &top.join(bytes_path(name))))?;
            edits.push(Edit {
                name: name.clone(),
                // A folder in this place goes with the files in it, which are edits of their own.
                before: if before == State::Other {
                    State::Absent
                } else {
                    before
                },
                after: State::Absent,
            });
        }
        super::lock::make_private_dir(&stage.after())?;
        let written: Vec<&Name> = files
            .iter()
            .filter(|(_, delta)| delta.new.is_some())
            .map(|(name, _)| name)
            .collect();
        if !written.is_empty() {
            self.check_out(spot, &stage.after(), &files, &written)
                .await?;
        }
        stage.keep(top, &edits)?;
        stage
            .settle_modes(&mut edits)
            .map_err(RepoError::io("prepare files in", &stage.after()))?;
        Ok(edits)
    }

    /// Has git write files as a checkout would, line ends and filters included, but below `to`.
    async fn check_out(
        &self,
        spot: &Spot<'_>,
        to: &Path,
        files: &BTreeMap<Name, super::plumbing::Delta>,
        written: &[&Name],
    ) -> Result<(), RepoError> {
        let index = TempIndex::in_dir(self.scratch)?;
        let apart = spot.with_index(index.path());
        let mut only_new = files.clone();
        only_new.retain(|_, delta| delta.new.is_some());
        apart.set_entries(&only_new, Side::New).await?;
        let mut prefix = to.as_os_str().to_owned();
        prefix.push("/");
        let mut option = std::ffi::OsString::from("--prefix=");
        option.push(prefix);
        apart
            .cmd(Mode::Write, "checkout-index")
            .args(["-f", "-q", "-z", "--stdin"])
            .arg(option)
            .stdin(listed(written))
            .run()
            .await
            .map(drop)
    }

    /// Changes files, ref and index.
    async fn touch(
        &self,
        record: &ApplyRecord,
        repo: &RepoPath,
        layout: &Layout,
        spot: &Spot<'_>,
        glances: &BTreeMap<Name, Glance>,
    ) -> Result<(), RepoError> {
        let index = match record.moves_index() {
            true => Some(IndexLock::take(layout, &record.id).await?),
            false => None,
        };
        let stage = self.journal.stage(&record.id);
        let (top, edits, glances) = (layout.dir.clone(), record.edits.clone(), glances.clone());
        let performed = blocking(move || {
            stage.perform(&top, &edits, |edit| {
                Ok(match edit.before {
                    // Folders without a file in them may stand there still.
                    State::Absent => {
                        matches!(State::of(&top, &edit.name)?, State::Absent | State::Other)
                    }
                    _ => glances.get(&edit.name) == Some(&Glance::of(&top, &edit.name)?),
                })
            })
        })
        .await?;
        performed.map_err(|stopped| match stopped {
            Stopped::Raced(name) => RepoError::Raced {
                repo: repo.clone(),
                changed: vec![shown(&name)],
            },
            Stopped::Failed(path, source) => RepoError::io("write", &path)(source),
        })?;
        if let Some(moved) = &record.moved {
            let old = moved.old.clone().unwrap_or_else(|| no_object(&moved.new));
            let why = "mahavishnu: apply changes";
            spot.update_ref(&moved.name, &moved.new, Some(&old), why)
                .await?;
        }
        if let Some(index) = index {
            // The ref has moved: a failure here must not roll back, and the next apply, undo or start finishes it.
            index.replace(spot, record, Side::New, self.scratch).await?;
        }
        Ok(())
    }

    /// Takes back what was begun, or finishes it where the ref has moved already; returns where that led.
    pub(super) async fn roll_back(
        &self,
        record: &mut ApplyRecord,
        layout: &Layout,
        spot: &Spot<'_>,
    ) -> Result<Phase, RepoError> {
        release_after_crash(layout, &record.id)?;
        if let Some(moved) = &record.moved
            && spot.commit(&moved.name).await?.as_deref() == Some(moved.new.as_str())
        {
            self.finish(record, layout, spot).await?;
        } else {
            self.revert_files(record, layout).await?;
        }
        Ok(record.phase)
    }

    async fn finish(
        &self,
        record: &mut ApplyRecord,
        layout: &Layout,
        spot: &Spot<'_>,
    ) -> Result<(), RepoError> {
        if record.moves_index() {
            let index = IndexLock::take(layout, &record.id).await?;
            index.replace(spot, record, Side::New, self.scratch).await?;
        }
        record.phase = Phase::Applied;
        self.journal.save(record)?;
        self.journal.stage(&record.id).clear_after();
        Ok(())
    }

    /// Puts the files back and forgets the apply, or keeps the copies where somebody else has changed files since.
    async fn revert_files(
        &self,
        record: &mut ApplyRecord,
        layout: &Layout,
    ) -> Result<(), RepoError> {
        let stage = self.journal.stage(&record.id);
        let (top, edits) = (layout.dir.clone(), record.edits.clone());
        let foreign = blocking(move || stage.revert(&top, &edits)).await??;
        if foreign.is_empty() {
            return self.journal.forget(&record.id);
        }
        tracing::warn!(
            id = record.id,
            count = foreign.len(),
            "files changed by somebody else stay as they are"
        );
        record.edits.retain(|edit| foreign.contains(&edit.name));
        record.phase = Phase::Stuck;
        self.journal.save(record)
    }

    /// Returns the work that is home and can be taken back, the oldest first.
    pub(super) fn at_home(&self) -> Result<Vec<AtHome>, RepoError> {
        let applied = self.journal.all()?.into_iter();
        Ok(applied
            .filter(|head| head.phase == Phase::Applied)
            .map(AtHome::of)
            .collect())
    }

    /// Returns what is behind `token`, which must be of `workflow`.
    pub(super) fn behind(&self, token: &str, workflow: WorkflowId) -> Result<AtHome, RepoError> {
        let head = self.journal.by_token::<ApplyHead>(token)?;
        if head.workflow != workflow {
            return Err(RepoError::UndoForeign {
                token: token.to_owned(),
                workflow: head.workflow,
            });
        }
        Ok(AtHome::of(head))
    }

    /// Undoes the apply behind `token`.
    pub(super) async fn undo(
        &self,
        token: &str,
        allowed: impl Fn(&str) -> Result<RepoPath, RepoError>,
    ) -> Result<(), RepoError> {
        let repo = allowed(&self.journal.by_token::<ApplyHead>(token)?.repo)?;
        let layout = Layout::of(&repo)?;
        let _lock = self.lock(&repo, &layout).await?;
        self.recover_repo(&repo, &layout).await?;
        // Read again: recovery, or another server, may have changed or forgotten it.
        let mut record = self.journal.by_token::<ApplyRecord>(token)?;
        if record.phase != Phase::Applied {
            return Err(RepoError::UndoUnknown {
                token: token.to_owned(),
                why: "it was never applied completely",
            });
        }
        let spot = Spot::user(self.git, &layout);
        let changed = self.changed_since(&record, &layout, &spot).await?;
        if !changed.is_empty() {
            return Err(RepoError::UndoStale { repo, changed });
        }
        record.phase = Phase::Undoing;
        self.journal.save(&record)?;
        self.take_back(&mut record, &layout, &spot).await
    }

    /// Returns what is not as the apply left it.
    async fn changed_since(
        &self,
        record: &ApplyRecord,
        layout: &Layout,
        spot: &Spot<'_>,
    ) -> Result<Vec<String>, RepoError> {
        let (top, edits) = (layout.dir.clone(), record.edits.clone());
        let mut changed = blocking(move || {
            let changed = files::changed_since(&top, &edits)?;
            Ok::<_, RepoError>(
                changed
                    .into_iter()
                    .map(|name| shown(name))
                    .collect::<Vec<_>>(),
            )
        })
        .await??;
        if let Some(moved) = &record.moved {
            let at = spot.commit(&moved.name).await?;
            let head = head::of_spot(layout, spot).await?;
            let elsewhere = record.how == How::Merge && plan::head_ref(&head) != moved.name;
            if elsewhere || at.as_deref() != Some(moved.new.as_str()) {
                changed.push(moved.name.clone());
            } else if record.moves_index() {
                let staged = spot.staged(&moved.new).await?;
                let ours = record.deltas();
                changed.extend(
                    staged
                        .keys()
                        .filter(|name| ours.contains_key(*name))
                        .map(|name| shown(name)),
                );
            }
        }
        changed.sort_unstable();
        changed.dedup();
        Ok(changed)
    }

    /// Finishes an undo, from wherever a crash has left it.
    pub(super) async fn take_back(
        &self,
        record: &mut ApplyRecord,
        layout: &Layout,
        spot: &Spot<'_>,
    ) -> Result<(), RepoError> {
        release_after_crash(layout, &record.id)?;
        if let Some(moved) = &record.moved
            && !self.move_back(moved, spot).await?
        {
            // The user has committed since: files and index are part of that now.
            tracing::warn!(id = record.id, "an undo stays unfinished: its ref moved on");
            record.phase = Phase::Stuck;
            return self.journal.save(record);
        }
        if record.moves_index() {
            let index = IndexLock::take(layout, &record.id).await?;
            index.replace(spot, record, Side::Old, self.scratch).await?;
        }
        self.revert_files(record, layout).await
    }

    /// Brings the ref to where it was; false where somebody else has moved it.
    async fn move_back(&self, moved: &RefMove, spot: &Spot<'_>) -> Result<bool, RepoError> {
        let at = spot.commit(&moved.name).await?;
        if at == moved.old {
            return Ok(true);
        }
        if at.as_deref() != Some(moved.new.as_str()) {
            return Ok(false);
        }
        match &moved.old {
            Some(old) => {
                let why = "mahavishnu: undo apply changes";
                spot.update_ref(&moved.name, old, Some(&moved.new), why)
                    .await?;
            }
            None => spot.delete_ref(&moved.name, &moved.new).await?,
        }
        Ok(true)
    }
}

impl AtHome {
    fn of(head: ApplyHead) -> Self {
        Self {
            undo: head.token(),
            repo: head.repo,
            workflow: head.workflow,
            how: head.how,
            at: head.at,
            items: head.items,
            commits: head.commits,
        }
    }
}

/// Refuses where a file was written to since it was looked at.
fn raced(repo: &RepoPath, top: &Path, glances: &BTreeMap<Name, Glance>) -> Result<(), RepoError> {
    let mut changed = Vec::new();
    for (name, glance) in glances {
        let now =
            Glance::of(top, name).map_err(RepoError::io("read", &top.join(bytes_path(name))))?;
        if now != *glance {
            changed.push(shown(name));
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    Err(RepoError::Raced {
        repo: repo.clone(),
        changed,
    })
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RepoError> {
    super::discover::off_the_runtime(move |_| Ok(work())).await
}
