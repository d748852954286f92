//! Stopping items: at once, in time, and without losing what is known of them.

use super::*;
use crate::support::fake_worker;

#[test]
fn a_repository_goes_to_whoever_still_waits_for_it() {
    let home = home(4);
    home.many_repos(1);
    let gate = Gate::new(&home);
    let mut server = Server::start(&home);
    let mut route = |command: Value| {
        let arguments = json!({"repo": "r0", "command": command, "wait_s": 0});
        let begun = server.call("route_least_loaded", arguments).ok();
        begun["workflow_id"].clone()
    };
    let first = route(gate.command());
    let (second, third) = (route(json!(["true"])), route(json!(["true"])));
    gate.wait_for(&["r0"]);
    let cancelled = json!({"workflow_id": second});
    assert_eq!(
        server.call("cancel_workflow", cancelled).ok()["status"],
        "cancelled"
    );
    gate.open();
    for workflow in [first, third] {
        assert_eq!(server.wait_done(&workflow)["status"], "succeeded");
    }
}

#[test]
fn the_grace_of_a_cancel_is_heard_by_what_runs_already() {
    let home = Home::with_config(&config(2, "[limits]\ngrace = \"10m\""));
    home.many_repos(2);
    let gate = Gate::new(&home);
    let mut server = Server::start(&home);
    let deaf = |name: &str| {
        let mark = gate.0.join(format!("ran-{name}"));
        json!([fake_worker(), "ignore-term", "write-file", mark, "hang"])
    };
    let mut begin = |name: &str| {
        let workflow = start(&mut server, &["r0"], &deaf(name), json!({}));
        let began = wait_until(HANG, || gate.0.join(format!("ran-{name}")).exists());
        assert!(began);
        workflow
    };
    let workflow = begin("one");
    // With the configured grace the call would come back while it runs.
    let now = json!({"workflow_id": workflow, "grace_s": 0});
    let mut cancel = |arguments: Value| server.call("cancel_workflow", arguments).ok();
    assert_eq!(cancel(now)["status"], "cancelled");

    let mut begin = |name: &str| {
        let workflow = start(&mut server, &["r1"], &deaf(name), json!({}));
        let began = wait_until(HANG, || gate.0.join(format!("ran-{name}")).exists());
        assert!(began);
        workflow
    };
    let workflow = begin("two");
    let late = server.begin(
        "cancel_workflow",
        json!({"workflow_id": workflow, "grace_s": 30}),
    );
    let _read = server.call("list_pools", json!({})).ok();
    // The second call hurries what the first one asked to end.
    let now = json!({"workflow_id": workflow, "grace_s": 0});
    let hurried = server.call("cancel_workflow", now).ok();
    assert_eq!(hurried["status"], "cancelled", "{hurried:#}");
    assert_eq!(server.finish(late).ok()["status"], "cancelled");
}

#[test]
fn cancelled_items_end_and_the_others_go_on() {
    let home = home(2);
    home.many_repos(4);
    let gate = Gate::new(&home);
    let mut server = Server::start(&home);
    let workflow = start(&mut server, &["r*"], &gate.command(), json!({}));
    gate.wait_for(&["r0", "r1"]);
    let some = json!({"workflow_id": workflow, "items": [1, "r3"]});
    let cancelled = server.call("cancel_workflow", some).ok();
    assert_eq!(cancelled["counts"]["cancelled"], 2, "{cancelled:#}");
    assert!(!lives(gate.ran("r1")[0]), "its process is gone with it");
    gate.open();
    server.wait_done(&workflow);
    let done = look(&mut server, &workflow);
    let expected = ["succeeded", "cancelled", "succeeded", "cancelled"];
    assert_eq!(states(&done), expected);
    assert!(gate.ran("r3").is_empty());
}

#[test]
fn what_waits_for_another_attempt_keeps_its_failure() {
    let home = home(1);
    home.many_repos(2);
    let gate = Gate::new(&home);
    gate.open_for("r0");
    let mut server = Server::start(&home);
    let workflow = start(
        &mut server,
        &["r*"],
        &gate.script("exit 7"),
        json!({"retries": 1}),
    );
    // The only slot is r1's, so that r0 cannot be tried again.
    gate.wait_for(&["r0", "r1"]);
    let waits = until(&mut server, &workflow, |now| {
        now["items"][0]["status"] == "queued"
    });
    assert_eq!(waits["items"][0]["attempt"], 1);
    let one = json!({"workflow_id": workflow, "items": [0]});
    let _cancelled = server.call("cancel_workflow", one).ok();
    let done = look(&mut server, &workflow);
    assert_eq!(done["items"][0]["status"], "failed", "{done:#}");
    assert_eq!(done["items"][0]["exit_code"], 7);
    assert_eq!(done["failures"][0]["items"], json!([0]));
    gate.open();
    server.wait_done(&workflow);
    assert_eq!(gate.ran("r0").len(), 1);
}

#[test]
fn other_labels_end_what_waits_for_the_pool_and_leave_alone_what_runs() {
    let home = Home::with_config(
        "[[pools]]\nname = \"p\"\nworker = \"command\"\nmax_workers = 1\nlabels = [\"gpu\"]\n\
         [workers.command]\nallow = [\"*\"]\n",
    );
    home.many_repos(2);
    let gate = Gate::new(&home);
    let mut server = Server::start(&home);
    let workflow = start(
        &mut server,
        &["r*"],
        &gate.command(),
        json!({"labels": ["gpu"]}),
    );
    gate.wait_for(&["r0"]);
    let _row = server
        .call("set_pool", json!({"name": "p", "labels": []}))
        .ok();
    let now = until(&mut server, &workflow, |now| states(now)[1] == "cancelled");
    assert_eq!(states(&now)[0], "running");
    let said = now["items"][1]["error"]["message"].as_str();
    assert!(
        said.is_some_and(|text| text.contains("no pool is left")),
        "{now:#}"
    );
    gate.open();
    server.wait_done(&workflow);
    assert_eq!(
        states(&look(&mut server, &workflow)),
        ["succeeded", "cancelled"]
    );
}

#[test]
fn a_verify_that_was_stopped_has_found_nothing() {
    let home = home(1);
    home.many_repos(1);
    let gate = Gate::new(&home);
    let script = home.path().join("verify.sh");
    std::fs::write(
        &script,
        "echo $$ > \"$1/ran-verify\"; until [ -e \"$1/open\" ]; do sleep 0.03; done",
    )
    .expect("it can be written");
    let verify = format!("sh {} {}", script.display(), gate.0.display());
    let mut server = Server::start(&home);
    let workflow = start(
        &mut server,
        &["r0"],
        &json!(["true"]),
        json!({"verify": [verify]}),
    );
    gate.wait_for(&["verify"]);
    let _done = server
        .call("cancel_workflow", json!({"workflow_id": workflow}))
        .ok();
    let done = look(&mut server, &workflow);
    assert_eq!(states(&done), ["cancelled"]);
    assert_eq!(done["items"][0]["verify"]["status"], "skipped", "{done:#}");
}

#[test]
fn dropping_the_request_leaves_the_run_going() {
    let home = home(1);
    home.many_repos(1);
    let gate = Gate::new(&home);
    let mut server = Server::start(&home);
    for (tool, field) in [
        ("execute_workflow_parallel", json!(["r0"])),
        ("route_least_loaded", json!("r0")),
    ] {
        let key = if field.is_array() { "repos" } else { "repo" };
        let mut arguments = json!({"command": gate.command(), "wait_s": 40});
        arguments[key] = field;
        let before = gate.ran("r0").len();
        let call = server.begin(tool, arguments);
        assert!(wait_until(HANG, || gate.ran("r0").len() > before));
        server.cancel(call, None);
        let list = server.call("get_workflow", json!({})).ok();
        assert_eq!(list["workflows"][0]["status"], "running");
        let workflow = list["workflows"][0]["workflow_id"].clone();
        gate.open_for("r0");
        assert_eq!(server.wait_done(&workflow)["status"], "succeeded");
        std::fs::remove_file(gate.0.join("open-r0")).expect("it was made");
    }
}

#[test]
fn cancel_and_timeout_reach_an_item_that_waits_for_a_repositorys_git_lock() {
    let home = home(1);
    home.many_repos(1);
    let mut server = Server::start(&home);
    let apart = json!({"isolation": "worktree"});
    let workflow = start(&mut server, &["r0"], &json!(["true"]), apart.clone());
    assert_eq!(server.wait_done(&workflow)["status"], "succeeded");
    // The locks that this left behind: held here, as another server's git would.
    let locks = std::fs::read_dir(home.state().join("locks")).expect("there are locks");
    let held: Vec<std::fs::File> = locks
        .map(|entry| entry.expect("readable").path())
        .filter(|path| !path.to_string_lossy().contains("server-"))
        .map(|path| std::fs::File::open(path).expect("readable"))
        .inspect(|file| file.lock().expect("nobody holds it"))
        .collect();
    assert!(!held.is_empty());
    let workflow = start(&mut server, &["r0"], &json!(["true"]), apart.clone());
    until(&mut server, &workflow, |now| states(now) == ["running"]);
    let done = server
        .call("cancel_workflow", json!({"workflow_id": workflow}))
        .ok();
    assert_eq!(done["status"], "cancelled", "{done:#}");
    let short = merged(apart, json!({"timeout_s": 0.2}));
    let workflow = start(&mut server, &["r0"], &json!(["true"]), short);
    server.wait_done(&workflow);
    let done = look(&mut server, &workflow);
    assert_eq!(states(&done), ["timed_out"], "{done:#}");
    assert_eq!(done["items"][0]["stage"], "start");
    drop(held);
}
