//! The face that the orchestrator shows: one method per tool.

use super::*;
use crate::error::Problem;
use futures_util::future::BoxFuture;

/// A tool's answer on its way.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Problem>>;

/// All tools, each by its own name. A method checks its arguments' values, does the work and keeps its answer below
/// the size that the server allows, by paging.
pub trait Tools: Send + Sync + 'static {
    /// Answers `list_pools`.
    fn list_pools<'a>(&'a self, args: ListPools, caller: &'a Caller)
    -> Answer<'a, ListPoolsResult>;
    /// Answers `list_repos`.
    fn list_repos<'a>(&'a self, args: ListRepos, caller: &'a Caller)
    -> Answer<'a, ListReposResult>;
    /// Answers `route_least_loaded`.
    fn route_least_loaded<'a>(
        &'a self,
        args: StartOne,
        caller: &'a Caller,
    ) -> Answer<'a, WorkflowResult>;
    /// Answers `execute_workflow_parallel`.
    fn execute_workflow_parallel<'a>(
        &'a self,
        args: StartMany,
        caller: &'a Caller,
    ) -> Answer<'a, WorkflowResult>;
    /// Answers `get_workflow`.
    fn get_workflow<'a>(
        &'a self,
        args: GetWorkflow,
        caller: &'a Caller,
    ) -> Answer<'a, GetWorkflowResult>;
    /// Answers `read_output`.
    fn read_output<'a>(
        &'a self,
        args: ReadOutput,
        caller: &'a Caller,
    ) -> Answer<'a, ReadOutputResult>;
    /// Answers `cancel_workflow`.
    fn cancel_workflow<'a>(
        &'a self,
        args: CancelWorkflow,
        caller: &'a Caller,
    ) -> Answer<'a, WorkflowResult>;
    /// Answers `resume_workflow`.
    fn resume_workflow<'a>(
        &'a self,
        args: ResumeWorkflow,
        caller: &'a Caller,
    ) -> Answer<'a, WorkflowResult>;
    /// Answers `apply_changes`.
    fn apply_changes<'a>(
        &'a self,
        args: ApplyChanges,
        caller: &'a Caller,
    ) -> Answer<'a, ApplyChangesResult>;
    /// Answers `clean_worktrees`.
    fn clean_worktrees<'a>(
        &'a self,
        args: CleanWorktrees,
        caller: &'a Caller,
    ) -> Answer<'a, CleanWorktreesResult>;
    /// Answers `set_pool`.
    fn set_pool<'a>(&'a self, args: SetPool, caller: &'a Caller) -> Answer<'a, PoolRow>;
    /// Answers `close_pool`.
    fn close_pool<'a>(&'a self, args: ClosePool, caller: &'a Caller) -> Answer<'a, PoolRow>;
    /// Answers `aggregate_memory`.
    fn aggregate_memory<'a>(
        &'a self,
        args: AggregateMemory,
        caller: &'a Caller,
    ) -> Answer<'a, AggregateMemoryResult>;
    /// Answers `cross_pool_search`.
    fn cross_pool_search<'a>(
        &'a self,
        args: CrossPoolSearch,
        caller: &'a Caller,
    ) -> Answer<'a, CrossPoolSearchResult>;
    /// Answers `remember`.
    fn remember<'a>(&'a self, args: Remember, caller: &'a Caller) -> Answer<'a, RememberResult>;
    /// Answers `clear_cache`.
    fn clear_cache<'a>(
        &'a self,
        args: ClearCache,
        caller: &'a Caller,
    ) -> Answer<'a, ClearCacheResult>;
    /// Answers `check_health`.
    fn check_health<'a>(
        &'a self,
        args: CheckHealth,
        caller: &'a Caller,
    ) -> Answer<'a, CheckHealthResult>;

    /// Takes what the next answer should tell beside its own matter, such as a run that was interrupted. Each notice is
    /// given once.
    fn take_notices(&self) -> Vec<String>;
}
