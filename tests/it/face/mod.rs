//! The tools that no other module drives on the real server: pools, routing, refusals, resources, the command line.

mod call;
mod pools;
mod refusals;
mod resources;
mod spread;

use crate::support::HANG;
use crate::support::server::{Home, Server};
use serde_json::{Value, json};
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::channel;

/// A worker program that runs until the test lets it go: `cat` of a named pipe.
struct Held {
    pipe: PathBuf,
}

impl Held {
    fn new(home: &Home, name: &str) -> Self {
        let pipe = home.path().join(name);
        let made = Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo is there").success());
        Self { pipe }
    }

    fn command(&self) -> Value {
        json!(["cat", self.pipe])
    }

    /// Waits until the program runs; it ends with success once the result is dropped.
    fn running(&self) -> File {
        let (send, opened) = channel();
        let pipe = self.pipe.clone();
        // Opening waits for the reader. A thread whose program never comes ends with the test.
        std::thread::spawn(move || send.send(File::options().write(true).open(pipe)));
        let opened = opened.recv_timeout(HANG).expect("the program starts");
        opened.expect("a named pipe")
    }
}

/// Returns a config of command pools that share a worker kind which runs anything; `rest` of each is its table's text.
fn pools(pools: &[(&str, &str)]) -> String {
    let mut text = String::from("[workers.run]\nkind = \"command\"\nallow = [\"*\"]\n");
    for (name, rest) in pools {
        text.push_str(&format!(
            "[[pools]]\nname = {name:?}\nworker = \"run\"\n{rest}\n"
        ));
    }
    text
}

/// Returns the row of `list_pools` for a pool.
fn row(server: &mut Server, pool: &str) -> Value {
    let listed = server.call("list_pools", json!({"pools": [pool]})).ok();
    listed["pools"][0].clone()
}

/// Starts one command on one repository without waiting, with `more` arguments; returns the answer.
fn begin(server: &mut Server, repo: &str, command: Value, more: Value) -> Value {
    let mut arguments = json!({"repo": repo, "command": command, "wait_s": 0});
    for (name, value) in more.as_object().expect("an object") {
        arguments[name] = value.clone();
    }
    server.call("route_least_loaded", arguments).ok()
}
