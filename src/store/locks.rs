//! Lock files: decided by the kernel and freed by every way a process can end.
//!
//! `flock` locks belong to the open file description, so that a process and its guardian can hold the same one, and
//! closing another descriptor of the file does not free them (as it would POSIX record locks).
//!
//! The lock file of a server with unfinished items is removed only once the server is dead and its items were marked as
//! interrupted. So a missing file means that somebody removed it, and not that the server is dead: its items are left
//! alone until its lock file exists again, unlocked.

use super::StoreError;
use crate::model::ServerId;
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Which server runs a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OwnerState {
    /// This server.
    This,
    /// Another server that lives, or whose guardian does.
    Other,
    /// A server that has ended, its processes too.
    Dead,
}

/// Makes `dir` and its parents, for this user alone; an existing folder is left as it is.
pub(super) fn make_private_dir(dir: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| StoreError::directory(dir, source))
}

/// Opens `path` for locking, making it for this user alone where it is missing.
pub(super) fn open_lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// What the lock of another server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    Held,
    Free,
    Missing,
}

/// This server's ownership lock and its view of all others.
pub(super) struct Owners {
    pub(super) dir: PathBuf,
    me: ServerId,
    // Taken for a clone or a take only.
    mine: Mutex<Option<OwnedFd>>,
}

impl Owners {
    /// Makes this server's lock below `locks`, which exists.
    pub(super) fn new(locks: PathBuf) -> Result<Self, StoreError> {
        let me = ServerId::new();
        let unnamed = locks.join(format!("new-{me}"));
        let owners = Self {
            dir: locks,
            me,
            mine: Mutex::default(),
        };
        let path = owners.my_file();
        let make = || {
            let file = open_lock_file(&unnamed)?;
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            // Locked before it gets its name: a named file without a lock is always a dead server's.
            std::fs::rename(&unnamed, &path)?;
            Ok(OwnedFd::from(file))
        };
        let mine = make().map_err(|source| StoreError::directory(&path, source))?;
        *owners.mine.lock() = Some(mine);
        Ok(owners)
    }

    pub(super) fn me(&self) -> ServerId {
        self.me
    }

    /// Returns this server's lock file.
    pub(super) fn my_file(&self) -> PathBuf {
        self.file(self.me)
    }

    /// Returns the lock file of `owner`.
    pub(super) fn file(&self, owner: ServerId) -> PathBuf {
        self.dir.join(format!("server-{owner}.lock"))
    }

    /// Returns another descriptor of the same locked open file description.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        match &*self.mine.lock() {
            Some(lock) => lock.try_clone(),
            None => Err(io::Error::other("the store is closed")),
        }
    }

    /// Gives up this process's part of the lock. Where all is `finished` and no other process (a guardian) holds the
    /// lock, its file goes too; else the next server removes it.
    pub(super) fn release(&self, finished: bool) {
        let mine = self.mine.lock().take();
        if mine.is_some() {
            drop(mine);
            if finished && self.look(self.me) == Lock::Free {
                self.remove(self.me);
            }
        }
    }

    /// Returns what `owner` is, by its lock. A missing lock file means a dead server only where the owner has left
    /// nothing `unfinished`.
    pub(super) fn state(&self, owner: ServerId, unfinished: bool) -> OwnerState {
        if owner == self.me {
            return OwnerState::This;
        }
        match self.look(owner) {
            Lock::Free => OwnerState::Dead,
            Lock::Missing if !unfinished => OwnerState::Dead,
            Lock::Missing | Lock::Held => OwnerState::Other,
        }
    }

    /// Tries the lock. Shared, so that two servers that ask at once do not take each other for the owner. A lock that
    /// cannot be asked counts as held, because taking a live server's items away is the worse mistake.
    fn look(&self, owner: ServerId) -> Lock {
        match File::open(self.file(owner)) {
            Ok(file) => match flock(&file, FlockOperation::NonBlockingLockShared) {
                Ok(()) => Lock::Free,
                Err(_) => Lock::Held,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Lock::Missing,
            Err(_) => Lock::Held,
        }
    }

    /// Returns whether the lock file of `owner` was removed.
    pub(super) fn is_missing(&self, owner: ServerId) -> bool {
        self.look(owner) == Lock::Missing
    }

    /// Returns the dead servers whose lock files are still there.
    pub(super) fn dead(&self) -> Vec<ServerId> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name();
                let id = name.to_str()?.strip_prefix("server-")?;
                id.strip_suffix(".lock")?.parse().ok()
            })
            .filter(|&owner| owner != self.me && self.look(owner) == Lock::Free)
            .collect()
    }

    /// Removes a dead server's lock file.
    pub(super) fn remove(&self, owner: ServerId) {
        if let Err(error) = std::fs::remove_file(self.file(owner))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%owner, %error, "cannot remove a dead server's lock file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(dir: &tempfile::TempDir) -> Owners {
        Owners::new(dir.path().into()).expect("locks")
    }

    #[test]
    fn a_lock_is_held_until_its_last_holder_ends() {
        let dir = tempfile::tempdir().expect("a folder");
        let (one, two) = (owners(&dir), owners(&dir));
        assert_eq!(two.state(two.me(), true), OwnerState::This);
        assert_eq!(two.state(one.me(), true), OwnerState::Other);

        let guardian = one.share().expect("a second descriptor");
        let id = one.me();
        one.release(true);
        drop(one);
        assert_eq!(
            two.state(id, true),
            OwnerState::Other,
            "the guardian holds it"
        );
        assert!(two.dead().is_empty());

        drop(guardian);
        assert_eq!(two.dead(), [id]);
        assert_eq!(two.state(id, true), OwnerState::Dead);
        two.remove(id);
        assert!(two.dead().is_empty());
    }

    #[test]
    fn a_missing_lock_file_proves_no_death() {
        let dir = tempfile::tempdir().expect("a folder");
        let (one, two) = (owners(&dir), owners(&dir));
        std::fs::remove_file(one.my_file()).expect("removed");
        assert_eq!(two.state(one.me(), true), OwnerState::Other);
        assert_eq!(two.state(one.me(), false), OwnerState::Dead);
    }

    #[test]
    fn a_released_lock_leaves_its_file_only_with_unfinished_items() {
        let dir = tempfile::tempdir().expect("a folder");
        let (one, two) = (owners(&dir), owners(&dir));
        one.release(true);
        assert!(!one.my_file().exists());
        assert!(one.share().is_err());
        two.release(false);
        assert!(two.my_file().exists());
    }
}
