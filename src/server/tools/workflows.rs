//! The tools that start workflows and follow them.

use super::{About, Effect, ToolSpec};
use crate::api::Tools;

pub(super) fn starters() -> Vec<ToolSpec> {
    vec![
        ToolSpec::new(
            About {
                name: "route_least_loaded",
                title: "Run one task on the freest worker",
                description: "Runs one task (a prompt for an agent, or a command) on one repository: picks the \
                    least-loaded pool, takes its slot, RUNS the task and waits for the end as long as `wait_s`. Answers \
                    the result, the pool and why it was chosen. For several repositories use \
                    execute_workflow_parallel.",
                search_hint: "run a command or an agent task in one repository on the least-loaded worker",
                effect: Effect::Runs,
            },
            <dyn Tools>::route_least_loaded,
        ),
        ToolSpec::new(
            About {
                name: "execute_workflow_parallel",
                title: "Run a task over many repositories",
                description: "Runs one task (a prompt for an agent, or a command) on many repositories in parallel, each \
                    on the least-loaded pool. One call with all of them, never a loop. Failed items are results, not \
                    errors: `failures` groups them by cause. What is not done after `wait_s` runs on; follow it with \
                    get_workflow.",
                search_hint: "run a command or an agent task over many repositories in parallel, batch, fan out",
                effect: Effect::Runs,
            },
            <dyn Tools>::execute_workflow_parallel,
        ),
    ]
}

pub(super) fn following() -> Vec<ToolSpec> {
    vec![
        ToolSpec::new(
            About {
                name: "get_workflow",
                title: "Show a workflow, or wait for it",
                description: "Shows a workflow's status, counts, failures by cause and items, waiting with `wait_s` for \
                    its end, its first failure or the next change. Without `workflow_id` it lists workflows, the newest \
                    first.",
                search_hint: "status, progress and results of a running or finished workflow; list of workflows",
                effect: Effect::Reads,
            },
            <dyn Tools>::get_workflow,
        ),
        ToolSpec::new(
            About {
                name: "read_output",
                title: "Read what an item wrote",
                description: "Reads the full output of one item, page by page: stdout, stderr, the worker's final \
                    answer, its events, the diff, or what setup and verify wrote. By default the stream that explains \
                    the item's status.",
                search_hint: "full log, stdout, stderr, diff or error output of one workflow item",
                effect: Effect::Reads,
            },
            <dyn Tools>::read_output,
        ),
        ToolSpec::new(
            About {
                name: "cancel_workflow",
                title: "Stop a workflow",
                description: "Stops a workflow or some of its items, with all processes they started. What they did \
                    stays where it is; resume_workflow goes on from there.",
                search_hint: "stop, abort, kill or pause a running workflow",
                effect: Effect::Destroys,
            },
            <dyn Tools>::cancel_workflow,
        ),
        ToolSpec::new(
            About {
                name: "resume_workflow",
                title: "Run again what failed or was stopped",
                description: "Runs items of a workflow again: by default those that failed, timed out, were interrupted \
                    or cancelled, or were only planned. With `hint` the worker is told what to do better. Items that \
                    succeeded never run again. Use this instead of starting a new workflow.",
                search_hint: "retry, rerun or continue failed or interrupted items, with a hint",
                effect: Effect::Runs,
            },
            <dyn Tools>::resume_workflow,
        ),
    ]
}
