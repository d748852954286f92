//! The record of an apply: written before anything is touched, so that a crash is rolled back or finished, and kept
//! afterwards, so that the apply can be undone.
//!
//! `applies/ID/` holds `record.json`, `before/` (what was there) and, until it is done, `after/`.

use super::files::{Edit, Stage};
use super::plumbing::{Delta, Name};
use super::record::{Durable, homes, load_json, save_json};
use super::{How, RepoError};
use crate::model::{At, ItemIndex, WorkflowId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ulid::Ulid;

/// What an undo token begins with.
const TOKEN: &str = "undo-";
/// How long an apply can be undone after its worktree is gone.
pub(super) const UNDO_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The record's file name.
const RECORD: &str = "record.json";

/// How far an apply has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// Files may be half changed: rolled back, unless the ref has moved; then finished.
    Applying,
    /// Done; can be undone.
    Applied,
    /// Being undone: finished.
    Undoing,
    /// A crash was cleaned up, but these files had been changed by somebody else; the copies stay.
    Stuck,
}

impl Phase {
    /// Returns whether only a crash leaves it so.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::Applying | Self::Undoing)
    }
}

/// A ref that an apply moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RefMove {
    /// The ref: a branch, or `HEAD` where it is detached.
    pub(super) name: String,
    /// Where it was; none: it did not exist.
    pub(super) old: Option<String>,
    /// Where it goes.
    pub(super) new: String,
}

/// The record of one apply to one repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ApplyRecord {
    pub(super) id: String,
    pub(super) repo: String,
    /// The workflow that the items are of.
    pub(super) workflow: WorkflowId,
    pub(super) how: How,
    pub(super) phase: Phase,
    pub(super) items: Vec<ItemIndex>,
    /// The items' commits; while the record says "applied", these need nobody's care.
    pub(super) commits: Vec<String>,
    pub(super) edits: Vec<Edit>,
    /// What changes in the index, as pairs because names are no JSON keys.
    pub(super) deltas: Vec<(Name, Delta)>,
    /// Those of them that a sparse checkout leaves out of the working copy.
    #[serde(default)]
    pub(super) skipped: Vec<Name>,
    pub(super) moved: Option<RefMove>,
    pub(super) at: At,
}

impl ApplyRecord {
    /// Returns the token that undoes it.
    pub(super) fn token(&self) -> String {
        token_of(&self.id)
    }

    /// Returns whether the index changes with it.
    pub(super) fn moves_index(&self) -> bool {
        self.how == How::Merge
    }

    /// Returns what changes in the index.
    pub(super) fn deltas(&self) -> BTreeMap<Name, Delta> {
        self.deltas.iter().cloned().collect()
    }
}

/// What is told of an apply without its files.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct ApplyHead {
    pub(super) id: String,
    pub(super) repo: String,
    pub(super) workflow: WorkflowId,
    pub(super) how: How,
    pub(super) phase: Phase,
    pub(super) items: Vec<ItemIndex>,
    pub(super) commits: Vec<String>,
    pub(super) at: At,
}

impl ApplyHead {
    /// Returns the token that undoes it.
    pub(super) fn token(&self) -> String {
        token_of(&self.id)
    }
}

/// Returns whether the record behind an undo token may have been forgotten for its age.
pub fn is_expired(token: &str) -> bool {
    let id = token
        .strip_prefix(TOKEN)
        .and_then(|id| Ulid::from_string(id).ok());
    id.is_none_or(|id| {
        let age = At::now()
            .unix_ms()
            .saturating_sub(i64::try_from(id.timestamp_ms()).unwrap_or(0));
        u128::from(age.unsigned_abs()) >= UNDO_KEPT.as_millis()
    })
}

fn token_of(id: &str) -> String {
    format!("{TOKEN}{id}")
}

/// All records of one state directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Journal<'a> {
    dir: &'a Path,
}

impl<'a> Journal<'a> {
    /// Returns the records kept in `dir`.
    pub(super) fn new(dir: &'a Path) -> Self {
        Self { dir }
    }

    /// Returns the folder of the record `id`.
    pub(super) fn home(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    /// Returns where the contents of the apply `id` lie.
    pub(super) fn stage(&self, id: &str) -> Stage {
        Stage::new(self.home(id), id.to_lowercase())
    }

    /// Writes the record; after this a crash is recovered from.
    pub(super) fn save(&self, record: &ApplyRecord) -> Result<(), RepoError> {
        save_json(&self.home(&record.id).join(RECORD), record, Durable::Yes)
    }

    /// Returns the record behind an undo token, or its head.
    pub(super) fn by_token<T: DeserializeOwned>(&self, token: &str) -> Result<T, RepoError> {
        const SHOWN_CHARS: usize = 80;
        let unknown = |why| RepoError::UndoUnknown {
            token: token.chars().take(SHOWN_CHARS).collect(),
            why,
        };
        let id = token
            .strip_prefix(TOKEN)
            .and_then(|id| Ulid::from_string(id).ok())
            .ok_or_else(|| unknown("it is no undo token"))?;
        let file = self.home(&id.to_string()).join(RECORD);
        if !file.exists() {
            return Err(unknown("it was undone already, or its record has expired"));
        }
        load_json(&file)
    }

    /// Returns what every record that can be read tells of its apply, the oldest first.
    pub(super) fn all(&self) -> Result<Vec<ApplyHead>, RepoError> {
        let mut records = Vec::new();
        for home in homes(self.dir)? {
            match load_json(&home.join(RECORD)) {
                Ok(record) => records.push(record),
                // A crash before the record was written: nothing was touched.
                Err(error) => tracing::debug!(?home, %error, "an apply without a record"),
            }
        }
        Ok(records)
    }

    /// Forgets an apply and its copies.
    pub(super) fn forget(&self, id: &str) -> Result<(), RepoError> {
        let home = self.home(id);
        // The record goes first: copies without a record mean nothing, a record without copies would promise too much.
        match std::fs::remove_file(home.join(RECORD)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(RepoError::io("remove", &home)(error));
            }
            _ => {}
        }
        self.stage(id)
            .clear()
            .map_err(RepoError::io("remove", &home))
    }
}
