//! The user's working copy, as far as an apply needs to know it: the files it touches, hashed by git as they are now.

use super::file_state::{FileStamp, metadata, reach};
use super::head::Head;
use super::plumbing::{Name, Plumbing};
use super::temp_index::TempIndex;
use super::trees::{Delta, Deltas, Entry, Side};
use super::{Layout, RepoError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The working copy as far as it was scanned.
pub(super) struct Scan {
    /// An index that holds HEAD, with the scanned files as they are now.
    index: TempIndex,
    top: PathBuf,
    /// HEAD's tree, or the empty one.
    head_tree: String,
    /// The stamps of the files, taken before git read them.
    pub(super) stamps: BTreeMap<Name, FileStamp>,
    /// Tracked files that a sparse checkout leaves out.
    pub(super) skipped: BTreeSet<Name>,
    /// Files that differ from HEAD.
    pub(super) dirty: BTreeSet<Name>,
    /// The tree of `index`.
    pub(super) tree: String,
}

impl Scan {
    /// Begins with HEAD in an index of its own.
    pub(super) async fn begin(
        git: &Plumbing<'_>,
        layout: &Layout,
        head: &Head,
        scratch: &Path,
    ) -> Result<Self, RepoError> {
        let index = TempIndex::in_dir(scratch)?;
        let own = git.with_index(index.path());
        if let Some(commit) = &head.commit {
            own.write("read-tree").arg(commit).done().await?;
        }
        let tree = own.write_tree().await?;
        let is_sparse = layout.git_dir.join("info/sparse-checkout").exists();
        let skipped = match is_sparse {
            true => git.skipped().await?,
            false => BTreeSet::new(),
        };
        Ok(Self {
            index,
            top: layout.dir.clone(),
            head_tree: tree.clone(),
            stamps: BTreeMap::new(),
            skipped,
            dirty: BTreeSet::new(),
            tree,
        })
    }

    /// Scans more files: has git hash them as they are now, and notes which differ from HEAD.
    pub(super) async fn files(
        &mut self,
        git: &Plumbing<'_>,
        names: &BTreeSet<Name>,
    ) -> Result<(), RepoError> {
        if names.is_empty() {
            return Ok(());
        }
        let mut present: Vec<&Name> = Vec::new();
        let mut absent = Deltas::new();
        for name in names {
            let failed = || RepoError::io("read", &git.file(name));
            // The stamp is taken before git reads the file: what is written in between is noticed by one of them.
            let stamp = FileStamp::of(&self.top, name).map_err(failed())?;
            self.stamps.insert(name.clone(), stamp);
            if self.is_file(name).map_err(failed())? {
                present.push(name);
            } else if !self.skipped.contains(name) {
                absent.insert(name.clone(), absence(&self.head_tree));
            }
        }
        let own = git.with_index(self.index.path());
        if !absent.is_empty() {
            own.set_entries(&absent, Side::New).await?;
        }
        own.take_files(&present).await?;
        self.tree = own.write_tree().await?;
        let differing = git.diff(&self.head_tree, &self.tree).await?.into_iter();
        // A submodule that is not checked out is an empty folder, which is no change.
        let is_change = |delta: &Delta| delta.new.is_some() || !delta.is_submodule();
        self.dirty = differing
            .filter(|(_, delta)| is_change(delta))
            .map(|(name, _)| name)
            .collect();
        Ok(())
    }

    /// Returns whether git can take `name` into an index: a file, a link, or a repository of its own.
    fn is_file(&self, name: &[u8]) -> std::io::Result<bool> {
        let Some(path) = reach(&self.top, name)? else {
            return Ok(false);
        };
        let is_file = metadata(&path)?.is_some_and(|meta| !meta.is_dir());
        Ok(is_file || path.join(".git").exists())
    }
}

/// Returns the change that takes a path out of an index of the repository that `object` belongs to.
fn absence(object: &str) -> Delta {
    Delta {
        old: Some(Entry {
            mode: "100644".to_owned(),
            object: object.to_owned(),
        }),
        new: None,
    }
}
