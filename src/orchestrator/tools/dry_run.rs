//! What a dry run journals: the commit each item would begin from, and which items would be refused.

use crate::error::Problem;
use crate::model::{BaseRef, Isolation, ItemRecord, Settings, Stage};
use crate::orchestrator::Core;
use crate::repo::{Head, RepoPath};
use futures_util::{FutureExt, StreamExt, stream};

/// How many repositories are looked at at once.
const AT_ONCE: usize = 8;

impl Core {
    /// Fills in what the items of `repos`, each `settings.repeat` times in a row, would begin from.
    ///
    /// An item that would be refused stays planned with its error, since the cause may be gone when the plan is started.
    ///
    /// # Cancel safety
    ///
    /// Reads only, so that dropping it loses nothing.
    pub(super) async fn preview(
        &self,
        settings: &Settings,
        repos: &[RepoPath],
        items: &mut [ItemRecord],
    ) {
        let bases: Vec<_> = repos
            .iter()
            .map(|repo| self.base_of(settings, repo).boxed())
            .collect();
        let mut bases = stream::iter(bases).buffered(AT_ONCE);
        for records in items.chunks_mut(settings.repeat.max(1) as usize) {
            let Some(base) = bases.next().await else {
                return;
            };
            for record in records {
                match &base {
                    Ok(base) => {
                        record.base_commit.clone_from(&base.commit);
                        record.base_branch.clone_from(&base.branch);
                    }
                    Err(problem) => {
                        record.stage = Some(Stage::Start);
                        record.error = Some(problem.clone().into());
                    }
                }
            }
        }
    }

    async fn base_of(&self, settings: &Settings, repo: &RepoPath) -> Result<Head, Problem> {
        Ok(match (settings.isolation, &settings.base_ref) {
            (Isolation::InPlace, _) => self.repos.head(repo).await?,
            // The snapshot of uncommitted changes is taken when the item starts.
            (_, BaseRef::WorkingCopy) => Head {
                commit: None,
                ..self.repos.head(repo).await?
            },
            (_, base) => self.repos.base(repo, base).await?,
        })
    }
}
