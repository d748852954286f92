//! Index files of this server, beside which git never touches the user's.

use super::RepoError;
use super::layout::remove_file;
use super::lock::{HeldFile, make_private_dir};
use std::fs;
use std::path::{Path, PathBuf};

/// The extension of the lock that marks an index as used by a live process.
const IN_USE: &str = "in-use";

/// The name of an index file in a folder of such files, removed with what git made beside it when dropped.
#[derive(Debug)]
pub(super) struct TempIndex {
    path: PathBuf,
    _in_use: HeldFile,
}

impl TempIndex {
    /// Names a file in `dir` that does not exist yet.
    pub(super) fn in_dir(dir: &Path) -> Result<Self, RepoError> {
        make_private_dir(dir)?;
        let path = dir.join(format!("index-{}", ulid::Ulid::generate()));
        let in_use = path.with_extension(IN_USE);
        let held = HeldFile::claim(&in_use)?.ok_or_else(|| {
            let busy = std::io::ErrorKind::ResourceBusy.into();
            RepoError::io("lock", &in_use)(busy)
        })?;
        Ok(Self {
            path,
            _in_use: held,
        })
    }

    /// Returns the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempIndex {
    fn drop(&mut self) {
        for file in [
            self.path.clone(),
            self.path.with_extension("lock"),
            self.path.with_extension(IN_USE),
        ] {
            if let Err(error) = remove_file(&file) {
                tracing::warn!(?file, %error, "a temporary index could not be removed");
            }
        }
    }
}

/// Removes the index files in `dir` whose process was killed.
pub(super) fn remove_abandoned(dir: &Path) -> Result<(), RepoError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(_) if !dir.exists() => return Ok(()),
        Err(error) => return Err(RepoError::io("list", dir)(error)),
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_index = name.to_str().is_some_and(|name| name.starts_with("index-"));
        let path = entry.path();
        let in_use = path.with_extension(IN_USE);
        // Opening a lock that is not there makes it; so the lock itself is removed last, by its own turn.
        if is_index && HeldFile::claim(&in_use)?.is_some() {
            for file in [path, in_use] {
                remove_file(&file).map_err(RepoError::io("remove", &file))?;
            }
        }
    }
    Ok(())
}
