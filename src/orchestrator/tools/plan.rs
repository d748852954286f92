//! A dry run's plan: what each item would begin from, and which would be refused, as they are journaled.

use crate::error::{Fault, Problem};
use crate::model::{BaseRef, Isolation, ItemRecord, Settings, Stage};
use crate::orchestrator::Core;
use crate::repo::{Head, RepoPath};
use futures_util::{FutureExt, StreamExt, stream};

/// How many repositories are looked at at once.
const AT_ONCE: usize = 8;

impl Core {
    /// Fills in what the items of `repos`, each `settings.repeat` times in a row, would begin from. One that would be
    /// refused stays planned and says why: it may have been mended when the plan is started.
    ///
    /// # Cancel safety
    ///
    /// Only looks, so dropping it loses nothing.
    pub(crate) async fn foresee(
        &self,
        settings: &Settings,
        repos: &[RepoPath],
        items: &mut [ItemRecord],
    ) {
        let looked: Vec<_> = repos
            .iter()
            .map(|repo| self.base_of(settings, repo).boxed())
            .collect();
        let mut looked = stream::iter(looked).buffered(AT_ONCE);
        for records in items.chunks_mut(settings.repeat.max(1) as usize) {
            let Some(found) = looked.next().await else {
                return;
            };
            for record in records {
                match &found {
                    Ok(base) => {
                        record.base_commit.clone_from(&base.commit);
                        record.base_branch.clone_from(&base.branch);
                    }
                    Err(problem) => {
                        record.stage = Some(Stage::Start);
                        record.error = Some(problem.clone());
                    }
                }
            }
        }
    }

    async fn base_of(&self, settings: &Settings, repo: &RepoPath) -> Result<Head, Problem> {
        let found = match (settings.isolation, &settings.base_ref) {
            (Isolation::InPlace, _) => self.repos.head(repo).await,
            // What is not committed is taken as it is when the item starts.
            (_, BaseRef::WorkingCopy) => self.repos.head(repo).await.map(|head| Head {
                commit: None,
                ..head
            }),
            (_, base) => self.repos.base(repo, base).await,
        };
        found.map_err(|error| error.problem())
    }
}
