//! Every way in which a connection ends.

use super::*;
use crate::support::HANG;
use crate::support::processes::wait_until;
use std::time::Instant;

#[test]
fn answers_in_flight_are_flushed_at_the_end_of_input() {
    for link in [Link::Pipes, Link::Sockets] {
        let (mut server, _) = start(link, Era::Initialize);
        let short: Vec<_> = (0..50)
            .map(|_| server.begin("execute_workflow_parallel", json!({"repos": ["3"]})))
            .collect();
        server.close_stdin();
        for id in short {
            assert_eq!(server.finish(id).ok()["status"], "succeeded");
        }
        let (status, stderr) = server.wait_end();
        assert_eq!(status.code(), Some(0));
        assert!(stderr.contains("ended: Eof"), "{stderr}");
    }
}

#[test]
fn a_long_call_answers_when_the_input_ends() {
    let mut server = server();
    let long = server.begin(
        "execute_workflow_parallel",
        json!({"repos": ["hang"], "wait_s": 40}),
    );
    server.close_stdin();
    assert_eq!(server.finish(long).ok()["status"], "running");
    assert_eq!(server.wait_end().0.code(), Some(0));
}

#[test]
fn signals_flush_answers_and_end_the_server_with_success() {
    for signal in ["TERM", "INT", "HUP"] {
        let mut server = server();
        let calls: Vec<_> = (0..20)
            .map(|_| {
                let args = json!({"repos": ["hang"], "wait_s": 40});
                server.begin("execute_workflow_parallel", args)
            })
            .collect();
        // An answered call shows that those before it were read.
        assert_eq!(server.call("list_pools", json!({})).ok()["total"], 0);
        let asked = Instant::now();
        server.signal(signal);
        for id in calls {
            assert_eq!(server.finish(id).ok()["status"], "running", "{signal}");
        }
        let (status, stderr) = server.wait_end();
        assert_eq!(status.code(), Some(0), "{signal}");
        assert!(stderr.contains("ended: Signal"), "{stderr}");
        assert!(
            asked.elapsed().as_secs() < 20,
            "{signal}: {:?}",
            asked.elapsed()
        );
    }
}

#[test]
fn a_signal_before_the_greeting_ends_the_server() {
    let mut server = silent(Link::Pipes, Era::Initialize);
    // Answered, without an id, only by a server whose handlers are set.
    server.send_bytes(b"\"no message\"\n");
    assert!(wait_until(HANG, || !server.notifications().is_empty()));
    server.signal("TERM");
    assert_eq!(server.wait_end().0.code(), Some(0));
}

#[test]
fn a_host_that_goes_before_its_greeting_is_no_error() {
    for link in [Link::Pipes, Link::Sockets] {
        let mut server = silent(link, Era::Initialize);
        server.close_stdin();
        let (status, _) = server.wait_end();
        assert_eq!(status.code(), Some(0), "{link:?}");
    }
}

#[test]
fn an_end_with_unread_output_still_ends() {
    use std::io::Write;
    use std::process::Stdio;
    let mut child = Command::new(faulty())
        .arg("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server starts");
    let mut stdin = child.stdin.take().expect("piped");
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"}}});
    writeln!(stdin, "{hello}").expect("it reads");
    for id in 1..60 {
        let list = json!({"jsonrpc": "2.0", "id": id, "method": "tools/list"});
        writeln!(stdin, "{list}").expect("it reads");
    }
    drop(stdin);
    let mut status = None;
    wait_until(HANG, || {
        status = child.try_wait().expect("ours");
        status.is_some()
    });
    assert_eq!(status.expect("it ends").code(), Some(0));
}

#[test]
fn a_stuck_server_ends_when_its_host_is_gone() {
    let mut server = server();
    // One more than the runtime has threads: nothing runs any more but the watchdog.
    for _ in 0..3 {
        server.begin("remember", json!({"text": "block"}));
    }
    server.close_stdin();
    let (status, stderr) = server.wait_end();
    assert_eq!(status.code(), Some(0));
    assert!(!stderr.contains("ended:"), "not the orderly end: {stderr}");
}
