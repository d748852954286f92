//! Reads HEAD without a git process.
//!
//! Follows gitrepository-layout(5) and the packed-refs format: HEAD is a commit id or `ref: NAME`; a ref is a file of
//! its own or a line of `packed-refs`. git is asked where its files have another form (reftable, a ref that points to a
//! ref). Items in place read HEAD twice each; two git processes would cost more than running a short program.

use super::layout::{is_absent, read_line, read_small};
use super::plumbing::{Plumbing, object_id};
use super::{Layout, RepoError};
use rustix::fs::OFlags;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What HEAD names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The commit, as hex; none before the first commit.
    pub commit: Option<String>,
    /// The branch, without `refs/heads/`; none where HEAD is detached.
    pub branch: Option<String>,
}

impl Head {
    /// Returns the ref that a commit on HEAD moves.
    pub(super) fn ref_name(&self) -> String {
        match &self.branch {
            Some(branch) => format!("refs/heads/{branch}"),
            None => "HEAD".to_owned(),
        }
    }
}

/// Returns what HEAD names in the repository `layout`, where `git` works too.
pub(super) async fn of(git: &Plumbing<'_>, layout: &Layout) -> Result<Head, RepoError> {
    match read(layout) {
        Some(head) => Ok(head),
        None => ask(git).await,
    }
}

/// Returns the commit that the shared ref `name` is at.
pub(super) async fn ref_at(
    git: &Plumbing<'_>,
    layout: &Layout,
    name: &str,
) -> Result<Option<String>, RepoError> {
    match read_ref(&layout.common_dir, name) {
        Some(at) => Ok(at),
        None => git.commit(name).await,
    }
}

/// Returns what HEAD names, or none where its files have a form that is not known here.
fn read(layout: &Layout) -> Option<Head> {
    // In the form of 2005 HEAD is a symbolic link, whose text is the ref's; the branch cannot be read from it.
    let no_link = OFlags::NOFOLLOW.bits().cast_signed();
    let head = OpenOptions::new()
        .read(true)
        .custom_flags(no_link)
        .open(layout.git_dir.join("HEAD"))
        .ok()?;
    let text = String::from_utf8(read_line(head).ok()?).ok()?;
    let Some(name) = text.strip_prefix("ref: ") else {
        return Some(Head {
            commit: Some(object_id(&text)?),
            branch: None,
        });
    };
    let branch = name.strip_prefix("refs/heads/")?;
    // Reftable keeps this name in HEAD for programs that do not know it.
    if branch == ".invalid" {
        return None;
    }
    Some(Head {
        commit: read_ref(&layout.common_dir, name)?,
        branch: Some(branch.to_owned()),
    })
}

/// Returns the commit of the shared ref `name`: `Some(None)` where there is no such ref, none where git must be asked.
fn read_ref(common_dir: &Path, name: &str) -> Option<Option<String>> {
    match read_small(&common_dir.join(name)) {
        Ok(text) => object_id(std::str::from_utf8(&text).ok()?).map(Some),
        Err(error) if is_absent(&error) || error.kind() == std::io::ErrorKind::IsADirectory => {
            read_packed(common_dir, name)
        }
        Err(_) => None,
    }
}

fn read_packed(common_dir: &Path, name: &str) -> Option<Option<String>> {
    // In a reftable repository the folder of refs is empty and packed-refs does not exist.
    if common_dir.join("reftable").exists() {
        return None;
    }
    let packed = match fs::read(common_dir.join("packed-refs")) {
        Ok(packed) => packed,
        Err(error) if is_absent(&error) => return Some(None),
        Err(_) => return None,
    };
    let found = packed.split(|byte| *byte == b'\n').find_map(|line| {
        let commit = line.strip_suffix(name.as_bytes())?.strip_suffix(b" ")?;
        std::str::from_utf8(commit).ok().and_then(object_id)
    });
    Some(found)
}

async fn ask(git: &Plumbing<'_>) -> Result<Head, RepoError> {
    let commit = git
        .read("rev-parse --verify --quiet --end-of-options HEAD^{commit}")
        .accept(&[1])
        .run()
        .await?;
    let branch = git
        .read("symbolic-ref --quiet HEAD")
        .accept(&[1])
        .run()
        .await?;
    if commit.code != 0 && branch.code != 0 {
        return Err(git.unknown_form("rev-parse HEAD"));
    }
    Ok(Head {
        commit: object_id(&commit.line()),
        branch: branch.line().strip_prefix("refs/heads/").map(str::to_owned),
    })
}
