//! Undoes an apply, exactly, and lists what can be undone.

use super::blocking::off_the_runtime;
use super::change::How;
use super::head;
use super::journal::{ApplyRecord, Phase, UndoRecord};
use super::plumbing::shown;
use super::recover::Operation;
use super::repos::{Context, Repos};
use super::{Layout, RepoError};
use crate::error::{ErrorKind, Problem};
use crate::model::WorkflowId;

impl Repos {
    /// Undoes an apply, exactly. An undo that failed half-way before is finished.
    ///
    /// # Errors
    ///
    /// [`RepoError::UndoUnknown`]; what was applied has changed since; or the working copy is in use.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future lets the step run to its end.
    pub async fn undo(&self, token: &str) -> Result<(), RepoError> {
        let token = token.to_owned();
        self.step(|context| async move { context.undo(&token).await })
            .await
    }

    /// Returns the record that `token` undoes.
    ///
    /// # Errors
    ///
    /// [`RepoError::UndoUnknown`], or the record belongs to another workflow.
    pub fn undo_record(&self, token: &str, workflow: WorkflowId) -> Result<UndoRecord, RepoError> {
        let record: UndoRecord = self.0.journal().by_token(token)?;
        if record.workflow == workflow {
            return Ok(record);
        }
        let other = record.workflow;
        let message = format!("{token:?} undoes changes of workflow {other}");
        let hint = format!("call apply_changes with workflow_id {other} and this undo");
        Err(Problem {
            kind: ErrorKind::InvalidArgument,
            field: Some("undo".to_owned()),
            ..Problem::new(ErrorKind::InvalidArgument, message).with_hint(hint)
        }
        .into())
    }

    /// Returns the applies that can be undone, the oldest first.
    ///
    /// # Errors
    ///
    /// The state directory cannot be read.
    pub async fn undo_records(&self) -> Result<Vec<UndoRecord>, RepoError> {
        let context = std::sync::Arc::clone(&self.0);
        off_the_runtime(move |_| {
            let mut records = context.journal().all()?;
            records.retain(UndoRecord::is_applied);
            Ok(records)
        })
        .await
    }
}

impl Context {
    async fn undo(&self, token: &str) -> Result<(), RepoError> {
        let journal = self.journal();
        let found: UndoRecord = journal.by_token(token)?;
        let repo = self.roots.resolve(&found.repo)?;
        let layout = Layout::of(&repo)?;
        let _lock = self.lock_working_copy(&repo, &layout).await?;
        self.recover_repo(&repo, &layout).await?;
        // Read again: recovery, or another server, may have changed or removed it.
        let mut record: ApplyRecord = match journal.by_token(token) {
            Err(RepoError::UndoUnknown { .. }) if found.phase == Phase::Undoing => return Ok(()),
            record => record?,
        };
        if record.head.phase != Phase::Applied {
            return Err(RepoError::UndoUnknown {
                token: token.to_owned(),
                why: "it was never applied completely",
            });
        }
        let operation = Operation::new(self, &layout, &record.head.id);
        let changed = changed_since(&record, &operation).await?;
        if !changed.is_empty() {
            let names = super::error::list(&changed);
            let message = format!("cannot undo in {repo}, changed since: {names}");
            let hint =
                "restore these files as apply_changes left them, or revert the change by hand";
            return Err(Problem {
                field: Some("undo".to_owned()),
                ..Problem::new(ErrorKind::Conflict, message).with_hint(hint)
            }
            .into());
        }
        let undone = self.undo_steps(&mut record, &operation).await;
        if undone.is_err() && record.head.phase == Phase::Applied {
            operation.staging.clear_work();
        }
        undone
    }
}

/// Returns what is not as the apply left it, sorted.
async fn changed_since(
    record: &ApplyRecord,
    operation: &Operation<'_>,
) -> Result<Vec<String>, RepoError> {
    let Operation {
        git,
        layout,
        staging,
    } = operation;
    let (staging, edits) = (staging.clone(), record.edits.clone());
    let mut changed = off_the_runtime(move |_| {
        let changed = staging.changed_since(&edits)?.into_iter();
        Ok(changed.map(|name| shown(name)).collect::<Vec<_>>())
    })
    .await?;
    if let Some(moved) = &record.moved {
        let at = git.commit(&moved.name).await?;
        let head = head::of(git, layout).await?;
        let is_elsewhere = record.head.how == How::Merge && head.ref_name() != moved.name;
        if is_elsewhere || at.as_deref() != Some(moved.new.as_str()) {
            changed.push(moved.name.clone());
        } else if record.moves_index() {
            let ours = record.deltas();
            let staged = git.staged(&moved.new).await?.into_keys();
            let overlapping = staged.filter(|name| ours.contains_key(name));
            changed.extend(overlapping.map(|name| shown(&name)));
        }
    }
    changed.sort_unstable();
    changed.dedup();
    Ok(changed)
}
