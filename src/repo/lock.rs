//! Per-repository locks that every server process on the machine respects.
//!
//! An OS file lock, keyed by the repository's shared git directory: a crash frees it, and no clock or pid is trusted.
//! Lock files are never deleted, because one could be deleted between another process's open and its lock.

use super::RepoError;
use super::hex::hex;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// The first pause before a lock that another process holds is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// At how many locks in memory the unused ones are removed.
const PRUNE_AT: usize = 1024;

/// What a lock protects. Held for long only where the work on it is long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The user's working copy: held by an `in_place` item while it runs, and while changes are applied.
    WorkingCopy,
    /// git's own data: held for moments, while worktrees and branches are made or removed.
    GitData,
}

/// A held lock; dropping it frees it.
#[derive(Debug)]
#[must_use = "the lock is freed when this is dropped"]
pub struct RepoLock {
    // Freed in this order: the file first, so that the next waiter of this process finds it free.
    _file: HeldFile,
    _turn: OwnedMutexGuard<()>,
}

/// All locks of one state directory.
#[derive(Debug)]
pub(super) struct Locks {
    dir: PathBuf,
    // Held for one look-up; never across an await.
    turns: Mutex<HashMap<PathBuf, Weak<AsyncMutex<()>>>>,
}

impl Locks {
    /// Returns the locks kept in `dir`, which is made when the first is taken.
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            turns: Mutex::default(),
        }
    }

    /// Returns the lock if it is free.
    pub(super) fn try_lock(
        &self,
        common_dir: &Path,
        lane: Lane,
    ) -> Result<Option<RepoLock>, RepoError> {
        let path = self.path(common_dir, lane);
        let Ok(turn) = self.turn(&path).try_lock_owned() else {
            return Ok(None);
        };
        Ok(self.claim(&path)?.map(|file| RepoLock {
            _file: file,
            _turn: turn,
        }))
    }

    /// Waits for the lock: first for this process's turn, in order, then for other processes.
    pub(super) async fn lock(&self, common_dir: &Path, lane: Lane) -> Result<RepoLock, RepoError> {
        let path = self.path(common_dir, lane);
        let turn = self.turn(&path).lock_owned().await;
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(file) = self.claim(&path)? {
                return Ok(RepoLock {
                    _file: file,
                    _turn: turn,
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn path(&self, common_dir: &Path, lane: Lane) -> PathBuf {
        let kind = match lane {
            Lane::WorkingCopy => "repo",
            Lane::GitData => "git",
        };
        self.dir
            .join(format!("{kind}-{}.lock", short_key(common_dir)))
    }

    fn turn(&self, path: &Path) -> Arc<AsyncMutex<()>> {
        let mut turns = self.turns.lock();
        if let Some(turn) = turns.get(path).and_then(Weak::upgrade) {
            return turn;
        }
        if turns.len() >= PRUNE_AT {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::default();
        turns.insert(path.to_owned(), Arc::downgrade(&turn));
        turn
    }

    fn claim(&self, path: &Path) -> Result<Option<HeldFile>, RepoError> {
        match HeldFile::claim(path) {
            Err(_) if !self.dir.is_dir() => {
                make_private_dir(&self.dir)?;
                HeldFile::claim(path)
            }
            claimed => claimed,
        }
    }
}

/// A file whose lock this process holds.
///
/// The lock is given back by name, not only by closing: a program that another thread is just starting holds a copy of
/// every file until its exec, and the lock would live as long as that.
#[derive(Debug)]
pub(super) struct HeldFile(File);

impl HeldFile {
    /// Takes the lock of the file `path`, which is made; none where it is held already.
    pub(super) fn claim(path: &Path) -> Result<Option<Self>, RepoError> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(RepoError::io("open the lock", path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(RepoError::io("lock", path)(error)),
        }
    }

    /// Empties the file.
    pub(super) fn clear(&self) -> std::io::Result<()> {
        self.0.set_len(0)
    }
}

impl Drop for HeldFile {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::debug!(%error, "a lock is given back by closing its file");
        }
    }
}

/// Makes `dir` and what is missing above it, for this user alone.
pub(super) fn make_private_dir(dir: &Path) -> Result<(), RepoError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(RepoError::io("make the directory", dir))
}

/// Returns 16 hex digits that stand for the repository in file names.
pub(super) fn short_key(common_dir: &Path) -> String {
    let canonical = fs::canonicalize(common_dir).unwrap_or_else(|_| common_dir.to_owned());
    let digest = Sha256::digest(canonical.as_os_str().as_bytes());
    hex(&digest[..8])
}
