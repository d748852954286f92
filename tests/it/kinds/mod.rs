//! Worker kinds through the real server: what their programs meet, and those that are other MCP servers, over HTTP, over
//! stdio, and the real Session-Buddy.

mod environment;
mod http;
mod session_buddy;
mod stdio;

use crate::support::server::Server;
use serde_json::{Value, json};

/// Returns the row of `list_pools` for a pool.
fn pool_row(server: &mut Server, pool: &str) -> Value {
    let listed = server.call("list_pools", json!({"pools": [pool]})).ok();
    listed["pools"][0].clone()
}

/// Runs one prompt on the only repository to its end.
fn run(server: &mut Server, task: &str, more: Value) -> Value {
    let mut arguments = json!({"repo": "r", "task": task, "wait_s": 30});
    for (name, value) in more.as_object().expect("an object") {
        arguments[name] = value.clone();
    }
    let started = server.call("route_least_loaded", arguments).ok();
    server.wait_done(&started["workflow_id"]);
    let whole = json!({"workflow_id": started["workflow_id"], "detail": "full"});
    server.call("get_workflow", whole).ok()
}

/// Returns the text of a stream of item 0; the default stream where none is named.
fn output(server: &mut Server, workflow: &Value, stream: Option<&str>) -> String {
    let mut arguments = json!({"workflow_id": workflow["workflow_id"], "item": 0});
    if let Some(stream) = stream {
        arguments["stream"] = json!(stream);
    }
    let read = server.call("read_output", arguments).ok();
    read["text"].as_str().expect("a text").to_owned()
}
