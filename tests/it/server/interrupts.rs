//! What a host's `notifications/cancelled` does to the run behind the call: a measured person's stops it, nothing else
//! does. The reasons are those of `src/orchestrator/interrupt.rs`.

use super::*;
use crate::support::HANG;
use crate::support::processes::wait_until;
use crate::support::repos::GitRepo;
use crate::support::server::Home;
use std::fs::File;

const CLAUDE_CODE: &str = "claude-code";
const INSPECTOR: (&str, &str) = ("mcp-inspector", "Tool call cancelled by user");
const PERSON: &str = "AbortError: user-cancel";
const TIME_OUT: &str = "SdkError: Request timed out";

/// A run of one item, started by a call that waits for it; the item ends when it is told to.
struct Waiting {
    home: Home,
    server: Server,
    repo: GitRepo,
    call: i64,
    workflow: Value,
}

impl Waiting {
    fn start(era: Era, client: &str, on_interrupt: Option<&str>) -> Self {
        let home = Home::new();
        let repo = home.repo("alpha");
        let mut server = Server::start_from(&home, Link::Pipes, era, client);
        let script = r#"until [ -e "$0" ]; do sleep 0.05; done"#;
        let release = home.path().join("release");
        let mut arguments = json!({
            "repo": repo.text(),
            "command": ["sh", "-c", script, release],
            "wait_s": 45,
        });
        if let Some(on_interrupt) = on_interrupt {
            arguments["on_interrupt"] = json!(on_interrupt);
        }
        let call = server.begin("route_least_loaded", arguments);
        let mut workflow = Value::Null;
        assert!(wait_until(HANG, || {
            let list = server.call("get_workflow", json!({})).ok();
            let row = &list["workflows"][0];
            workflow = row["workflow_id"].clone();
            row["counts"]["running"] == 1
        }));
        Self {
            home,
            server,
            repo,
            call,
            workflow,
        }
    }

    /// Takes the call back and returns the notices of the first answer that shows that the server has acted on it.
    fn cancel(&mut self, reason: Option<&str>) -> String {
        self.server.cancel(self.call, reason);
        let mut notices = String::new();
        assert!(
            wait_until(HANG, || {
                let answer = self.server.call("list_pools", json!({})).ok();
                notices.push_str(&answer["notices"].to_string());
                notices.contains("not delivered")
            }),
            "{notices}"
        );
        notices
    }

    fn release(&self) {
        File::create(self.home.path().join("release")).expect("it can be written");
    }

    fn now(&mut self) -> Value {
        let id = json!({"workflow_id": self.workflow});
        self.server.call("get_workflow", id).ok()
    }
}

fn a_persons_interrupt_cancels(era: Era, client: &str, reason: &str) {
    let mut run = Waiting::start(era, client, None);
    let notices = run.cancel(Some(reason));
    assert!(notices.contains("was cancelled"), "{notices}");
    let stopped = run.server.wait_done(&run.workflow);
    assert_eq!(stopped["status"], "cancelled", "{stopped:#}");
    assert_eq!(stopped["counts"]["cancelled"], 1, "{stopped:#}");

    run.release();
    let again = json!({"workflow_id": run.workflow, "wait_s": 45});
    let resumed = run.server.call("resume_workflow", again).ok();
    assert_eq!(resumed["status"], "succeeded", "{resumed:#}");
    assert_eq!(resumed["items"][0]["repo"], run.repo.text());
}

#[test]
fn a_persons_interrupt_cancels_the_run_which_can_be_resumed() {
    a_persons_interrupt_cancels(Era::Initialize, CLAUDE_CODE, PERSON);
    a_persons_interrupt_cancels(Era::Initialize, INSPECTOR.0, INSPECTOR.1);
}

#[test]
fn a_persons_interrupt_cancels_in_the_stateless_era_too() {
    a_persons_interrupt_cancels(Era::Stateless, CLAUDE_CODE, PERSON);
}

#[track_caller]
fn the_run_goes_on(client: &str, reason: Option<&str>, on_interrupt: Option<&str>) {
    let mut run = Waiting::start(Era::Initialize, client, on_interrupt);
    let notices = run.cancel(reason);
    assert!(
        !notices.contains("cancelled"),
        "{client} {reason:?}: {notices}"
    );
    let running = run.now();
    assert_eq!(
        running["status"], "running",
        "{client} {reason:?}: {running:#}"
    );
    run.release();
    let done = run.server.wait_done(&run.workflow);
    assert_eq!(done["status"], "succeeded", "{client} {reason:?}: {done:#}");
}

#[test]
fn a_time_out_leaves_the_run_alone() {
    the_run_goes_on(CLAUDE_CODE, Some(TIME_OUT), None);
    let gemini = "McpError: MCP error -32001: Request timed out";
    the_run_goes_on("gemini-cli-mcp-client", Some(gemini), None);
}

#[test]
fn no_reason_and_an_unknown_one_leave_the_run_alone() {
    the_run_goes_on(CLAUDE_CODE, None, None);
    the_run_goes_on(CLAUDE_CODE, Some("the user pressed escape"), None);
}

#[test]
fn a_reason_that_means_two_things_leaves_the_run_alone() {
    the_run_goes_on(
        "codex-mcp-client",
        Some("MCP request cancelled by caller"),
        None,
    );
}

#[test]
fn a_persons_reason_from_another_host_leaves_the_run_alone() {
    the_run_goes_on("another-host", Some(PERSON), None);
    the_run_goes_on(CLAUDE_CODE, Some(INSPECTOR.1), None);
}

#[test]
fn on_interrupt_keep_outlives_a_persons_interrupt() {
    the_run_goes_on(CLAUDE_CODE, Some(PERSON), Some("keep"));
}
