//! Plans, repeats and what is said of items that never ran.

use crate::support::server::{Home, Server};
use serde_json::{Value, json};

/// A worktree for the command `sh -c SCRIPT`, over all repositories.
fn wanted(script: &str, more: Value) -> Value {
    let mut wanted = json!({
        "repos": ["*"], "command": ["sh", "-c", script], "isolation": "worktree", "wait_s": 30
    });
    let fields = wanted.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    wanted
}

#[test]
fn a_plan_is_journaled_and_resumed_exactly() {
    let home = Home::with_config("");
    let repo = home.repo("planned");
    let empty = home.repos().join("empty");
    let init = std::process::Command::new("git")
        .args(["init", "--quiet"])
        .arg(&empty)
        .status();
    assert!(init.expect("git runs").success());
    let base = repo.head();
    let mut server = Server::start(&home);
    let plan = wanted("echo done > new", json!({"dry_run": true}));
    let plan = server.call("execute_workflow_parallel", plan).ok();
    assert_eq!(plan["status"], "planned", "{plan:#}");
    let candidates = plan["why"]["candidates"].as_array().expect("pools");
    assert_eq!(candidates[0]["name"], "local");
    assert_eq!(plan["items"][0]["error"]["kind"], "failed", "{plan:#}");
    assert_eq!(plan["items"][1]["base_commit"], json!(base));
    assert!(
        plan["next_step"]
            .as_str()
            .is_some_and(|text| text.starts_with("1 item(s) cannot start"))
    );
    assert!(!repo.path().join("new").exists(), "nothing has run");

    // The user goes on meanwhile; the plan stays what it was.
    repo.write("later", "x");
    repo.commit("later");
    let id = &plan["workflow_id"];
    let resume = json!({"workflow_id": id, "wait_s": 30});
    server.call("resume_workflow", resume).ok();
    let done = server.wait_done(id);
    assert_eq!(done["items"][1]["status"], "succeeded", "{done:#}");
    assert_eq!(done["items"][1]["base_commit"], json!(base));
    assert_eq!(done["items"][0]["status"], "failed");
}

#[test]
fn repeats_that_end_differently_are_flaky() {
    let home = Home::with_config("");
    home.repo("steady");
    let moody = home.repo("moody");
    let mut server = Server::start(&home);
    let script = "case $PWD in *moody*) mkdir \"$MOOD\" 2>/dev/null && exit 1;; esac; exit 0";
    let mood = moody.path().join("../../mood");
    let script = script.replace("$MOOD", mood.to_str().expect("UTF-8"));
    let run = json!({
        "repos": ["*"], "command": ["sh", "-c", script], "repeat": 3, "wait_s": 30
    });
    let ran = server.call("execute_workflow_parallel", run).ok();
    assert_eq!(ran["counts"]["failed"], 1, "{ran:#}");
    for item in ran["items"].as_array().expect("items") {
        let of_moody = item["repo"]
            .as_str()
            .is_some_and(|repo| repo.ends_with("moody"));
        assert_eq!(
            item["flaky"],
            if of_moody { json!(true) } else { Value::Null }
        );
    }
    let next = ran["next_step"].as_str().expect("a next step");
    assert!(next.contains("flaky"), "{next}");
}

#[test]
fn what_only_a_worktree_can_have_is_refused_in_place() {
    let home = Home::with_config("");
    home.repo("one");
    let mut server = Server::start(&home);
    for (field, value) in [("base_ref", json!("head")), ("copy_files", json!([".env"]))] {
        let mut run = json!({"repo": "one", "command": ["true"]});
        run[field] = value;
        let error = server.call("route_least_loaded", run).error();
        assert_eq!(error["field"], field, "{error:#}");
    }
    let run = json!({
        "repo": "one", "command": ["true"], "isolation": "worktree", "copy_files": [".env", "../x"]
    });
    let error = server.call("route_least_loaded", run).error();
    assert_eq!(error["field"], "copy_files[1]", "{error:#}");
    let none = server.call("get_workflow", json!({})).ok();
    assert_eq!(none["workflows"], json!([]), "nothing was started");
}

#[test]
fn globs_bring_ignored_files_into_a_worktree() {
    let home = Home::with_config("");
    let repo = home.repo("one");
    repo.write(".gitignore", ".env*\n");
    repo.commit("ignore");
    repo.write(".env.local", "secret");
    let mut server = Server::start(&home);
    let run = wanted("cat .env.local", json!({"copy_files": [".env*"]}));
    let ran = server.call("execute_workflow_parallel", run).ok();
    assert_eq!(ran["status"], "succeeded", "{ran:#}");
    assert_eq!(ran["items"][0]["output_tail"], "secret");
    assert_eq!(ran["items"][0]["changed"], false);
}

#[test]
fn the_default_stream_explains_an_item_that_never_ran_or_wrote_in_read_only() {
    let home = Home::with_config("");
    home.repo("one");
    let mut server = Server::start(&home);
    let run = wanted("true", json!({"base_ref": "no-such-branch"}));
    let ran = server.call("execute_workflow_parallel", run).ok();
    let read = json!({"workflow_id": ran["workflow_id"]});
    let read = server.call("read_output", read).ok();
    let text = read["text"].as_str().expect("text");
    assert!(text.contains("no-such-branch"), "{read:#}");

    let run = wanted("echo oops > wrote", json!({"isolation": "read_only"}));
    let ran = server.call("execute_workflow_parallel", run).ok();
    assert_eq!(ran["status"], "failed", "{ran:#}");
    let read = json!({"workflow_id": ran["workflow_id"]});
    let read = server.call("read_output", read).ok();
    assert_eq!(read["stream"], "diff");
    assert!(
        read["text"]
            .as_str()
            .is_some_and(|text| text.contains("+oops")),
        "{read:#}"
    );
}

#[test]
fn check_health_tells_of_worktrees_that_never_came_home() {
    let home = Home::with_config("");
    home.repo("one");
    let mut server = Server::start(&home);
    let run = wanted("echo work > new", json!({}));
    server.call("execute_workflow_parallel", run).ok();
    let health = server.call("check_health", json!({})).ok();
    let checks = health["checks"].as_array().expect("checks");
    let worktrees = checks.iter().find(|check| check["name"] == "worktrees");
    let worktrees = worktrees.expect("it is checked");
    assert_eq!(worktrees["status"], "info", "{health:#}");
    let detail = worktrees["detail"].as_str().expect("a detail");
    assert!(
        detail.contains("1 worktrees") && detail.contains("1 with work that was never applied"),
        "{detail}"
    );
}

#[test]
fn a_hint_that_cannot_be_taken_is_refused_and_nothing_runs() {
    let home = Home::with_config("");
    home.repo("one");
    let mut server = Server::start(&home);
    let run = json!({"repo": "one", "command": ["false"], "wait_s": 30});
    let ran = server.call("route_least_loaded", run).ok();
    for hint in ["x".repeat(1 << 20), "try again".to_owned()] {
        let resume = json!({"workflow_id": ran["workflow_id"], "hint": hint});
        let error = server.call("resume_workflow", resume).error();
        assert_eq!(error["field"], "hint", "{error:#}");
    }
    let told = json!({"workflow_id": ran["workflow_id"]});
    let told = server.call("get_workflow", told).ok();
    assert_eq!(told["items"][0]["attempt"], 1, "{told:#}");
    assert_eq!(told["status"], "failed");
}
