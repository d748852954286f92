//! The state of all worktrees and applies: for `check_health` and `list_repos`.

use super::clean::{BUSY, CleanRequest};
use super::json_file::folders;
use super::plumbing::Plumbing;
use super::record::WorktreeRecord;
use super::repos::{Context, Repos};
use super::{Layout, RepoError, RepoPath};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a self-check inspects worktrees: a git process each.
const HEALTH_BUDGET: Duration = Duration::from_secs(5);

/// The state of the worktrees and applies of one state directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// How many worktrees there are.
    pub worktrees: u32,
    /// How many of them were inspected in the time there was; the other figures are of these.
    pub looked_at: u32,
    /// Their size.
    pub bytes: u64,
    /// How much of that a cleaning would free.
    pub removable_bytes: u64,
    /// How many bytes they may take before no further one is made; none: any number.
    pub max_bytes: Option<u64>,
    /// How many are in use.
    pub in_use: u32,
    /// Those that hold work which was never applied, with the reason for each.
    pub unapplied: Vec<(PathBuf, String)>,
    /// Repositories in which a crash interrupted an apply or an undo; the next one there finishes it.
    pub interrupted_applies: Vec<String>,
    /// Repositories in which such a crash could not be rolled back wholly, with the folder that holds the old files.
    pub stuck_applies: Vec<(String, PathBuf)>,
}

impl Repos {
    /// Returns the state of worktrees and applies, for `check_health`.
    ///
    /// # Errors
    ///
    /// The state directory cannot be read.
    pub async fn health(&self) -> Result<Health, RepoError> {
        let context = &self.0;
        let all = CleanRequest {
            dry_run: true,
            budget: Some(HEALTH_BUDGET),
            ..CleanRequest::default()
        };
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let worktrees = count(folders(&context.worktrees)?.len());
        let inspected = context.clean(&all).await?;
        let mut health = Health {
            worktrees,
            looked_at: count(inspected.removed.len() + inspected.kept.len()),
            bytes: inspected.bytes
                + inspected
                    .kept
                    .iter()
                    .map(|kept| kept.worktree.bytes)
                    .sum::<u64>(),
            removable_bytes: inspected.bytes,
            max_bytes: context.disk_use.max_bytes(),
            ..Health::default()
        };
        for kept in inspected.kept {
            match kept.reason == BUSY {
                true => health.in_use += 1,
                false => health.unapplied.push((kept.worktree.path, kept.reason)),
            }
        }
        for apply in context.journal().all()? {
            if apply.is_open() {
                health.interrupted_applies.push(apply.repo);
            } else if !apply.is_applied() {
                let copies = context.journal().folder(&apply.id);
                health.stuck_applies.push((apply.repo, copies));
            }
        }
        Ok(health)
    }

    /// Returns for each of `repos` how many worktrees hold committed work that neither was applied nor is on a branch or
    /// tag of the user's. Repositories without such work are left out.
    ///
    /// # Errors
    ///
    /// The state directory cannot be read.
    pub async fn unapplied(&self, repos: &[RepoPath]) -> Result<HashMap<String, u64>, RepoError> {
        let mut works: HashMap<String, Vec<String>> = HashMap::new();
        let applied = self.0.applied()?;
        for folder in folders(&self.0.worktrees)? {
            if let Ok(record) = WorktreeRecord::load(&folder)
                && repos.iter().any(|repo| repo.as_str() == record.repo)
                && let Some(commit) = record.commit
                && !applied.contains(&commit)
            {
                works.entry(record.repo).or_default().push(commit);
            }
        }
        let mut counts = HashMap::new();
        for (repo, commits) in works {
            // A repository that cannot be read has the error in its own row; its work counts as unapplied.
            let count = self.0.beyond_refs(&repo, &commits).await;
            counts.insert(repo, count.unwrap_or(commits.len()) as u64);
        }
        counts.retain(|_, count| *count > 0);
        Ok(counts)
    }
}

impl Context {
    /// Counts those of `commits` that no branch, remote branch or tag of the user's holds.
    async fn beyond_refs(&self, repo: &str, commits: &[String]) -> Result<usize, RepoError> {
        let layout = Layout::required(Path::new(repo))?;
        let git: Plumbing<'_> = self.user(&layout);
        let answer = git
            .read("rev-list --ignore-missing")
            .args(commits)
            .args(["--not", "--exclude=mahavishnu/*/*", "--branches"])
            .args(["--remotes", "--tags"])
            .run()
            .await?;
        let text = String::from_utf8_lossy(&answer.stdout);
        let beyond: BTreeSet<&str> = text.lines().collect();
        let commits = commits.iter().map(String::as_str);
        Ok(commits.filter(|commit| beyond.contains(commit)).count())
    }
}
