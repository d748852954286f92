//! Stops of the whole tree of processes, as a laptop's lid brings them about: that time counts for nothing.

use super::*;
use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;

/// Returns the process and all below it.
fn tree(root: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let after_name = stat.rsplit_once(')')?.1;
        after_name.split_whitespace().nth(1)?.parse().ok()
    };
    let entries = std::fs::read_dir("/proc").expect("it is mounted");
    let all: Vec<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let is_below = |&pid: &u32| {
        let line = std::iter::successors(Some(pid), |&pid| parent(pid));
        line.take(64).any(|pid| pid == root)
    };
    all.into_iter().filter(is_below).collect()
}

fn signal_all(pids: &[u32], signal: Signal) {
    for &pid in pids {
        let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("not 0");
        // One may have ended meanwhile.
        let _ = kill_process(pid, signal);
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the test's own thread waits; there is no runtime on it"
)]
fn time_in_which_everything_is_stopped_does_not_count() {
    let home = home(2);
    home.many_repos(2);
    let mut server = Server::start(&home);
    for limits in [
        json!({"timeout_s": 6}),
        json!({"stall_s": 6}),
        json!({"run_timeout_s": 6}),
    ] {
        let gate = Gate::named(
            &home,
            limits.as_object().expect("one").keys().next().expect("one"),
        );
        let script = gate.script("sleep 1");
        let workflow = start(&mut server, &["r0"], &script, limits.clone());
        gate.wait_for(&["r0"]);
        let stopped = tree(server.pid());
        assert!(
            stopped.len() >= 3,
            "server, guardian and program: {stopped:?}"
        );
        signal_all(&stopped, Signal::STOP);
        std::thread::sleep(Duration::from_secs(8));
        gate.open();
        signal_all(&stopped, Signal::CONT);
        let done = server.wait_done(&workflow);
        assert_eq!(done["status"], "succeeded", "{limits}: {done:#}");
    }
}

#[test]
fn a_program_that_runs_on_after_a_stop_is_still_timed_out() {
    let home = home(1);
    home.many_repos(1);
    let gate = Gate::new(&home);
    let mut server = Server::start(&home);
    let workflow = start(
        &mut server,
        &["r0"],
        &gate.command(),
        json!({"timeout_s": 3}),
    );
    gate.wait_for(&["r0"]);
    let stopped = tree(server.pid());
    signal_all(&stopped, Signal::STOP);
    assert!(!wait_until(Duration::from_secs(4), || false));
    signal_all(&stopped, Signal::CONT);
    let done = server.wait_done(&workflow);
    assert_eq!(states(&done), ["timed_out"], "{done:#}");
}
