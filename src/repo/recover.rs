//! Finishes or takes back applies and undos that a crash has cut off.

use super::apply::Applier;
use super::journal::{ApplyHead, ApplyRecord, Phase};
use super::lock::Lane;
use super::plumbing::Spot;
use super::{Layout, RepoError, RepoPath};
use std::path::{Path, PathBuf};

/// What a start has done with an apply or an undo that a crash had interrupted.
#[derive(Debug)]
pub struct Recovered {
    /// The repository.
    pub repo: String,
    /// How that went.
    pub outcome: Result<Recovery, RepoError>,
}

/// How an interrupted apply or undo ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// It was finished: the work is home.
    Finished,
    /// It was taken back: the repository is as it was before.
    TakenBack,
    /// Somebody else had changed what it had touched, which stays so; the folder holds the old contents.
    Stuck(PathBuf),
}

impl Applier<'_> {
    /// Finishes or takes back what a crash has left in `repo`, whose working copy lock the caller holds.
    pub(super) async fn recover_repo(
        &self,
        repo: &RepoPath,
        layout: &Layout,
    ) -> Result<(), RepoError> {
        for head in self.journal.all()? {
            if head.repo == repo.as_str() && head.phase.is_open() {
                self.recover_one(&head.token(), layout).await?;
            }
        }
        Ok(())
    }

    async fn recover_one(&self, token: &str, layout: &Layout) -> Result<Recovery, RepoError> {
        let spot = Spot::user(self.git, layout);
        let mut record = self.journal.by_token::<ApplyRecord>(token)?;
        match record.phase {
            Phase::Applying => drop(self.roll_back(&mut record, layout, &spot).await?),
            Phase::Undoing => self.take_back(&mut record, layout, &spot).await?,
            Phase::Applied | Phase::Stuck => {}
        }
        Ok(match record.phase {
            Phase::Applied => Recovery::Finished,
            Phase::Stuck => Recovery::Stuck(self.journal.home(&record.id)),
            Phase::Applying | Phase::Undoing => Recovery::TakenBack,
        })
    }

    /// Finishes or takes back what a crash has left anywhere. Repositories that somebody works in are left to that
    /// server, and what cannot be recovered does not keep the others from it.
    pub(super) async fn recover(&self) -> Result<Vec<Recovered>, RepoError> {
        let mut recovered = Vec::new();
        for head in self.journal.all()? {
            if !head.phase.is_open() {
                continue;
            }
            if let Some(outcome) = self.recover_anywhere(&head).await.transpose() {
                let repo = head.repo;
                recovered.push(Recovered { repo, outcome });
            }
        }
        Ok(recovered)
    }

    /// Recovers one apply; none where another server is at it, or was.
    async fn recover_anywhere(&self, head: &ApplyHead) -> Result<Option<Recovery>, RepoError> {
        let dir = Path::new(&head.repo);
        let layout = Layout::at(dir).map_err(RepoError::io("read", dir))?;
        let layout = layout.ok_or_else(|| RepoError::not_a_repository(dir))?;
        let lock = self.locks.try_lock(&layout.common_dir, Lane::WorkingCopy)?;
        if lock.is_none() {
            return Ok(None);
        }
        // Looked at again under the lock: it may just have ended.
        match self.journal.by_token::<ApplyHead>(&head.token()) {
            Ok(head) if head.phase.is_open() => {
                self.recover_one(&head.token(), &layout).await.map(Some)
            }
            _ => Ok(None),
        }
    }
}
