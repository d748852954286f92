//! Trees, commits and diffs by git's plumbing commands, which run no hook, open no editor and touch no index of the
//! user's.

use super::git::{Git, Mode};
use super::head::as_commit;
use super::{Layout, RepoError};
use crate::model::DiffStat;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A path inside a repository: any bytes but NUL.
pub(super) type Name = Vec<u8>;

/// The mode of a submodule's entry in a tree.
pub(super) const GITLINK: &str = "160000";
/// What git writes for "no such entry".
const NO_MODE: &str = "000000";
/// The name under which commits are made where the user has configured none.
const FALLBACK_IDENTITY: [&str; 4] = [
    "-c",
    "user.name=mahavishnu",
    "-c",
    "user.email=mahavishnu@localhost",
];

/// Where git works: a working copy, its git directory, and the index to use.
#[derive(Debug, Clone)]
pub(super) struct Spot<'a> {
    git: &'a Git,
    dir: PathBuf,
    git_dir: Option<PathBuf>,
    index: Option<PathBuf>,
}

/// An entry of a tree: mode and object id, both as git writes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) mode: String,
    pub(super) object: String,
}

/// What a diff says of one path.
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
}

/// One side of a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// What was.
    Old,
    /// What is to be.
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

impl<'a> Spot<'a> {
    /// Works in the user's repository; git finds its data as it does for the user, ownership check included.
    pub(super) fn user(git: &'a Git, layout: &Layout) -> Self {
        Self {
            git,
            dir: layout.dir.clone(),
            git_dir: None,
            index: None,
        }
    }

    /// Works in a worktree of ours. Naming the git directory keeps git from wandering up into some other repository
    /// where a worker has removed `.git`.
    pub(super) fn worktree(git: &'a Git, dir: &Path, git_dir: &Path) -> Self {
        Self {
            git,
            dir: dir.to_owned(),
            git_dir: Some(git_dir.to_owned()),
            index: None,
        }
    }

    /// Returns the same place with another index file.
    pub(super) fn with_index(&self, index: &Path) -> Self {
        Self {
            index: Some(index.to_owned()),
            ..self.clone()
        }
    }

    /// Begins a call of git here.
    pub(super) fn cmd(&self, mode: Mode, subcommand: &'static str) -> super::git::Cmd {
        self.cmd_with(mode, &[], subcommand)
    }

    /// Begins a call of git here with options before the subcommand.
    pub(super) fn cmd_with(
        &self,
        mode: Mode,
        options: &[&str],
        subcommand: &'static str,
    ) -> super::git::Cmd {
        let mut cmd = self.git.cmd_with(&self.dir, mode, options, subcommand);
        if let Some(git_dir) = &self.git_dir {
            cmd = cmd.env("GIT_DIR", git_dir).env("GIT_WORK_TREE", &self.dir);
        }
        if let Some(index) = &self.index {
            cmd = cmd.env("GIT_INDEX_FILE", index);
        }
        cmd
    }

    /// Returns the commit that `spec` names, or none. `spec` cannot be taken for an option.
    pub(super) async fn commit(&self, spec: &str) -> Result<Option<String>, RepoError> {
        let answer = self
            .cmd(Mode::Read, "rev-parse")
            .args(["--verify", "--quiet", "--end-of-options"])
            .arg(format!("{spec}^{{commit}}"))
            .accept(&[1, 128])
            .run()
            .await?;
        Ok(as_commit(&answer.line()))
    }

    /// Returns the tree of a commit that is known to exist.
    pub(super) async fn tree_of(&self, commit: &str) -> Result<String, RepoError> {
        let answer = self
            .cmd(Mode::Read, "rev-parse")
            .args(["--verify", "--end-of-options"])
            .arg(format!("{commit}^{{tree}}"))
            .run()
            .await?;
        self.id(&answer.line(), "rev-parse")
    }

    /// Takes all tracked and new, not ignored files into the index, also those outside a sparse checkout; what is absent
    /// because it lies outside stays as it is.
    pub(super) async fn add_all(&self) -> Result<(), RepoError> {
        self.cmd_with(
            Mode::Write,
            &[
                "-c",
                "advice.addEmbeddedRepo=false",
                "-c",
                "core.safecrlf=false",
            ],
            "add",
        )
        .args(["--sparse", "-A", "--", "."])
        .run()
        .await
        .map(drop)
    }

    /// Writes the index as a tree.
    pub(super) async fn write_tree(&self) -> Result<String, RepoError> {
        let answer = self.cmd(Mode::Write, "write-tree").run().await?;
        self.id(&answer.line(), "write-tree")
    }

    /// Makes a commit object under the user's configured name, or under ours where there is none. Nothing is signed.
    pub(super) async fn commit_tree(
        &self,
        tree: &str,
        parents: &[&str],
        message: &str,
    ) -> Result<String, RepoError> {
        let make = |identity: &[&str]| {
            let mut options = vec!["-c", "user.useConfigOnly=true"];
            options.extend(identity);
            let parents = parents.iter().flat_map(|parent| ["-p", parent]);
            self.cmd_with(Mode::Write, &options, "commit-tree")
                .args(["--no-gpg-sign", tree])
                .args(parents)
                .args(["-F", "-"])
                .stdin(message.as_bytes().to_vec())
                .run()
        };
        let answer = match make(&[]).await {
            Err(RepoError::Git { stderr, .. }) if stderr.contains("tell me who you are") => {
                make(&FALLBACK_IDENTITY).await?
            }
            other => other?,
        };
        self.id(&answer.line(), "commit-tree")
    }

    /// Moves `name` to `new`, if it is at `old` (zeros: if it does not exist) where that is given.
    pub(super) async fn update_ref(
        &self,
        name: &str,
        new: &str,
        old: Option<&str>,
        why: &str,
    ) -> Result<(), RepoError> {
        self.cmd(Mode::Write, "update-ref")
            .args(["-m", why, "--", name, new])
            .args(old)
            .run()
            .await
            .map(drop)
    }

    /// Deletes `name` if it is at `old`.
    pub(super) async fn delete_ref(&self, name: &str, old: &str) -> Result<(), RepoError> {
        self.cmd(Mode::Write, "update-ref")
            .args(["-d", name, old])
            .run()
            .await
            .map(drop)
    }

    /// Merges `theirs` into `ours` over `base`, all commits, without touching any file or ref.
    pub(super) async fn merge(
        &self,
        base: &str,
        ours: &str,
        theirs: &str,
    ) -> Result<Merged, RepoError> {
        let answer = self
            .cmd(Mode::Write, "merge-tree")
            .args(["--write-tree", "-z", "--name-only", "--no-messages"])
            .arg(format!("--merge-base={base}"))
            .args([ours, theirs])
            .accept(&[1])
            .run()
            .await?;
        let mut records = answer.records();
        let tree = String::from_utf8_lossy(records.next().unwrap_or_default()).into_owned();
        if answer.code == 0 {
            return self.id(&tree, "merge-tree").map(Merged::Clean);
        }
        let mut paths: Vec<Name> = records.map(<[u8]>::to_vec).collect();
        paths.sort_unstable();
        paths.dedup();
        Ok(Merged::Conflicts(paths))
    }

    /// Returns what differs between two trees or commits, renames taken apart.
    pub(super) async fn diff(
        &self,
        old: &str,
        new: &str,
    ) -> Result<BTreeMap<Name, Delta>, RepoError> {
        let answer = self
            .cmd(Mode::Read, "diff-tree")
            .args([
                "-r",
                "-z",
                "--raw",
                "--no-renames",
                "--no-abbrev",
                "--end-of-options",
                old,
                new,
            ])
            .run()
            .await?;
        parse_raw(&answer.stdout).ok_or_else(|| self.unknown("diff-tree"))
    }

    /// Returns what is staged against `commit`.
    pub(super) async fn staged(&self, commit: &str) -> Result<BTreeMap<Name, Delta>, RepoError> {
        let answer = self
            .cmd(Mode::Read, "diff-index")
            .args(["--cached", "-z", "--raw", "--no-renames", "--no-abbrev"])
            .args(["--ignore-submodules=none", "--end-of-options", commit])
            .run()
            .await?;
        parse_raw(&answer.stdout).ok_or_else(|| self.unknown("diff-index"))
    }

    /// Returns how large the difference between two commits is.
    pub(super) async fn stat(&self, old: &str, new: &str) -> Result<DiffStat, RepoError> {
        let answer = self
            .cmd(Mode::Read, "diff-tree")
            .args([
                "-r",
                "-z",
                "--numstat",
                "--no-renames",
                "--end-of-options",
                old,
                new,
            ])
            .run()
            .await?;
        let mut stat = DiffStat {
            files: 0,
            insertions: 0,
            deletions: 0,
        };
        for record in answer.records() {
            let mut fields = record.splitn(3, |byte| *byte == b'\t');
            // A binary file has `-` for both numbers.
            let mut number = || {
                let text = fields
                    .next()
                    .and_then(|field| std::str::from_utf8(field).ok());
                text.and_then(|text| text.parse::<u32>().ok()).unwrap_or(0)
            };
            stat.insertions = stat.insertions.saturating_add(number());
            stat.deletions = stat.deletions.saturating_add(number());
            stat.files = stat.files.saturating_add(1);
        }
        Ok(stat)
    }

    /// Brings the paths of `deltas` in the index to their new side, or back to their old side.
    pub(super) async fn set_entries(
        &self,
        deltas: &BTreeMap<Name, Delta>,
        side: Side,
    ) -> Result<(), RepoError> {
        let mut lines = Vec::new();
        let mut removals = Vec::new();
        for (name, delta) in deltas {
            let other = match side {
                Side::New => Side::Old,
                Side::Old => Side::New,
            };
            let (wanted, other) = (delta.at(side), delta.at(other));
            let to = match (wanted, other) {
                (Some(entry), _) => {
                    lines
                        .extend_from_slice(format!("{} {}\t", entry.mode, entry.object).as_bytes());
                    &mut lines
                }
                (None, Some(gone)) => {
                    removals
                        .extend_from_slice(format!("0 {}\t", no_object(&gone.object)).as_bytes());
                    &mut removals
                }
                (None, None) => continue,
            };
            to.extend_from_slice(name);
            to.push(0);
        }
        // A file must leave before a folder of its name comes.
        removals.append(&mut lines);
        self.cmd(Mode::Write, "update-index")
            .args(["-z", "--index-info"])
            .stdin(removals)
            .run()
            .await
            .map(drop)
    }

    /// Takes the files `names`, as they are now in the working copy, into the index; what is gone leaves it.
    pub(super) async fn take_files(&self, names: &[&Name]) -> Result<(), RepoError> {
        if names.is_empty() {
            return Ok(());
        }
        self.cmd_with(Mode::Write, &["-c", "core.safecrlf=false"], "update-index")
            .args(["--add", "--remove", "--replace", "-z", "--stdin"])
            .stdin(listed(names))
            .run()
            .await
            .map(drop)
    }

    /// Returns the tracked files that a sparse checkout leaves out of the working copy.
    pub(super) async fn skipped(&self) -> Result<BTreeSet<Name>, RepoError> {
        let answer = self
            .cmd(Mode::Read, "ls-files")
            .args(["-t", "-z"])
            .run()
            .await?;
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
        self.cmd(Mode::Write, "update-index")
            .args(["--skip-worktree", "-z", "--stdin"])
            .stdin(listed(names))
            .run()
            .await
            .map(drop)
    }

    /// Returns whether `old` is an ancestor of `new` or the same commit.
    pub(super) async fn is_ancestor(&self, old: &str, new: &str) -> Result<bool, RepoError> {
        let answer = self
            .cmd(Mode::Read, "merge-base")
            .args(["--is-ancestor", old, new])
            .accept(&[1])
            .run()
            .await?;
        Ok(answer.code == 0)
    }

    fn id(&self, text: &str, command: &str) -> Result<String, RepoError> {
        as_commit(text).ok_or_else(|| self.unknown(command))
    }

    fn unknown(&self, command: &str) -> RepoError {
        RepoError::GitAnswer {
            command: command.to_owned(),
            dir: self.dir.clone(),
        }
    }
}

/// Returns names as a `-z` listing.
pub(super) fn listed(names: &[&Name]) -> Vec<u8> {
    let each = names
        .iter()
        .flat_map(|name| name.iter().copied().chain([0]));
    each.collect()
}

/// Returns the zeros that mean "this ref must not exist", as long as `id`.
pub(super) fn no_object(id: &str) -> String {
    "0".repeat(id.len())
}

/// Reads `--raw -z`: `:oldmode newmode old new STATUS NUL path NUL`.
fn parse_raw(bytes: &[u8]) -> Option<BTreeMap<Name, Delta>> {
    let mut deltas = BTreeMap::new();
    let mut records = bytes
        .split(|byte| *byte == 0)
        .filter(|record| !record.is_empty());
    while let Some(head) = records.next() {
        let head = std::str::from_utf8(head).ok()?.strip_prefix(':')?;
        let name = records.next()?;
        let mut fields = head.split(' ');
        let (old_mode, new_mode) = (fields.next()?, fields.next()?);
        let (old, new) = (fields.next()?, fields.next()?);
        let entry = |mode: &str, object: &str| {
            (mode != NO_MODE).then(|| Entry {
                mode: mode.to_owned(),
                object: object.to_owned(),
            })
        };
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

/// Returns an index file name of its own in `dir`, removed when dropped.
pub(super) struct TempIndex {
    path: PathBuf,
}

impl TempIndex {
    /// Names a file in `dir` that does not exist yet.
    pub(super) fn in_dir(dir: &Path) -> Result<Self, RepoError> {
        super::lock::make_private_dir(dir)?;
        let name: OsString = format!("index-{}", ulid::Ulid::generate()).into();
        Ok(Self {
            path: dir.join(name),
        })
    }

    /// Returns the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempIndex {
    fn drop(&mut self) {
        for file in [self.path.clone(), self.path.with_extension("lock")] {
            if let Err(error) = std::fs::remove_file(&file)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(?file, %error, "a temporary index stays behind");
            }
        }
    }
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
}
