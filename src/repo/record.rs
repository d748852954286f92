//! What is known of a worktree, kept beside it, so that a crash of the server or the loss of its store orphans nothing.
//!
//! `worktrees/KEY/` holds `record.json`, `in-use` (locked by the process that works in it) and the worktree itself
//! under the repository's own name, because programs take names from folders.

use super::RepoError;
use super::layout::{bytes_path, is_absent};
use super::lock::{HeldFile, make_private_dir};
use crate::model::{At, Attempt, ItemIndex, WorkflowId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The record's file name.
const RECORD: &str = "record.json";
/// The name of the file whose lock says that somebody works in the worktree.
const IN_USE: &str = "in-use";

/// What is known of a worktree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorktreeRecord {
    /// The user's repository.
    pub repo: String,
    /// Its shared git directory.
    pub common_dir: PathBuf,
    /// The workflow it was made for.
    pub workflow: WorkflowId,
    /// The item.
    pub item: ItemIndex,
    /// The attempt it was made for; later ones may go on in it.
    pub attempt: Attempt,
    /// How many worktrees of the same attempt were there before it: a crash may leave one that nobody works in.
    #[serde(default)]
    pub twin: u32,
    /// The worktree.
    pub path: PathBuf,
    /// The worktree's own git directory; none until git has made it.
    pub git_dir: Option<PathBuf>,
    /// Its branch; none where it is only for looking.
    pub branch: Option<String>,
    /// The commit it was made from.
    pub start_commit: String,
    /// The branch that commit was the head of.
    pub base_branch: Option<String>,
    /// The commit against which work counts: the start with what `copy_files` and every attempt's `setup` did.
    pub base_commit: String,
    /// How many dirty files of the working copy are not in it.
    pub left_out_dirty: u32,
    /// The commit that holds the work; none before the work was committed.
    pub commit: Option<String>,
    /// Whether it was made completely; before that nobody has worked in it.
    pub ready: bool,
    /// When it was made.
    pub created_at: At,
}

impl WorktreeRecord {
    /// Returns the folder that holds record and worktree.
    pub(super) fn home(&self) -> Option<&Path> {
        self.path.parent()
    }

    /// Writes the record in one step.
    pub(super) fn save(&self) -> Result<(), RepoError> {
        let home = self.home().unwrap_or(&self.path);
        save_json(&home.join(RECORD), self, Durable::No)
    }

    /// Reads the record of the worktree in `home`.
    pub(super) fn load(home: &Path) -> Result<Self, RepoError> {
        load_json(&home.join(RECORD))
    }

    /// Returns the ref under which the work is kept when branch and worktree go.
    pub(super) fn kept_ref(&self) -> String {
        format!(
            "refs/mahavishnu/kept/{}/{}",
            self.workflow,
            attempt_name(self.item, self.attempt, self.twin)
        )
    }
}

/// Returns what an attempt's branch and refs end in: `ITEM-ATTEMPT`, and a number where there is more than one.
pub(super) fn attempt_name(item: ItemIndex, attempt: Attempt, twin: u32) -> String {
    match twin {
        0 => format!("{item}-{attempt}"),
        _ => format!("{item}-{attempt}-{twin}"),
    }
}

/// Returns the folders of all worktrees under `dir`, sorted.
pub(super) fn homes(dir: &Path) -> Result<Vec<PathBuf>, RepoError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RepoError::io("list", dir)(error)),
    };
    let mut homes = Vec::new();
    for entry in entries {
        let entry = entry.map_err(RepoError::io("list", dir))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            homes.push(entry.path());
        }
    }
    homes.sort_unstable();
    Ok(homes)
}

/// A worktree that this process works in.
///
/// The lock is this process's alone, but programs that it started may live a moment longer: so the file names a lock
/// that their guardian holds as well ([`super::Setup::alive`]), until the work is over.
#[derive(Debug)]
pub(super) struct InUse(HeldFile);

impl InUse {
    /// Takes the lock that says "somebody works in this worktree"; none where somebody does, or may still.
    pub(super) fn claim(home: &Path, alive: Option<&Path>) -> Result<Option<Self>, RepoError> {
        let Some(held) = claim(home, alive)? else {
            return Ok(None);
        };
        if let Some(alive) = alive {
            let name = alive.as_os_str().as_bytes();
            let path = home.join(IN_USE);
            fs::write(&path, name).map_err(RepoError::io("write", &path))?;
        }
        Ok(Some(Self(held)))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let Err(error) = self.0.clear() {
            tracing::warn!(%error, "a worktree counts as in use until this server ends");
        }
    }
}

/// Takes the same lock only to look or to remove; none where somebody works there, or may still.
pub(super) fn claim(home: &Path, alive: Option<&Path>) -> Result<Option<HeldFile>, RepoError> {
    let path = home.join(IN_USE);
    let Some(held) = HeldFile::claim(&path)? else {
        return Ok(None);
    };
    let name = fs::read(&path).map_err(RepoError::io("read", &path))?;
    let worker = bytes_path(&name);
    let is_elsewhere = !name.is_empty() && Some(worker) != alive;
    Ok((!is_elsewhere || !is_locked(worker)).then_some(held))
}

/// Returns the size of the file that says who works in the worktree.
pub(super) fn mark_bytes(home: &Path) -> u64 {
    fs::metadata(home.join(IN_USE)).map_or(0, |meta| meta.len())
}

/// Whether somebody holds the lock file; what cannot be asked counts as held, because work may go on there.
fn is_locked(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => file.try_lock_shared().is_err(),
        Err(error) => !is_absent(&error),
    }
}

/// Whether a record must survive a loss of power, not only the end of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durable {
    /// It must.
    Yes,
    /// The end of the process is enough.
    No,
}

/// Replaces the JSON file `path` in one step.
pub(super) fn save_json(
    path: &Path,
    value: &impl Serialize,
    durable: Durable,
) -> Result<(), RepoError> {
    let dir = path.parent().unwrap_or(path);
    make_private_dir(dir)?;
    let text = serde_json::to_vec(value).map_err(|error| RepoError::Io {
        action: "write the record",
        path: path.to_owned(),
        source: error.into(),
    })?;
    let temp = path.with_extension("tmp");
    let write = || {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temp)?;
        file.write_all(&text)?;
        if durable == Durable::Yes {
            file.sync_all()?;
        }
        fs::rename(&temp, path)?;
        if durable == Durable::Yes {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(RepoError::io("write the record", path))
}

/// Reads what [`save_json`] wrote.
pub(super) fn load_json<T: DeserializeOwned>(path: &Path) -> Result<T, RepoError> {
    let text = fs::read(path).map_err(RepoError::io("read the record", path))?;
    serde_json::from_slice(&text).map_err(|error| RepoError::Io {
        action: "read the record",
        path: path.to_owned(),
        source: error.into(),
    })
}
