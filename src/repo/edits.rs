//! Changes to the files of a working copy that can be undone exactly, also after `kill -9` at any point.
//!
//! All that needs space on disk happens before the first file changes: the new files are staged on the working copy's
//! own file system, and the old ones are copied to the state directory for a later undo. Then every file changes by
//! renames alone: the old one is set aside, the new one takes its place. The way back is renames too. Not responsible
//! for what the new contents are, nor for the record that survives a crash (`journal`).

use super::RepoError;
use super::file_state::{FileState, metadata, obstacle};
use super::layout::{bytes_path, remove_file, remove_folder};
use super::plumbing::Name;
use super::{Layout, lock};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The bits that make a file executable.
const EXECUTABLE: u32 = 0o111;

/// A file that is to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Edit {
    /// Its path from the top.
    pub(super) name: Name,
    /// What is there before.
    pub(super) before: FileState,
    /// What is to be there.
    pub(super) after: FileState,
}

impl Edit {
    fn removes(&self) -> bool {
        self.after == FileState::Absent
    }
}

/// The folders that hold the contents of one apply's edits.
#[derive(Debug, Clone)]
pub(super) struct Staging {
    /// The working copy.
    top: PathBuf,
    /// Copies of the old files, kept for the undo.
    copies: PathBuf,
    /// On the working copy's file system: the new files, and the old ones that were set aside. Gone after the apply.
    work: PathBuf,
}

/// Why edits were stopped half-way.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The user wrote to this file.
    Raced(Name),
    /// The system refused.
    Failed(PathBuf, io::Error),
}

impl Staging {
    /// Returns the folders of the apply `id`, whose record is in `folder`.
    pub(super) fn of(layout: &Layout, folder: &Path, id: &str) -> Self {
        let device = |path: &Path| path.metadata().ok().map(|meta| meta.dev());
        let is_near = device(&layout.git_dir) == device(&layout.dir);
        Self {
            top: layout.dir.clone(),
            copies: folder.join("before"),
            work: match is_near {
                true => layout.git_dir.join(format!("mahavishnu-{id}")),
                false => layout.dir.join(format!(".mahavishnu-{id}")),
            },
        }
    }

    /// Returns the folder that holds the new files, each under its own name.
    pub(super) fn new_files(&self) -> PathBuf {
        self.work.join("new")
    }

    fn new_file(&self, edit: &Edit) -> PathBuf {
        self.new_files().join(bytes_path(&edit.name))
    }

    /// Returns the path of the `nth` edit's old file while it is set aside.
    fn aside(&self, nth: usize) -> PathBuf {
        self.work.join("old").join(nth.to_string())
    }

    fn copy(&self, nth: usize) -> PathBuf {
        self.copies.join(nth.to_string())
    }

    fn file(&self, edit: &Edit) -> PathBuf {
        self.top.join(bytes_path(&edit.name))
    }

    /// Makes the folders of new and old files.
    pub(super) fn make(&self) -> Result<(), RepoError> {
        for dir in [self.new_files(), self.work.join("old"), self.copies.clone()] {
            lock::make_private_dir(&dir)?;
        }
        Ok(())
    }

    /// Copies what the edits will replace.
    pub(super) fn keep_copies(&self, edits: &[Edit]) -> Result<(), RepoError> {
        for (nth, edit) in edits.iter().enumerate() {
            let path = self.file(edit);
            if edit.before.has_content() {
                duplicate(&path, &self.copy(nth)).map_err(RepoError::io("copy", &path))?;
            }
        }
        Ok(())
    }

    /// Notes what the staged files will be, after giving them the permissions of the old ones but for the executable
    /// bits, and writes them through to the disk.
    pub(super) fn settle_new_files(&self, edits: &mut [Edit]) -> io::Result<()> {
        for edit in edits {
            let staged = self.new_file(edit);
            // Where a file is removed a folder may come.
            edit.after = match FileState::at(&staged)? {
                FileState::Other => FileState::Absent,
                state => state,
            };
            if let (FileState::File { mode: old, .. }, FileState::File { mode: new, .. }) =
                (&edit.before, &mut edit.after)
            {
                *new = with_executable(*old, *new & EXECUTABLE != 0);
                fs::set_permissions(&staged, Permissions::from_mode(*new))?;
            }
            if let FileState::File { .. } = edit.after {
                File::open(&staged)?.sync_data()?;
            }
        }
        Ok(())
    }

    /// Makes the edits. `unchanged` is asked right before each one whether the user has left the file alone meanwhile.
    pub(super) fn perform(
        &self,
        edits: &[Edit],
        unchanged: impl Fn(&Edit) -> io::Result<bool>,
    ) -> Result<(), Stopped> {
        let make = |nth: usize, edit: &Edit| match unchanged(edit) {
            Ok(false) => Err(Stopped::Raced(edit.name.clone())),
            Ok(true) => self
                .replace(nth, edit)
                .map_err(|error| Stopped::Failed(self.file(edit), error)),
            Err(error) => Err(Stopped::Failed(self.file(edit), error)),
        };
        // Removals first, the deepest before its folder: a file may become a folder and a folder a file.
        let (removals, additions): (Vec<_>, Vec<_>) = edits
            .iter()
            .enumerate()
            .partition(|(_, edit)| edit.removes());
        for (nth, edit) in removals.into_iter().rev().chain(additions) {
            make(nth, edit)?;
        }
        Ok(())
    }

    /// Sets the old file aside and puts the new one in its place, by renames.
    fn replace(&self, nth: usize, edit: &Edit) -> io::Result<()> {
        let path = self.file(edit);
        if edit.removes() {
            return move_file(&path, &self.aside(nth));
        }
        make_way(&path)?;
        match &edit.before {
            // A second name keeps the old file while the rename replaces it in one step.
            FileState::File { .. } if fs::hard_link(&path, self.aside(nth)).is_ok() => {}
            before if before.has_content() => move_file(&path, &self.aside(nth))?,
            _ => {}
        }
        move_file(&self.new_file(edit), &path)
    }

    /// Removes the staged files and the folders that removed files have left empty, as git does. For the end of an apply.
    pub(super) fn finish(&self, edits: &[Edit]) {
        for edit in edits.iter().filter(|edit| edit.removes()) {
            self.prune_above(&self.file(edit));
        }
        self.clear_work();
    }

    /// Returns whether files are staged.
    pub(super) fn has_work(&self) -> bool {
        self.work.exists()
    }

    /// Removes the staged files.
    pub(super) fn clear_work(&self) {
        if let Err(error) = remove_folder(&self.work) {
            tracing::warn!(work = ?self.work, %error, "staged files could not be removed");
        }
    }

    /// Puts the copies of the old files beside the working copy, so that [`Self::revert`] needs no space.
    pub(super) fn restage(&self, edits: &[Edit]) -> Result<(), RepoError> {
        self.make()?;
        for (nth, edit) in edits.iter().enumerate() {
            let (copy, aside) = (self.copy(nth), self.aside(nth));
            if edit.before.has_content() && !is_there(&aside) {
                // Renamed when it is whole, because a crash may come before.
                let part = aside.with_extension("part");
                duplicate(&copy, &part)
                    .and_then(|()| fs::rename(&part, &aside))
                    .map_err(RepoError::io("copy", &copy))?;
            }
        }
        Ok(())
    }

    /// Undoes the edits as far as they were made. Files that are neither as before nor as after are the user's: they
    /// stay, and are returned.
    pub(super) fn revert(&self, edits: &[Edit]) -> Result<Vec<Name>, RepoError> {
        let failed = |edit: &Edit| RepoError::io("restore", &self.file(edit));
        // What was added is removed first, so that folders and files can change places again.
        for edit in edits.iter().rev() {
            let was_added = edit.before == FileState::Absent && !edit.removes();
            if was_added && self.state(edit).map_err(failed(edit))? == edit.after {
                self.remove(edit).map_err(failed(edit))?;
            }
        }
        let mut foreign = Vec::new();
        for (nth, edit) in edits.iter().enumerate() {
            if !self.restore(nth, edit).map_err(failed(edit))? {
                foreign.push(edit.name.clone());
            }
        }
        Ok(foreign)
    }

    /// Puts an old file back; false where something of the user's is in its place.
    fn restore(&self, nth: usize, edit: &Edit) -> io::Result<bool> {
        let path = self.file(edit);
        let mut now = self.state(edit)?;
        // Where a file was removed a folder came; all that it held was removed before.
        let was_removed = edit.removes() && edit.before.has_content();
        if now == FileState::Other && was_removed && clear_folders(&path).is_ok() {
            now = FileState::Absent;
        }
        // A folder that is there again, or still, is not a file of this name.
        let is_folder = edit.before == FileState::Absent && now == FileState::Other;
        if now == edit.before || is_folder {
            return Ok(true);
        }
        let is_aside = is_there(&self.aside(nth));
        let is_ours = now == edit.after || (now == FileState::Absent && is_aside);
        if !is_ours || obstacle(&self.top, &edit.name)?.is_some() {
            return Ok(false);
        }
        make_way(&path)?;
        match is_aside {
            true => move_file(&self.aside(nth), &path)?,
            false => copy_into_place(&self.copy(nth), &path)?,
        }
        Ok(true)
    }

    fn state(&self, edit: &Edit) -> io::Result<FileState> {
        FileState::of(&self.top, &edit.name)
    }

    /// Removes a file and the folders above it that are empty then, as git does.
    fn remove(&self, edit: &Edit) -> io::Result<()> {
        let path = self.file(edit);
        remove_file(&path)?;
        self.prune_above(&path);
        Ok(())
    }

    fn prune_above(&self, path: &Path) {
        let above = path.ancestors().skip(1);
        for parent in above.take_while(|parent| *parent != self.top) {
            // A folder that is not empty ends it; so does one that is gone already.
            if fs::remove_dir(parent).is_err() {
                break;
            }
        }
    }

    /// Returns the edits whose files are not as the apply left them.
    pub(super) fn changed_since<'e>(&self, edits: &'e [Edit]) -> Result<Vec<&'e Name>, RepoError> {
        let mut changed = Vec::new();
        for edit in edits {
            let is_left = self.is_as_left(edit, edits);
            if !is_left.map_err(RepoError::io("read", &self.file(edit)))? {
                changed.push(&edit.name);
            }
        }
        Ok(changed)
    }

    fn is_as_left(&self, edit: &Edit, edits: &[Edit]) -> io::Result<bool> {
        Ok(match self.state(edit)? {
            // A folder came where a file was removed: it must hold nothing but what came with it.
            FileState::Other if edit.removes() => {
                let inside = files_below(&self.top, &self.file(edit))?;
                let came = |name: &Name| {
                    edits
                        .iter()
                        .any(|edit| edit.name == *name && !edit.removes())
                };
                inside.iter().all(came)
            }
            now => now == edit.after,
        })
    }
}

/// Returns the permissions `old`, executable or not.
fn with_executable(old: u32, executable: bool) -> u32 {
    match (old & EXECUTABLE != 0, executable) {
        (true, false) => old & !EXECUTABLE,
        // Everyone who may read may execute, as in a checkout.
        (false, true) => old | ((old & 0o444) >> 2),
        _ => old,
    }
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Returns the names of all files below `dir`.
pub(super) fn files_below(top: &Path, dir: &Path) -> io::Result<Vec<Name>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(files_below(top, &entry.path())?);
        } else if let Ok(name) = entry.path().strip_prefix(top) {
            names.push(name.as_os_str().as_bytes().to_vec());
        }
    }
    Ok(names)
}

/// Makes the folders above `path`, and removes `path` where it is a folder without a file in it.
fn make_way(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match metadata(path)? {
        Some(meta) if meta.is_dir() => clear_folders(path),
        _ => Ok(()),
    }
}

/// Removes the folder `path`, which holds nothing but folders: git tracks none, so they are no loss.
fn clear_folders(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        clear_folders(&entry?.path())?;
    }
    fs::remove_dir(path)
}

/// Renames a file or link; copies it where `to` is on another file system (a mount inside the working copy).
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copy_into_place(from, to)?;
            fs::remove_file(from)
        }
        moved => moved,
    }
}

/// Copies a file or link beside `to` and renames it to that name.
fn copy_into_place(from: &Path, to: &Path) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".mahavishnu-");
    name.push(to.file_name().unwrap_or_default());
    let beside = to.with_file_name(name);
    let copied = duplicate(from, &beside).and_then(|()| fs::rename(&beside, to));
    if copied.is_err() {
        remove_file(&beside)?;
    }
    copied
}

/// Copies a file or a link, contents and permissions.
fn duplicate(from: &Path, to: &Path) -> io::Result<()> {
    remove_file(to)?;
    if fs::symlink_metadata(from)?.is_symlink() {
        return symlink(fs::read_link(from)?, to);
    }
    fs::copy(from, to)?;
    File::open(to)?.sync_data()
}
