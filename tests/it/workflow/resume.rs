//! Running items again.

use super::*;

#[test]
fn of_many_calls_that_resume_at_once_one_is_served() {
    let home = home(4);
    home.many_repos(1);
    let gate = Gate::new(&home);
    gate.open();
    let mut server = Server::start(&home);
    let then = "[ $(wc -l < \"$0/ran-$name\") = 2 ]";
    let workflow = start(&mut server, &["r0"], &gate.script(then), json!({}));
    assert_eq!(server.wait_done(&workflow)["status"], "failed");
    std::fs::remove_file(gate.0.join("open")).expect("it was made");
    let resume = json!({"workflow_id": workflow, "wait_s": 0});
    let calls: Vec<i64> = (0..8)
        .map(|_| server.begin("resume_workflow", resume.clone()))
        .collect();
    let mut served = 0;
    for call in calls {
        let answer = server.finish(call);
        if answer.result["isError"] == true {
            assert_eq!(answer.error()["kind"], "conflict");
        } else {
            served += 1;
        }
    }
    assert_eq!(served, 1);
    gate.open();
    server.wait_done(&workflow);
    let done = look(&mut server, &workflow);
    assert_eq!(
        (states(&done), gate.ran("r0").len()),
        (vec!["succeeded"], 2)
    );
    assert_eq!(done["items"][0]["attempt"], 2);
}

#[test]
fn failed_items_are_resumed_while_others_run() {
    let home = home(2);
    home.many_repos(2);
    let gate = Gate::new(&home);
    let mut server = Server::start(&home);
    let then = "[ $name = r1 ] || [ $(wc -l < \"$0/ran-$name\") = 2 ]";
    let workflow = start(&mut server, &["r*"], &gate.script(then), json!({}));
    gate.wait_for(&["r0", "r1"]);
    gate.open_for("r0");
    until(&mut server, &workflow, |now| states(now)[0] == "failed");
    let running = json!({"workflow_id": workflow, "items": [1], "only": ["running"]});
    let refused = server.call("resume_workflow", running).error();
    assert_eq!(refused["kind"], "conflict");
    let resume = json!({"workflow_id": workflow, "wait_s": 0});
    let resumed = server.call("resume_workflow", resume).ok();
    assert_eq!(resumed["counts"]["failed"], 0, "{resumed:#}");
    until(&mut server, &workflow, |now| {
        states(now) == ["succeeded", "running"]
    });
    gate.open();
    assert_eq!(server.wait_done(&workflow)["status"], "succeeded");
    assert_eq!((gate.ran("r0").len(), gate.ran("r1").len()), (2, 1));
}

#[test]
fn only_what_is_named_runs_again() {
    let home = home(4);
    home.many_repos(4);
    let gate = Gate::new(&home);
    gate.open();
    let mut server = Server::start(&home);
    let then = "case $name in r0) exit 0;; r1) exit 3;; *) exit 4;; esac";
    let workflow = start(&mut server, &["r*"], &gate.script(then), json!({}));
    let done = server.wait_done(&workflow);
    assert_eq!(done["status"], "partial");
    let cause = |item: u64| {
        let failures = done["failures"].as_array().expect("failures");
        let group = failures.iter().find(|group| {
            group["items"]
                .as_array()
                .is_some_and(|items| items.contains(&json!(item)))
        });
        group.expect("a group")["cause"].clone()
    };
    let ran = || ["r0", "r1", "r2", "r3"].map(|repo| gate.ran(repo).len());
    let mut resume = |more: Value| {
        let arguments = merged(json!({"workflow_id": workflow, "wait_s": 0}), more);
        let begun = server.call("resume_workflow", arguments);
        if begun.result["isError"] != true {
            server.wait_done(&workflow);
        }
        begun
    };
    let _causes = resume(json!({"causes": [cause(1)]})).ok();
    assert_eq!(ran(), [1, 2, 1, 1]);
    let _items = resume(json!({"items": ["r3", 0]})).ok();
    assert_eq!(ran(), [1, 2, 1, 2], "r0 had succeeded");
    let _only = resume(json!({"only": ["succeeded"]})).ok();
    assert_eq!(ran(), [2, 2, 1, 2]);
    for (nothing, field) in [
        (json!({"only": ["cancelled"]}), "only"),
        (json!({"items": [0]}), "items"),
        (json!({"causes": ["exit code 99"]}), "causes"),
        (json!({"items": [9]}), "items"),
        (json!({"pools": ["nope"]}), "pools"),
    ] {
        assert_eq!(resume(nothing).error()["field"], field);
    }
    assert_eq!(ran(), [2, 2, 1, 2]);
}

#[test]
fn a_pool_that_was_closed_is_refused_and_another_can_be_named() {
    let home = home(1);
    home.many_repos(1);
    let mut server = Server::start(&home);
    let workflow = start(
        &mut server,
        &["r0"],
        &json!(["false"]),
        json!({"pools": ["p"]}),
    );
    assert_eq!(server.wait_done(&workflow)["status"], "failed");
    let second = json!({"name": "second", "worker": "command", "max_workers": 1});
    let _made = server.call("set_pool", second).ok();
    let _closed = server.call("close_pool", json!({"name": "p"})).ok();
    let refused = server
        .call("resume_workflow", json!({"workflow_id": workflow}))
        .error();
    assert_eq!(refused["field"], "pools", "{refused:#}");
    let before = look(&mut server, &workflow);
    assert_eq!(
        states(&before),
        ["failed"],
        "a refusal leaves everything as it was"
    );
    let elsewhere = json!({"workflow_id": workflow, "pools": ["second"]});
    let done = server.call("resume_workflow", elsewhere).ok();
    assert_eq!(done["items"][0]["pool"], "second", "{done:#}");
    assert_eq!(done["items"][0]["attempt"], 2);
}

#[test]
fn a_plan_runs_when_it_is_resumed() {
    let home = home(2);
    home.many_repos(2);
    let gate = Gate::new(&home);
    gate.open();
    let mut server = Server::start(&home);
    let workflow = start(
        &mut server,
        &["r*"],
        &gate.command(),
        json!({"dry_run": true}),
    );
    let planned = look(&mut server, &workflow);
    assert_eq!(
        (&planned["status"], states(&planned)),
        (&json!("planned"), vec!["planned"; 2])
    );
    assert!(gate.ran("r0").is_empty());
    let done = server
        .call("resume_workflow", json!({"workflow_id": workflow}))
        .ok();
    assert_eq!(done["status"], "succeeded", "{done:#}");
    assert_eq!(gate.ran("r1").len(), 1);
}
