//! The face that the server sees: each tool handed to the part that answers it.

pub(crate) mod apply;
pub(crate) mod arguments;
pub(crate) mod control;
pub(crate) mod health;
pub(crate) mod interrupt;
pub(crate) mod output;
pub(crate) mod plan;
pub(crate) mod pools;
pub(crate) mod repos;
pub(crate) mod requests;
pub(crate) mod route_why;
pub(crate) mod select;
pub(crate) mod start;
pub(crate) mod view;
pub(crate) mod watch;

use super::Orchestrator;
use crate::api::*;
use crate::error::{ErrorKind, Fault, Problem};
use futures_util::FutureExt;

impl Orchestrator {
    async fn aggregate(
        &self,
        args: AggregateMemory,
        caller: &Caller,
    ) -> Result<AggregateMemoryResult, Problem> {
        let collecting = self.0.memories.aggregate(args, caller, &*self.0);
        tokio::select! {
            done = collecting => done,
            // Collected memories are stored and forwarded all the same; only this answer is given up.
            _ = caller.interrupted() => Err(Problem::new(
                ErrorKind::Cancelled,
                "the call was interrupted; what was collected stays collected",
            )),
        }
    }

    async fn search(&self, args: CrossPoolSearch) -> Result<CrossPoolSearchResult, Problem> {
        let repo = match &args.repo {
            // A name that is gone from the disk is still a filter over what is remembered.
            Some(spec) => Some(match self.0.repos.resolve(spec).await {
                Ok(repo) => repo.as_str().to_owned(),
                Err(_) => spec.clone(),
            }),
            None => None,
        };
        self.0.memories.search(args, repo, &*self.0).await
    }

    async fn remember(&self, args: Remember) -> Result<RememberResult, Problem> {
        let repo = match &args.repo {
            Some(spec) => {
                let found = self.0.repos.resolve(spec).await;
                Some(found.map_err(|error| error.problem())?.as_str().to_owned())
            }
            None => None,
        };
        self.0.memories.remember(args, repo, &*self.0).await
    }
}

impl Tools for Orchestrator {
    fn list_pools<'a>(&'a self, args: ListPools, _: &'a Caller) -> Answer<'a, ListPoolsResult> {
        self.pools_page(args).boxed()
    }

    fn list_repos<'a>(&'a self, args: ListRepos, _: &'a Caller) -> Answer<'a, ListReposResult> {
        self.repos(args).boxed()
    }

    fn route_least_loaded<'a>(
        &'a self,
        args: StartOne,
        caller: &'a Caller,
    ) -> Answer<'a, WorkflowResult> {
        self.start_one(args, caller).boxed()
    }

    fn execute_workflow_parallel<'a>(
        &'a self,
        args: StartMany,
        caller: &'a Caller,
    ) -> Answer<'a, WorkflowResult> {
        self.start_many(args, caller).boxed()
    }

    fn get_workflow<'a>(
        &'a self,
        args: GetWorkflow,
        caller: &'a Caller,
    ) -> Answer<'a, GetWorkflowResult> {
        self.follow(args, caller).boxed()
    }

    fn read_output<'a>(&'a self, args: ReadOutput, _: &'a Caller) -> Answer<'a, ReadOutputResult> {
        self.output(args).boxed()
    }

    fn cancel_workflow<'a>(
        &'a self,
        args: CancelWorkflow,
        caller: &'a Caller,
    ) -> Answer<'a, WorkflowResult> {
        self.cancel(args, caller).boxed()
    }

    fn resume_workflow<'a>(
        &'a self,
        args: ResumeWorkflow,
        caller: &'a Caller,
    ) -> Answer<'a, WorkflowResult> {
        self.resume(args, caller).boxed()
    }

    fn apply_changes<'a>(
        &'a self,
        args: ApplyChanges,
        _: &'a Caller,
    ) -> Answer<'a, ApplyChangesResult> {
        self.apply(args).boxed()
    }

    fn clean_worktrees<'a>(
        &'a self,
        args: CleanWorktrees,
        _: &'a Caller,
    ) -> Answer<'a, CleanWorktreesResult> {
        self.clean(args).boxed()
    }

    fn set_pool<'a>(&'a self, args: SetPool, _: &'a Caller) -> Answer<'a, PoolRow> {
        self.set(args).boxed()
    }

    fn close_pool<'a>(&'a self, args: ClosePool, _: &'a Caller) -> Answer<'a, PoolRow> {
        Orchestrator::close_pool(self, args).boxed()
    }

    fn aggregate_memory<'a>(
        &'a self,
        args: AggregateMemory,
        caller: &'a Caller,
    ) -> Answer<'a, AggregateMemoryResult> {
        self.aggregate(args, caller).boxed()
    }

    fn cross_pool_search<'a>(
        &'a self,
        args: CrossPoolSearch,
        _: &'a Caller,
    ) -> Answer<'a, CrossPoolSearchResult> {
        self.search(args).boxed()
    }

    fn remember<'a>(&'a self, args: Remember, _: &'a Caller) -> Answer<'a, RememberResult> {
        Orchestrator::remember(self, args).boxed()
    }

    fn clear_cache<'a>(&'a self, args: ClearCache, _: &'a Caller) -> Answer<'a, ClearCacheResult> {
        std::future::ready(Ok(self.0.memories.clear_cache(&args))).boxed()
    }

    fn check_health<'a>(
        &'a self,
        args: CheckHealth,
        _: &'a Caller,
    ) -> Answer<'a, CheckHealthResult> {
        self.health(args).boxed()
    }

    fn take_notices(&self) -> Vec<String> {
        self.0.notices.take()
    }
}
