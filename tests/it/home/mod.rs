//! Items in worktrees, and their results applied, through the tools of the real server on real repositories.

mod apply;
mod crash;
mod isolation;
mod odd;
mod twice;

use crate::support::HANG;
use crate::support::processes::wait_until;
use crate::support::repos::GitRepo;
use crate::support::server::{Home, Server};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Runs `script` with `sh` in a worktree of each of `repos` and waits for the end.
fn run(server: &mut Server, repos: &[&GitRepo], script: &str, more: Value) -> Value {
    let mut arguments = json!({
        "repos": repos.iter().map(|repo| repo.text()).collect::<Vec<_>>(),
        "command": ["sh", "-c", script],
        "isolation": "worktree",
        "wait_s": 20,
    });
    for (name, value) in more.as_object().expect("arguments") {
        arguments[name] = value.clone();
    }
    let started = server.call("execute_workflow_parallel", arguments).ok();
    done(server, &started["workflow_id"])
}

/// Waits for the end of a workflow and returns it with all its items.
fn done(server: &mut Server, id: &Value) -> Value {
    server.wait_done(id);
    let all = json!({"workflow_id": id, "detail": "full"});
    server.call("get_workflow", all).ok()
}

fn apply(server: &mut Server, workflow: &Value, more: Value) -> Value {
    let mut arguments = json!({"workflow_id": workflow["workflow_id"]});
    for (name, value) in more.as_object().expect("arguments") {
        arguments[name] = value.clone();
    }
    server.call("apply_changes", arguments).ok()
}

fn clean(server: &mut Server, more: Value) -> Value {
    server.call("clean_worktrees", more).ok()
}

/// Nothing of the server's is left in the repository or among the worktrees.
#[track_caller]
fn assert_nothing_left(home: &Home, repos: &[&GitRepo]) {
    for repo in repos {
        let ours = ["for-each-ref", "refs/heads/mahavishnu", "refs/mahavishnu"];
        assert_eq!(repo.git(&ours), "");
        assert_eq!(repo.git(&["worktree", "list"]).lines().count(), 1);
    }
    let worktrees = std::fs::read_dir(home.state().join("worktrees"));
    assert_eq!(worktrees.map_or(0, Iterator::count), 0);
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).expect("readable")
}

fn worktree_of(item: &Value) -> PathBuf {
    PathBuf::from(item["worktree"].as_str().expect("a worktree"))
}
