//! Waiting for a workflow, and looking at it.

use super::*;

#[test]
fn a_wait_for_failure_asks_for_one_that_is_newer_than_what_is_known() {
    let home = home(3);
    home.many_repos(3);
    let gate = Gate::new(&home);
    let (mut owner, mut other) = (Server::start(&home), Server::start(&home));
    let workflow = start(&mut owner, &["r*"], &gate.script("exit 1"), json!({}));
    gate.wait_for(&["r0", "r1", "r2"]);
    gate.open_for("r0");
    let wait = json!({"workflow_id": workflow, "wait_for": "failure", "wait_s": 40});
    let first = owner.call("get_workflow", wait.clone()).ok();
    assert_eq!(first["counts"]["failed"], 1);
    let newer = merged(wait, json!({"after": first["revision"]}));
    let calls = [
        owner.begin("get_workflow", newer.clone()),
        other.begin("get_workflow", newer),
    ];
    // Both have begun to wait when a later call is answered.
    let _read = (
        owner.call("list_pools", json!({})).ok(),
        other.call("list_pools", json!({})).ok(),
    );
    gate.open_for("r1");
    for (server, call) in [&mut owner, &mut other].into_iter().zip(calls) {
        let second = server.finish(call).ok();
        assert_eq!(second["counts"]["failed"], 2, "{second:#}");
        assert_eq!(second["status"], "running");
    }
}

#[test]
fn a_wait_for_change_returns_at_the_next_revision() {
    let home = home(1);
    home.many_repos(2);
    let gate = Gate::new(&home);
    let mut server = Server::start(&home);
    let workflow = start(&mut server, &["r*"], &gate.command(), json!({}));
    gate.wait_for(&["r0"]);
    let before = until(&mut server, &workflow, |now| {
        states(now) == ["running", "queued"]
    });
    let wait = json!({"workflow_id": workflow, "wait_for": "change", "wait_s": 40,
        "after": before["revision"]});
    let call = server.begin("get_workflow", wait);
    gate.open_for("r0");
    let after = server.finish(call).ok();
    assert!(after["revision"].as_u64() > before["revision"].as_u64());
    gate.open();
    assert_eq!(server.wait_done(&workflow)["status"], "succeeded");
}

#[test]
fn failures_are_told_by_the_stage_they_happened_in() {
    let home = home(4);
    home.many_repos(1);
    let mut server = Server::start(&home);
    for (command, more, stage, stream) in [
        (
            json!(["true"]),
            json!({"setup": ["sh -c 'echo made; exit 5'"]}),
            "setup",
            "setup",
        ),
        (
            json!(["sh", "-c", "echo did >&2; exit 5"]),
            json!({}),
            "run",
            "stderr",
        ),
        (
            json!(["true"]),
            json!({"verify": ["sh -c 'echo saw; exit 5'"]}),
            "verify",
            "verify",
        ),
        (
            json!(["no-such-program-here"]),
            json!({}),
            "start",
            "stdout",
        ),
    ] {
        let workflow = start(&mut server, &["r0"], &command, more);
        let done = server.wait_done(&workflow);
        assert_eq!(done["failures"][0]["stage"], stage, "{done:#}");
        let output = json!({"workflow_id": workflow, "item": 0});
        let output = server.call("read_output", output).ok();
        if stage != "start" {
            assert_eq!(output["stream"], stream);
            assert!(output["text"].as_str().is_some_and(|text| !text.is_empty()));
        }
    }
}

#[test]
fn items_are_filtered_and_paged_and_running_ones_are_told_briefly() {
    let home = home(2);
    for repo in 0..60 {
        bare_bones(
            &home.repos(),
            &format!("repository-with-a-long-name-{repo:02}"),
        );
    }
    let mut server = Server::start(&home);
    let script = "case $PWD in *5) exit 1;; esac; printf 'x%.0s' $(seq 200)";
    let workflow = start(&mut server, &["*"], &json!(["sh", "-c", script]), json!({}));
    let done = server.wait_done(&workflow);
    assert_eq!(
        (&done["counts"]["succeeded"], &done["counts"]["failed"]),
        (&json!(54), &json!(6))
    );
    let failed = json!({"workflow_id": workflow, "only": ["failed"]});
    let failed = server.call("get_workflow", failed).ok();
    assert_eq!(states(&failed), ["failed"; 6]);
    let (mut seen, mut cursor) = (0, Value::Null);
    loop {
        let page = match &cursor {
            Value::Null => json!({"workflow_id": workflow}),
            cursor => json!({"workflow_id": workflow, "cursor": cursor}),
        };
        let page = server.call("get_workflow", page).ok();
        assert!(page.to_string().len() <= 9_000);
        for item in page["items"].as_array().expect("items") {
            assert_eq!(item["item"], seen);
            seen += 1;
        }
        cursor = page["cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(seen, 60);
}

#[test]
fn a_short_answer_leads_to_every_running_item() {
    let home = home(8);
    home.many_repos(8);
    let gate = Gate::new(&home);
    let mut server = Server::start(&home);
    let workflow = start(&mut server, &["r*"], &gate.command(), json!({}));
    let repos: Vec<String> = (0..8).map(|item| format!("r{item}")).collect();
    gate.wait_for(&repos.iter().map(String::as_str).collect::<Vec<_>>());
    until(&mut server, &workflow, |now| now["counts"]["running"] == 8);
    let short = json!({"workflow_id": workflow});
    let mut page = server.call("get_workflow", short).ok();
    assert!(page.to_string().len() < 1_500, "{page:#}");
    let mut seen = Vec::new();
    loop {
        let items = page["items"].as_array().expect("items");
        assert!(!items.is_empty() && items.iter().all(|item| item["status"] == "running"));
        seen.extend(items.iter().map(|item| item["item"].clone()));
        assert_eq!(
            page["truncated"] == true,
            page["cursor"].is_string(),
            "{page:#}"
        );
        if page["cursor"].is_null() {
            break;
        }
        let next = json!({"workflow_id": workflow, "cursor": page["cursor"]});
        page = server.call("get_workflow", next).ok();
    }
    assert_eq!(seen, (0..8).collect::<Vec<_>>());
    gate.open();
    assert_eq!(server.wait_done(&workflow)["status"], "succeeded");
}
