//! Which worktrees are in use: a lock file beside each, held by the process whose item works in it.

use super::RepoError;
use super::layout::{bytes_path, is_absent};
use super::lock::HeldFile;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The name of the lock file.
pub(super) const IN_USE: &str = "in-use";

/// The claim of this process on a worktree, while an item works in it.
///
/// The lock is this process's alone, but programs that it started may live a moment longer. So the file names a lock
/// that their guardian holds as well ([`super::Setup::alive`]), until the work is over.
#[derive(Debug)]
pub(super) struct InUse(HeldFile);

impl InUse {
    /// Claims the worktree in `folder`; none where another item works in it, or a program of one may still live.
    pub(super) fn claim(folder: &Path, alive: Option<&Path>) -> Result<Option<Self>, RepoError> {
        let Some(held) = claim(folder, alive)? else {
            return Ok(None);
        };
        if let Some(alive) = alive {
            let name = alive.as_os_str().as_bytes();
            let path = folder.join(IN_USE);
            fs::write(&path, name).map_err(RepoError::io("write", &path))?;
        }
        Ok(Some(Self(held)))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let Err(error) = self.0.clear() {
            tracing::warn!(%error, "a worktree stays marked as in use until this server ends");
        }
    }
}

/// Takes the same lock to inspect or remove the worktree; none where an item works in it, or a program of one may still
/// live.
pub(super) fn claim(folder: &Path, alive: Option<&Path>) -> Result<Option<HeldFile>, RepoError> {
    let path = folder.join(IN_USE);
    let Some(held) = HeldFile::claim(&path)? else {
        return Ok(None);
    };
    let name = fs::read(&path).map_err(RepoError::io("read", &path))?;
    let worker = bytes_path(&name);
    let is_elsewhere = !name.is_empty() && Some(worker) != alive;
    Ok((!is_elsewhere || !is_locked(worker)).then_some(held))
}

/// Returns whether a process holds the lock file; one that cannot be opened counts as held, because work may go on.
fn is_locked(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => file.try_lock_shared().is_err(),
        Err(error) => !is_absent(&error),
    }
}
