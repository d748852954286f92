//! The record of an apply: written before anything is touched, so that a crash is rolled back or finished, and kept
//! afterwards, so that the apply can be undone.
//!
//! `applies/ID/` holds `record.json` and `before/` (the old files).

use super::RepoError;
use super::change::How;
use super::edits::Edit;
use super::json_file::{self, Durable, folders};
use super::layout::{remove_file, remove_folder};
use super::plumbing::Name;
use super::repos::Context;
use super::trees::{Delta, Deltas};
use crate::model::{At, ItemIndex, WorkflowId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ulid::Ulid;

/// What an undo token begins with.
const TOKEN: &str = "undo-";
/// How long an apply can be undone after its worktree is gone.
pub(super) const UNDO_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The record's file name.
const RECORD: &str = "record.json";
/// What the name of a folder begins with whose record is being written.
const NEW: &str = ".new-";
/// How long a first record may take to write.
const BEGUN_WITHIN: Duration = Duration::from_secs(60 * 60);
/// The name of a record that was written ahead, so that the step to it needs no space on disk.
const NEXT: &str = "record.next";

/// How far an apply has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// Nothing of the user's is touched yet.
    Preparing,
    /// Files may be half changed: rolled back, unless the ref has moved; then finished.
    Applying,
    /// Done; can be undone.
    Applied,
    /// Being undone; a crash is continued.
    Undoing,
    /// A crash could not be rolled back wholly, because these files had changed meanwhile; the copies stay.
    Stuck,
}

/// A ref that an apply moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RefMove {
    /// The ref: a branch, or `HEAD` where it is detached.
    pub(super) name: String,
    /// Where it was; none: it did not exist.
    pub(super) old: Option<String>,
    /// Where it is moved to.
    pub(super) new: String,
}

/// An apply to one repository, as far as callers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndoRecord {
    pub(super) id: String,
    pub(super) phase: Phase,
    /// The repository.
    pub repo: String,
    /// The workflow that the work belongs to.
    pub workflow: WorkflowId,
    /// How it was applied.
    pub how: How,
    /// When.
    pub at: At,
    /// The items.
    pub items: Vec<ItemIndex>,
    /// The commits that hold their work.
    pub commits: Vec<String>,
}

impl UndoRecord {
    /// Returns the token that undoes it, with all that was applied in the same step.
    pub fn token(&self) -> String {
        format!("{TOKEN}{}", self.id)
    }

    /// Returns whether it is complete.
    pub(super) fn is_applied(&self) -> bool {
        self.phase == Phase::Applied
    }

    /// Returns whether it is being worked on, or was when a crash came.
    pub(super) fn is_open(&self) -> bool {
        matches!(
            self.phase,
            Phase::Preparing | Phase::Applying | Phase::Undoing
        )
    }
}

/// The whole record of one apply.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ApplyRecord {
    #[serde(flatten)]
    pub(super) head: UndoRecord,
    pub(super) edits: Vec<Edit>,
    /// What changes in the index, as pairs because names are no JSON keys.
    pub(super) deltas: Vec<(Name, Delta)>,
    /// Those of them that a sparse checkout leaves out of the working copy.
    #[serde(default)]
    pub(super) skipped: Vec<Name>,
    pub(super) moved: Option<RefMove>,
}

impl ApplyRecord {
    /// Returns whether the index changes with it.
    pub(super) fn moves_index(&self) -> bool {
        self.head.how == How::Merge
    }

    /// Returns what changes in the index.
    pub(super) fn deltas(&self) -> Deltas {
        self.deltas.iter().cloned().collect()
    }
}

/// Returns whether the record behind an undo token may have been removed for its age.
pub fn is_expired(token: &str) -> bool {
    id_of(token).is_none_or(|id| age_of(id) >= UNDO_KEPT)
}

/// Returns how long ago an id was made.
fn age_of(id: Ulid) -> Duration {
    let made = i64::try_from(id.timestamp_ms()).unwrap_or(0);
    let age = At::now().unix_ms().saturating_sub(made);
    Duration::from_millis(age.unsigned_abs())
}

fn id_of(token: &str) -> Option<Ulid> {
    Ulid::from_string(token.strip_prefix(TOKEN)?).ok()
}

/// All records of one state directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Journal<'a> {
    dir: &'a Path,
}

impl Context {
    /// Returns the records of all applies.
    pub(super) fn journal(&self) -> Journal<'_> {
        Journal { dir: &self.applies }
    }
}

impl Journal<'_> {
    /// Returns the folder of the record `id`.
    pub(super) fn folder(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    /// Writes the first record of an apply. Its folder appears with the record in it, so that a folder without a record is
    /// always a leftover.
    pub(super) fn begin(&self, record: &ApplyRecord) -> Result<(), RepoError> {
        let id = &record.head.id;
        let new = self.dir.join(format!("{NEW}{id}"));
        json_file::write(&new.join(RECORD), record, Durable::Yes)?;
        json_file::replace(&new, &self.folder(id), Durable::Yes)
    }

    /// Removes the folders that a kill has left without a record.
    pub(super) fn remove_recordless(&self) -> Result<(), RepoError> {
        for folder in folders(self.dir)? {
            let name = folder.file_name().and_then(|name| name.to_str());
            let (id, is_begun) = match name.and_then(|name| name.strip_prefix(NEW)) {
                Some(id) => (Some(id), false),
                None => (name, true),
            };
            let id = id.and_then(|id| Ulid::from_string(id).ok());
            let is_leftover = match id {
                Some(_) if is_begun => !folder.join(RECORD).exists(),
                Some(id) => age_of(id) >= BEGUN_WITHIN,
                None => false,
            };
            if is_leftover {
                remove_folder(&folder).map_err(RepoError::io("remove", &folder))?;
            }
        }
        Ok(())
    }

    /// Writes the record; after this a crash is recovered from.
    pub(super) fn save(&self, record: &ApplyRecord) -> Result<(), RepoError> {
        let file = self.folder(&record.head.id).join(RECORD);
        json_file::save(&file, record, Durable::Yes)
    }

    /// Writes the record as it will be after the next step, which [`Self::step`] then needs no space for.
    pub(super) fn write_ahead(&self, record: &ApplyRecord) -> Result<(), RepoError> {
        let file = self.folder(&record.head.id).join(NEXT);
        json_file::write(&file, record, Durable::Yes)
    }

    /// Makes the record that was written ahead the record.
    pub(super) fn step(&self, id: &str) -> Result<(), RepoError> {
        let folder = self.folder(id);
        json_file::replace(&folder.join(NEXT), &folder.join(RECORD), Durable::Yes)
    }

    /// Returns the record behind an undo token, or its head.
    pub(super) fn by_token<T: DeserializeOwned>(&self, token: &str) -> Result<T, RepoError> {
        const SHOWN_CHARS: usize = 80;
        let unknown = |why| RepoError::UndoUnknown {
            token: token.chars().take(SHOWN_CHARS).collect(),
            why,
        };
        let id = id_of(token).ok_or_else(|| unknown("it is not an undo token"))?;
        let file = self.folder(&id.to_string()).join(RECORD);
        if !file.exists() {
            return Err(unknown("it was undone already, or its record has expired"));
        }
        json_file::load(&file)
    }

    /// Returns the heads of all records that can be read, the oldest first.
    pub(super) fn all(&self) -> Result<Vec<UndoRecord>, RepoError> {
        let mut records = Vec::new();
        for folder in folders(self.dir)? {
            match json_file::load(&folder.join(RECORD)) {
                Ok(record) => records.push(record),
                // A crash before the record was written: nothing was touched.
                Err(error) => tracing::debug!(?folder, %error, "an apply without a record"),
            }
        }
        Ok(records)
    }

    /// Removes the record of an apply and its copies.
    pub(super) fn forget(&self, id: &str) -> Result<(), RepoError> {
        let folder = self.folder(id);
        // The record is removed first: copies without a record are a leftover, a record without copies could not be undone.
        remove_file(&folder.join(RECORD)).map_err(RepoError::io("remove", &folder))?;
        remove_folder(&folder).map_err(RepoError::io("remove", &folder))
    }
}
