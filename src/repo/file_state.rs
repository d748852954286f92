//! What is at a path of a working copy: exactly, by content, or quickly, by what the system notes of it.

use super::hex::hex;
use super::layout::{bytes_path, is_absent};
use super::plumbing::Name;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The content at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FileState {
    /// Nothing, or nothing that can be reached as a file of this name.
    Absent,
    /// A file: SHA-256 of its content, permission bits.
    File { sha256: String, mode: u32 },
    /// A symbolic link: SHA-256 of its target.
    Link { sha256: String },
    /// A folder or a device.
    Other,
}

/// What changes when a file is written to or replaced; none where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileStamp(Option<Marks>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Marks {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    mode: u32,
}

/// Where a name leads in a working copy.
enum Reach {
    /// All folders above it are there: its path.
    Path(PathBuf),
    /// A folder above it is missing.
    Missing,
    /// This component above it is something else than a folder.
    Blocked(Name),
}

fn walk_to(top: &Path, name: &[u8]) -> io::Result<Reach> {
    let mut above = PathBuf::new();
    let parent = bytes_path(name).parent().unwrap_or(Path::new(""));
    for part in parent.components() {
        above.push(part);
        match fs::symlink_metadata(top.join(&above)) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Ok(Reach::Blocked(above.as_os_str().as_bytes().to_vec())),
            Err(error) if is_absent(&error) => return Ok(Reach::Missing),
            Err(error) => return Err(error),
        }
    }
    Ok(Reach::Path(top.join(bytes_path(name))))
}

/// Returns the path of `name`, unless a component above it is no real folder: then there is no file of this name.
pub(super) fn reach(top: &Path, name: &[u8]) -> io::Result<Option<PathBuf>> {
    Ok(match walk_to(top, name)? {
        Reach::Path(path) => Some(path),
        Reach::Missing | Reach::Blocked(_) => None,
    })
}

/// Returns the first component of `name` that is something else than a folder, as a name.
pub(super) fn obstacle(top: &Path, name: &[u8]) -> io::Result<Option<Name>> {
    Ok(match walk_to(top, name)? {
        Reach::Blocked(name) => Some(name),
        Reach::Path(_) | Reach::Missing => None,
    })
}

/// Returns what is at `path`; none where nothing is there.
pub(super) fn metadata(path: &Path) -> io::Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(Some(meta)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

impl FileState {
    /// Returns the state of `path`.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let Some(meta) = metadata(path)? else {
            return Ok(Self::Absent);
        };
        if meta.is_symlink() {
            let target = fs::read_link(path)?;
            let sha256 = hex(&Sha256::digest(target.as_os_str().as_bytes()));
            return Ok(Self::Link { sha256 });
        }
        if !meta.is_file() {
            return Ok(Self::Other);
        }
        let mut hasher = Sha256::new();
        io::copy(&mut File::open(path)?, &mut Hashing(&mut hasher))?;
        Ok(Self::File {
            sha256: hex(&hasher.finalize()),
            mode: meta.mode() & 0o7777,
        })
    }

    /// Returns the state of `name` under `top`.
    pub(super) fn of(top: &Path, name: &[u8]) -> io::Result<Self> {
        match reach(top, name)? {
            Some(path) => Self::at(&path),
            None => Ok(Self::Absent),
        }
    }

    /// Returns whether it is a file or a link: something with content of its own.
    pub(super) fn has_content(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Link { .. })
    }
}

impl FileStamp {
    /// Returns the stamp of `name` under `top`.
    pub(super) fn of(top: &Path, name: &[u8]) -> io::Result<Self> {
        let Some(path) = reach(top, name)? else {
            return Ok(Self(None));
        };
        Ok(Self(metadata(&path)?.map(|meta| Marks {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            mode: meta.mode(),
        })))
    }
}

/// Feeds a hasher.
struct Hashing<'a>(&'a mut Sha256);

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
