//! Ends: of the server, and those that cannot be written down.

use super::*;

#[test]
fn a_server_that_ends_leaves_word_of_all_that_it_did_not_finish() {
    let home = home(2);
    home.many_repos(12);
    let gate = Gate::new(&home);
    let mut server = Server::start(&home);
    let workflow = start(&mut server, &["r*"], &gate.command(), json!({}));
    gate.wait_for(&["r0", "r1"]);
    server.signal("TERM");
    assert_eq!(server.wait_end().0.code(), Some(0));

    let mut next = Server::start(&home);
    let mut notices = Vec::new();
    let told = wait_until(HANG, || {
        let list = next.call("get_workflow", json!({})).ok();
        notices.extend(list["notices"].as_array().cloned().unwrap_or_default());
        !notices.is_empty()
    });
    assert!(told);
    let text = notices[0].as_str().expect("a text");
    assert!(
        text.contains("12 item(s)") && text.contains("resume_workflow"),
        "{text}"
    );
    let now = look(&mut next, &workflow);
    assert_eq!(now["status"], "interrupted");
    assert_eq!(now["counts"]["interrupted"], 12, "{now:#}");
    assert!(now["notices"].is_null() && notices.len() == 1, "told once");

    gate.open();
    let resumed = next
        .call("resume_workflow", json!({"workflow_id": workflow}))
        .ok();
    assert_eq!(resumed["status"], "succeeded", "{resumed:#}");
    assert_eq!((gate.ran("r0").len(), gate.ran("r5").len()), (2, 1));
}

#[test]
fn a_run_that_ended_leaves_no_notice_of_an_interruption() {
    let home = home(2);
    home.many_repos(2);
    for round in 0..12 {
        let mut server = Server::start(&home);
        let arguments = json!({"repos": ["r*"], "command": ["true"], "wait_s": 45});
        let done = server.call("execute_workflow_parallel", arguments).ok();
        assert_eq!(done["status"], "succeeded", "{done:#}");
        assert!(done["notices"].is_null(), "round {round}: {done:#}");
        server.close_stdin();
        assert_eq!(server.wait_end().0.code(), Some(0));
    }
}

#[test]
fn an_end_that_cannot_be_written_is_told_as_running_until_it_is() {
    let home = home(1);
    home.many_repos(1);
    let gate = Gate::new(&home);
    let mut server = Server::start(&home);
    let workflow = start(&mut server, &["r0"], &gate.command(), json!({}));
    gate.wait_for(&["r0"]);
    let (store, aside) = (
        home.state().join("mahavishnu.db"),
        home.state().join("aside"),
    );
    std::fs::rename(&store, &aside).expect("it is there");
    gate.open();
    let mut check = |name: &str| {
        let health = server.call("check_health", json!({})).ok();
        let checks = health["checks"].as_array().expect("checks");
        let found = checks.iter().find(|check| check["name"] == name);
        found.expect("the check is there").clone()
    };
    let unsaved = wait_until(HANG, || {
        let runs = check("runs");
        runs["detail"]
            .as_str()
            .is_some_and(|text| text.contains("not written"))
    });
    assert!(unsaved, "{:#}", check("runs"));
    assert_eq!(check("disk")["status"], "ok");
    assert_eq!(look(&mut server, &workflow)["status"], "running");
    std::fs::rename(&aside, &store).expect("it is there");
    let done = server.wait_done(&workflow);
    assert_eq!(done["status"], "succeeded");
    assert_eq!(gate.ran("r0").len(), 1);
}
