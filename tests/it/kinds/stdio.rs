//! The kind `mcp` over the stdio of a child: this very program as the other server, and one that reports progress.

use super::{output, pool_row, run};
use crate::support::processes::wait_until;
use crate::support::server::{Home, Server};
use crate::support::{HANG, binary};
use serde_json::json;
use std::path::PathBuf;

fn faulty() -> PathBuf {
    let profile = binary().parent().expect("a folder").to_owned();
    profile.join("examples").join("faulty_server")
}

#[test]
fn a_tool_of_this_very_program_is_a_worker() {
    let inner = Home::new();
    let home = Home::with_config(&format!(
        r#"
[[pools]]
name = "notes"
worker = "notes"
max_workers = 4

[[pools]]
name = "poems"
worker = "poems"
max_workers = 1

[workers.notes]
kind = "mcp"
server = {{ command = {command}, env = {{ MAHAVISHNU_STATE_DIR = {state:?} }} }}
tool = "remember"
arguments = {{ text = "{{task}}", tags = ["item-{{item}}"] }}

[workers.poems]
kind = "mcp"
server = {{ command = {command}, env = {{ MAHAVISHNU_STATE_DIR = {state:?} }} }}
tool = "remember"
arguments = {{ text = "{{task}}", kind = "poem" }}
"#,
        state = inner.state(),
        command = format_args!("[{:?}, \"--root\", {:?}]", binary(), inner.repos()),
    ));
    home.repo("r");
    let mut server = Server::start(&home);
    assert_eq!(pool_row(&mut server, "notes")["health"], "healthy");
    let done = run(
        &mut server,
        "numbats eat termites",
        json!({"pools": ["notes"]}),
    );
    assert_eq!(done["status"], "succeeded", "{done:#}");
    let kept: serde_json::Value =
        serde_json::from_str(&output(&mut server, &done, None)).expect("the tool's own JSON");
    assert_eq!(kept["new"], true);
    // What the attempt left is collected as that of any local pool is, and found again.
    let sum = server.call("aggregate_memory", json!({"pools": ["notes"]}));
    let sum = sum.ok();
    assert_eq!(
        (&sum["new"], &sum["pools"][0]["status"]),
        (&json!(1), &json!("ok"))
    );
    let found = server.call("cross_pool_search", json!({"query": "numbats"}));
    assert_eq!(found.ok()["hits"][0]["pool"], "notes");
    let done = run(&mut server, "roses are red", json!({"pools": ["poems"]}));
    assert_eq!(done["status"], "failed", "there is no such kind: {done:#}");
    assert!(
        done["items"][0]["error"]["message"]
            .as_str()
            .is_some_and(|it| it.starts_with("tool remember failed: "))
    );
    let marker = server.marker.clone();
    server.close_stdin();
    let (status, stderr) = server.wait_end();
    assert!(status.success(), "{stderr}");
    assert!(
        wait_until(HANG, || marker.living().is_empty()),
        "the child ends with the server"
    );
}

#[test]
fn progress_is_what_the_item_is_doing_and_a_sign_of_life_and_a_cancel_reaches_the_tool() {
    let home = Home::with_config(&format!(
        r#"
[[pools]]
name = "steps"
worker = "steps"
max_workers = 2

[workers.steps]
kind = "mcp"
server.command = [{:?}, "serve"]
tool = "execute_workflow_parallel"
arguments = {{ repos = ["{{task}}"], task = "x", wait_s = 45 }}
"#,
        faulty(),
    ));
    home.repo("r");
    let mut server = Server::start(&home);
    // Twenty steps of 150 ms are longer than the silence that is allowed.
    let done = run(&mut server, "20", json!({"stall_s": 1.5}));
    assert_eq!(done["status"], "succeeded", "{done:#}");
    let started = server.call(
        "route_least_loaded",
        json!({"repo": "r", "task": "1000000", "wait_s": 0}),
    );
    let id = started.ok()["workflow_id"].clone();
    let mut doing = String::new();
    let stepped = wait_until(HANG, || {
        let state = server.call(
            "get_workflow",
            json!({"workflow_id": id, "detail": "full", "wait_s": 0}),
        );
        let state = state.ok();
        doing = state["items"][0]["doing"].as_str().unwrap_or("").to_owned();
        doing.contains("step ")
    });
    assert!(stepped, "{doing}");
    let cancelled = server.call("cancel_workflow", json!({"workflow_id": id}));
    assert!(cancelled.ok()["status"].is_string());
    assert_eq!(server.wait_done(&id)["status"], "cancelled");
}

#[test]
fn a_program_that_does_not_start_is_told_by_the_pool() {
    let home = Home::with_config(
        r#"
[[pools]]
name = "gone"
worker = "gone"
max_workers = 2

[workers.gone]
kind = "mcp"
server.command = ["/no/such/program"]
tool = "t"
"#,
    );
    home.repo("r");
    let mut server = Server::start(&home);
    let row = pool_row(&mut server, "gone");
    assert_eq!(row["health"], "unreachable", "{row:#}");
    assert!(
        row["error"]["message"]
            .as_str()
            .is_some_and(|it| it.contains("/no/such/program") && it.contains("did not start"))
    );
}
