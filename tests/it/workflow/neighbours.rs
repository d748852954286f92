//! Two servers on one state directory, and one that was killed.

use super::*;

#[test]
fn a_workflow_is_waited_for_and_cancelled_from_another_server() {
    let home = home(2);
    home.many_repos(2);
    let gate = Gate::new(&home);
    let (mut owner, mut other) = (Server::start(&home), Server::start(&home));
    let workflow = start(&mut owner, &["r*"], &gate.command(), json!({}));
    gate.wait_for(&["r0", "r1"]);
    assert_eq!(look(&mut other, &workflow)["owner"], "other");
    let one = json!({"workflow_id": workflow, "items": ["r1"]});
    let cancelled = other.call("cancel_workflow", one).ok();
    assert_eq!(cancelled["counts"]["cancelled"], 1, "{cancelled:#}");
    let wait = json!({"workflow_id": workflow, "wait_for": "done", "wait_s": 40});
    let wait = other.begin("get_workflow", wait);
    gate.open();
    let done = other.finish(wait).ok();
    assert_eq!(done["counts"]["succeeded"], 1, "{done:#}");
    assert_eq!(done["status"], "cancelled");
}

#[test]
fn what_the_owner_refuses_is_told_to_who_asked() {
    let home = home(1);
    home.many_repos(1);
    let gate = Gate::new(&home);
    let (mut owner, mut other) = (Server::start(&home), Server::start(&home));
    let workflow = start(&mut owner, &["r0"], &gate.command(), json!({}));
    gate.wait_for(&["r0"]);
    let resume = json!({"workflow_id": workflow, "items": [0], "only": ["running"]});
    let refused = other.call("resume_workflow", resume).error();
    assert_eq!(refused["kind"], "conflict", "{refused:#}");
    assert!(
        refused["message"]
            .as_str()
            .is_some_and(|text| text.contains("still running"))
    );
}

#[test]
fn items_are_resumed_by_the_server_that_still_runs_others() {
    let home = home(2);
    home.many_repos(2);
    let gate = Gate::new(&home);
    let (mut owner, mut other) = (Server::start(&home), Server::start(&home));
    let then = "[ $name = r1 ] || [ $(wc -l < \"$0/ran-$name\") = 2 ]";
    let workflow = start(&mut owner, &["r*"], &gate.script(then), json!({}));
    gate.wait_for(&["r0", "r1"]);
    gate.open_for("r0");
    until(&mut owner, &workflow, |now| states(now)[0] == "failed");
    let resume = json!({"workflow_id": workflow, "wait_s": 0});
    let resumed = other.call("resume_workflow", resume).ok();
    assert_eq!(resumed["owner"], "other", "{resumed:#}");
    until(&mut owner, &workflow, |now| states(now)[0] == "succeeded");
    gate.open();
    let done = owner.wait_done(&workflow);
    assert_eq!(done["status"], "succeeded");
    assert_eq!((gate.ran("r0").len(), gate.ran("r1").len()), (2, 1));
}

#[test]
fn what_waits_for_another_attempt_is_nobody_elses_to_take() {
    let home = home(1);
    home.many_repos(2);
    let gate = Gate::new(&home);
    gate.open_for("r0");
    let (mut owner, mut other) = (Server::start(&home), Server::start(&home));
    let workflow = start(
        &mut owner,
        &["r*"],
        &gate.script("exit 7"),
        json!({"retries": 1}),
    );
    gate.wait_for(&["r0", "r1"]);
    // r0 has failed once and waits for the slot that r1 has.
    let seen = until(&mut other, &workflow, |now| now["items"][0]["attempt"] == 1);
    let seen = if seen["items"][0]["status"] == "running" {
        until(&mut other, &workflow, |now| {
            now["items"][0]["status"] != "running"
        })
    } else {
        seen
    };
    assert_eq!(states(&seen), ["queued", "running"]);
    let first = json!({"workflow_id": workflow, "item": 0, "attempt": 1});
    assert_eq!(other.call("read_output", first).ok()["attempt"], 1);
    for only in ["failed", "queued"] {
        let resume = json!({"workflow_id": workflow, "items": [0], "only": [only]});
        let refused = other.call("resume_workflow", resume).error();
        assert!(!refused["message"].is_null(), "{refused:#}");
    }
    gate.open();
    owner.wait_done(&workflow);
    let done = look(&mut owner, &workflow);
    assert_eq!(
        (states(&done), gate.ran("r0").len()),
        (vec!["failed", "failed"], 2)
    );
}

#[test]
fn a_killed_server_is_noticed_by_its_neighbour_when_its_processes_are_dead() {
    let home = home(2);
    home.many_repos(4);
    let gate = Gate::new(&home);
    let (mut owner, mut other) = (Server::start(&home), Server::start(&home));
    let workflow = start(&mut owner, &["r*"], &gate.command(), json!({}));
    gate.wait_for(&["r0", "r1"]);
    gate.open_for("r0");
    gate.wait_for(&["r2"]);
    until(&mut other, &workflow, |now| states(now)[0] == "succeeded");
    crash(&mut owner);
    let mut notices = Vec::new();
    // The list alone, as a caller would look who does not know the id.
    let noticed = wait_until(HANG, || {
        let list = other.call("get_workflow", json!({})).ok();
        notices.extend(list["notices"].as_array().cloned().unwrap_or_default());
        list["workflows"][0]["status"] == "interrupted"
    });
    assert!(noticed);
    for repo in ["r1", "r2"] {
        assert!(!lives(gate.ran(repo)[0]), "a worker outlived its item");
    }
    let now = look(&mut other, &workflow);
    notices.extend(now["notices"].as_array().cloned().unwrap_or_default());
    let expected = ["succeeded", "interrupted", "interrupted", "interrupted"];
    assert_eq!(states(&now), expected);
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(
        notices[0]
            .as_str()
            .is_some_and(|text| text.contains("3 item(s)")),
        "{notices:?}"
    );

    gate.open();
    let resumed = other
        .call("resume_workflow", json!({"workflow_id": workflow}))
        .ok();
    assert_eq!(resumed["status"], "succeeded", "{resumed:#}");
    assert_eq!(resumed["owner"], "this");
    let ran = ["r0", "r1", "r2", "r3"].map(|repo| gate.ran(repo).len());
    assert_eq!(ran, [1, 2, 2, 1], "what had ended never ran again");
}

#[test]
fn an_in_place_item_waits_for_one_of_another_server() {
    let home = home(2);
    home.many_repos(1);
    let gate = Gate::new(&home);
    let (mut one, mut two) = (Server::start(&home), Server::start(&home));
    let first = start(&mut one, &["r0"], &gate.command(), json!({}));
    gate.wait_for(&["r0"]);
    let second = start(&mut two, &["r0"], &gate.command(), json!({}));
    // Another repository's item shows that the second server has come past its own turn at this one.
    home.repo("other");
    let aside = start(&mut two, &["other"], &json!(["true"]), json!({}));
    assert_eq!(two.wait_done(&aside)["status"], "succeeded");
    assert_eq!(gate.ran("r0").len(), 1);
    gate.open();
    assert_eq!(one.wait_done(&first)["status"], "succeeded");
    assert_eq!(two.wait_done(&second)["status"], "succeeded");
    let item = &look(&mut two, &second)["items"][0];
    assert_eq!(item["attempt"], 1, "waiting is no attempt");
}

#[test]
fn revisions_only_grow_whichever_server_tells_them() {
    let home = home(2);
    home.many_repos(3);
    let gate = Gate::new(&home);
    let (mut owner, mut other) = (Server::start(&home), Server::start(&home));
    let then = "[ $(wc -l < \"$0/ran-$name\") = 2 ]";
    let workflow = start(&mut owner, &["r*"], &gate.script(then), json!({}));
    let mut last = 0;
    let mut grows = |server: &mut Server| {
        let now = look(server, &workflow)["revision"]
            .as_u64()
            .expect("a number");
        assert!(now >= last, "{now} after {last}");
        last = now;
        now
    };
    for repo in ["r0", "r1", "r2"] {
        gate.wait_for(&[repo]);
        let (ours, theirs) = (grows(&mut owner), grows(&mut other));
        assert!(theirs >= ours);
        gate.open_for(repo);
        grows(&mut owner);
    }
    assert_eq!(owner.wait_done(&workflow)["status"], "failed");
    let ended = grows(&mut owner);
    assert_eq!(grows(&mut other), ended);
    let resumed = other
        .call("resume_workflow", json!({"workflow_id": workflow}))
        .ok();
    assert_eq!(resumed["status"], "succeeded", "{resumed:#}");
    assert!(grows(&mut other) > ended);
    grows(&mut owner);
}
