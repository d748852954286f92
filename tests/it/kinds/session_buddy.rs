//! The kind `session-buddy` with the real Session-Buddy.

use super::{pool_row, run};
use crate::session_buddy::real::{self, Profile, Server as Buddy};
use crate::support::server::{Home, Server};
use serde_json::{Value, json};
use tempfile::TempDir;

fn home(url: &str, memory: bool) -> Home {
    let server = if memory {
        format!("[session_buddy]\nurl = \"{url}\"\n[workers.helpers]\nkind = \"session-buddy\"\n")
    } else {
        format!("[workers.helpers]\nkind = \"session-buddy\"\nserver.url = \"{url}\"\n")
    };
    let home = Home::with_config(&format!(
        "[[pools]]\nname = \"sb\"\nworker = \"helpers\"\nmax_workers = 8\n{server}"
    ));
    home.repo("r");
    home
}

/// Asserts that the first item reached a worker there, which returned nothing.
fn assert_no_output(done: &Value) {
    let item = &done["items"][0];
    assert_eq!(item["status"], "failed", "{done:#}");
    let message = item["error"]["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("returned no output of the task"),
        "{done:#}"
    );
}

#[test]
fn a_task_without_output_fails_with_that_reason() {
    let Some(buddy) = real::shared(Profile::Full) else {
        return real::skipped("a_task_without_output_fails_with_that_reason");
    };
    let url = format!("http://127.0.0.1:{}/mcp", buddy.port());
    let home = home(&url, false);
    home.many_repos(19);
    let mut server = Server::start(&home);
    assert_eq!(pool_row(&mut server, "sb")["health"], "healthy");
    let started = server.call(
        "execute_workflow_parallel",
        json!({"repos": ["*"], "task": "look around", "wait_s": 0}),
    );
    let done = server.wait_done(&started.ok()["workflow_id"]);
    assert_eq!(done["counts"]["failed"], 20, "{done:#}");
    assert_no_output(&done);
    let sum = server.call("aggregate_memory", json!({"wait_s": 20})).ok();
    assert_eq!(sum["pools"][0]["status"], "ok", "{sum:#}");
    assert_eq!(sum["new"], 20, "what the attempts left in the store");
    let done = run(&mut server, "too short", json!({"timeout_s": 0.02}));
    assert_eq!(done["status"], "failed", "{done:#}");
    assert_eq!(done["items"][0]["status"], "timed_out", "{done:#}");
}

#[test]
fn its_pool_is_made_again_after_a_restart_and_the_memory_server_is_the_default() {
    if real::venv().is_none() {
        return real::skipped(
            "its_pool_is_made_again_after_a_restart_and_the_memory_server_is_the_default",
        );
    }
    let folder = TempDir::new().expect("a temporary folder");
    let mut buddy = Buddy::start(Profile::Full, folder.path());
    let url = format!("http://127.0.0.1:{}/mcp", buddy.port());
    let home = home(&url, true);
    let mut server = Server::start(&home);
    let done = run(&mut server, "first", json!({}));
    assert_no_output(&done);
    buddy.kill();
    let done = run(&mut server, "nobody there", json!({}));
    let error = &done["items"][0]["error"];
    assert_eq!(error["kind"], "unavailable", "{done:#}");
    let row = pool_row(&mut server, "sb");
    assert_eq!(row["health"], "unreachable", "{row:#}");
    let sum = server.call("aggregate_memory", json!({"wait_s": 2})).ok();
    assert_eq!(
        sum["pools"][0]["status"], "failed",
        "its server was asked: {sum:#}"
    );
    assert_eq!(
        sum["collected"], 2,
        "the store was asked all the same: {sum:#}"
    );
    buddy.restart();
    assert_eq!(pool_row(&mut server, "sb")["health"], "healthy");
    let done = run(&mut server, "again", json!({}));
    assert_no_output(&done);
}

#[test]
fn the_default_front_door_has_no_pools_and_what_others_told_it_is_collected() {
    let Some(buddy) = real::shared(Profile::Default) else {
        return real::skipped(
            "the_default_front_door_has_no_pools_and_what_others_told_it_is_collected",
        );
    };
    let word = format!("quokka{}", mahavishnu::model::MemoryId::new()).to_lowercase();
    let stored = tokio::runtime::Runtime::new()
        .expect("a runtime")
        .block_on(async {
            let arguments = json!({"content": format!("a {word} smiles"), "tags": ["x"]});
            let arguments = arguments.as_object().expect("an object").clone();
            let client = real::client(buddy.port());
            client
                .call("store_reflection", arguments, real::soon())
                .await
        });
    stored.expect("it is stored");
    let home = home(&format!("http://127.0.0.1:{}/mcp", buddy.port()), false);
    let mut server = Server::start(&home);
    let row = pool_row(&mut server, "sb");
    assert_eq!(row["health"], "unreachable", "{row:#}");
    assert!(
        row["error"]["message"]
            .as_str()
            .is_some_and(|it| it.contains("full tool profile")),
        "{row:#}"
    );
    let sum = server.call("aggregate_memory", json!({"wait_s": 20})).ok();
    assert!(sum["new"].as_u64().is_some_and(|new| new >= 1), "{sum:#}");
    let found = server
        .call("cross_pool_search", json!({"query": word}))
        .ok();
    assert_eq!(found["hits"][0]["pool"], "sb", "{found:#}");
}
