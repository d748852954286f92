//! The text that the model reads first.

/// The server's instructions. Hosts that defer tools show the model only these and the tools' names, so that they must
/// name the tool for each purpose.
pub(super) const INSTRUCTIONS: &str = "\
Runs commands and agent tasks over git repositories, always on the least-loaded pool of workers, and keeps every result.
- One task on one repository: route_least_loaded. It RUNS the task.
- The same task on many repositories: execute_workflow_parallel. One call with all of them, never a loop of calls.
- Which repositories there are: list_repos.
- Then get_workflow (with wait_s) until its status is no longer running.
- Why items failed: `failures` in the result, then read_output.
- Again: resume_workflow, with a hint, never a new workflow.
- Apply the changes: apply_changes, then clean_worktrees.
- What workers learned before: cross_pool_search.
- Something odd: check_health.
- To look without changing anything: isolation read_only.";
