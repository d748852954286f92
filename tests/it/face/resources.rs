//! Resources: the same as the tools tell, in both eras.

use super::*;
use crate::support::server::{Era, Link};

const BOTH: [Era; 2] = [Era::Initialize, Era::Stateless];

fn start(home: &Home, era: Era) -> Server {
    Server::start_as(home, Link::Pipes, era)
}

/// Reads a resource; returns its only content.
#[track_caller]
fn read(server: &mut Server, uri: &str) -> Value {
    let answer = server.request("resources/read", json!({"uri": uri}));
    let contents = answer["result"]["contents"].as_array();
    let contents = contents.unwrap_or_else(|| panic!("{uri}: {answer:#}"));
    assert_eq!(contents.len(), 1, "{answer:#}");
    assert_eq!(contents[0]["uri"], uri);
    contents[0].clone()
}

#[track_caller]
fn read_json(server: &mut Server, uri: &str) -> Value {
    let content = read(server, uri);
    assert_eq!(content["mimeType"], "application/json");
    serde_json::from_str(content["text"].as_str().expect("text")).expect("JSON")
}

#[test]
fn a_resource_equals_the_tools_answer() {
    for era in BOTH {
        let home = Home::with_config(&pools(&[
            ("a", "max_workers = 2"),
            ("b", "max_workers = 3"),
        ]));
        home.many_repos(2);
        let mut server = start(&home, era);
        // More than one page of read_output, and more than one resource takes.
        let script = "seq 1 20000; echo oops >&2; test ! -e ../r1/no || exit 1";
        let many = json!({"repos": ["r0", "r1"], "command": ["sh", "-c", script], "wait_s": 40});
        let done = server.call("execute_workflow_parallel", many).ok();
        let id = done["workflow_id"].as_str().expect("an id").to_owned();
        assert_eq!(
            server.wait_done(&done["workflow_id"])["status"],
            "succeeded"
        );

        let full = json!({"pools": ["b"], "detail": "full"});
        let told = server.call("list_pools", full).ok()["pools"][0].clone();
        assert_eq!(read_json(&mut server, "pool://b"), told);
        let told = server.call("get_workflow", json!({"workflow_id": id})).ok();
        assert_eq!(read_json(&mut server, &format!("workflow://{id}")), told);

        let content = read(&mut server, &format!("workflow://{id}/items/1/output"));
        assert_eq!(content["mimeType"], "text/plain");
        let text = content["text"].as_str().expect("text");
        let whole: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
        let (shown, rest) = text.rsplit_once("\n[").expect("it says that there is more");
        assert!(
            whole.starts_with(shown) && shown.len() > 30_000,
            "{}",
            shown.len()
        );
        assert!(text.len() < 33_000, "{}", text.len());
        assert!(rest.contains("read_output with offset"), "{rest}");

        let note = format!("{} \u{1}\"end\"", "a long note é ".repeat(1_500));
        let kept = server.call("remember", json!({"text": note})).ok();
        let uri = format!("memory://{}", kept["id"].as_str().expect("an id"));
        let memory = read_json(&mut server, &uri);
        assert_eq!(memory["id"], kept["id"]);
        assert_eq!(
            memory["text"].as_str(),
            Some(note.replace('\u{1}', "").as_str()),
            "the whole text without control characters"
        );
        assert!(memory.get("truncated").is_none(), "it is whole");
    }
}

#[test]
fn missing_resources_have_the_code_of_the_era() {
    for (era, code) in [(Era::Initialize, -32002), (Era::Stateless, -32602)] {
        let home = Home::with_config(&pools(&[("local", "max_workers = 2")]));
        let mut server = start(&home, era);
        let nobody = "01M8ZZZZZZZZZZZZZZZZZZZZZZ";
        for (uri, said) in [
            ("pool://locl".to_owned(), "did you mean \"local\"?"),
            ("pool://".to_owned(), "pool://{name}"),
            (format!("workflow://{nobody}"), "there is no workflow"),
            (
                format!("workflow://{nobody}/items/0/output"),
                "there is no workflow",
            ),
            (format!("memory://{nobody}"), "there is no memory"),
            ("memory://x".to_owned(), "x"),
            ("file:///etc/passwd".to_owned(), "workflow://{workflow_id}"),
            ("x".repeat(100_000), "no resource"),
        ] {
            let answer = server.request("resources/read", json!({"uri": uri}));
            let error = &answer["error"];
            let shown: String = uri.chars().take(80).collect();
            assert_eq!(error["code"], code, "{shown} {era:?}: {answer:.500}");
            let message = error["message"].as_str().expect("a message");
            assert!(
                message.contains(said) && message.len() < 1_000,
                "{shown}: {message}"
            );
            assert_eq!(error["data"]["uri"], uri, "{shown}");
        }
        assert_eq!(server.call("list_pools", json!({})).ok()["total"], 1);
    }
}

#[test]
fn the_pools_are_listed_in_pages_and_the_rest_as_templates() {
    let names: Vec<String> = (0..200).map(|at| format!("pool-{at:03}")).collect();
    let all: Vec<(&str, &str)> = names
        .iter()
        .map(|name| (name.as_str(), "max_workers = 1"))
        .collect();
    let home = Home::with_config(&pools(&all));
    for era in BOTH {
        let mut server = start(&home, era);
        let (mut seen, mut asked) = (Vec::new(), json!({}));
        loop {
            let page = server.request("resources/list", asked.clone())["result"].clone();
            let rows = page["resources"].as_array().expect("rows").clone();
            assert!(!rows.is_empty(), "no progress: {page:#}");
            seen.extend(
                rows.iter()
                    .map(|row| row["uri"].as_str().expect("a URI").to_owned()),
            );
            match page.get("nextCursor") {
                Some(cursor) => asked = json!({"cursor": cursor}),
                None => break,
            }
        }
        let uris: Vec<String> = names.iter().map(|name| format!("pool://{name}")).collect();
        assert_eq!(seen, uris);
        let last = uris.last().expect("there are some");
        assert_eq!(read_json(&mut server, last)["name"], names[199]);

        let list = server.request("resources/templates/list", json!({}))["result"].clone();
        let templates: Vec<_> = list["resourceTemplates"]
            .as_array()
            .expect("templates")
            .iter()
            .map(|template| template["uriTemplate"].as_str().expect("a template"))
            .collect();
        assert_eq!(
            templates,
            [
                "pool://{name}",
                "workflow://{workflow_id}",
                "workflow://{workflow_id}/items/{item}/output",
                "memory://{id}"
            ]
        );
        assert_eq!(list["ttlMs"].is_u64(), era == Era::Stateless, "{list:#}");
    }
}

#[test]
fn resources_are_declared_and_subscribing_is_not() {
    for era in BOTH {
        let home = Home::new();
        let mut server = Server::raw(home.command(), Link::Pipes, era);
        let greeting = match era {
            Era::Initialize => server.request(
                "initialize",
                json!({
                    "protocolVersion": "2025-11-25",
                    "capabilities": {},
                    "clientInfo": {"name": "t", "version": "1"},
                }),
            ),
            Era::Stateless => server.request("server/discover", json!({})),
        };
        let resources = &greeting["result"]["capabilities"]["resources"];
        assert!(resources.is_object(), "{greeting:#}");
        assert_ne!(resources["subscribe"], true);
        assert_ne!(resources["listChanged"], true);
    }
}
