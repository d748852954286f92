//! What is said over a healthy connection.

use super::*;

const BOTH: [Era; 2] = [Era::Initialize, Era::Stateless];

#[test]
fn both_eras_work_over_pipes_and_sockets() {
    for link in [Link::Pipes, Link::Sockets] {
        for era in BOTH {
            let (mut server, greeting) = start(link, era);
            let instructions = greeting["instructions"].as_str().expect("instructions");
            assert!(instructions.contains("execute_workflow_parallel"));
            assert!(greeting["capabilities"]["tools"]["listChanged"].is_null());
            let list = server.request("tools/list", json!({}));
            let tools = list["result"]["tools"].as_array().expect("tools").clone();
            assert_eq!(tools.len(), mahavishnu::server::tools::all().len());
            assert_eq!(server.call("list_pools", json!({})).ok()["total"], 0);
            server.close_stdin();
            let (status, _) = server.wait_end();
            assert_eq!(status.code(), Some(0), "{link:?} {era:?}");
        }
    }
}

#[test]
fn cache_hints_are_for_the_new_era_only() {
    for era in BOTH {
        let (mut server, _) = start(Link::Pipes, era);
        let list = server.request("tools/list", json!({}))["result"].clone();
        assert_eq!(
            list["ttlMs"].as_u64().is_some(),
            era == Era::Stateless,
            "{era:?}"
        );
        assert_eq!(
            list["cacheScope"].is_string(),
            era == Era::Stateless,
            "{era:?}"
        );
    }
}

#[test]
fn the_list_has_what_hosts_read() {
    let (mut server, _) = start(Link::Pipes, Era::Initialize);
    let list = server.request("tools/list", json!({}))["result"]["tools"].clone();
    for tool in list.as_array().expect("tools") {
        let name = &tool["name"];
        assert!(tool["title"].is_string(), "{name}");
        assert!(tool["annotations"]["readOnlyHint"].is_boolean(), "{name}");
        assert!(tool["_meta"]["anthropic/searchHint"].is_string(), "{name}");
        for schema in ["inputSchema", "outputSchema"] {
            assert_eq!(tool[schema]["type"], "object", "{name}");
        }
    }
}

#[test]
fn an_unknown_tool_is_a_protocol_error_with_the_nearest_name() {
    let mut server = server();
    let answer = server.request("tools/call", json!({"name": "list_pool", "arguments": {}}));
    assert_eq!(answer["error"]["code"], -32602);
    let message = answer["error"]["message"].as_str().expect("a message");
    assert!(message.contains("`list_pools`"), "{message}");
}

#[test]
fn bad_arguments_are_results_with_the_fix() {
    let mut server = server();
    let refusal = server.call("list_pools", json!({"pool": ["a"]})).error();
    assert_eq!(refusal["kind"], "invalid_argument");
    assert_eq!(refusal["field"], "pool");
    assert_eq!(refusal["hint"], "did you mean `pools`?");
    let refusal = server
        .call("execute_workflow_parallel", json!({"repos": {"a": 1}}))
        .error();
    assert_eq!(refusal["field"], "repos");
    let refusal = server
        .call(
            "execute_workflow_parallel",
            json!({"repos": ["1"], "wait_s": -1}),
        )
        .error();
    assert_eq!(refusal["field"], "wait_s");
    let fine = server.call(
        "list_pools",
        json!({"wait_for_previous": true, "cursor": null}),
    );
    assert_eq!(fine.ok()["total"], 0);
}

#[test]
fn values_sent_as_json_texts_are_understood() {
    let mut server = server();
    let arguments = json!({"repos": "[\"hang\"]", "wait_s": "0.2", "dry_run": "false"});
    let answer = server.call("execute_workflow_parallel", arguments).ok();
    assert_eq!(answer["status"], "running");
    let plain = json!({"repos": "2", "wait_s": 40});
    let answer = server.call("execute_workflow_parallel", plain).ok();
    assert_eq!(answer["status"], "succeeded", "one text is a list of one");
}

#[test]
fn no_arguments_at_all_are_none() {
    let mut server = server();
    let answer = server.request("tools/call", json!({"name": "list_pools"}));
    assert_eq!(answer["result"]["structuredContent"]["total"], 0);
}

#[test]
fn progress_rises_and_comes_before_the_answer() {
    for era in BOTH {
        let (mut server, _) = start(Link::Pipes, era);
        let answer = server.call("execute_workflow_parallel", json!({"repos": ["5"]}));
        let values: Vec<_> = answer
            .progress
            .iter()
            .map(|note| note["params"]["progress"].as_f64().expect("a number"))
            .collect();
        assert!(values.len() >= 3, "{values:?}");
        assert!(values.is_sorted_by(|a, b| a < b), "{values:?}");
        assert!(values.iter().all(|value| *value <= 5.0), "{values:?}");
        assert_eq!(answer.progress[0]["params"]["total"], 5.0);
        assert_eq!(answer.ok()["status"], "succeeded");
        assert!(
            server.notifications().is_empty(),
            "nothing comes after the answer"
        );
    }
}

#[test]
fn a_heartbeat_comes_while_nothing_happens() {
    let mut server = server();
    let answer = server.call(
        "execute_workflow_parallel",
        json!({"repos": ["0"], "wait_s": 1}),
    );
    assert_eq!(answer.ok()["status"], "succeeded");
    // One step of a million never ends within the wait; the steps after the first are silent to a slow reader.
    let answer = server.call(
        "execute_workflow_parallel",
        json!({"repos": ["hang"], "wait_s": 1}),
    );
    assert!(!answer.progress.is_empty());
    assert_eq!(answer.ok()["status"], "running");
}

#[test]
fn the_wait_cap_follows_the_host() {
    for (client, cap) in [
        ("claude-ai", "45"),
        ("claude-code", "810"),
        ("codex-mcp-client", "270"),
        ("gemini-cli-mcp-client", "570"),
    ] {
        let mut server = silent(Link::Pipes, Era::Initialize);
        greet(&mut server, Era::Initialize, client);
        assert_eq!(told(&mut server, "cap"), cap, "{client}");
        assert_eq!(told(&mut server, "client"), client);
        let args = json!({"repos": ["1"], "wait_s": 5000});
        let answer = server.call("execute_workflow_parallel", args).ok();
        assert_eq!(
            answer["wait_capped_s"],
            cap.parse::<f64>().expect("a number")
        );
    }
}

#[test]
fn notices_come_with_the_next_answer_once() {
    let mut server = server();
    let answer = server
        .call("remember", json!({"text": "a run was interrupted"}))
        .ok();
    assert_eq!(answer["notices"], json!(["a run was interrupted"]));
    assert!(
        server
            .call("list_pools", json!({}))
            .ok()
            .get("notices")
            .is_none()
    );
}
