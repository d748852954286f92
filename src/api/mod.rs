//! The tools' arguments and results, and the interface that answers them.
//!
//! A leaf: plain data with serde and schemars, whose doc comments *are* the schema text that hosts and models read.
//! The server decodes into these types and encodes from them, the orchestrator implements [`Tools`] over them, the
//! command line builds its flags from their schemas. Limits are not checked here: numbers are as wide as JSON's, so that
//! the check of a range can name the argument, the value and what is allowed.

mod call;
mod health;
mod item;
mod memory;
mod pools;
mod repos;
mod selector;
mod tools;
mod workflow;

pub use call::{Caller, Interrupt, Progress, ProgressSink, Wait};
pub use health::{Check, CheckHealth, CheckHealthResult, HealthStatus, Probe};
pub use item::Item;
pub use memory::{
    AggregateMemory, AggregateMemoryResult, ClearCache, ClearCacheResult, Collected,
    CrossPoolSearch, CrossPoolSearchResult, Forwarding, Hit, Matched, PoolCollection, PoolOutcome,
    Remember, RememberResult, SourceAnswer, SourceStatus,
};
pub use pools::{ClosePool, Detail, Health, ListPools, ListPoolsResult, PoolRow, SetPool};
pub use repos::{
    Applied, ApplyChanges, ApplyChangesResult, ApplyHow, CleanWorktrees, CleanWorktreesResult,
    KeptWorktree, ListRepos, ListReposResult, RemovedWorktree, RepoRow,
};
pub use selector::ItemSelector;
pub use tools::{Answer, Tools, Unavailable};
pub use workflow::{
    CancelWorkflow, Candidate, Excluded, Failure, GetWorkflow, GetWorkflowResult, Owner,
    ReadOutput, ReadOutputResult, ResumeFrom, ResumeWorkflow, RouteWhy, StartMany, StartOne,
    StartOptions, Stream, WaitFor, WorkflowList, WorkflowResult, WorkflowRow,
};

fn is_false(value: &bool) -> bool {
    !value
}
