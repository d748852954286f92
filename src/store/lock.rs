//! Lock files: who owns what, decided by the kernel and freed by every way a process can end.
//!
//! `flock` locks belong to the open file description, so that a process and its guardian can hold the same one, and
//! no other descriptor of the file that the same process closes frees them (as POSIX record locks would be).

use super::StoreError;
use crate::model::ServerId;
use rustix::fs::{FlockOperation, flock};
use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Who runs a workflow.
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

/// This server's ownership lock and its view of all others.
pub(super) struct Owners {
    dir: PathBuf,
    me: ServerId,
    // A std mutex: taken for a clone or a take only.
    mine: Mutex<Option<OwnedFd>>,
    // Ids are never used twice, so the dead stay dead. A std mutex: one lookup or insert.
    dead: Mutex<HashSet<ServerId>>,
}

impl Owners {
    /// Makes this server's lock below `locks`, which exists.
    pub(super) fn new(locks: PathBuf) -> Result<Self, StoreError> {
        let me = ServerId::new();
        let path = file_of(&locks, me);
        let unborn = locks.join(format!("new-{me}"));
        let make = || {
            let file = open_lock_file(&unborn)?;
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            // Locked before it gets its name: a named file without a lock is always a dead server's.
            std::fs::rename(&unborn, &path)?;
            Ok(OwnedFd::from(file))
        };
        let mine = make().map_err(|source| StoreError::directory(&path, source))?;
        Ok(Self {
            dir: locks,
            me,
            mine: Mutex::new(Some(mine)),
            dead: Mutex::new(HashSet::new()),
        })
    }

    pub(super) fn me(&self) -> ServerId {
        self.me
    }

    /// Returns this server's lock file.
    pub(super) fn my_file(&self) -> PathBuf {
        file_of(&self.dir, self.me)
    }

    /// Returns another descriptor of the same locked open file description.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        match &*self.mine.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(lock) => lock.try_clone(),
            None => Err(io::Error::other("the store is closed")),
        }
    }

    /// Gives up this process's part of the lock; the file goes too where nobody else (a guardian) holds it.
    pub(super) fn release(&self) {
        let mine = self
            .mine
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if mine.is_some() {
            drop(mine);
            if self.is_free(self.me) {
                self.remove(self.me);
            }
        }
    }

    /// Returns who `owner` is, by its lock.
    pub(super) fn state(&self, owner: ServerId) -> OwnerState {
        if owner == self.me {
            OwnerState::This
        } else if self.is_dead(owner) {
            OwnerState::Dead
        } else {
            OwnerState::Other
        }
    }

    fn is_dead(&self, owner: ServerId) -> bool {
        let known = |dead: &Mutex<HashSet<ServerId>>| {
            dead.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(&owner)
        };
        if known(&self.dead) {
            return true;
        }
        let dead = self.is_free(owner);
        if dead {
            self.dead
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(owner);
        }
        dead
    }

    /// Tries the lock. Shared, so that two servers that ask at once do not take each other for the owner; whatever
    /// cannot be asked counts as alive, because taking a live server's items away is the worse mistake.
    fn is_free(&self, owner: ServerId) -> bool {
        match File::open(file_of(&self.dir, owner)) {
            Ok(file) => flock(&file, FlockOperation::NonBlockingLockShared).is_ok(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Returns the servers that left a lock file behind and are dead.
    pub(super) fn leftovers(&self) -> Vec<ServerId> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name();
                let id = name.to_str()?.strip_prefix("server-")?;
                id.strip_suffix(".lock")?.parse().ok()
            })
            .filter(|&owner| owner != self.me && self.is_dead(owner))
            .collect()
    }

    /// Removes a dead server's lock file; a missing file means the same as a free one.
    pub(super) fn remove(&self, owner: ServerId) {
        if let Err(error) = std::fs::remove_file(file_of(&self.dir, owner))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%owner, %error, "cannot remove a dead server's lock file");
        }
    }
}

fn file_of(locks: &Path, owner: ServerId) -> PathBuf {
    locks.join(format!("server-{owner}.lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_lives_as_long_as_its_last_holder() {
        let dir = tempfile::tempdir().expect("a folder");
        let one = Owners::new(dir.path().into()).expect("locks");
        let two = Owners::new(dir.path().into()).expect("locks");
        assert_eq!(two.state(two.me()), OwnerState::This);
        assert_eq!(two.state(one.me()), OwnerState::Other);

        let guardian = one.share().expect("a second descriptor");
        let id = one.me();
        one.release();
        drop(one);
        assert_eq!(two.state(id), OwnerState::Other, "the guardian holds it");
        assert!(two.leftovers().is_empty());

        drop(guardian);
        assert_eq!(two.leftovers(), [id]);
        assert_eq!(two.state(id), OwnerState::Dead);
        two.remove(id);
        assert!(two.leftovers().is_empty());
        assert_eq!(
            two.state(id),
            OwnerState::Dead,
            "a missing file is a free lock"
        );
    }

    #[test]
    fn a_released_lock_leaves_no_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let one = Owners::new(dir.path().into()).expect("locks");
        one.release();
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0);
        assert!(one.share().is_err());
    }
}
