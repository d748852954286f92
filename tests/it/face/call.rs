//! `mahavishnu call` with the real server behind it.

use super::*;
use std::process::Output;

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
fn flags_of_the_schema_reach_the_tool_and_the_answer_is_one_line_of_json() {
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
        .stdout(std::process::Stdio::piped());
    let child = command.spawn().expect("it runs");
    drop(hold.running());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(json_of(&output)["status"], "succeeded");
}

#[test]
fn the_exit_status_says_how_it_was() {
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
