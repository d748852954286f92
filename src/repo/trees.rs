//! Trees and their differences: what git's plumbing reports of them, and changes of an index.

use super::RepoError;
use super::layout::bytes_path;
use super::plumbing::{Name, Plumbing, no_object};
use crate::model::DiffStat;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The mode of a submodule's entry in a tree.
pub(super) const GITLINK: &str = "160000";
/// The mode of a symbolic link's entry.
const SYMLINK: &str = "120000";
/// What git writes for "no such entry".
const NO_MODE: &str = "000000";

/// An entry of a tree: mode and object id, both as git writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) mode: String,
    pub(super) object: String,
}

impl Entry {
    /// Returns whether it is a submodule's.
    pub(super) fn is_submodule(&self) -> bool {
        self.mode == GITLINK
    }

    /// Returns whether it is a symbolic link's.
    pub(super) fn is_symlink(&self) -> bool {
        self.mode == SYMLINK
    }
}

/// The difference of one path: its entries on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Delta {
    pub(super) old: Option<Entry>,
    pub(super) new: Option<Entry>,
}

impl Delta {
    /// Returns the entry on one side.
    pub(super) fn at(&self, side: Side) -> Option<&Entry> {
        match side {
            Side::Old => self.old.as_ref(),
            Side::New => self.new.as_ref(),
        }
    }

    /// Returns whether a submodule is on one of the sides.
    pub(super) fn is_submodule(&self) -> bool {
        let mut entries = self.old.iter().chain(&self.new);
        entries.any(Entry::is_submodule)
    }
}

/// Differences by path.
pub(super) type Deltas = BTreeMap<Name, Delta>;

/// One side of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Before the change.
    Old,
    /// After the change.
    New,
}

/// A three-way merge made in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Merged {
    /// The tree.
    Clean(String),
    /// The paths in conflict.
    Conflicts(Vec<Name>),
}

impl Plumbing<'_> {
    /// Merges `theirs` into `ours` over `base`, all commits, without touching any file or ref.
    pub(super) async fn merge(
        &self,
        base: &str,
        ours: &str,
        theirs: &str,
    ) -> Result<Merged, RepoError> {
        let answer = self
            .write("merge-tree --write-tree -z --name-only --no-messages")
            .arg(format!("--merge-base={base}"))
            .args([ours, theirs])
            .accept(&[1])
            .run()
            .await?;
        let mut records = answer.records();
        let tree = String::from_utf8_lossy(records.next().unwrap_or_default()).into_owned();
        if answer.code == 0 {
            let tree = super::plumbing::object_id(&tree);
            return tree
                .map(Merged::Clean)
                .ok_or_else(|| self.unknown_form("merge-tree"));
        }
        let paths: BTreeSet<Name> = records.map(<[u8]>::to_vec).collect();
        Ok(Merged::Conflicts(paths.into_iter().collect()))
    }

    /// Returns what differs between two trees or commits; a rename is a removal and an addition.
    pub(super) async fn diff(&self, old: &str, new: &str) -> Result<Deltas, RepoError> {
        let answer = self
            .read("diff-tree -r -z --raw --no-renames --no-abbrev --end-of-options")
            .args([old, new])
            .run()
            .await?;
        parse_raw(&answer.stdout).ok_or_else(|| self.unknown_form("diff-tree"))
    }

    /// Returns what is staged against `commit`.
    pub(super) async fn staged(&self, commit: &str) -> Result<Deltas, RepoError> {
        let answer = self
            .read("diff-index --cached -z --raw --no-renames --no-abbrev --ignore-submodules=none --end-of-options")
            .arg(commit)
            .run()
            .await?;
        parse_raw(&answer.stdout).ok_or_else(|| self.unknown_form("diff-index"))
    }

    /// Returns what differs between two commits, and how large that is; a binary file counts no lines.
    pub(super) async fn diff_with_stat(
        &self,
        old: &str,
        new: &str,
    ) -> Result<(Deltas, DiffStat), RepoError> {
        let answer = self
            .read("diff-tree -r -z --raw --numstat --no-renames --no-abbrev --end-of-options")
            .args([old, new])
            .run()
            .await?;
        // All raw records come first; a count begins with a digit or, for a binary file, with `-`.
        let mut stat = DiffStat::default();
        let deltas = parse_raw_until(&answer.stdout, |count| {
            let text = String::from_utf8_lossy(count);
            let mut numbers = text.split('\t').map(|field| field.parse().unwrap_or(0));
            let mut number = || numbers.next().unwrap_or(0);
            stat.insertions = stat.insertions.saturating_add(number());
            stat.deletions = stat.deletions.saturating_add(number());
            stat.files = stat.files.saturating_add(1);
        });
        let deltas = deltas.ok_or_else(|| self.unknown_form("diff-tree"))?;
        Ok((deltas, stat))
    }

    /// Changes the paths of `deltas` in the index to one side.
    pub(super) async fn set_entries(&self, deltas: &Deltas, side: Side) -> Result<(), RepoError> {
        let other = match side {
            Side::New => Side::Old,
            Side::Old => Side::New,
        };
        let mut removals = Vec::new();
        let mut additions = Vec::new();
        for (name, delta) in deltas {
            let (lines, entry) = match (delta.at(side), delta.at(other)) {
                (Some(entry), _) => (&mut additions, format!("{} {}", entry.mode, entry.object)),
                (None, Some(gone)) => (&mut removals, format!("0 {}", no_object(&gone.object))),
                (None, None) => continue,
            };
            lines.extend_from_slice(entry.as_bytes());
            lines.push(b'\t');
            lines.extend_from_slice(name);
            lines.push(0);
        }
        // A file must be removed before a folder of its name is added.
        removals.append(&mut additions);
        self.write("update-index -z --index-info")
            .stdin(removals)
            .done()
            .await
    }

    /// Takes the files `names`, as they are now in the working copy, into the index; what is gone is removed from it.
    pub(super) async fn take_files(&self, names: &[&Name]) -> Result<(), RepoError> {
        if names.is_empty() {
            return Ok(());
        }
        self.write("-c core.safecrlf=false update-index --add --remove --replace -z --stdin")
            .stdin(listed(names))
            .done()
            .await
    }

    /// Returns the tracked files that a sparse checkout leaves out of the working copy.
    pub(super) async fn skipped(&self) -> Result<BTreeSet<Name>, RepoError> {
        let answer = self.read("ls-files -t -z").run().await?;
        let tagged = answer.records();
        Ok(tagged
            .filter_map(|record| record.strip_prefix(b"S "))
            .map(<[u8]>::to_vec)
            .collect())
    }

    /// Marks the entries `names` of the index as left out by a sparse checkout.
    pub(super) async fn skip(&self, names: &[&Name]) -> Result<(), RepoError> {
        if names.is_empty() {
            return Ok(());
        }
        self.write("update-index --skip-worktree -z --stdin")
            .stdin(listed(names))
            .done()
            .await
    }

    /// Writes the files `names` of `tree` below `to`, as a checkout of that tree would: line ends, encodings and filters
    /// follow the attributes in the tree, not those in the working copy.
    ///
    /// `files` are the entries of `names`; the index of this place is overwritten with them.
    pub(super) async fn check_out(
        &self,
        tree: &str,
        files: &Deltas,
        to: &Path,
    ) -> Result<(), RepoError> {
        self.set_entries(files, Side::New).await?;
        let mut prefix = std::ffi::OsString::from("--prefix=");
        prefix.push(to.join(""));
        self.write("checkout-index -f -q -z --stdin")
            .arg(prefix)
            .env("GIT_ATTR_SOURCE", tree)
            .stdin(listed(&files.keys().collect::<Vec<_>>()))
            .done()
            .await
    }

    /// Returns the paths that the file `.gitmodules` of the working copy declares.
    pub(super) async fn declared_submodules(&self) -> Result<BTreeSet<Name>, RepoError> {
        let file = self.file(b".gitmodules");
        if !file.exists() {
            return Ok(BTreeSet::new());
        }
        let answer = self
            .read("config -z --get-regexp -f")
            .arg(&file)
            .arg(r"^submodule\..*\.path$")
            .accept(&[1])
            .run()
            .await?;
        let paths = answer.records().filter_map(|record| {
            let mut lines = record.splitn(2, |byte| *byte == b'\n');
            lines.nth(1).map(<[u8]>::to_vec)
        });
        Ok(paths.collect())
    }
}

/// Returns the folders that `name` lies in.
pub(super) fn folders_of(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let slashes = name.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    slashes.map(|(at, _)| &name[..at])
}

/// Returns whether a link at `name` with the target `target` leads out of the repository, or into its git data.
pub(super) fn leads_out(name: &[u8], target: &Path) -> bool {
    use std::path::Component::{CurDir, Normal, ParentDir};
    let mut at: Vec<&std::ffi::OsStr> = Vec::new();
    let parent = bytes_path(name).parent().unwrap_or(Path::new(""));
    for part in parent.components().chain(target.components()) {
        match part {
            Normal(name) => at.push(name),
            CurDir => {}
            ParentDir if at.pop().is_some() => {}
            _ => return true,
        }
    }
    at.first().is_some_and(|first| *first == ".git")
}

/// Returns names as a `-z` listing.
fn listed(names: &[&Name]) -> Vec<u8> {
    let each = names
        .iter()
        .flat_map(|name| name.iter().copied().chain([0]));
    each.collect()
}

/// Reads `--raw -z`.
fn parse_raw(bytes: &[u8]) -> Option<Deltas> {
    let mut is_raw = true;
    let deltas = parse_raw_until(bytes, |_| is_raw = false);
    deltas.filter(|_| is_raw)
}

/// Reads `--raw -z`: `:oldmode newmode old new STATUS NUL path NUL`; passes other records to `other`.
fn parse_raw_until(bytes: &[u8], mut other: impl FnMut(&[u8])) -> Option<Deltas> {
    let mut deltas = BTreeMap::new();
    let mut records = bytes
        .split(|byte| *byte == 0)
        .filter(|record| !record.is_empty());
    while let Some(head) = records.next() {
        let Some(head) = head.strip_prefix(b":") else {
            other(head);
            continue;
        };
        let head = std::str::from_utf8(head).ok()?;
        let name = records.next()?;
        let mut fields = head.split(' ');
        let mut next = || fields.next().map(str::to_owned);
        let (old_mode, new_mode, old, new) = (next()?, next()?, next()?, next()?);
        let entry = |mode, object| (mode != NO_MODE).then_some(Entry { mode, object });
        deltas.insert(
            name.to_vec(),
            Delta {
                old: entry(old_mode, old),
                new: entry(new_mode, new),
            },
        );
    }
    Some(deltas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_diffs_keep_names_as_bytes() {
        let id = "a".repeat(40);
        let zero = "0".repeat(40);
        let mut bytes = format!(":000000 100644 {zero} {id} A\0").into_bytes();
        bytes.extend_from_slice(b"new\n\xff line\0");
        bytes.extend_from_slice(format!(":100755 000000 {id} {zero} D\0gone\0").as_bytes());
        let deltas = parse_raw(&bytes).expect("parsed");
        let new = &deltas[b"new\n\xff line".as_slice()];
        assert_eq!(
            (new.old.is_none(), new.new.as_ref().map(|e| e.mode.as_str())),
            (true, Some("100644"))
        );
        assert!(deltas[b"gone".as_slice()].new.is_none());
        assert!(parse_raw(b"nonsense\0").is_none());
    }

    #[test]
    fn links_out_of_the_repository_are_recognised() {
        let out = |name: &str, target: &str| leads_out(name.as_bytes(), Path::new(target));
        for (name, target) in [
            ("a", "b"),
            ("d/a", "../b"),
            ("d/e/a", "../../x/y"),
            ("a", "."),
        ] {
            assert!(!out(name, target), "{name} -> {target}");
        }
        for (name, target) in [
            ("a", "/etc"),
            ("a", ".."),
            ("d/a", "../../b"),
            ("d/a", "../.git/x"),
        ] {
            assert!(out(name, target), "{name} -> {target}");
        }
    }
}
