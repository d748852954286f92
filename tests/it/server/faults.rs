//! Tools with defects, hosts with defects.

use super::*;
use crate::support::HANG;
use crate::support::processes::wait_until;
use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn a_panic_is_answered_and_the_server_goes_on() {
    let mut server = server();
    let error = server.call("remember", json!({"text": "panic"})).error();
    assert_eq!(error["kind"], "internal");
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.contains("as asked"))
    );
    assert_eq!(server.call("list_pools", json!({})).ok()["total"], 0);
}

#[test]
fn an_answer_is_never_too_large() {
    let mut server = server();
    for bytes in [8_000, 9_500, 5_000_000] {
        let answer = server.call("cross_pool_search", json!({"query": bytes.to_string()}));
        let text = answer.result["content"][0]["text"]
            .as_str()
            .expect("text")
            .len();
        assert!(text <= mahavishnu::server::MAX_ANSWER_BYTES, "{text}");
        let result = answer.ok();
        assert_eq!(result["truncated"] == true, bytes > 9_000, "{bytes}");
    }
}

#[test]
fn lines_that_are_no_message_do_no_harm() {
    let mut server = silent(Link::Pipes, Era::Initialize);
    // Before the greeting a notification alone would end rmcp.
    server.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    greet(&mut server, Era::Initialize, "t");
    for junk in [
        "{not json\n",
        "\u{0}\n",
        "\n\n",
        "\u{feff}\n",
        "[1,2]\n",
        "\"text\"\n",
    ] {
        server.send_bytes(junk.as_bytes());
    }
    server.send_bytes(b"\xff\xfe{}\n");
    let deep = format!("{}{}\n", "[".repeat(500), "]".repeat(500));
    server.send_bytes(deep.as_bytes());
    assert_eq!(server.call("list_pools", json!({})).ok()["total"], 0);
}

#[test]
fn unparsable_requests_are_answered_with_their_id() {
    for link in [Link::Pipes, Link::Sockets] {
        let (mut server, _) = start(link, Era::Initialize);
        let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
        let texts: [&[u8]; 4] = [b"\"\\ud800\"", b"\"\xff\"", deep.as_bytes(), b"1e999"];
        for (id, text) in (500..).zip(texts) {
            let mut line = br#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"remember","arguments":"#.to_vec();
            line.extend_from_slice(br#"{"text":"#);
            line.extend_from_slice(text);
            line.extend_from_slice(format!("}}}},\"id\":{id}}}\n").as_bytes());
            server.send_bytes(&line);
            let error = server.response(id)["error"].clone();
            assert_eq!(error["code"], -32700, "{error}");
            let message = error["message"].as_str().expect("a message");
            assert!(message.contains("UTF-8"), "{message}");
        }
        server.send_bytes(b"{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"ping\"}\n{no JSON\n");
        let null = |server: &mut Server| {
            let notes = server.notifications().iter();
            notes
                .filter(|note| note.get("id") == Some(&Value::Null))
                .count()
        };
        assert!(
            wait_until(HANG, || null(&mut server) == 2),
            "{:?}",
            server.notifications()
        );
        assert_eq!(server.call("list_pools", json!({})).ok()["total"], 0);
    }
}

#[test]
fn a_call_of_a_wrong_shape_is_refused_with_the_right_one() {
    let mut server = server();
    for params in [
        json!({"arguments": {}}),
        json!({"name": "list_pools", "arguments": [1]}),
    ] {
        let error = server.request("tools/call", params)["error"].clone();
        assert_eq!(error["code"], -32602, "{error}");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| text.contains("TOOL")),
            "{error}"
        );
    }
    let params = json!({"name": "list_pools", "arguments": "{\"cursor\": null}"});
    let answer = server.request("tools/call", params);
    assert_eq!(
        answer["result"]["structuredContent"]["total"], 0,
        "{answer}"
    );
    let unknown = server.request("no/such/method", json!({}))["error"].clone();
    assert_eq!(unknown["code"], -32601, "{unknown}");
}

#[test]
fn a_line_of_many_megabytes_is_refused_and_the_next_one_read() {
    let mut server = server();
    let before = resident_kib(server.pid());
    let call = |id: i64, text: &str| {
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
               "params": {"name": "remember", "arguments": {"text": text}}})
    };
    for id in 100..104 {
        server.send(&call(id, &"x".repeat(20 << 20)));
        let error = server.response(id)["error"].clone();
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| text.contains("4 MiB")),
            "{error}"
        );
    }
    assert_eq!(server.call("list_pools", json!({})).ok()["total"], 0);
    let grown = resident_kib(server.pid()).saturating_sub(before);
    assert!(grown < 30 << 10, "grew by {grown} KiB");
    server.send(&call(200, &"x".repeat(1 << 20)));
    assert!(
        server.response(200)["result"].is_object(),
        "1 MB is no problem"
    );
}

#[test]
fn a_host_that_does_not_read_cannot_fill_the_memory() {
    let mut child = Command::new(faulty())
        .arg("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server starts");
    let mut stdin = child.stdin.take().expect("piped");
    let (sent, counted) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"}}});
        let mut lines = vec![hello.to_string()];
        lines.extend(
            (1..200_000)
                .map(|id| json!({"jsonrpc": "2.0", "id": id, "method": "tools/list"}).to_string()),
        );
        for line in lines {
            if stdin.write_all(format!("{line}\n").as_bytes()).is_err() || sent.send(()).is_err() {
                return;
            }
        }
    });
    // The writer comes to rest when the server stops reading: the pipe is full.
    let mut requests = 0;
    while counted.recv_timeout(Duration::from_secs(3)).is_ok() {
        requests += 1;
        assert!(requests < 100_000, "the server reads without bound");
    }
    let resident = resident_kib(child.id());
    assert!(
        resident < 120 << 10,
        "{resident} KiB after {requests} requests"
    );
    // Now it reads: every request that got through is answered.
    let mut stdout = child.stdout.take().expect("piped");
    let mut got = vec![0; 1 << 20];
    assert!(stdout.read(&mut got).expect("readable") > 0);
    child.kill().expect("ours");
    child.wait().expect("ours");
    drop(stdout);
    drop(counted);
    writer.join().expect("no panic");
}

#[test]
fn thousands_of_calls_at_once_are_answered() {
    for link in [Link::Pipes, Link::Sockets] {
        let (mut server, _) = start(link, Era::Initialize);
        let ids: Vec<_> = (0..2_000)
            .map(|_| server.begin("list_pools", json!({})))
            .collect();
        for id in ids {
            assert_eq!(server.finish(id).ok()["total"], 0);
        }
    }
}

#[test]
fn a_cancel_reaches_the_tool_and_its_lost_answer_is_noticed() {
    let mut server = server();
    for (reason, expected) in [
        (
            Some("user pressed escape"),
            r#"Cancelled(Some("user pressed escape"))"#,
        ),
        (None, "Cancelled(None)"),
    ] {
        let id = server.begin(
            "execute_workflow_parallel",
            json!({"repos": ["hang"], "wait_s": 40}),
        );
        wait_for_progress(&mut server, id);
        server.cancel(id, reason);
        let end = Instant::now() + crate::support::HANG;
        let notices = loop {
            let answer = server.call("list_pools", json!({})).ok();
            if let Some(notices) = answer.get("notices") {
                break notices.to_string();
            }
            assert!(Instant::now() < end, "no notice comes");
        };
        assert!(notices.contains("not delivered"), "{notices}");
        let seen = told(&mut server, "interrupts");
        assert!(seen.ends_with(expected), "{seen}");
    }
}

fn wait_for_progress(server: &mut Server, id: i64) {
    let end = Instant::now() + crate::support::HANG;
    let begun = |server: &mut Server| {
        let mut notes = server.notifications().iter();
        notes.any(|note| note["params"]["progressToken"] == id)
    };
    while !begun(server) {
        assert!(Instant::now() < end, "the call does not begin");
        std::thread::yield_now();
    }
}

fn resident_kib(pid: u32) -> u64 {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        return 0; // Not Linux: nothing to look at.
    };
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let digits = line.and_then(|line| line.split_whitespace().nth(1));
    digits
        .and_then(|digits| digits.parse().ok())
        .expect("a size")
}
