//! git as a program like any other: it dies with the server, and is stopped with its item.
//!
//! A filter in the repository's own configuration makes git slow at a checkout (smudge) or an add (clean).

use crate::support::HANG as PATIENCE;
use crate::support::processes::wait_until;
use crate::support::repos::GitRepo;
use crate::support::server::{Home, Server};
use serde_json::{Value, json};

const CONFIG: &str = "[workers.command]\nallow = [\"*\"]\n";

/// Makes a repository whose file `slow` goes through a filter that writes `at-STEP` beside the repository and hangs.
fn slow_repo(home: &Home, step: &str) -> GitRepo {
    let repo = home.repo("app");
    repo.write(".gitattributes", "slow filter=slow\n");
    repo.write("slow", "text\n");
    repo.commit("A file with a filter");
    let mark = home.path().join(format!("at-{step}"));
    // At a clean, only a changed file: git looks at unchanged ones as well.
    let command = format!(
        "sh -c 'text=$(cat); case {step}$text in smudge*|*more*) : >\"{}\"; sleep 1000;; esac; echo \"$text\"'",
        mark.display()
    );
    repo.git(&["config", &format!("filter.slow.{step}"), &command]);
    repo
}

/// Starts a server and an item that makes git hang at `step`; returns when git does.
fn hung(step: &str, command: &str, more: Value) -> (Home, GitRepo, Server, Value) {
    let home = Home::with_config(CONFIG);
    let repo = slow_repo(&home, step);
    let mut server = Server::start(&home);
    let mut arguments = json!({
        "repo": "app", "command": ["sh", "-c", command], "isolation": "worktree", "wait_s": 0,
    });
    for (name, value) in more.as_object().expect("an object") {
        arguments[name] = value.clone();
    }
    let started = server.call("route_least_loaded", arguments).ok();
    let mark = home.path().join(format!("at-{step}"));
    assert!(wait_until(PATIENCE, || mark.exists()), "git never hung");
    (home, repo, server, started["workflow_id"].clone())
}

/// Whether git, or what it started, still runs for the server.
fn git_runs(server: &Server) -> bool {
    let living = server.marker.living();
    living
        .iter()
        .any(|(_, line)| line.contains("git") || line.contains("sleep 1000"))
}

#[test]
fn git_dies_with_a_killed_server() {
    let (_home, _repo, mut server, _) = hung("smudge", "true", json!({}));
    assert!(git_runs(&server));
    server.signal("KILL");
    server.wait_end();
    server.marker.assert_none_survives();
}

#[test]
fn a_cancel_stops_git_at_a_checkout() {
    let (_home, _repo, mut server, id) = hung("smudge", "true", json!({}));
    let cancelled = server.call("cancel_workflow", json!({"workflow_id": id}));
    assert!(cancelled.ok()["status"].is_string());
    assert_eq!(server.wait_done(&id)["status"], "cancelled");
    assert!(wait_until(PATIENCE, || !git_runs(&server)));
}

#[test]
fn a_timeout_stops_git_at_a_checkout() {
    let (_home, _repo, mut server, id) = hung("smudge", "true", json!({"timeout_s": 2}));
    let done = server.wait_done(&id);
    assert_eq!(done["items"][0]["status"], "timed_out", "{done:#}");
    assert!(wait_until(PATIENCE, || !git_runs(&server)));
}

#[test]
fn a_cancel_stops_git_at_the_commit_and_keeps_the_files() {
    let (_home, _repo, mut server, id) = hung("clean", "echo more >>slow", json!({}));
    let cancelled = server.call("cancel_workflow", json!({"workflow_id": id}));
    assert!(cancelled.ok()["status"].is_string());
    let done = server.wait_done(&id);
    assert!(wait_until(PATIENCE, || !git_runs(&server)));
    let full = server.call("get_workflow", json!({"workflow_id": id, "detail": "full"}));
    let item = full.ok()["items"][0].clone();
    assert_ne!(item["status"], "succeeded", "{done:#}");
    let worktree = item["worktree"].as_str().expect("it is kept");
    let text = std::fs::read_to_string(format!("{worktree}/slow")).expect("it is there");
    assert_eq!(text, "text\nmore\n");
}
