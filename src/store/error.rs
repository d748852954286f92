//! What can go wrong with the store.

use crate::error::{ErrorKind, Fault};
use crate::model::{Attempt, ItemIndex, WorkflowId};
use rusqlite::ErrorCode;
use std::path::PathBuf;
use std::sync::Arc;

/// A failure of the store. Cheap to clone: one failure to open answers every call.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The state directory cannot be made, read or written.
    #[error("failed to use the state directory ({})", path.display())]
    Directory {
        /// The folder or file that was refused.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The file is no store of this program, or parts of it are gone.
    #[error("the store's file is damaged: {detail}")]
    Damaged {
        /// What was found.
        detail: String,
    },
    /// The file was made by a development version of this program before its first release.
    #[error(
        "the store {} was made by an unreleased version of mahavishnu and cannot be read by this one{}",
        path.display(),
        listed(branches)
    )]
    Unreleased {
        /// The file.
        path: PathBuf,
        /// The branches whose changes were not applied, each with its repository.
        branches: Vec<String>,
    },
    /// There is something in the place of the file that is not a file of its own.
    #[error("{} cannot be the store's file: {detail}", path.display())]
    Misplaced {
        /// The place.
        path: PathBuf,
        /// What is there.
        detail: String,
    },
    /// A file was taken away while it was open, so that nothing written now would last.
    #[error("{} was removed or replaced while this server used it", path.display())]
    Removed {
        /// Where the file was.
        path: PathBuf,
    },
    /// A newer release of this program wrote the file.
    #[error("the store has schema version {found}, this program knows versions up to {known}")]
    Newer {
        /// The file's version.
        found: i64,
        /// The newest version this program knows.
        known: i64,
    },
    /// The disk has no room.
    #[error("the disk that holds the state directory is full")]
    Full,
    /// The disk failed, or refuses to hold more.
    #[error("the disk that holds the state directory refuses to be read or written")]
    Disk {
        /// Why.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// Another program held the store's write lock for too long.
    #[error("the store is locked by another program")]
    Locked,
    /// The file or its folder may not be written.
    #[error("the store may not be written")]
    ReadOnly {
        /// Why.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// Another server runs this workflow.
    #[error("workflow {id} is not owned by this server")]
    NotOwner {
        /// The workflow.
        id: WorkflowId,
    },
    /// The item is queued or runs already.
    #[error("item {item} of workflow {id} is queued or runs already")]
    Unfinished {
        /// The workflow.
        id: WorkflowId,
        /// The item.
        item: ItemIndex,
    },
    /// There is no such workflow.
    #[error("there is no workflow {id}")]
    NoWorkflow {
        /// What was asked for.
        id: WorkflowId,
    },
    /// There is no such item.
    #[error("workflow {id} has no item {item}")]
    NoItem {
        /// The workflow.
        id: WorkflowId,
        /// What was asked for.
        item: ItemIndex,
    },
    /// The attempt's end is journaled, so it must not run again.
    #[error("attempt {attempt} of item {item} of workflow {id} has ended already")]
    Ended {
        /// The workflow.
        id: WorkflowId,
        /// The item.
        item: ItemIndex,
        /// The attempt.
        attempt: Attempt,
    },
    /// An argument that only the store can judge has a wrong value.
    #[error("{message}")]
    Argument {
        /// The argument.
        field: &'static str,
        /// What was wrong with it.
        message: String,
        /// What it may be.
        allowed: String,
    },
    /// SQLite refused a statement for any other reason.
    #[error("failed to {operation}")]
    Query {
        /// What was being done.
        operation: &'static str,
        /// Why it failed.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// A row does not hold what this program writes.
    #[error(
        "failed to {operation}: the store holds something else than was written there: {detail}"
    )]
    Decode {
        /// What was being done.
        operation: &'static str,
        /// What was wrong with the row.
        detail: String,
    },
    /// A defect: the operation panicked; nothing of it was written.
    #[error("failed to {operation}: it panicked: {detail}")]
    Panicked {
        /// What was being done.
        operation: &'static str,
        /// The panic's message.
        detail: String,
    },
    /// The store was closed, or its thread could not be started.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    pub(super) fn directory(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::StorageFull {
            return Self::Full;
        }
        Self::Directory {
            path: path.into(),
            source: Arc::new(source),
        }
    }

    /// Returns the error of a row of the sort `what` that does not hold what this program writes.
    pub(super) fn decode(what: &'static str, detail: impl std::fmt::Display) -> Self {
        Self::Decode {
            operation: UNKNOWN_OPERATION,
            detail: format!("{what}: {detail}"),
        }
    }

    /// Names the operation that failed, where that is not known yet.
    pub(super) fn during(self, operation: &'static str) -> Self {
        match self {
            Self::Query { source, .. } => Self::Query { operation, source },
            Self::Decode { detail, .. } => Self::Decode { operation, detail },
            other => other,
        }
    }
}

/// Stands for the operation until [`StoreError::during`] names it.
const UNKNOWN_OPERATION: &str = "use the store";

/// How many branches an error names.
const LISTED: usize = 20;

fn listed(branches: &[String]) -> String {
    if branches.is_empty() {
        return String::new();
    }
    let mut text = format!("; {} branches are not applied: ", branches.len());
    text.push_str(&branches[..branches.len().min(LISTED)].join(", "));
    if branches.len() > LISTED {
        text.push_str(", ...");
    }
    text
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{
            FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType,
        };
        if let FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) =
            error
        {
            return Self::Decode {
                operation: UNKNOWN_OPERATION,
                detail: error.to_string(),
            };
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::SystemIoFailure) => Self::Disk {
                source: Arc::new(error),
            },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Self::Damaged {
                detail: error.to_string(),
            },
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                Self::ReadOnly {
                    source: Arc::new(error),
                }
            }
            _ => Self::Query {
                operation: UNKNOWN_OPERATION,
                source: Arc::new(error),
            },
        }
    }
}

impl Fault for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Directory { .. }
            | Self::Damaged { .. }
            | Self::Unreleased { .. }
            | Self::Misplaced { .. }
            | Self::Removed { .. }
            | Self::Newer { .. }
            | Self::Full
            | Self::Disk { .. }
            | Self::ReadOnly { .. }
            | Self::Closed => ErrorKind::Unavailable,
            Self::Locked => ErrorKind::Busy,
            Self::NotOwner { .. } | Self::Ended { .. } | Self::Unfinished { .. } => {
                ErrorKind::Conflict
            }
            Self::NoWorkflow { .. } | Self::NoItem { .. } => ErrorKind::NotFound,
            Self::Argument { .. } => ErrorKind::InvalidArgument,
            Self::Query { .. } | Self::Decode { .. } | Self::Panicked { .. } => ErrorKind::Internal,
        }
    }

    fn retryable(&self) -> bool {
        matches!(self, Self::Full | Self::Disk { .. } | Self::Locked)
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Directory { .. } | Self::ReadOnly { .. } => {
                "make the state directory writable for this user, or name another with --state-dir"
            }
            Self::Damaged { .. } => {
                "move mahavishnu.db with its -wal and -shm files away and restore them from a backup, or name another \
                 folder with --state-dir; nothing was overwritten"
            }
            Self::Unreleased { branches, .. } if !branches.is_empty() => {
                "apply or drop these branches with the mahavishnu that made the store (apply_changes, then \
                 clean_worktrees), then move mahavishnu.db with its -wal and -shm files away, or name another folder \
                 with --state-dir; the next start makes a new store"
            }
            Self::Unreleased { .. } => {
                "move mahavishnu.db with its -wal and -shm files away, or name another folder with --state-dir; the \
                 next start makes a new store"
            }
            Self::Misplaced { .. } => {
                "name the folder that holds the store's own file with --state-dir, or move away what is there; nothing \
                 was changed"
            }
            Self::Removed { .. } => {
                "nothing of this call is sure to be kept; end every server of this state directory, put the file back \
                 where that can be done, and start again"
            }
            Self::Newer { .. } => {
                "use the newer release of mahavishnu that wrote it, or name another folder with --state-dir"
            }
            Self::Full => "free some space; the call can then be repeated",
            Self::Disk { .. } => {
                "look at the disk's health, quota and file size limit; nothing of this call was written"
            }
            Self::Locked => "try again; if it stays, end the program that keeps mahavishnu.db open",
            Self::NotOwner { .. } => {
                "ask its owner through get_workflow, cancel_workflow or resume_workflow"
            }
            Self::Unfinished { .. } => {
                "get_workflow waits for the item's end; cancel_workflow stops it"
            }
            Self::NoWorkflow { .. } => "get_workflow without arguments lists the workflows",
            Self::NoItem { .. } => "items are counted from 0; get_workflow lists them",
            Self::Ended { .. } => "resume_workflow starts a new attempt",
            Self::Query { .. } | Self::Decode { .. } => "run check_health",
            Self::Panicked { .. } => "this is a defect of mahavishnu; please report it",
            Self::Closed => "the server is shutting down; start it again",
            Self::Argument { .. } => return None,
        };
        Some(hint.to_owned())
    }

    fn field(&self) -> Option<String> {
        match self {
            Self::Argument { field, .. } => Some((*field).to_owned()),
            _ => None,
        }
    }

    fn allowed(&self) -> Option<String> {
        match self {
            Self::Argument { allowed, .. } => Some(allowed.clone()),
            _ => None,
        }
    }
}
