//! The kind `mcp` over HTTP, against a server that answers as each test says.

use super::{output, pool_row, run};
use crate::mcp_client::scripted::{Answer, Request, Scripted, handshake, json_answer};
use crate::support::HANG;
use crate::support::processes::wait_until;
use crate::support::server::{Home, Server};
use serde_json::{Value, json};
use std::time::Duration;

fn result(request: &Request, result: &Value) -> Answer {
    json_answer(
        200,
        &json!({"jsonrpc": "2.0", "id": request.body["id"], "result": result}),
    )
}

/// Answers as a server whose only tool is `echo`; `call` answers its calls.
fn echo_server(
    call: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) -> impl Fn(&Request) -> Answer + Send + Sync + 'static {
    move |request| match request.method() {
        "tools/list" => {
            let tool = json!({"name": "echo", "inputSchema": {"type": "object"}});
            result(request, &json!({"tools": [tool]}))
        }
        "tools/call" => call(request),
        _ => handshake(request),
    }
}

/// Says the arguments back.
fn echo(request: &Request) -> Answer {
    let said = request.body["params"]["arguments"].to_string();
    result(
        request,
        &json!({"content": [{"type": "text", "text": said}]}),
    )
}

fn config(url: &str, tool: &str, arguments: &str) -> String {
    format!(
        r#"
[[pools]]
name = "tool"
worker = "tool"
max_workers = 100

[workers.tool]
kind = "mcp"
server.url = "{url}"
tool = "{tool}"
arguments = {arguments}
"#
    )
}

fn start(url: &str, tool: &str, arguments: &str) -> (Home, Server) {
    let home = Home::with_config(&config(url, tool, arguments));
    home.repo("r");
    let server = Server::start(&home);
    (home, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_the_tools_arguments_and_its_text_is_the_output() {
    let peer = Scripted::start(echo_server(echo)).await;
    let arguments = r#"{ text = "say: {task}", deep = { list = ["{item}", "{workflow_id}"] } }"#;
    let (_home, mut server) = start(&peer.url(), "echo", arguments);
    let done = run(&mut server, "hello {repo}\n\"quoted\"", json!({}));
    assert_eq!(done["status"], "succeeded", "{done:#}");
    let item = &done["items"][0];
    assert!(
        item.get("worktree").is_none() && item.get("branch").is_none(),
        "nothing of it happens in a folder: {item:#}"
    );
    let expected = json!({
        "text": "say: hello {repo}\n\"quoted\"",
        "deep": {"list": ["0", done["workflow_id"]]},
    });
    for stream in [None, Some("stdout"), Some("final")] {
        let said: Value =
            serde_json::from_str(&output(&mut server, &done, stream)).expect("the arguments");
        assert_eq!(said, expected, "{stream:?}");
    }
    assert!(
        item["output_tail"]
            .as_str()
            .is_some_and(|it| it.contains("say: hello"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_is_told_the_folder_gets_a_worktree_unless_the_call_says_otherwise() {
    let peer = Scripted::start(echo_server(echo)).await;
    let (home, mut server) = start(&peer.url(), "echo", r#"{ cwd = "{repo}" }"#);
    let done = run(&mut server, "x", json!({}));
    let worktree = done["items"][0]["worktree"].as_str().expect("a worktree");
    assert!(output(&mut server, &done, None).contains(worktree));
    let done = run(&mut server, "x", json!({"isolation": "in_place"}));
    assert!(done["items"][0].get("worktree").is_none(), "{done:#}");
    let repo = home.repos().join("r");
    assert!(output(&mut server, &done, None).contains(&repo.display().to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn structured_content_is_kept_as_text_and_long_text_in_pages() {
    let long = "é".repeat(10_000);
    let sent = long.clone();
    let peer = Scripted::start(echo_server(
        move |request| match request.body["params"]["arguments"]["text"].as_str() {
            Some("long") => result(
                request,
                &json!({"content": [{"type": "text", "text": sent}]}),
            ),
            _ => result(
                request,
                &json!({"content": [], "structuredContent": {"n": 1}}),
            ),
        },
    ))
    .await;
    let (_home, mut server) = start(&peer.url(), "echo", r#"{ text = "{task}" }"#);
    let done = run(&mut server, "structured", json!({}));
    assert_eq!(output(&mut server, &done, None), "{\n  \"n\": 1\n}");
    let done = run(&mut server, "long", json!({}));
    let (mut text, mut offset) = (String::new(), json!(0));
    while !offset.is_null() {
        let page = server.call(
            "read_output",
            json!({"workflow_id": done["workflow_id"], "offset": offset}),
        );
        let page = page.ok();
        text.push_str(page["text"].as_str().expect("a text"));
        offset = page["next_offset"].clone();
    }
    assert_eq!(text, long);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_fails_fails_the_item_in_its_own_words() {
    let peer = Scripted::start(echo_server(|request| {
        let text = json!({"type": "text", "text": "no such language: Elvish"});
        result(request, &json!({"content": [text], "isError": true}))
    }))
    .await;
    let (_home, mut server) = start(&peer.url(), "echo", "{}");
    let done = run(&mut server, "x", json!({}));
    assert_eq!(done["status"], "failed");
    let item = &done["items"][0];
    assert_eq!(
        item["error"]["message"],
        "tool echo failed: no such language: Elvish"
    );
    assert_eq!(done["failures"][0]["stage"], "run");
    assert_eq!(output(&mut server, &done, None), "no such language: Elvish");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_tool_is_told_with_the_nearest_by_the_item_the_pool_and_the_health_check() {
    let peer = Scripted::start(echo_server(|request| {
        let error = json!({"code": -32602, "message": "Unknown tool: ecko"});
        json_answer(
            200,
            &json!({"jsonrpc": "2.0", "id": request.body["id"], "error": error}),
        )
    }))
    .await;
    let (_home, mut server) = start(&peer.url(), "ecko", "{}");
    let done = run(&mut server, "x", json!({}));
    assert_eq!(done["failures"][0]["stage"], "start", "{done:#}");
    let error = done["items"][0]["error"].clone();
    let row = pool_row(&mut server, "tool");
    assert_eq!(row["health"], "unreachable");
    for error in [&error, &row["error"]] {
        assert_eq!(error["kind"], "not_found", "{error:#}");
        assert_eq!(error["retryable"], false);
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains("ecko; did you mean echo?"), "{message}");
        assert!(
            error["hint"]
                .as_str()
                .is_some_and(|hint| hint.contains("[workers.tool]"))
        );
    }
    let health = server.call("check_health", json!({"probe": "workers"}));
    let health = health.ok();
    let checks = health["checks"].as_array().expect("checks");
    let check = checks.iter().find(|check| check["name"] == "pool tool");
    let check = check.expect("a check of the pool");
    assert_eq!(check["status"], "fault", "{check:#}");
    assert!(
        check["fix"]
            .as_str()
            .is_some_and(|fix| fix.contains("echo"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_arguments_names_the_config_key() {
    let peer = Scripted::start(echo_server(|request| {
        let error = json!({"code": -32602, "message": "missing field `text`"});
        json_answer(
            200,
            &json!({"jsonrpc": "2.0", "id": request.body["id"], "error": error}),
        )
    }))
    .await;
    let (_home, mut server) = start(&peer.url(), "echo", "{}");
    let done = run(&mut server, "x", json!({}));
    let error = &done["items"][0]["error"];
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|it| it.contains("missing field `text`"))
    );
    assert!(
        error["hint"]
            .as_str()
            .is_some_and(|it| it.contains("`arguments` of [workers.tool]"))
    );
    assert_eq!(
        pool_row(&mut server, "tool")["health"],
        "healthy",
        "it has the tool"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_told_and_used_again_when_it_is_back() {
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/mcp");
    let (_home, mut server) = start(&url, "echo", r#"{ text = "{task}" }"#);
    let done = run(&mut server, "x", json!({}));
    let error = &done["items"][0]["error"];
    assert_eq!(
        (&error["kind"], &error["retryable"]),
        (&json!("unavailable"), &json!(true)),
        "{error:#}"
    );
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|it| it.contains(&url) && it.contains("was not called"))
    );
    let row = pool_row(&mut server, "tool");
    assert_eq!(row["health"], "unreachable", "{row:#}");
    assert_eq!(row["error"]["kind"], "unavailable");
    // From here on nobody lists pools: the server itself finds out that its peer is back.
    let waiting = json!({"repos": ["r"], "task": "later", "wait_s": 0});
    let waiting = server.call("execute_workflow_parallel", waiting).ok();
    assert_eq!(waiting["status"], "running", "it waits for the pool");
    let peer = Scripted::start_on(port, Duration::ZERO, echo_server(echo)).await;
    let done = server.wait_done(&waiting["workflow_id"]);
    assert_eq!(done["status"], "succeeded", "{done:#}");
    assert_eq!(peer.seen("tools/call").len(), 1);
    assert_eq!(pool_row(&mut server, "tool")["health"], "healthy");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_do_not_flow_to_the_pool_whose_server_is_down() {
    let peer = Scripted::start_on(0, Duration::from_millis(20), echo_server(echo)).await;
    let home = Home::with_config(&format!(
        r#"
[[pools]]
name = "down"
worker = "down"
max_workers = 2

[[pools]]
name = "up"
worker = "up"
max_workers = 2

[workers.down]
kind = "mcp"
server.url = "http://127.0.0.1:{}/mcp"
tool = "echo"

[workers.up]
kind = "mcp"
server.url = "{}"
tool = "echo"
"#,
        free_port(),
        peer.url()
    ));
    home.many_repos(40);
    let mut server = Server::start(&home);
    let started = server.call(
        "execute_workflow_parallel",
        json!({"repos": ["*"], "task": "x", "wait_s": 0}),
    );
    let done = server.wait_done(&started.ok()["workflow_id"]);
    let failed = done["counts"]["failed"].as_u64().expect("a count");
    assert!(
        failed <= 2,
        "only what was in its slots before it was known to be down: {done:#}"
    );
    assert_eq!(done["counts"]["succeeded"], 40 - failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_never_comes_ends_at_the_deadline_or_by_silence_and_the_server_is_told() {
    let peer = Scripted::start(echo_server(|_| None)).await;
    let (_home, mut server) = start(&peer.url(), "echo", "{}");
    for limit in ["timeout_s", "stall_s"] {
        let before = peer.seen("notifications/cancelled").len();
        let done = run(&mut server, "x", json!({limit: 0.5}));
        let item = &done["items"][0];
        assert_eq!(item["status"], "timed_out", "{limit}: {done:#}");
        assert!(
            item["error"]["hint"]
                .as_str()
                .is_some_and(|hint| hint.contains(limit)),
            "{item:#}"
        );
        assert!(
            wait_until(HANG, || peer.seen("notifications/cancelled").len() > before),
            "{limit}"
        );
    }
    let calls = peer.seen("tools/call");
    let told = peer.seen("notifications/cancelled");
    for (call, told) in calls.iter().zip(&told) {
        assert_eq!(told.body["params"]["requestId"], call.body["id"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_deadlines_do_not_keep_the_next_call_from_being_sent() {
    let peer =
        Scripted::start(echo_server(
            |request| match request.body["params"]["arguments"]["text"].as_str() {
                Some("slow") => None,
                _ => echo(request),
            },
        ))
        .await;
    let (home, mut server) = start(&peer.url(), "echo", r#"{ text = "{task}" }"#);
    home.many_repos(12);
    let slow = server.call(
        "execute_workflow_parallel",
        json!({"repos": ["*"], "task": "slow", "timeout_s": 0.3, "wait_s": 0}),
    );
    let done = server.wait_done(&slow.ok()["workflow_id"]);
    assert_eq!(done["counts"]["timed_out"], 13, "{done:#}");
    let done = run(&mut server, "quick", json!({}));
    assert_eq!(done["status"], "succeeded", "{done:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_item_gives_the_call_up_and_tells_the_server() {
    let peer = Scripted::start(echo_server(|_| None)).await;
    let (_home, mut server) = start(&peer.url(), "echo", "{}");
    let started = server.call(
        "route_least_loaded",
        json!({"repo": "r", "task": "x", "wait_s": 0}),
    );
    let id = started.ok()["workflow_id"].clone();
    assert!(wait_until(HANG, || peer.seen("tools/call").len() == 1));
    let cancelled = server.call("cancel_workflow", json!({"workflow_id": id}));
    assert!(cancelled.ok()["status"].is_string());
    let done = server.wait_done(&id);
    assert_eq!(done["status"], "cancelled", "{done:#}");
    assert!(wait_until(HANG, || {
        peer.seen("notifications/cancelled").len() == 1
    }));
    let row = pool_row(&mut server, "tool");
    assert_eq!(
        (&row["in_flight"], &row["health"]),
        (&json!(0), &json!("healthy"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_items_over_a_hundred_slots_are_a_hundred_calls_at_once() {
    let peer = Scripted::start_on(0, Duration::from_millis(700), echo_server(echo)).await;
    let (home, mut server) = start(&peer.url(), "echo", r#"{ text = "{task} {item}" }"#);
    home.many_repos(19);
    let started = server.call(
        "execute_workflow_parallel",
        json!({"repos": ["*"], "task": "n", "repeat": 10, "wait_s": 0}),
    );
    let done = server.wait_done(&started.ok()["workflow_id"]);
    assert_eq!(done["counts"]["succeeded"], 200, "{done:#}");
    assert_eq!(peer.seen("tools/call").len(), 200);
    assert_eq!(peer.peak(), 100, "the slots are the only limit");
    assert_eq!(peer.seen("initialize").len(), 1, "one session");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_credentials_gets_the_headers_of_the_config() {
    let peer = Scripted::start(echo_server(echo)).await;
    let config = config(&peer.url(), "echo", "{}");
    let home = Home::with_config(&format!(
        "{config}server.headers = {{ Authorization = \"Bearer t0ken\" }}\n"
    ));
    home.repo("r");
    let mut server = Server::start(&home);
    assert_eq!(run(&mut server, "x", json!({}))["status"], "succeeded");
    let calls = peer.seen("tools/call");
    assert_eq!(calls[0].authorization.as_deref(), Some("Bearer t0ken"));
}

#[test]
fn a_command_is_refused_before_anything_starts() {
    let (_home, mut server) = start("http://127.0.0.1:9/mcp", "echo", "{}");
    let refused = server.call(
        "route_least_loaded",
        json!({"repo": "r", "command": ["git", "status"]}),
    );
    let error = refused.error();
    assert_eq!(
        (&error["kind"], &error["field"]),
        (&json!("invalid_argument"), &json!("command"))
    );
    assert!(
        error["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("task"))
    );
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}
