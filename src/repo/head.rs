//! Reads HEAD without a git process.
//!
//! Follows gitrepository-layout(5) and the packed-refs format: HEAD is a commit id or `ref: NAME`; a ref is a file of
//! its own or a line of `packed-refs`. Whatever has another form (reftable, a ref that points to a ref) is git's to
//! answer.

use super::git::{Git, Mode};
use super::layout::{is_absent, read_line, read_small};
use super::plumbing::Spot;
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

/// Returns what HEAD names, asking git only where its files have an unknown form.
pub(super) async fn of(git: &Git, layout: &Layout) -> Result<Head, RepoError> {
    of_spot(layout, &Spot::user(git, layout)).await
}

/// Returns the same where git is to be asked in a certain way.
pub(super) async fn of_spot(layout: &Layout, spot: &Spot<'_>) -> Result<Head, RepoError> {
    match read(layout) {
        Some(head) => Ok(head),
        None => ask(spot, &layout.dir).await,
    }
}

/// Returns what HEAD names, or none where its files have a form that is not known here.
pub(super) fn read(layout: &Layout) -> Option<Head> {
    // A link is the form of 2005: its text is the ref's, so the branch could not be told.
    let no_link = OFlags::NOFOLLOW.bits().cast_signed();
    let head = OpenOptions::new()
        .read(true)
        .custom_flags(no_link)
        .open(layout.git_dir.join("HEAD"))
        .ok()?;
    let text = String::from_utf8(read_line(head).ok()?).ok()?;
    let Some(name) = text.strip_prefix("ref: ") else {
        return Some(Head {
            commit: Some(as_commit(&text)?),
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

/// Returns the commit of the shared ref `name`; the inner none says that there is no such ref.
pub(super) fn read_ref(common_dir: &Path, name: &str) -> Option<Option<String>> {
    match read_small(&common_dir.join(name)) {
        Ok(text) => as_commit(std::str::from_utf8(&text).ok()?).map(Some),
        Err(error) if is_absent(&error) || error.kind() == std::io::ErrorKind::IsADirectory => {
            read_packed(common_dir, name)
        }
        Err(_) => None,
    }
}

fn read_packed(common_dir: &Path, name: &str) -> Option<Option<String>> {
    // Where refs are kept like that, their folder holds none, and this file is not there.
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
        std::str::from_utf8(commit).ok().and_then(as_commit)
    });
    Some(found)
}

/// Returns `text` where it is a whole SHA-1 or SHA-256 id.
pub(super) fn as_commit(text: &str) -> Option<String> {
    let is_id = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| text.to_owned())
}

async fn ask(spot: &Spot<'_>, dir: &Path) -> Result<Head, RepoError> {
    let commit = spot
        .cmd(Mode::Read, "rev-parse")
        .args(["--verify", "--quiet", "--end-of-options", "HEAD^{commit}"])
        .accept(&[1])
        .run()
        .await?;
    let branch = spot
        .cmd(Mode::Read, "symbolic-ref")
        .args(["--quiet", "HEAD"])
        .accept(&[1])
        .run()
        .await?;
    if commit.code != 0 && branch.code != 0 {
        return Err(RepoError::GitAnswer {
            command: "rev-parse HEAD".to_owned(),
            dir: dir.to_owned(),
        });
    }
    Ok(Head {
        commit: as_commit(&commit.line()),
        branch: branch.line().strip_prefix("refs/heads/").map(str::to_owned),
    })
}
