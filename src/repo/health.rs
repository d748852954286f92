//! How the worktrees and applies of one state directory stand: for `check_health` and `list_repos`.

use super::clean::{CleanRequest, Cleaner};
use super::git::Mode;
use super::journal::Phase;
use super::plumbing::Spot;
use super::record::{self, WorktreeRecord};
use super::{Layout, RepoError, RepoPath};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a self-check looks at worktrees: a git process each.
const HEALTH_BUDGET: Duration = Duration::from_secs(5);

/// What the worktrees and applies of one state directory look like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// How many worktrees there are.
    pub worktrees: u32,
    /// How many of them were looked at in the time there was; the other figures are of these.
    pub looked_at: u32,
    /// Their size.
    pub bytes: u64,
    /// How many are being worked in.
    pub in_use: u32,
    /// How many hold work that was never applied, with the reason for each.
    pub unapplied: Vec<(PathBuf, String)>,
    /// Repositories in which a crash interrupted an apply or an undo; the next one there finishes it.
    pub interrupted_applies: Vec<String>,
    /// Repositories in which such a crash could not be cleaned up wholly, with the folder that holds the old files.
    pub stuck_applies: Vec<(String, PathBuf)>,
}

impl Cleaner<'_> {
    /// Counts the worktrees of each repository that hold work which is not home.
    pub(super) async fn unapplied(
        &self,
        repos: &[RepoPath],
    ) -> Result<HashMap<String, u64>, RepoError> {
        let mut works: HashMap<String, Vec<String>> = HashMap::new();
        let applied = self.applied()?;
        for home in record::homes(self.maker.dir)? {
            if let Ok(record) = WorktreeRecord::load(&home)
                && repos.iter().any(|repo| repo.as_str() == record.repo)
                && let Some(commit) = record.commit
                && !applied.contains(&commit)
            {
                works.entry(record.repo).or_default().push(commit);
            }
        }
        let mut counts = HashMap::new();
        for (repo, commits) in works {
            // A repository that cannot be asked says why in its own row; its work is not home.
            let homeless = match Layout::at(Path::new(&repo)) {
                Ok(Some(layout)) => {
                    beyond_refs(&Spot::user(self.maker.git, &layout), &commits).await
                }
                _ => Ok(commits.len()),
            };
            counts.insert(repo, homeless.unwrap_or(commits.len()) as u64);
        }
        counts.retain(|_, count| *count > 0);
        Ok(counts)
    }

    /// Returns how worktrees and applies look.
    pub(super) async fn health(&self) -> Result<Health, RepoError> {
        let all = CleanRequest {
            dry_run: true,
            budget: Some(HEALTH_BUDGET),
            ..CleanRequest::default()
        };
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let worktrees = count(record::homes(self.maker.dir)?.len());
        let looked = self.clean(&all).await?;
        let mut health = Health {
            worktrees,
            looked_at: count(looked.removed.len() + looked.kept.len()),
            bytes: looked.bytes + looked.kept.iter().map(|kept| kept.bytes).sum::<u64>(),
            ..Health::default()
        };
        for kept in looked.kept {
            let home = kept.path.parent().unwrap_or(&kept.path);
            if kept.workflow.is_some() && record::claim(home, self.maker.alive)?.is_none() {
                health.in_use += 1;
            } else {
                health.unapplied.push((kept.path, kept.reason));
            }
        }
        for apply in self.journal.all()? {
            match apply.phase {
                Phase::Applied => {}
                Phase::Applying | Phase::Undoing => health.interrupted_applies.push(apply.repo),
                Phase::Stuck => {
                    let copies = self.journal.home(&apply.id);
                    health.stuck_applies.push((apply.repo, copies));
                }
            }
        }
        Ok(health)
    }
}

/// Counts those of `commits` that no branch, remote branch or tag of the user's holds.
async fn beyond_refs(spot: &Spot<'_>, commits: &[String]) -> Result<usize, RepoError> {
    let answer = spot
        .cmd(Mode::Read, "rev-list")
        .args(["--ignore-missing"])
        .args(commits)
        .args(["--not", "--exclude=mahavishnu/*/*", "--branches"])
        .args(["--remotes", "--tags"])
        .run()
        .await?;
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    let beyond: BTreeSet<&str> = text.lines().collect();
    Ok(commits
        .iter()
        .filter(|commit| beyond.contains(commit.as_str()))
        .count())
}
