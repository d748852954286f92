//! The tools as one interface: a method for each, which the orchestrator implements and the server calls.

use super::*;
use crate::error::Problem;
use futures_util::future::BoxFuture;

/// A tool's pending answer.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Problem>>;

/// Declares [`Tools`] and the implementation that refuses everything.
macro_rules! tools {
    ($($method:ident($arguments:ty) -> $result:ty;)*) => {
        /// All tools, each by its own name. A method checks its arguments' values, does the work and keeps its answer
        /// below the size that the server allows, by paging.
        pub trait Tools: Send + Sync + 'static {
            $(
                #[doc = concat!("Answers `", stringify!($method), "`.")]
                fn $method<'a>(&'a self, arguments: $arguments, caller: &'a Caller) -> Answer<'a, $result>;
            )*

            /// Takes what the next answer should report beside its own matter, such as a run that was interrupted. Each
            /// notice is given once.
            fn take_notices(&self) -> Vec<String>;
        }

        impl Tools for Unavailable {
            $(
                fn $method<'a>(&'a self, _: $arguments, _: &'a Caller) -> Answer<'a, $result> {
                    Box::pin(std::future::ready(Err(self.0.clone())))
                }
            )*

            fn take_notices(&self) -> Vec<String> {
                Vec::new()
            }
        }
    };
}

/// The tools of a server that could not start: every call is answered with the reason and its fix.
#[derive(Debug, Clone)]
pub struct Unavailable(Problem);

impl Unavailable {
    /// Returns the tools of a server that cannot start because of `problem`.
    pub fn until_restart(mut problem: Problem) -> Self {
        let restart = "then restart this server: reconnect it in the host";
        problem.hint = Some(match problem.hint {
            Some(fix) => format!("{fix}; {restart}"),
            None => format!("mend that, {restart}"),
        });
        Self(problem)
    }
}

tools! {
    list_pools(ListPools) -> ListPoolsResult;
    list_repos(ListRepos) -> ListReposResult;
    route_least_loaded(StartOne) -> WorkflowResult;
    execute_workflow_parallel(StartMany) -> WorkflowResult;
    get_workflow(GetWorkflow) -> GetWorkflowResult;
    read_output(ReadOutput) -> ReadOutputResult;
    cancel_workflow(CancelWorkflow) -> WorkflowResult;
    resume_workflow(ResumeWorkflow) -> WorkflowResult;
    apply_changes(ApplyChanges) -> ApplyChangesResult;
    clean_worktrees(CleanWorktrees) -> CleanWorktreesResult;
    set_pool(SetPool) -> PoolRow;
    close_pool(ClosePool) -> PoolRow;
    aggregate_memory(AggregateMemory) -> AggregateMemoryResult;
    cross_pool_search(CrossPoolSearch) -> CrossPoolSearchResult;
    remember(Remember) -> RememberResult;
    clear_cache(ClearCache) -> ClearCacheResult;
    check_health(CheckHealth) -> CheckHealthResult;
}
