//! git's plumbing commands in one repository or worktree: commits, refs and status.
//!
//! They run no hook, open no editor and touch no index of the user's. Trees and diffs are in `trees`.

use super::git::{Cmd, Git, Mode};
use super::layout::bytes_path;
use super::{Layout, RepoError};
use crate::model::WorkflowId;
use std::path::{Path, PathBuf};

/// A path inside a repository: any bytes but NUL.
pub(super) type Name = Vec<u8>;

/// The options that set the author of commits where the user has configured none.
const FALLBACK_IDENTITY: &str =
    "-c user.name=mahavishnu -c user.email=mahavishnu@localhost commit-tree --no-gpg-sign";

/// Where git works: a working copy, its git directory, and the index to use.
#[derive(Debug, Clone)]
pub(super) struct Plumbing<'a> {
    git: &'a Git,
    dir: PathBuf,
    git_dir: Option<PathBuf>,
    index: Option<PathBuf>,
}

/// A ref and the commit it is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ref {
    pub(super) name: String,
    pub(super) commit: String,
}

impl<'a> Plumbing<'a> {
    /// Works in the user's repository; git finds its data as it does for the user, ownership check included.
    pub(super) fn user(git: &'a Git, layout: &Layout) -> Self {
        Self {
            git,
            dir: layout.dir.clone(),
            git_dir: None,
            index: None,
        }
    }

    /// Works in a worktree of this server. Naming the git directory keeps git from finding another repository further
    /// up where a worker has removed `.git`.
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

    /// Begins a call of git that only reads. `line` is options of git, subcommand and arguments, separated by blanks.
    pub(super) fn read(&self, line: &'static str) -> Cmd {
        self.cmd(Mode::Read, line)
    }

    /// Begins a call of git that writes; `line` as in [`Self::read`].
    pub(super) fn write(&self, line: &'static str) -> Cmd {
        self.cmd(Mode::Write, line)
    }

    fn cmd(&self, mode: Mode, line: &'static str) -> Cmd {
        let mut words = line.split(' ').peekable();
        let mut options = Vec::new();
        while words.next_if_eq(&"-c").is_some() {
            options.push("-c");
            options.extend(words.next());
        }
        let subcommand = words.next().unwrap_or_default();
        let mut cmd = self
            .git
            .cmd_with(&self.dir, mode, &options, subcommand)
            .args(words);
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
            .read("rev-parse --verify --quiet --end-of-options")
            .arg(format!("{spec}^{{commit}}"))
            .accept(&[1, 128])
            .run()
            .await?;
        Ok(object_id(&answer.line()))
    }

    /// Returns the tree of a commit that is known to exist.
    pub(super) async fn tree_of(&self, commit: &str) -> Result<String, RepoError> {
        let cmd = self.read("rev-parse --verify --end-of-options");
        self.one_id(cmd.arg(format!("{commit}^{{tree}}")), "rev-parse")
            .await
    }

    /// Writes the index as a tree.
    pub(super) async fn write_tree(&self) -> Result<String, RepoError> {
        self.one_id(self.write("write-tree"), "write-tree").await
    }

    /// Makes a commit object under the user's configured name, or under this program's where there is none. Nothing is
    /// signed.
    pub(super) async fn commit_tree(
        &self,
        tree: &str,
        parents: &[&str],
        message: &str,
    ) -> Result<String, RepoError> {
        let make = |line: &'static str| {
            let parents = parents.iter().flat_map(|parent| ["-p", parent]);
            let cmd = self.write(line).arg(tree).args(parents).args(["-F", "-"]);
            self.one_id(cmd.stdin(message.as_bytes().to_vec()), "commit-tree")
        };
        match make("-c user.useConfigOnly=true commit-tree --no-gpg-sign").await {
            Err(RepoError::Git { stderr, .. }) if stderr.contains("tell me who you are") => {
                make(FALLBACK_IDENTITY).await
            }
            made => made,
        }
    }

    /// Moves `name` to `new`, if it is at `old` (zeros: if it does not exist) where that is given.
    pub(super) async fn update_ref(
        &self,
        name: &str,
        new: &str,
        old: Option<&str>,
        why: &str,
    ) -> Result<(), RepoError> {
        self.write("update-ref -m")
            .args([why, "--", name, new])
            .args(old)
            .done()
            .await
    }

    /// Deletes `name` if it is at `old`.
    pub(super) async fn delete_ref(&self, name: &str, old: &str) -> Result<(), RepoError> {
        self.write("update-ref -d").args([name, old]).done().await
    }

    /// Returns the refs below `patterns`; with `containing`, only those that hold this commit.
    pub(super) async fn refs(
        &self,
        containing: Option<&str>,
        patterns: &[&str],
    ) -> Result<Vec<Ref>, RepoError> {
        let mut cmd = self.read("for-each-ref --format=%(objectname)%20%(refname)");
        if let Some(commit) = containing {
            cmd = cmd.args(["--contains", commit]);
        }
        let answer = cmd.args(patterns).run().await?;
        let text = String::from_utf8_lossy(&answer.stdout);
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let refs = lines.map(|(commit, name)| Ref {
            name: name.to_owned(),
            commit: commit.to_owned(),
        });
        Ok(refs.collect())
    }

    /// Returns whether a branch, remote branch or tag of the user's holds `commit`; branches of items do not count.
    pub(super) async fn is_users(&self, commit: &str) -> Result<bool, RepoError> {
        let patterns = ["refs/heads", "refs/remotes", "refs/tags"];
        let refs = self.refs(Some(commit), &patterns).await?;
        Ok(refs.iter().any(|found| !is_item_branch(&found.name)))
    }

    /// Returns whether `old` is an ancestor of `new` or the same commit.
    pub(super) async fn is_ancestor(&self, old: &str, new: &str) -> Result<bool, RepoError> {
        let answer = self
            .read("merge-base --is-ancestor")
            .args([old, new])
            .accept(&[1])
            .run()
            .await?;
        Ok(answer.code == 0)
    }

    /// Returns what `git status` lists: files that are changed, staged, in conflict or new, as `XY NAME`.
    pub(super) async fn status(&self) -> Result<Vec<Vec<u8>>, RepoError> {
        let answer = self
            .read("status --porcelain -z --no-renames --untracked-files=normal --ignore-submodules=none")
            .run()
            .await?;
        Ok(answer.records().map(<[u8]>::to_vec).collect())
    }

    /// Returns the text of the difference between two commits or trees, at most `max_bytes` of it.
    pub(super) async fn diff_text(
        &self,
        old: &str,
        new: &str,
        max_bytes: u64,
    ) -> Result<Vec<u8>, RepoError> {
        let answer = self
            .read("diff-tree -r -p --no-color --no-ext-diff --no-textconv --find-renames --end-of-options")
            .args([old, new])
            .keep_at_most(max_bytes)
            .run()
            .await?;
        Ok(answer.stdout)
    }

    /// Runs `cmd`, whose first line of output is an object id.
    pub(super) async fn one_id(&self, cmd: Cmd, command: &str) -> Result<String, RepoError> {
        let answer = cmd.run().await?;
        object_id(&answer.line()).ok_or_else(|| self.unknown_form(command))
    }

    /// Returns the error for output of `command` that does not have the documented form.
    pub(super) fn unknown_form(&self, command: &str) -> RepoError {
        RepoError::GitAnswer {
            command: command.to_owned(),
            dir: self.dir.clone(),
        }
    }

    /// Returns the path of a file of the working copy.
    pub(super) fn file(&self, name: &[u8]) -> PathBuf {
        self.dir.join(bytes_path(name))
    }
}

impl Cmd {
    /// Runs git for its effect alone.
    pub(super) async fn done(self) -> Result<(), RepoError> {
        self.run().await.map(drop)
    }
}

/// Returns `text` where it is a whole SHA-1 or SHA-256 id.
pub(super) fn object_id(text: &str) -> Option<String> {
    let is_id = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| text.to_owned())
}

/// Returns the zeros that mean "this ref must not exist", as long as `id`.
pub(super) fn no_object(id: &str) -> String {
    "0".repeat(id.len())
}

/// Returns a name for people.
pub(super) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Returns whether `name` is the branch of an item's attempt: `mahavishnu/WORKFLOW/ITEM-ATTEMPT`, or one more such.
fn is_item_branch(name: &str) -> bool {
    let parts = name
        .strip_prefix("refs/heads/mahavishnu/")
        .and_then(|rest| rest.split_once('/'));
    parts.is_some_and(|(workflow, attempt)| {
        workflow.parse::<WorkflowId>().is_ok()
            && attempt.contains('-')
            && attempt
                .split('-')
                .all(|number| number.parse::<u32>().is_ok())
    })
}
