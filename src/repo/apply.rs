//! Applies items' commits to the user's working copy, all or nothing per repository.
//!
//! First a [`Plan`] in memory, then everything that needs space on disk, then changes that need none, in an order in
//! which every crash can be rolled back or finished:
//!
//! 1. record "preparing" (durable); the new files, copies of the old ones, and the new index are staged;
//! 2. record "applying"; files, by renames;
//! 3. the ref, one compare-and-set: from here on a crash is finished, not rolled back;
//! 4. the index, one rename; 5. record "applied", one rename, kept for the undo.

use super::blocking::off_the_runtime;
use super::change::{ApplyOutcome, ApplyRequest, How, Obstacles};
use super::edits::{Edit, Stopped};
use super::file_state::{FileStamp, FileState};
use super::index_lock::IndexLock;
use super::journal::{ApplyRecord, Phase, UndoRecord};
use super::lock::{Lane, RepoLock};
use super::plan::Plan;
use super::plumbing::{Name, no_object, shown};
use super::recover::Operation;
use super::repos::{Context, Repos};
use super::temp_index::TempIndex;
use super::trees::Side;
use super::{Layout, RepoError, RepoPath};
use crate::error::ErrorKind;
use crate::model::{At, ItemIndex};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use ulid::Ulid;

/// How long a busy working copy is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

impl Repos {
    /// Applies work, all or nothing, or returns what is in the way.
    ///
    /// # Errors
    ///
    /// The working copy is in use or bare, a merge or rebase of the user's is unfinished, a commit does not exist, the
    /// branch exists, or files changed meanwhile: nothing was changed then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future lets the step run to its end.
    pub async fn apply(&self, request: ApplyRequest) -> Result<ApplyOutcome, RepoError> {
        self.step(|context| async move { context.apply(request).await })
            .await
    }
}

impl Context {
    async fn apply(&self, mut request: ApplyRequest) -> Result<ApplyOutcome, RepoError> {
        let layout = Layout::of(&request.repo)?;
        if request.how != How::Branch {
            layout.require_working_copy()?;
        }
        let _lock = match request.check_only {
            true => None,
            false => Some(self.lock_working_copy(&request.repo, &layout).await?),
        };
        if !request.check_only {
            self.recover_repo(&request.repo, &layout).await?;
        }
        let all: Vec<_> = request.changes.iter().map(|change| change.item).collect();
        let earlier = self.take_earlier(&mut request)?;
        let mut outcome = ApplyOutcome {
            applied: true,
            earlier,
            ..ApplyOutcome::default()
        };
        if !request.changes.is_empty() {
            let plan = self.plan(&layout, &request).await?;
            outcome.applied = plan.is_free();
            outcome.items.clone_from(&plan.items);
            outcome.commit.clone_from(&plan.tip);
            if !request.check_only && plan.is_free() && !plan.is_empty() {
                outcome.undo = Some(self.carry_out(&request, &layout, plan).await?);
            }
        }
        outcome.items = all
            .into_iter()
            .map(|item| obstacles_of(item, &mut outcome.items))
            .collect();
        Ok(outcome)
    }

    /// Waits for the working copy, for a short time.
    pub(super) async fn lock_working_copy(
        &self,
        repo: &RepoPath,
        layout: &Layout,
    ) -> Result<RepoLock, RepoError> {
        let lock = self.locks.lock(&layout.common_dir, Lane::WorkingCopy);
        let in_use = || {
            let message =
                format!("the working copy of {repo} is in use by an item or another apply");
            let hint = "wait until it has ended, or cancel it";
            RepoError::refused(ErrorKind::Busy, message, hint)
        };
        tokio::time::timeout(PATIENCE, lock)
            .await
            .unwrap_or_else(|_| Err(in_use()))
    }

    /// Takes those changes out of `request` that another call has applied in the same way, while this one waited.
    fn take_earlier(
        &self,
        request: &mut ApplyRequest,
    ) -> Result<Vec<(ItemIndex, String)>, RepoError> {
        let mut applied = self.journal().all()?;
        applied.retain(|record| {
            record.is_applied()
                && record.repo == request.repo.as_str()
                && record.workflow == request.workflow
                && record.how == request.how
        });
        let mut earlier = Vec::new();
        request.changes.retain(|change| {
            let record = applied
                .iter()
                .rfind(|record| record.commits.contains(&change.commit));
            earlier.extend(record.map(|record| (change.item, record.token())));
            record.is_none()
        });
        Ok(earlier)
    }

    async fn carry_out(
        &self,
        request: &ApplyRequest,
        layout: &Layout,
        plan: Plan,
    ) -> Result<String, RepoError> {
        let mut record = record_of(request);
        let token = record.head.token();
        let operation = Operation::new(self, layout, &record.head.id);
        self.journal().begin(&record)?;
        let stamps = plan.stamps.clone();
        let index = match self.prepare(&mut record, &operation, plan).await {
            Ok(index) => index,
            Err(error) => {
                operation.staging.clear_work();
                self.journal().forget(&record.head.id)?;
                return Err(error);
            }
        };
        let touched = self
            .touch(&record, &request.repo, &operation, index, stamps)
            .await;
        if let Err(error) = touched {
            return match self.roll_back(&mut record, &operation).await? {
                Phase::Applied => Ok(token),
                _ => Err(error),
            };
        }
        operation.staging.finish(&record.edits);
        Ok(token)
    }

    /// Does all that needs space on disk; nothing that the user sees changes.
    async fn prepare(
        &self,
        record: &mut ApplyRecord,
        operation: &Operation<'_>,
        plan: Plan,
    ) -> Result<Option<IndexLock>, RepoError> {
        let Operation {
            git,
            layout,
            staging,
        } = operation;
        let mut files = plan.deltas.clone();
        files.retain(|name, delta| !delta.is_submodule() && !plan.skipped.contains(name));
        let mut edits = Vec::with_capacity(files.len());
        for name in files.keys() {
            let state = FileState::of(&layout.dir, name);
            let before = match state.map_err(RepoError::io("read", &git.file(name)))? {
                // A folder here is removed with the files in it, which are edits of their own.
                FileState::Other => FileState::Absent,
                state => state,
            };
            edits.push(Edit {
                name: name.clone(),
                before,
                after: FileState::Absent,
            });
        }
        staging.make()?;
        files.retain(|_, delta| delta.new.is_some());
        if !files.is_empty() {
            let index = TempIndex::in_dir(&self.scratch)?;
            let own = git.with_index(index.path());
            own.check_out(&plan.tree, &files, &staging.new_files())
                .await?;
        }
        let place = staging.clone();
        record.edits = off_the_runtime(move |_| {
            place.keep_copies(&edits)?;
            let settled = place.settle_new_files(&mut edits);
            settled.map_err(RepoError::io("prepare files in", &place.new_files()))?;
            Ok(edits)
        })
        .await?;
        record.deltas = plan.deltas.into_iter().collect();
        record.skipped = plan.skipped.into_iter().collect();
        record.moved = plan.moved;
        let index = match record.moves_index() {
            true => {
                let index = IndexLock::take(layout, &record.head.id).await?;
                index.stage(git, record, Side::New, &self.scratch).await?;
                Some(index)
            }
            false => None,
        };
        record.head.phase = Phase::Applied;
        self.journal().write_ahead(record)?;
        record.head.phase = Phase::Applying;
        Ok(index)
    }

    /// Changes files, ref, index and record.
    async fn touch(
        &self,
        record: &ApplyRecord,
        repo: &RepoPath,
        operation: &Operation<'_>,
        index: Option<IndexLock>,
        stamps: BTreeMap<Name, FileStamp>,
    ) -> Result<(), RepoError> {
        let Operation {
            git,
            layout,
            staging,
        } = operation;
        raced(repo, &layout.dir, &stamps)?;
        self.journal().save(record)?;
        let (place, edits, top) = (staging.clone(), record.edits.clone(), layout.dir.clone());
        let performed = off_the_runtime(move |_| {
            Ok(place.perform(&edits, |edit| is_unchanged(edit, &top, &stamps)))
        });
        performed.await?.map_err(|stopped| match stopped {
            Stopped::Raced(name) => changed_meanwhile(repo, &[shown(&name)]),
            Stopped::Failed(path, source) => RepoError::io("write", &path)(source),
        })?;
        if let Some(moved) = &record.moved {
            let old = moved.old.clone().unwrap_or_else(|| no_object(&moved.new));
            let why = "mahavishnu: apply changes";
            git.update_ref(&moved.name, &moved.new, Some(&old), why)
                .await?;
        }
        if let Some(index) = index {
            // The ref has moved: a failure here is not rolled back, and the next apply, undo or start finishes it.
            index.commit(git).await?;
        }
        self.journal().step(&record.head.id)
    }
}

/// Returns the entry of `item`, whether it is applied now or was before.
fn obstacles_of(item: ItemIndex, planned: &mut Vec<Obstacles>) -> Obstacles {
    let found = planned.iter().position(|entry| entry.item == item);
    match found {
        Some(at) => planned.remove(at),
        None => Obstacles {
            item,
            ..Obstacles::default()
        },
    }
}

fn record_of(request: &ApplyRequest) -> ApplyRecord {
    let changes = &request.changes;
    ApplyRecord {
        head: UndoRecord {
            id: Ulid::generate().to_string(),
            phase: Phase::Preparing,
            repo: request.repo.as_str().to_owned(),
            workflow: request.workflow,
            how: request.how,
            at: At::now(),
            items: changes.iter().map(|change| change.item).collect(),
            commits: changes.iter().map(|change| change.commit.clone()).collect(),
        },
        edits: Vec::new(),
        deltas: Vec::new(),
        skipped: Vec::new(),
        moved: None,
    }
}

/// Returns whether the user has left the file of `edit` alone since it was scanned.
fn is_unchanged(
    edit: &Edit,
    top: &Path,
    stamps: &BTreeMap<Name, FileStamp>,
) -> std::io::Result<bool> {
    Ok(match edit.before {
        // Folders without a file in them may still be there.
        FileState::Absent => matches!(
            FileState::of(top, &edit.name)?,
            FileState::Absent | FileState::Other
        ),
        _ => stamps.get(&edit.name) == Some(&FileStamp::of(top, &edit.name)?),
    })
}

/// Refuses where a file was written to since it was scanned.
fn raced(repo: &RepoPath, top: &Path, stamps: &BTreeMap<Name, FileStamp>) -> Result<(), RepoError> {
    let mut changed = Vec::new();
    for (name, stamp) in stamps {
        let path = top.join(super::layout::bytes_path(name));
        let now = FileStamp::of(top, name).map_err(RepoError::io("read", &path))?;
        if now != *stamp {
            changed.push(shown(name));
        }
    }
    match changed.is_empty() {
        true => Ok(()),
        false => Err(changed_meanwhile(repo, &changed)),
    }
}

fn changed_meanwhile(repo: &RepoPath, names: &[String]) -> RepoError {
    let names = super::error::list(names);
    let message = format!("files of {repo} changed while changes were being applied: {names}");
    RepoError::refused(ErrorKind::Busy, message, "nothing was applied; call again")
}
