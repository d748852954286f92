//! Rolls applies and undos back, or finishes them: after a failed step, and after a crash.

use super::blocking::off_the_runtime;
use super::edits::Staging;
use super::index_lock::{IndexLock, release_after_crash};
use super::journal::{ApplyRecord, Phase, RefMove, UndoRecord};
use super::lock::Lane;
use super::plumbing::Plumbing;
use super::repos::Context;
use super::trees::Side;
use super::{Layout, RepoError, RepoPath};
use std::path::{Path, PathBuf};

/// The result of recovering one apply or undo that a crash had interrupted.
#[derive(Debug)]
pub struct Recovered {
    /// The repository.
    pub repo: String,
    /// How it ended.
    pub outcome: Result<Recovery, RepoError>,
}

/// How an interrupted apply or undo ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// It was finished: the work is applied.
    Finished,
    /// It was rolled back: the repository is as it was before.
    RolledBack,
    /// Files that it had changed were changed again since, and stay so; the folder holds the old contents.
    Stuck(PathBuf),
}

/// What the steps of one apply or undo work on.
pub(super) struct Operation<'a> {
    pub(super) git: Plumbing<'a>,
    pub(super) layout: &'a Layout,
    pub(super) staging: Staging,
}

impl<'a> Operation<'a> {
    /// Returns what the apply `id` to the repository `layout` works on.
    pub(super) fn new(context: &'a Context, layout: &'a Layout, id: &str) -> Self {
        Self {
            git: context.user(layout),
            layout,
            staging: Staging::of(layout, &context.journal().folder(id), id),
        }
    }
}

impl Context {
    /// Finishes or rolls back what a crash has left in `repo`, whose working copy lock the caller holds.
    pub(super) async fn recover_repo(
        &self,
        repo: &RepoPath,
        layout: &Layout,
    ) -> Result<(), RepoError> {
        for head in self.journal().all()? {
            if head.repo == repo.as_str() && head.is_open() {
                self.recover_one(&head, layout).await?;
            }
        }
        Ok(())
    }

    /// Recovers all repositories. Those that another server works in are left to it, and one that cannot be recovered
    /// does not keep the others from it.
    pub(super) async fn recover(&self) -> Result<Vec<Recovered>, RepoError> {
        let mut recovered = Vec::new();
        for head in self.journal().all()? {
            if head.is_open()
                && let Some(outcome) = self.recover_unless_busy(&head).await.transpose()
            {
                let repo = head.repo;
                recovered.push(Recovered { repo, outcome });
            }
        }
        Ok(recovered)
    }

    /// Recovers one apply; none where another server works on it, or did.
    async fn recover_unless_busy(&self, head: &UndoRecord) -> Result<Option<Recovery>, RepoError> {
        let layout = Layout::required(Path::new(&head.repo))?;
        let lock = self.locks.try_lock(&layout.common_dir, Lane::WorkingCopy)?;
        if lock.is_none() {
            return Ok(None);
        }
        // Read again under the lock: it may just have ended.
        match self.journal().by_token::<UndoRecord>(&head.token()) {
            Ok(head) if head.is_open() => self.recover_one(&head, &layout).await.map(Some),
            _ => Ok(None),
        }
    }

    async fn recover_one(&self, head: &UndoRecord, layout: &Layout) -> Result<Recovery, RepoError> {
        let mut record: ApplyRecord = self.journal().by_token(&head.token())?;
        let operation = Operation::new(self, layout, &record.head.id);
        match record.head.phase {
            Phase::Preparing => {
                operation.staging.clear_work();
                release_after_crash(layout, &record.head.id)?;
                self.journal().forget(&record.head.id)?;
            }
            Phase::Applying => drop(self.roll_back(&mut record, &operation).await?),
            Phase::Undoing => self.undo_steps(&mut record, &operation).await?,
            Phase::Applied | Phase::Stuck => {}
        }
        Ok(match record.head.phase {
            Phase::Applied => Recovery::Finished,
            Phase::Stuck => Recovery::Stuck(self.journal().folder(&record.head.id)),
            Phase::Preparing | Phase::Applying | Phase::Undoing => Recovery::RolledBack,
        })
    }

    /// Rolls an apply back, or finishes it where the ref has moved already; returns the phase it ended in.
    pub(super) async fn roll_back(
        &self,
        record: &mut ApplyRecord,
        operation: &Operation<'_>,
    ) -> Result<Phase, RepoError> {
        let Operation { git, layout, .. } = operation;
        release_after_crash(layout, &record.head.id)?;
        if let Some(moved) = &record.moved
            && git.commit(&moved.name).await?.as_deref() == Some(moved.new.as_str())
        {
            if record.moves_index() {
                let index = IndexLock::take(layout, &record.head.id).await?;
                index.stage(git, record, Side::New, &self.scratch).await?;
                index.commit(git).await?;
            }
            record.head.phase = Phase::Applied;
            self.journal().save(record)?;
            operation.staging.finish(&record.edits);
        } else {
            self.revert_files(record, operation).await?;
        }
        Ok(record.head.phase)
    }

    /// Puts the files back and removes the record; keeps it with the copies where files have changed since.
    async fn revert_files(
        &self,
        record: &mut ApplyRecord,
        operation: &Operation<'_>,
    ) -> Result<(), RepoError> {
        let (staging, edits) = (operation.staging.clone(), record.edits.clone());
        let foreign = off_the_runtime(move |_| staging.revert(&edits)).await?;
        operation.staging.clear_work();
        if foreign.is_empty() {
            return self.journal().forget(&record.head.id);
        }
        let (id, count) = (&record.head.id, foreign.len());
        tracing::warn!(
            id,
            count,
            "files that were changed by somebody else stay as they are"
        );
        record.edits.retain(|edit| foreign.contains(&edit.name));
        record.head.phase = Phase::Stuck;
        self.journal().save(record)
    }

    /// Undoes an apply, from wherever a crash has left it: what needs space on disk first, then ref, index and files.
    pub(super) async fn undo_steps(
        &self,
        record: &mut ApplyRecord,
        operation: &Operation<'_>,
    ) -> Result<(), RepoError> {
        let Operation {
            git,
            layout,
            staging,
        } = operation;
        release_after_crash(layout, &record.head.id)?;
        let (place, edits) = (staging.clone(), record.edits.clone());
        off_the_runtime(move |_| place.restage(&edits)).await?;
        let index = match record.moves_index() {
            true => {
                let index = IndexLock::take(layout, &record.head.id).await?;
                index.stage(git, record, Side::Old, &self.scratch).await?;
                Some(index)
            }
            false => None,
        };
        if record.head.phase != Phase::Undoing {
            record.head.phase = Phase::Undoing;
            self.journal().save(record)?;
        }
        if let Some(moved) = &record.moved
            && !move_back(moved, git).await?
        {
            // The user has committed since: files and index are part of that now.
            let id = &record.head.id;
            tracing::warn!(id, "an undo stays unfinished because its ref has moved on");
            staging.clear_work();
            record.head.phase = Phase::Stuck;
            return self.journal().save(record);
        }
        if let Some(index) = index {
            index.commit(git).await?;
        }
        self.revert_files(record, operation).await
    }
}

/// Moves the ref to where it was; false where it was moved since.
async fn move_back(moved: &RefMove, git: &Plumbing<'_>) -> Result<bool, RepoError> {
    let at = git.commit(&moved.name).await?;
    if at == moved.old {
        return Ok(true);
    }
    if at.as_deref() != Some(moved.new.as_str()) {
        return Ok(false);
    }
    let why = "mahavishnu: undo apply changes";
    match &moved.old {
        Some(old) => {
            git.update_ref(&moved.name, old, Some(&moved.new), why)
                .await?;
        }
        None => git.delete_ref(&moved.name, &moved.new).await?,
    }
    Ok(true)
}
