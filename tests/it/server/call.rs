//! `mahavishnu call`, with a server that fails on demand.

use super::*;
use std::process::Output;

fn call(args: &[&str]) -> Output {
    Command::new(faulty())
        .args(args)
        .output()
        .expect("the program runs")
}

fn answer(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().count(), 1, "one line of JSON: {text}");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn an_answer_is_one_line_of_json_in_a_pipe() {
    let output = call(&["call", "list_pools"]);
    assert_eq!(answer(&output), json!({"total": 0, "pools": []}));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn flags_are_made_from_the_schema() {
    let args = [
        "call",
        "execute_workflow_parallel",
        "--repos",
        "2",
        "--repos",
        "b",
        "--wait-s",
        "5",
        "--dry-run",
        "--retries",
        "-1",
        "--isolation",
        "in_place",
        "--",
        "cargo",
        "test",
        "--all",
    ];
    let output = call(&args);
    assert_eq!(answer(&output)["status"], "succeeded");
    let json = call(&[
        "call",
        "execute_workflow_parallel",
        "--json",
        r#"{"repos":["1"]}"#,
    ]);
    assert_eq!(answer(&json)["status"], "succeeded");
}

#[test]
fn a_run_is_followed_to_its_end_and_the_status_says_how_it_was() {
    let output = call(&[
        "call",
        "execute_workflow_parallel",
        "--repos",
        "hang",
        "--wait-s",
        "0.2",
    ]);
    assert_eq!(answer(&output)["status"], "running");
    assert_eq!(output.status.code(), Some(4), "asked to return early");
    let output = call(&[
        "call",
        "execute_workflow_parallel",
        "--repos",
        "hang",
        "--no-wait",
    ]);
    assert_eq!(output.status.code(), Some(4), "asked to return early");
    let follow = call(&["call", "execute_workflow_parallel", "--repos", "hang"]);
    assert_eq!(answer(&follow)["status"], "failed");
    assert_eq!(follow.status.code(), Some(1));
}

#[test]
fn refusals_have_statuses_of_their_own() {
    let cases: [(&[&str], i32); 6] = [
        (&["call", "no_such_tool"], 2),
        (&["call", "list_pools", "--no-such-flag"], 2),
        (&["call", "list_pools", "--json", "[1]"], 2),
        (&["call", "list_pools", "--json", r#"{"pool": []}"#], 2),
        (&["call", "list_repos"], 3),
        (&["call", "remember", "--text", "panic"], 5),
    ];
    for (args, status) in cases {
        let output = call(args);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {output:?}");
    }
}

#[test]
fn help_lists_the_tools_and_their_flags() {
    let help = call(&["call", "--help"]);
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    for tool in mahavishnu::server::tools::all() {
        assert!(text.contains(tool.name), "{text}");
    }
    let help = call(&["call", "execute_workflow_parallel", "--help"]);
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    for flag in [
        "--repos",
        "--wait-s",
        "--dry-run",
        "--no-wait",
        "--json",
        "PROGRAM",
    ] {
        assert!(text.contains(flag), "{flag}: {text}");
    }
}

#[test]
fn an_interrupt_ends_the_server_too() {
    let marker = crate::support::processes::Marker::new();
    let mut child = Command::new(faulty())
        .args(["call", "execute_workflow_parallel", "--repos", "hang"])
        .env(crate::support::processes::Marker::VARIABLE, marker.as_str())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the program runs");
    let both = || marker.living().len() == 2;
    assert!(crate::support::processes::wait_until(
        crate::support::HANG,
        both
    ));
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(sent.expect("kill runs").success());
    let status = child.wait().expect("ours");
    assert_eq!(status.code(), Some(130));
    assert!(
        marker.living().is_empty(),
        "the server is left: {:?}",
        marker.living()
    );
}
