//! `aggregate_memory`, `cross_pool_search`, `remember` and `clear_cache`: repositories by name, then the memories.

use crate::api::{
    AggregateMemory, AggregateMemoryResult, Caller, ClearCache, ClearCacheResult, CrossPoolSearch,
    CrossPoolSearchResult, Remember, RememberResult,
};
use crate::error::{ErrorKind, Problem};
use crate::orchestrator::Orchestrator;

impl Orchestrator {
    /// Answers `aggregate_memory`.
    pub(super) async fn aggregate_memory(
        &self,
        args: AggregateMemory,
        caller: &Caller,
    ) -> Result<AggregateMemoryResult, Problem> {
        tokio::select! {
            done = self.0.memories.aggregate(args, caller, &*self.0) => done,
            // Only the answer is given up: collected memories are stored and forwarded all the same.
            _ = caller.interrupted() => Err(Problem::new(
                ErrorKind::Cancelled,
                "the call was interrupted; what was collected so far is kept",
            )
            .with_hint("call aggregate_memory again to collect the rest")),
        }
    }

    /// Answers `cross_pool_search`.
    pub(super) async fn cross_pool_search(
        &self,
        args: CrossPoolSearch,
    ) -> Result<CrossPoolSearchResult, Problem> {
        let repo = match &args.repo {
            // Memories of a repository that is gone from the disk are found by its name as it was given.
            Some(spec) => Some(match self.0.repos.resolve(spec).await {
                Ok(repo) => repo.as_str().to_owned(),
                Err(_) => spec.clone(),
            }),
            None => None,
        };
        self.0.memories.search(args, repo, &*self.0).await
    }

    /// Answers `remember`.
    pub(super) async fn remember(&self, args: Remember) -> Result<RememberResult, Problem> {
        let repo = match &args.repo {
            Some(spec) => Some(self.0.repos.resolve(spec).await?.as_str().to_owned()),
            None => None,
        };
        self.0.memories.remember(args, repo, &*self.0).await
    }

    /// Answers `clear_cache`.
    pub(super) async fn clear_cache(&self, args: ClearCache) -> Result<ClearCacheResult, Problem> {
        Ok(self.0.memories.clear_cache(&args))
    }
}
