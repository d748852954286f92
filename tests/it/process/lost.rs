//! A server whose guardian processes were killed: no item is called dead while its program lives.

use super::{lives, parent, stat, to_pid};
use crate::support::HANG as PATIENCE;
use crate::support::processes::wait_until;
use crate::support::server::{Home, Server};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Starts an item that writes its pid and goes on; returns its workflow and the pid.
fn start(home: &Home, server: &mut Server) -> (Value, Pid) {
    let file = home.path().join("pid");
    let script = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000",
        file.display()
    );
    let started = server.call(
        "route_least_loaded",
        json!({"repo": "r", "command": ["sh", "-c", script], "wait_s": 0}),
    );
    assert!(wait_until(PATIENCE, || file.exists()));
    let pid = to_pid(std::fs::read_to_string(&file).expect("written").trim());
    (started.ok()["workflow_id"].clone(), pid)
}

/// Kills processes so that none can react to the end of another.
fn kill_at_once(pids: &[Pid]) {
    for signal in [Signal::STOP, Signal::KILL] {
        for &pid in pids {
            kill_process(pid, signal).expect("it lives");
        }
    }
}

#[test]
fn an_item_ends_only_after_its_program_when_the_guardians_are_killed() {
    let home = Home::with_config("[workers.command]\nallow = [\"*\"]\n");
    home.repo("r");
    let mut server = Server::start(&home);
    let (id, pid) = start(&home, &mut server);
    let spawner = parent(pid);
    kill_at_once(&[parent(spawner), spawner]);
    let done = server.wait_done(&id);
    assert!(!lives(pid), "{done:#}");
    assert_eq!(done["status"], "failed", "{done:#}");
    std::fs::remove_file(home.path().join("pid")).expect("it is there");
    let resumed = server.call("resume_workflow", json!({"workflow_id": id, "wait_s": 0}));
    assert!(resumed.ok()["status"].is_string());
    assert!(wait_until(PATIENCE, || home.path().join("pid").exists()));
}

#[test]
fn a_program_dies_with_its_server_and_guardians_before_the_next_server_takes_over() {
    let home = Home::with_config("[workers.command]\nallow = [\"*\"]\n");
    home.repo("r");
    let mut server = Server::start(&home);
    let (id, pid) = start(&home, &mut server);
    let spawner = parent(pid);
    let own = to_pid(&server.pid().to_string());
    kill_at_once(&[own, parent(spawner), spawner]);
    server.wait_end();
    let mut next = Server::start(&home);
    let interrupted = wait_until(PATIENCE, || {
        let state = next.call("get_workflow", json!({"workflow_id": id})).ok();
        state["status"] == "interrupted"
    });
    assert!(interrupted);
    assert!(!lives(pid), "its state is {:?}", stat(pid, 0));
}
