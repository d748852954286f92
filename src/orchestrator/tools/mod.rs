//! The tools: one file per family, each from the arguments to the answer in the order in which things happen.
//!
//! Arguments come decoded and answers go out as data: protocol and JSON belong to the server. What the families share:
//! checked [`arguments`], [`select`]ed items, [`page`]s of rows, the [`snapshot`] of a workflow and its [`view`] for
//! callers.

mod applied;
mod apply;
mod arguments;
mod cancel;
mod clean;
mod command_lines;
mod dry_run;
mod health;
mod health_programs;
mod interrupt;
mod item_row;
mod log_files;
mod memory;
mod output;
mod owner;
mod page;
mod plan;
mod pool_choice;
mod pools;
mod repos;
mod requests;
mod resume;
mod route_why;
mod select;
mod set_pool;
mod snapshot;
mod start;
mod text_page;
mod undo;
mod view;
mod wait;
mod watch;

use super::Orchestrator;
use crate::api::*;
use futures_util::FutureExt;

/// Implements the tools by the methods of [`Orchestrator`] that answer them; `caller` goes to those that need it.
macro_rules! tools {
    ($($tool:ident($args:ty $(, $caller:ident)?) -> $answer:ty;)*) => {
        impl Tools for Orchestrator {
            $(fn $tool<'a>(&'a self, args: $args, _caller: &'a Caller) -> Answer<'a, $answer> {
                $(let $caller = _caller;)?
                Orchestrator::$tool(self, args $(, $caller)?).boxed()
            })*

            fn take_notices(&self) -> Vec<String> {
                self.0.notices.take()
            }
        }
    };
}

tools! {
    list_pools(ListPools) -> ListPoolsResult;
    list_repos(ListRepos) -> ListReposResult;
    route_least_loaded(StartOne, caller) -> WorkflowResult;
    execute_workflow_parallel(StartMany, caller) -> WorkflowResult;
    get_workflow(GetWorkflow, caller) -> GetWorkflowResult;
    read_output(ReadOutput) -> ReadOutputResult;
    cancel_workflow(CancelWorkflow, caller) -> WorkflowResult;
    resume_workflow(ResumeWorkflow, caller) -> WorkflowResult;
    apply_changes(ApplyChanges) -> ApplyChangesResult;
    clean_worktrees(CleanWorktrees) -> CleanWorktreesResult;
    set_pool(SetPool) -> PoolRow;
    close_pool(ClosePool) -> PoolRow;
    aggregate_memory(AggregateMemory, caller) -> AggregateMemoryResult;
    cross_pool_search(CrossPoolSearch) -> CrossPoolSearchResult;
    remember(Remember) -> RememberResult;
    clear_cache(ClearCache) -> ClearCacheResult;
    check_health(CheckHealth) -> CheckHealthResult;
}
