//! Where the logs of attempts are on disk.

use crate::model::{Attempt, ItemIndex, WorkflowId};
use std::path::{Path, PathBuf};

/// Returns the folder with one folder of logs per workflow, named by the workflow's id.
pub(super) fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("runs")
}

/// Returns the folder with the logs of one attempt.
pub(super) fn of_attempt(
    state_dir: &Path,
    id: WorkflowId,
    item: ItemIndex,
    attempt: Attempt,
) -> PathBuf {
    folder(state_dir)
        .join(id.to_string())
        .join(format!("{item}-{attempt}"))
}
