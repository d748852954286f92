//! `mahavishnu call`, with a server that fails on demand.

use super::*;
use crate::support::HANG;
use crate::support::processes::{Marker, wait_until};
use std::process::{Output, Stdio};
use std::time::Duration;

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
fn a_followed_run_sets_the_exit_status() {
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
fn refusals_have_their_own_exit_statuses() {
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

/// Starts a call that never ends by itself and interrupts it once its server runs; returns what it printed.
fn interrupted(args: &[&str], signal: &str) -> Output {
    let marker = Marker::new();
    let child = Command::new(faulty())
        .args(args)
        .env(Marker::VARIABLE, marker.as_str())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    assert!(wait_until(HANG, || marker.living().len() == 2));
    // The server must have taken the call, which nothing shows from outside; too early a signal finds no workflow.
    wait_until(Duration::from_secs(1), || false);
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(sent.expect("kill runs").success());
    let output = child.wait_with_output().expect("ours");
    assert!(
        marker.living().is_empty(),
        "the server is left: {:?}",
        marker.living()
    );
    output
}

#[test]
fn an_interrupted_call_names_its_workflow_and_how_to_resume_it() {
    for signal in ["-INT", "-TERM"] {
        let args = ["call", "execute_workflow_parallel", "--repos", "hang"];
        let output = interrupted(&args, signal);
        assert_eq!(output.status.code(), Some(130), "{output:?}");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "",
            "it is no answer"
        );
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let id = stderr
            .split_whitespace()
            .find_map(|word| word.parse::<mahavishnu::model::WorkflowId>().ok())
            .unwrap_or_else(|| panic!("no workflow's id: {stderr}"));
        let resume = format!("mahavishnu call resume_workflow --workflow-id {id}\n");
        assert!(stderr.contains(&resume), "{stderr}");
    }
}
