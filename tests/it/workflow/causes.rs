//! Why items failed, as people and models see it.

use super::*;
use crate::support::repos::GitRepo;

/// Makes a repository whose `run.sh` fails with exit code 2 after `script`.
fn failing(home: &Home, name: &str, script: &str) {
    let script = format!("{script}\nexit 2\n");
    GitRepo::with_files(&home.repos(), name, &[("run.sh", &script)]);
}

/// Runs `run.sh` in all repositories and returns the workflow at its end.
fn run_all(server: &mut Server) -> Value {
    let arguments = json!({"repos": ["*"], "command": ["sh", "run.sh"], "wait_s": 0});
    let started = server.call("execute_workflow_parallel", arguments).ok();
    server.wait_done(&started["workflow_id"]);
    look(server, &started["workflow_id"])
}

fn causes(state: &Value) -> Vec<Value> {
    let failures = state["failures"].as_array().expect("failures");
    failures
        .iter()
        .map(|failure| failure["cause"].clone())
        .collect()
}

#[test]
fn each_different_reason_is_a_real_line_of_its_own() {
    const CLOSING: &str = "echo 'make: *** [Makefile:2: test] Error 3' >&2";
    let home = home(4);
    failing(
        &home,
        "a",
        &format!("echo 'port 8080 is taken by the proxy'\n{CLOSING}"),
    );
    failing(
        &home,
        "b",
        &format!("echo 'CHANGELOG.md does not mention it' >&2\n{CLOSING}"),
    );
    failing(
        &home,
        "c",
        "printf '\\r 10%%\\r100%%\\rdownload failed: no route to host\\n' >&2",
    );
    let mut server = Server::start(&home);
    let state = run_all(&mut server);
    assert_eq!(
        causes(&state),
        [
            "exit code 2: port 8080 is taken by the proxy",
            "exit code 2: CHANGELOG.md does not mention it",
            "exit code 2: download failed: no route to host",
        ],
        "{state:#}"
    );
}

#[test]
fn a_group_shows_the_cause_of_its_first_item() {
    let home = home(4);
    for (name, line) in [("a", 1234), ("b", 5678)] {
        failing(
            &home,
            name,
            &format!("echo \"error: $PWD/x.rs is broken in line {line}\" >&2"),
        );
    }
    let mut server = Server::start(&home);
    let state = run_all(&mut server);
    let file = home
        .repos()
        .canonicalize()
        .expect("it is there")
        .join("a/x.rs");
    let cause = format!(
        "exit code 2: error: {} is broken in line 1234",
        file.display()
    );
    assert_eq!(causes(&state), [json!(cause)], "{state:#}");
    assert_eq!(state["failures"][0]["count"], 2);
    let again = json!({"workflow_id": state["workflow_id"], "causes": [cause], "wait_s": 0});
    server.call("resume_workflow", again).ok();
    server.wait_done(&state["workflow_id"]);
    let state = look(&mut server, &state["workflow_id"]);
    let attempts: Vec<_> = rows(&state)
        .iter()
        .map(|row| row["attempt"].clone())
        .collect();
    assert_eq!(attempts, [json!(2), json!(2)], "{state:#}");
}

#[test]
fn tails_and_memories_keep_no_control_sequences() {
    let home = home(1);
    failing(
        &home,
        "a",
        "printf '\\033[31merror: \\033[1mquokka\\033[0m is missing\\033[K\\n' >&2",
    );
    let mut server = Server::start(&home);
    let state = run_all(&mut server);
    assert_eq!(rows(&state)[0]["output_tail"], "error: quokka is missing\n");
    let found = server
        .call("cross_pool_search", json!({"query": "quokka"}))
        .ok();
    let text = found["hits"][0]["text"].as_str().expect("a hit");
    assert!(text.contains("error: quokka is missing"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

fn rows(state: &Value) -> &Vec<Value> {
    state["items"].as_array().expect("items")
}
