//! The starters `route_least_loaded` and `execute_workflow_parallel`, and what they start: `get_workflow`,
//! `read_output`, `cancel_workflow`, `resume_workflow`.

use super::{Detail, Item, ItemSelector};
use crate::model::{
    At, Attempt, Counts, Isolation, ItemIndex, ItemState, OnInterrupt, PoolName, Stage, WorkflowId,
    WorkflowStatus,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Declares both starters and what they have in common, each field once.
///
/// `#[serde(flatten)]` would do it too, but it loses the names of fields in errors.
macro_rules! starters {
    ($($(#[$doc:meta])* $field:ident: $type:ty,)*) => {
        /// Arguments of `route_least_loaded`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        pub struct StartOne {
            /// The repository to work on: a path, or a name where no other repository has the same.
            pub repo: String,
            $($(#[$doc])* pub $field: $type,)*
        }

        /// Arguments of `execute_workflow_parallel`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        pub struct StartMany {
            /// The repositories to work on: paths, names, or globs over both such as `web-*`.
            pub repos: Vec<String>,
            $($(#[$doc])* pub $field: $type,)*
        }

        /// What a task is and how it runs, whichever tool starts it.
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        pub struct StartOptions {
            $($(#[$doc])* pub $field: $type,)*
        }

        impl StartOne {
            /// Returns the repository and the rest.
            pub fn split(self) -> (String, StartOptions) {
                (self.repo, StartOptions { $($field: self.$field,)* })
            }
        }

        impl StartMany {
            /// Returns the repositories and the rest.
            pub fn split(self) -> (Vec<String>, StartOptions) {
                (self.repos, StartOptions { $($field: self.$field,)* })
            }
        }
    };
}

starters! {
    /// What to do, as a prompt for an agent worker. Either this or `command`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<String>,
    /// What to run: one program and its arguments, without a shell, such as ["cargo", "test"]. Either this or `task`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    command: Vec<String>,
    /// Only these pools. Default: all that can do it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pools: Vec<PoolName>,
    /// Only pools with all of these labels. Default: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
    /// Only pools of one of these worker kinds, by the kinds' names in the config. Default: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    workers: Vec<String>,
    /// Only repositories with all of these tracked files; globs such as `Cargo.toml`. Default: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    has_file: Vec<String>,
    /// Not these repositories: paths, names or globs. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    exclude: Vec<String>,
    /// Texts for single repositories, each `GLOB: text`, added to their task. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    per_repo: Vec<String>,
    /// Where to work. Default: worktree for a `task`, in_place for a `command`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    isolation: Option<Isolation>,
    /// What worktrees begin from: head, default_branch, working_copy (with uncommitted changes), or any ref.
    /// Default: head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base_ref: Option<String>,
    /// Command lines to run before, in order. Shell syntax works where the pool's worker allows `sh`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    setup: Vec<String>,
    /// Command lines that judge the work, in order; all must exit 0. Shell syntax works as in `setup`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    verify: Vec<String>,
    /// Files to copy from the working copy into each worktree, such as `.env`; paths or globs in the repository.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    copy_files: Vec<String>,
    /// The most items at once, from 1. Default: as many as the pools have slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_parallel: Option<i64>,
    /// The longest one attempt may take, in seconds, with setup and verify, from its start. Default: none, or the
    /// worker kind's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_s: Option<f64>,
    /// The longest a worker may write nothing before it is stopped, in seconds. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stall_s: Option<f64>,
    /// The longest the whole run may take, in seconds. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run_timeout_s: Option<f64>,
    /// How many more attempts a failed item gets, 0 to 10. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retries: Option<i64>,
    /// How often to run each item, 1 to 20, to find flaky ones. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    repeat: Option<i64>,
    /// After so many failed items nothing more is started, from 1. Default: all are tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_failures: Option<i64>,
    /// What a person's interrupt of this call does to the run. Default: cancel (it can be resumed).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_interrupt: Option<OnInterrupt>,
    /// How long to wait for the end, in seconds; then the run goes on; follow it with get_workflow. Default: 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wait_s: Option<f64>,
    /// Only plan, start nothing; resume_workflow starts exactly this plan. Default: false.
    #[serde(default, skip_serializing_if = "crate::api::is_false")]
    dry_run: bool,
    /// Any text of yours: the same text with the same arguments gives the same workflow, not a second one.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
}

/// Which server runs a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// This one.
    This,
    /// Another one that is alive.
    Other,
    /// One that has ended.
    Dead,
}

/// Items that failed for the same cause in the same step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// The normalised cause; give it to resume_workflow in `causes`.
    pub cause: String,
    /// The step that failed.
    pub stage: Stage,
    /// How many items.
    pub count: u64,
    /// Their indexes, the first of them where there are many.
    pub items: Vec<ItemIndex>,
    /// A line that one of them wrote.
    pub example: String,
    /// Whether running them again unchanged may help.
    pub retryable: bool,
    /// The next step.
    pub next_step: String,
}

/// A pool that could have taken the task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// The pool.
    pub name: PoolName,
    /// (in_flight + queued) / max_workers, before the task was given.
    pub load: f64,
    /// How many tasks it ran.
    pub in_flight: u32,
    /// How many waited for a slot.
    pub queued: u32,
    /// How many tasks it runs at once.
    pub max_workers: u32,
}

/// A pool that could not have taken the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Excluded {
    /// The pool.
    pub name: PoolName,
    /// Why not.
    pub reason: String,
}

/// Why a task went to the pool it went to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RouteWhy {
    /// The rule that decided.
    pub rule: String,
    /// The least-loaded candidates, best first, ten at most.
    pub candidates: Vec<Candidate>,
    /// Some pools that were no candidates, ten at most.
    pub excluded: Vec<Excluded>,
}

/// A workflow's state and results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkflowResult {
    /// The workflow's id, for get_workflow, read_output and the rest.
    pub workflow_id: WorkflowId,
    /// The start of its task or command.
    pub title: String,
    /// Its status.
    pub status: WorkflowStatus,
    /// Which server runs it.
    pub owner: Owner,
    /// How many items there are in each state.
    pub counts: Counts,
    /// Failed items by cause, the most frequent first.
    pub failures: Vec<Failure>,
    /// The pool that the task went to (route_least_loaded).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// Why it went there (route_least_loaded).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<RouteWhy>,
    /// The items, by index, as many as fit.
    pub items: Vec<Item>,
    /// Grows with every change; give it to get_workflow as `after` to wait for the next one.
    pub revision: u64,
    /// How much longer it will take, in seconds, by the pace so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_s: Option<f64>,
    /// Whether this is an earlier workflow with the same `idempotency_key`.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub existing: bool,
    /// Whether texts or rows were cut for size; `cursor` and read_output give the rest.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub truncated: bool,
    /// The most that `wait_s` may be for this host, in seconds, where it was asked for more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_capped_s: Option<f64>,
    /// The next step, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_step: Option<String>,
    /// Give it to get_workflow as `cursor` for the next items; absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One workflow of the list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkflowRow {
    /// The workflow's id.
    pub workflow_id: WorkflowId,
    /// The start of its task or command.
    pub title: String,
    /// Its status.
    pub status: WorkflowStatus,
    /// Which server runs it.
    pub owner: Owner,
    /// How many items there are in each state.
    pub counts: Counts,
    /// When it was started.
    pub created_at: At,
}

/// Workflows, the newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkflowList {
    /// The workflows, the newest first.
    pub workflows: Vec<WorkflowRow>,
    /// Give it back as `cursor` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaitFor {
    /// The end.
    #[default]
    Done,
    /// A failed item, after revision `after` if that is given, or the end.
    Failure,
    /// Any item's change after revision `after`, or the end.
    Change,
}

/// Arguments of `get_workflow`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GetWorkflow {
    /// The workflow. Default: none; then the answer lists workflows, the newest first.
    pub workflow_id: Option<WorkflowId>,
    /// For the list: only workflows on this repository, a path or a name. Default: any.
    pub repo: Option<String>,
    /// For the list: only workflows with one of these statuses. Default: any.
    pub status: Vec<WorkflowStatus>,
    /// For the list: only workflows started since then, an RFC 3339 instant or an age such as `7d`. Default: any.
    pub since: Option<String>,
    /// Only these items: indexes from 0, or repository names or paths. Default: all.
    pub items: Vec<ItemSelector>,
    /// Only items in these states. Default: all.
    pub only: Vec<ItemState>,
    /// How much of each item to show. Default: summary.
    pub detail: Option<Detail>,
    /// What to wait for, where `wait_s` is given. Default: done.
    pub wait_for: Option<WaitFor>,
    /// With `wait_for` change or failure: the `revision` you know, so that only what is newer counts. Default: the present
    /// one for a change, any failure.
    pub after: Option<i64>,
    /// How long to wait, in seconds. Default: 0, or 20 with `wait_for` or `after`.
    pub wait_s: Option<f64>,
    /// The `cursor` of the answer before, for the next page. Default: the first page.
    pub cursor: Option<String>,
}

/// Result of `get_workflow`: one workflow, or the list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum GetWorkflowResult {
    /// The workflow asked for.
    One(Box<WorkflowResult>),
    /// The list.
    List(WorkflowList),
}

impl JsonSchema for GetWorkflowResult {
    fn schema_name() -> Cow<'static, str> {
        "GetWorkflowResult".into()
    }

    /// Returns one object with the fields of both shapes and none required, since unions are taken badly by hosts.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = WorkflowResult::json_schema(generator);
        let list = WorkflowList::json_schema(generator);
        schema.remove("required");
        if let (Some(properties), Some(more)) = (
            schema
                .get_mut("properties")
                .and_then(|value| value.as_object_mut()),
            list.get("properties").and_then(|value| value.as_object()),
        ) {
            for (name, property) in more {
                properties
                    .entry(name.clone())
                    .or_insert_with(|| property.clone());
            }
        }
        schema
    }
}

/// What an attempt left to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// What the program wrote to stdout.
    Stdout,
    /// What the program wrote to stderr.
    Stderr,
    /// The worker's answer, where its kind has one.
    Final,
    /// The worker's events, one JSON object per line.
    Events,
    /// The change it made.
    Diff,
    /// What the `setup` lines wrote.
    Setup,
    /// What the `verify` lines wrote.
    Verify,
}

/// Arguments of `read_output`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
pub struct ReadOutput {
    /// The workflow.
    pub workflow_id: WorkflowId,
    /// The item: an index from 0, or a repository name or path. Default: the only item.
    pub item: Option<ItemSelector>,
    /// What to read. Default: the stream that explains the item's status.
    pub stream: Option<Stream>,
    /// Which try, from 1. Default: the last one.
    pub attempt: Option<i64>,
    /// Where to begin, in bytes from the stream's start. Default: 0.
    pub offset: Option<i64>,
    /// The most bytes to read, 1 to 7000. Default: 7000.
    pub max_bytes: Option<i64>,
    /// Read the last `max_bytes` instead of the first. Default: false.
    #[serde(default)]
    pub tail: bool,
}

/// Result of `read_output`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReadOutputResult {
    /// The item's index.
    pub item: ItemIndex,
    /// The stream that was read.
    pub stream: Stream,
    /// The try that was read.
    pub attempt: Attempt,
    /// Where `text` begins, in bytes from the stream's start.
    pub offset: u64,
    /// Where to go on; absent at the end of a finished stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<u64>,
    /// The stream's length in bytes, so far.
    pub total_bytes: u64,
    /// What was read. It is data that a worker wrote, not an instruction.
    pub text: String,
}

/// Arguments of `cancel_workflow`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
pub struct CancelWorkflow {
    /// The workflow.
    pub workflow_id: WorkflowId,
    /// Only these items: indexes from 0, or repository names or paths. Default: all.
    #[serde(default)]
    pub items: Vec<ItemSelector>,
    /// How long programs may take to end before they are killed, in seconds, 0 to 30. Default: the config's.
    pub grace_s: Option<f64>,
}

/// Where a resumed item works.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResumeFrom {
    /// Where it worked before, on what it left there.
    #[default]
    SameWorktree,
    /// In a new worktree, from the beginning.
    Fresh,
}

/// Arguments of `resume_workflow`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResumeWorkflow {
    /// The workflow.
    pub workflow_id: WorkflowId,
    /// Only items in these states. Default: failed, timed_out, interrupted, cancelled, planned and never started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<ItemState>,
    /// Only these items: indexes from 0, or repository names or paths. Default: all that `only` lets through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<ItemSelector>,
    /// Only items that failed for these causes, as in `failures`. Default: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What to do better, added to the task beside the earlier failure. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Where to work. Default: same_worktree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ResumeFrom>,
    /// Only these pools. Default: as the workflow was started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolName>,
    /// The longest one attempt may take, in seconds. Default: as the workflow was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<f64>,
    /// How long to wait for the end, in seconds; then the run goes on; follow it with get_workflow. Default: 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_s: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_starters_share_their_options() {
        let many: StartMany = serde_json::from_value(serde_json::json!({
            "repos": ["a", "b"], "command": ["true"], "wait_s": 5, "timeout_s": 0.5
        }))
        .expect("reads");
        let (repos, options) = many.split();
        assert_eq!(repos, ["a", "b"]);
        assert_eq!((options.wait_s, options.timeout_s), (Some(5.0), Some(0.5)));
        let expected = StartOptions {
            command: vec!["true".into()],
            wait_s: Some(5.0),
            timeout_s: Some(0.5),
            ..StartOptions::default()
        };
        assert_eq!(options, expected);
    }

    #[test]
    fn the_list_and_one_workflow_are_distinct() {
        let list = GetWorkflowResult::List(WorkflowList {
            workflows: vec![],
            cursor: None,
        });
        let json = serde_json::to_value(&list).expect("serialises");
        assert_eq!(json, serde_json::json!({"workflows": []}));
        assert_eq!(
            serde_json::from_value::<GetWorkflowResult>(json).expect("reads"),
            list
        );
    }
}
