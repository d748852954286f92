//! The MCP face over real pipes and sockets: both eras, faults in tools, hosts that misbehave, and every end.
//!
//! The server under test is the real front with tools that fail on demand (`tests/fakes/faulty.rs`).

mod call;
mod ends;
mod faults;
mod interrupts;
mod program;
mod protocol;

use crate::support::binary;
use crate::support::server::{Era, Link, Server};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;

fn faulty() -> PathBuf {
    let binary = binary();
    let profile = binary.parent().expect("a binary lies in a folder");
    let server = profile.join("examples").join("faulty_server");
    assert!(
        server.is_file(),
        "{} is missing: run `cargo test`, which builds it, or `cargo build --examples`",
        server.display()
    );
    server
}

/// Starts the server and greets it as `era` does; returns it with the greeting's result.
fn start(link: Link, era: Era) -> (Server, Value) {
    let mut server = silent(link, era);
    let greeting = greet(&mut server, era, "mahavishnu-tests");
    (server, greeting)
}

/// Starts the server and says nothing.
fn silent(link: Link, era: Era) -> Server {
    let mut command = Command::new(faulty());
    command.arg("serve");
    Server::raw(command, link, era)
}

fn greet(server: &mut Server, era: Era, client: &str) -> Value {
    let answer = match era {
        Era::Initialize => {
            let params = json!({
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": client, "version": "1"},
            });
            let answer = server.request("initialize", params);
            server.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
            answer
        }
        Era::Stateless => server.request("server/discover", json!({})),
    };
    assert!(answer["error"].is_null(), "{answer:#}");
    answer["result"].clone()
}

/// Starts the server over pipes in the old era.
fn server() -> Server {
    start(Link::Pipes, Era::Initialize).0
}

/// Returns what the named check of `check_health` tells.
fn told(server: &mut Server, check: &str) -> String {
    let health = server.call("check_health", json!({})).ok();
    let checks = health["checks"].as_array().expect("checks");
    let found = checks.iter().find(|row| row["name"] == check);
    found.expect("the check is there")["detail"]
        .as_str()
        .expect("a text")
        .to_owned()
}
