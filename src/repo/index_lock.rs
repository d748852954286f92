//! git's own lock on an index, taken so that after a crash it can be told from another program's lock.
//!
//! git locks an index by creating `index.lock` and replaces it by renaming that file. A file named after the
//! apply is linked to `index.lock`: the same inode means that the lock is this apply's, so recovery may remove it. Where
//! the file system has no hard links, that file holds the lock's inode number instead.

use super::journal::ApplyRecord;
use super::layout::{is_absent, remove_file};
use super::plumbing::{Name, Plumbing};
use super::temp_index::TempIndex;
use super::trees::Side;
use super::{Layout, RepoError};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long another program's lock on the index is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// The held lock of an index; dropping it frees the index unchanged.
#[derive(Debug)]
pub(super) struct IndexLock {
    ours: PathBuf,
    lock: PathBuf,
    index: PathBuf,
}

impl IndexLock {
    fn of(layout: &Layout, id: &str) -> Self {
        Self {
            ours: layout.git_dir.join(format!("mahavishnu-{id}.index")),
            lock: layout.git_dir.join("index.lock"),
            index: layout.git_dir.join("index"),
        }
    }

    /// Takes the lock for the apply `id`.
    ///
    /// # Errors
    ///
    /// [`RepoError::Io`] where another program holds it for too long.
    pub(super) async fn take(layout: &Layout, id: &str) -> Result<Self, RepoError> {
        release_after_crash(layout, id)?;
        let lock = Self::of(layout, id);
        let failed = || RepoError::io("lock the index", &lock.lock);
        OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(&lock.ours)
            .map_err(failed())?;
        let began = Instant::now();
        loop {
            match lock.link() {
                Ok(()) => return Ok(lock),
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists
                        && began.elapsed() < PATIENCE =>
                {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    let wrapped = failed()(error);
                    remove(&lock.ours);
                    return Err(wrapped);
                }
            }
        }
    }

    /// Makes git's lock file, unless there is one.
    fn link(&self) -> io::Result<()> {
        match fs::hard_link(&self.ours, &self.lock) {
            Err(error) if lacks_links(&error) => self.make_apart(),
            other => other,
        }
    }

    /// Makes git's lock file without a link.
    fn make_apart(&self) -> io::Result<()> {
        let made = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(&self.lock)?;
        fs::write(&self.ours, made.metadata()?.ino().to_string())
    }

    /// Returns whether git's lock file is the one that this lock made.
    fn is_ours(&self) -> bool {
        let (Ok(ours), Ok(lock)) = (
            fs::symlink_metadata(&self.ours),
            fs::symlink_metadata(&self.lock),
        ) else {
            return false;
        };
        if (ours.dev(), ours.ino()) == (lock.dev(), lock.ino()) {
            return true;
        }
        fs::read_to_string(&self.ours).is_ok_and(|inode| inode == lock.ino().to_string())
    }

    /// Writes the index that is to be, with the paths that `record` changes on one side, into the lock file.
    pub(super) async fn stage(
        &self,
        git: &Plumbing<'_>,
        record: &ApplyRecord,
        side: Side,
        scratch: &Path,
    ) -> Result<(), RepoError> {
        let temp = TempIndex::in_dir(scratch)?;
        match fs::copy(&self.index, temp.path()) {
            Err(error) if !is_absent(&error) => {
                return Err(RepoError::io("copy", &self.index)(error));
            }
            _ => {}
        }
        let own = git.with_index(temp.path());
        let deltas = record.deltas();
        own.set_entries(&deltas, side).await?;
        let is_there = |name: &&Name| {
            deltas
                .get(*name)
                .is_some_and(|delta| delta.at(side).is_some())
        };
        let skipped: Vec<&Name> = record.skipped.iter().filter(is_there).collect();
        own.skip(&skipped).await?;
        let staged = fs::copy(temp.path(), &self.lock);
        staged.map(drop).map_err(RepoError::io("write", &self.lock))
    }

    /// Makes the staged index the index, which needs no space on disk, and frees it.
    pub(super) async fn commit(self, git: &Plumbing<'_>) -> Result<(), RepoError> {
        fs::rename(&self.lock, &self.index).map_err(RepoError::io("replace", &self.index))?;
        drop(self);
        // Saves the next `git status` from reading the files again; it exits 1 where some are dirty.
        let refreshed = git.write("update-index -q --refresh").accept(&[1]).done();
        if let Err(error) = refreshed.await {
            tracing::debug!(%error, "the index was not refreshed");
        }
        Ok(())
    }
}

impl Drop for IndexLock {
    fn drop(&mut self) {
        if self.is_ours() {
            remove(&self.lock);
        }
        remove(&self.ours);
    }
}

/// Frees the index where the apply `id` died while it held the lock.
pub(super) fn release_after_crash(layout: &Layout, id: &str) -> Result<(), RepoError> {
    let lock = IndexLock::of(layout, id);
    if fs::symlink_metadata(&lock.ours).is_err() {
        return Ok(());
    }
    drop(lock);
    Ok(())
}

/// Returns whether a hard link failed because the file system has none: exFAT, some network and container ones.
fn lacks_links(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::CrossesDevices
    )
}

fn remove(path: &Path) {
    if let Err(error) = remove_file(path) {
        tracing::warn!(?path, %error, "a lock file could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(dir: &Path) -> IndexLock {
        IndexLock {
            ours: dir.join("mahavishnu-1.index"),
            lock: dir.join("index.lock"),
            index: dir.join("index"),
        }
    }

    #[test]
    fn without_hard_links_a_foreign_lock_is_recognised() {
        let dir = tempfile::tempdir().expect("a folder");
        let held = lock(dir.path());
        fs::write(&held.ours, "").expect("written");
        held.make_apart().expect("made");
        assert!(held.is_ours());
        assert_eq!(
            held.make_apart().map_err(|error| error.kind()),
            Err(io::ErrorKind::AlreadyExists)
        );
        // As after a crash: dropped without a replacement.
        drop(held);
        assert!(!dir.path().join("index.lock").exists());

        fs::write(dir.path().join("index.lock"), "").expect("somebody else's");
        let waiting = lock(dir.path());
        fs::write(&waiting.ours, "").expect("written");
        drop(waiting);
        assert!(dir.path().join("index.lock").exists());
        assert!(!dir.path().join("mahavishnu-1.index").exists());
    }
}
