//! git's own lock on an index, held so that a crash of ours can be told from somebody else's lock.
//!
//! git locks an index by creating `index.lock` and replaces it by renaming that file. We link a file named after the
//! apply to `index.lock`: same inode, our lock; recovery may then remove it.

use super::git::Mode;
use super::layout::is_absent;
use super::plumbing::{Delta, Name, Side, Spot, TempIndex};
use super::{Layout, RepoError};
use std::collections::BTreeMap;
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
            match fs::hard_link(&lock.ours, &lock.lock) {
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

    /// Brings the paths of `deltas` in the index to one side, and frees it.
    pub(super) async fn replace(
        self,
        spot: &Spot<'_>,
        deltas: &BTreeMap<Name, Delta>,
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
        let apart = spot.with_index(temp.path());
        apart.set_entries(deltas, side).await?;
        // Saves the next `git status` from reading the files again; it exits 1 where some are dirty.
        apart
            .cmd(Mode::Write, "update-index")
            .args(["-q", "--refresh"])
            .accept(&[1])
            .run()
            .await?;
        let write = || {
            fs::copy(temp.path(), &self.lock)?;
            fs::rename(&self.lock, &self.index)
        };
        write().map_err(RepoError::io("replace", &self.index))
    }
}

impl Drop for IndexLock {
    fn drop(&mut self) {
        if same_file(&self.ours, &self.lock) {
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

fn same_file(a: &Path, b: &Path) -> bool {
    match (fs::symlink_metadata(a), fs::symlink_metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && !is_absent(&error)
    {
        tracing::warn!(?path, %error, "a lock file stays behind");
    }
}
