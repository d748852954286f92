//! Records on disk: JSON files that are replaced in one step, each in a folder of its own.

use super::RepoError;
use super::lock::make_private_dir;
use serde::{Serialize, de::DeserializeOwned};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Whether a record must survive a loss of power, not only the end of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durable {
    /// It must.
    Yes,
    /// The end of the process is enough.
    No,
}

/// Replaces the JSON file `path` in one step.
pub(super) fn save(path: &Path, value: &impl Serialize, durable: Durable) -> Result<(), RepoError> {
    let staged = path.with_extension("tmp");
    write(&staged, value, durable)?;
    replace(&staged, path, durable)
}

/// Writes the JSON file `path`, and the folders above it.
pub(super) fn write(
    path: &Path,
    value: &impl Serialize,
    durable: Durable,
) -> Result<(), RepoError> {
    make_private_dir(path.parent().unwrap_or(path))?;
    let write = || {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        match durable {
            Durable::Yes => file.sync_all(),
            Durable::No => Ok(()),
        }
    };
    write().map_err(RepoError::io("write the record", path))
}

/// Renames the written file `staged` to `path`, which needs no space on disk.
pub(super) fn replace(staged: &Path, path: &Path, durable: Durable) -> Result<(), RepoError> {
    let replace = || {
        fs::rename(staged, path)?;
        match (durable, path.parent()) {
            (Durable::Yes, Some(dir)) => File::open(dir)?.sync_all(),
            _ => Ok(()),
        }
    };
    replace().map_err(RepoError::io("write the record", path))
}

/// Reads what [`save`] wrote.
pub(super) fn load<T: DeserializeOwned>(path: &Path) -> Result<T, RepoError> {
    let read = || Ok(serde_json::from_slice(&fs::read(path)?)?);
    read().map_err(RepoError::io("read the record", path))
}

/// Returns the folders in `dir`, sorted by name; none where `dir` does not exist.
pub(super) fn folders(dir: &Path) -> Result<Vec<PathBuf>, RepoError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RepoError::io("list", dir)(error)),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(RepoError::io("list", dir))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(entry.path());
        }
    }
    folders.sort_unstable();
    Ok(folders)
}
