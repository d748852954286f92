//! `mahavishnu call` with the real server behind it.

use super::*;
use std::process::{Output, Stdio};

#[track_caller]
fn call(home: &Home, args: &[&str]) -> Output {
    let mut command = home.command();
    command.arg("call").args(args);
    command.output().expect("it runs")
}

/// Returns the one line of JSON that a piped call prints.
#[track_caller]
fn json_of(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.lines().count(), 1, "{output:?}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn world() -> Home {
    let home = Home::with_config(&pools(&[("local", "max_workers = 4")]));
    home.many_repos(3);
    home
}

#[test]
fn flags_reach_the_tool_and_answers_are_one_line() {
    let home = world();
    let args = [
        "execute_workflow_parallel",
        "--repos",
        "r0",
        "--repos",
        "r2",
        "--wait-s",
        "40",
        "--retries",
        "0",
        "--isolation",
        "in_place",
        "--",
        "sh",
        "-c",
        "test -e README.md",
    ];
    let output = call(&home, &args);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let done = json_of(&output);
    assert_eq!(done["status"], "succeeded");
    let repos: Vec<&str> = done["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter_map(|item| item["repo"].as_str()?.rsplit('/').next())
        .collect();
    assert_eq!(repos, ["r0", "r2"]);

    // The next call is another server on the same state.
    let id = done["workflow_id"].as_str().expect("an id");
    let again = call(&home, &["get_workflow", "--workflow-id", id]);
    assert_eq!(again.status.code(), Some(0), "{again:?}");
    assert_eq!(json_of(&again)["counts"]["succeeded"], 2);
    let whole = json!({"workflow_id": id, "items": [1], "detail": "full"}).to_string();
    let one = json_of(&call(&home, &["get_workflow", "--json", &whole]));
    assert_eq!(one["items"].as_array().map(Vec::len), Some(1), "{one:#}");
}

#[test]
fn a_run_without_a_wait_is_followed_to_its_end() {
    let home = world();
    let hold = Held::new(&home, "hold");
    let pipe = hold.pipe.to_str().expect("UTF-8").to_owned();
    let mut command = home.command();
    command
        .args(["call", "route_least_loaded", "--repo", "r0", "--", "cat"])
        .arg(pipe)
        .stdout(Stdio::piped());
    let child = command.spawn().expect("it runs");
    drop(hold.running());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(json_of(&output)["status"], "succeeded");
}

#[test]
fn the_exit_status_follows_from_the_answer() {
    let home = world();
    let hold = Held::new(&home, "hold");
    let pipe = hold.pipe.to_str().expect("UTF-8");
    let cases: [(&[&str], i32); 9] = [
        (&["list_pools"], 0),
        (&["list_repos", "--match", "r*"], 0),
        (&["route_least_loaded", "--repo", "r0", "--", "false"], 1),
        (
            &["route_least_loaded", "--repo", "no-such", "--", "true"],
            2,
        ),
        (&["set_pool", "--name", "local", "--max-workers=-1"], 2),
        (&["list_pools", "--no-such-flag"], 2),
        (&["no_such_tool"], 2),
        (&["list_pools", "--json", "{"], 2),
        (
            &[
                "route_least_loaded",
                "--repo",
                "r1",
                "--wait-s",
                "0",
                "--",
                "cat",
                pipe,
            ],
            4,
        ),
    ];
    for (args, status) in cases {
        let output = call(&home, args);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {output:?}");
    }
    // Nobody but the call's own server ran it, so it ended with that.
    let listed = json_of(&call(&home, &["get_workflow"]));
    let last = listed["workflows"][0]["workflow_id"].as_str();
    let last = last.expect("an id");
    let left = json_of(&call(&home, &["get_workflow", "--workflow-id", last]));
    assert_eq!(left["status"], "interrupted", "{left:#}");
}

#[test]
fn an_interrupted_call_can_be_resumed_as_it_says() {
    let home = world();
    let hold = Held::new(&home, "hold");
    let pipe = hold.pipe.to_str().expect("UTF-8").to_owned();
    let mut command = home.command();
    command
        .args(["--log", "error", "call", "route_least_loaded"])
        .args(["--repo", "r0", "--", "cat", &pipe])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().expect("it runs");
    let running = hold.running();
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(sent.expect("kill runs").success());
    let output = child.wait_with_output().expect("it ends");
    drop(running);
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
    let (_, resume) = stderr
        .trim_end()
        .split_once("mahavishnu --log error call ")
        .expect("a command with the flags");

    std::fs::remove_file(&hold.pipe).expect("it is there");
    std::fs::write(&hold.pipe, "no pipe any more").expect("it can be written");
    let resumed = call(&home, &resume.split(' ').collect::<Vec<_>>());
    assert_eq!(resumed.status.code(), Some(0), "{resumed:?}");
    assert_eq!(json_of(&resumed)["status"], "succeeded");
}

#[test]
fn undoing_succeeds_or_fails_by_what_was_undone() {
    let home = world();
    let work = ["sh", "-c", "echo new > added.txt"];
    let start = [
        "route_least_loaded",
        "--repo",
        "r0",
        "--isolation",
        "worktree",
        "--",
    ];
    let done = json_of(&call(&home, &[&start[..], &work[..]].concat()));
    let id = done["workflow_id"].as_str().expect("an id").to_owned();
    let apply = ["apply_changes", "--workflow-id", &id];
    let applied = call(&home, &[&apply[..], &["--allow-unverified"]].concat());
    assert_eq!(applied.status.code(), Some(0), "{applied:?}");
    let undo = json_of(&applied)["items"][0]["undo"]
        .as_str()
        .expect("an undo")
        .to_owned();
    let added = home.repos().join("r0/added.txt");

    std::fs::write(&added, "changed since\n").expect("it can be written");
    let undo = [&apply[..], &["--undo", &undo]].concat();
    let refused = call(&home, &undo);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(added.exists());

    std::fs::write(&added, "new\n").expect("it can be written");
    let undone = call(&home, &undo);
    assert_eq!(undone.status.code(), Some(0), "{undone:?}");
    assert!(!added.exists());
}

#[test]
fn help_names_every_argument_of_the_schema() {
    let home = world();
    for tool in mahavishnu::server::tools::all() {
        let output = call(&home, &[tool.name, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let properties = tool.input()["properties"].as_object().expect("an object");
        for name in properties.keys().filter(|name| *name != "command") {
            let flag = format!("--{}", name.replace('_', "-"));
            assert!(text.contains(&flag), "{} {flag}: {text}", tool.name);
        }
    }
}
