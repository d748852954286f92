//! Changes to the files of a working copy that can be taken back exactly, also after `kill -9` at any point.
//!
//! Every file is replaced by one rename. What was there is copied aside before the first one, so a file is always in
//! its old or its new state, and the way back can tell which. Not responsible for what the new contents are, nor for
//! the record that survives a crash (`apply`).

use super::RepoError;
use super::layout::{bytes_path, is_absent};
use super::plumbing::Name;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The bits that make a file executable.
const EXECUTABLE: u32 = 0o111;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    /// Nothing, or nothing that can be reached as a file of this name.
    Absent,
    /// A file: SHA-256 of its content, permission bits.
    File { sha256: String, mode: u32 },
    /// A symbolic link: SHA-256 of its target.
    Link { sha256: String },
    /// A folder or a device.
    Other,
}

/// A file that is to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Edit {
    /// Its path from the top.
    pub(super) name: Name,
    /// What is there now.
    pub(super) before: State,
    /// What is to be there.
    pub(super) after: State,
}

/// A quick look at a path, to notice that it was written to since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Glance(Option<Marks>);

/// What changes when a file is written to or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Marks {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    mode: u32,
}

/// Where the contents of edits lie.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    dir: PathBuf,
    /// Marks the temporary files in the working copy as this change's.
    id: String,
}

/// Returns the path of `name`, unless a component above it is no real folder: then there is no file of this name.
pub(super) fn reach(top: &Path, name: &[u8]) -> io::Result<Option<PathBuf>> {
    let path = top.join(bytes_path(name));
    let mut above = top.to_owned();
    let parent = bytes_path(name).parent().unwrap_or(Path::new(""));
    for part in parent.components() {
        above.push(part);
        match fs::symlink_metadata(&above) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Ok(None),
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(path))
}

/// Returns the first component of `name` that is something else than a folder, as a name.
pub(super) fn obstacle(top: &Path, name: &[u8]) -> io::Result<Option<Name>> {
    let mut above = PathBuf::new();
    for part in bytes_path(name)
        .parent()
        .unwrap_or(Path::new(""))
        .components()
    {
        above.push(part);
        match fs::symlink_metadata(top.join(&above)) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Ok(Some(above.as_os_str().as_bytes().to_vec())),
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

impl State {
    /// Returns what is at `path`.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let meta = match fs::symlink_metadata(path) {
            Ok(meta) => meta,
            Err(error) if is_absent(&error) => return Ok(Self::Absent),
            Err(error) => return Err(error),
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

    /// Returns what is at `name` under `top`.
    pub(super) fn of(top: &Path, name: &[u8]) -> io::Result<Self> {
        match reach(top, name)? {
            Some(path) => Self::at(&path),
            None => Ok(Self::Absent),
        }
    }
}

impl Glance {
    /// Looks at `name` under `top`.
    pub(super) fn of(top: &Path, name: &[u8]) -> io::Result<Self> {
        let Some(path) = reach(top, name)? else {
            return Ok(Self(None));
        };
        match fs::symlink_metadata(&path) {
            Ok(meta) => Ok(Self(Some(Marks {
                device: meta.dev(),
                inode: meta.ino(),
                size: meta.size(),
                modified: (meta.mtime(), meta.mtime_nsec()),
                changed: (meta.ctime(), meta.ctime_nsec()),
                mode: meta.mode(),
            }))),
            Err(error) if is_absent(&error) => Ok(Self(None)),
            Err(error) => Err(error),
        }
    }
}

impl Stage {
    /// Returns the stage in `dir` of the change `id`.
    pub(super) fn new(dir: PathBuf, id: String) -> Self {
        Self { dir, id }
    }

    fn before(&self, nth: usize) -> PathBuf {
        self.dir.join("before").join(nth.to_string())
    }

    /// Returns the folder below which the new contents lie, each under its own name.
    pub(super) fn after(&self) -> PathBuf {
        self.dir.join("after")
    }

    /// Returns the temporary neighbour of `path`: in the same folder, so that the rename is one step.
    fn neighbour(&self, path: &Path, nth: usize) -> PathBuf {
        path.with_file_name(format!(".mahavishnu-{}-{nth}", self.id))
    }

    /// Copies what the edits will replace aside.
    pub(super) fn keep(&self, top: &Path, edits: &[Edit]) -> Result<(), RepoError> {
        fs::create_dir_all(self.dir.join("before"))
            .map_err(RepoError::io("make the directory", &self.dir))?;
        for (nth, edit) in edits.iter().enumerate() {
            let path = top.join(bytes_path(&edit.name));
            if matches!(edit.before, State::File { .. } | State::Link { .. }) {
                duplicate(&path, &self.before(nth)).map_err(RepoError::io("copy", &path))?;
            }
        }
        Ok(())
    }

    /// Sets what the new files will be: the permissions of the old file stay, but for the executable bits.
    pub(super) fn settle_modes(&self, edits: &mut [Edit]) -> io::Result<()> {
        for edit in edits {
            let staged = self.after().join(bytes_path(&edit.name));
            // Below a file that goes there may be a folder that comes.
            edit.after = match State::at(&staged)? {
                State::Other => State::Absent,
                state => state,
            };
            if let (State::File { mode: old, .. }, State::File { mode: new, .. }) =
                (&edit.before, &mut edit.after)
            {
                let executable = *new & EXECUTABLE != 0;
                let was = *old & EXECUTABLE != 0;
                *new = match (was, executable) {
                    (true, false) => *old & !EXECUTABLE,
                    // Whoever may read may run, as git has it.
                    (false, true) => *old | ((*old & 0o444) >> 2),
                    _ => *old,
                };
                fs::set_permissions(&staged, Permissions::from_mode(*new))?;
            }
        }
        Ok(())
    }

    /// Makes the edits. `unchanged` is asked right before each one whether the user has touched the file meanwhile.
    pub(super) fn perform(
        &self,
        top: &Path,
        edits: &[Edit],
        unchanged: impl Fn(&Edit) -> io::Result<bool>,
    ) -> Result<(), Stopped> {
        let check = |edit: &Edit| match unchanged(edit) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Stopped::Raced(edit.name.clone())),
            Err(error) => Err(Stopped::Failed(top.join(bytes_path(&edit.name)), error)),
        };
        // Deletions first, the deepest before its folder: a file may become a folder and a folder a file.
        for edit in edits
            .iter()
            .rev()
            .filter(|edit| edit.after == State::Absent)
        {
            check(edit)?;
            let path = top.join(bytes_path(&edit.name));
            take_away(top, &path).map_err(|error| Stopped::Failed(path, error))?;
        }
        for (nth, edit) in edits.iter().enumerate() {
            if edit.after == State::Absent {
                continue;
            }
            check(edit)?;
            let path = top.join(bytes_path(&edit.name));
            let staged = self.after().join(bytes_path(&edit.name));
            self.put(&staged, &path, nth)
                .map_err(|error| Stopped::Failed(path, error))?;
        }
        Ok(())
    }

    fn put(&self, from: &Path, path: &Path, nth: usize) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        clear_folders(path)?;
        let neighbour = self.neighbour(path, nth);
        duplicate(from, &neighbour)?;
        fs::rename(&neighbour, path)
    }

    /// Takes back what was made of the edits. Files in neither state belong to the user: they stay, and are returned.
    pub(super) fn revert(&self, top: &Path, edits: &[Edit]) -> Result<Vec<Name>, RepoError> {
        let mut foreign = Vec::new();
        let failed = |edit: &Edit| RepoError::io("restore", &top.join(bytes_path(&edit.name)));
        // What was added goes first, so that folders and files can change places again.
        for (nth, edit) in edits.iter().enumerate().rev() {
            self.sweep(top, edit, nth);
            if edit.before == State::Absent
                && State::of(top, &edit.name).map_err(failed(edit))? == edit.after
                && edit.after != State::Absent
            {
                let path = top.join(bytes_path(&edit.name));
                take_away(top, &path).map_err(failed(edit))?;
            }
        }
        for (nth, edit) in edits.iter().enumerate() {
            let mut now = State::of(top, &edit.name).map_err(failed(edit))?;
            // Where a file went a folder came, which held only what was taken away above.
            if now == State::Other
                && edit.after == State::Absent
                && edit.before != State::Absent
                && clear_folders(&top.join(bytes_path(&edit.name))).is_ok()
            {
                now = State::Absent;
            }
            // A folder that is there again, or still, is no file of this name.
            let still_folder = edit.before == State::Absent && now == State::Other;
            if now == edit.before || still_folder {
                continue;
            }
            let path = top.join(bytes_path(&edit.name));
            let blocked = obstacle(top, &edit.name).map_err(failed(edit))?.is_some();
            if now != edit.after || blocked {
                foreign.push(edit.name.clone());
                continue;
            }
            self.put(&self.before(nth), &path, nth)
                .map_err(failed(edit))?;
        }
        Ok(foreign)
    }

    /// Removes the temporary neighbour that a crash may have left.
    fn sweep(&self, top: &Path, edit: &Edit, nth: usize) {
        let neighbour = self.neighbour(&top.join(bytes_path(&edit.name)), nth);
        if let Err(error) = fs::remove_file(&neighbour)
            && !is_absent(&error)
        {
            tracing::warn!(?neighbour, %error, "a temporary file stays behind");
        }
    }

    /// Removes the contents once nothing can ask for them.
    pub(super) fn clear(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if is_absent(&error) => Ok(()),
            other => other,
        }
    }

    /// Removes the new contents, which only a retry of [`Self::perform`] would need.
    pub(super) fn clear_after(&self) {
        if let Err(error) = fs::remove_dir_all(self.after())
            && !is_absent(&error)
        {
            tracing::warn!(%error, "staged files stay until the undo is forgotten");
        }
    }
}

/// Returns the edits whose files are not as they left them.
pub(super) fn changed_since<'e>(top: &Path, edits: &'e [Edit]) -> Result<Vec<&'e Name>, RepoError> {
    let mut changed = Vec::new();
    for edit in edits {
        let path = top.join(bytes_path(&edit.name));
        let failed = || RepoError::io("read", &path);
        let as_left = match State::of(top, &edit.name).map_err(failed())? {
            // A folder came where a file went: it must hold nothing but what came with it.
            State::Other if edit.after == State::Absent => {
                let mut inside = Vec::new();
                files_below(top, &path, &mut inside).map_err(failed())?;
                let came = |name: &Name| {
                    edits
                        .iter()
                        .any(|edit| edit.name == *name && edit.after != State::Absent)
                };
                inside.iter().all(came)
            }
            now => now == edit.after,
        };
        if !as_left {
            changed.push(&edit.name);
        }
    }
    Ok(changed)
}

/// Collects the names of all files below `dir`.
pub(super) fn files_below(top: &Path, dir: &Path, into: &mut Vec<Name>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files_below(top, &entry.path(), into)?;
        } else if let Ok(name) = entry.path().strip_prefix(top) {
            into.push(name.as_os_str().as_bytes().to_vec());
        }
    }
    Ok(())
}

/// Why edits were stopped half-way.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The user wrote to this file.
    Raced(Name),
    /// The system refused.
    Failed(PathBuf, io::Error),
}

/// Removes a file and the folders above it that are empty then, as git does.
fn take_away(top: &Path, path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if !is_absent(&error) => return Err(error),
        _ => {}
    }
    for parent in path.ancestors().skip(1).take_while(|parent| *parent != top) {
        // A folder that is not empty ends it; so does one that is gone already.
        if fs::remove_dir(parent).is_err() {
            break;
        }
    }
    Ok(())
}

/// Removes `path` where it is a folder that holds nothing but folders: git knows of none, so nobody misses them.
fn clear_folders(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        clear_folders(&entry?.path())?;
    }
    fs::remove_dir(path)
}

/// Copies a file or a link, contents and permissions.
fn duplicate(from: &Path, to: &Path) -> io::Result<()> {
    match fs::remove_file(to) {
        Err(error) if !is_absent(&error) => return Err(error),
        _ => {}
    }
    if fs::symlink_metadata(from)?.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    fs::copy(from, to)?;
    File::open(to)?.sync_data()
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

/// Returns `bytes` as hex digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
