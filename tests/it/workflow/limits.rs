//! How many run at once, how often, and for how long.

use super::*;

/// Fails where another one like it runs at the same moment.
fn alone(gate: &Gate) -> Value {
    json!([
        "sh",
        "-c",
        "mkdir \"$0/alone\" || exit 9; sleep 0.02; rmdir \"$0/alone\"",
        gate.0
    ])
}

#[test]
fn max_parallel_is_kept_however_many_slots_are_free() {
    let home = home(8);
    home.many_repos(8);
    let gate = Gate::new(&home);
    let mut server = Server::start(&home);
    let workflow = start(
        &mut server,
        &["r*"],
        &alone(&gate),
        json!({"max_parallel": 1}),
    );
    let done = server.wait_done(&workflow);
    assert_eq!(done["counts"]["succeeded"], 8, "{done:#}");
}

#[test]
fn nothing_starts_after_max_failures_and_nobody_cancelled_it() {
    for (slots, more) in [
        (1, json!({"max_failures": 2})),
        (8, json!({"max_failures": 2, "max_parallel": 1})),
    ] {
        let home = home(slots);
        home.many_repos(9);
        let mut server = Server::start(&home);
        let workflow = start(&mut server, &["r*"], &json!(["false"]), more);
        let done = server.wait_done(&workflow);
        assert_eq!(done["counts"]["failed"], 2, "{done:#}");
        assert_eq!(done["counts"]["cancelled"], 7);
        assert_eq!(done["status"], "failed", "nobody cancelled it");
        let query = json!({"status": ["failed"]});
        let list = server.call("get_workflow", query).ok();
        assert_eq!(list["workflows"][0]["workflow_id"], workflow);
        assert_eq!(list["workflows"][0]["status"], "failed");
    }
}

#[test]
fn a_failed_item_is_tried_again_as_often_as_retries_says_and_no_more() {
    let home = home(2);
    home.many_repos(2);
    let gate = Gate::new(&home);
    gate.open();
    let mut server = Server::start(&home);
    // r0 succeeds at its second attempt, r1 never.
    let then = "[ $name = r0 ] && [ $(wc -l < \"$0/ran-$name\") = 2 ]";
    let workflow = start(
        &mut server,
        &["r*"],
        &gate.script(then),
        json!({"retries": 2}),
    );
    let done = server.wait_done(&workflow);
    assert_eq!(
        states(&look(&mut server, &workflow)),
        ["succeeded", "failed"]
    );
    assert_eq!(done["status"], "partial");
    assert_eq!((gate.ran("r0").len(), gate.ran("r1").len()), (2, 3));
    let first = json!({"workflow_id": workflow, "item": "r1", "attempt": 1, "stream": "stdout"});
    assert_eq!(server.call("read_output", first).ok()["attempt"], 1);
}

#[test]
fn what_takes_too_long_is_timed_out_and_says_which_limit_it_was() {
    let home = home(4);
    home.many_repos(1);
    let gate = Gate::new(&home);
    let mut server = Server::start(&home);
    for (limit, said) in [
        (json!({"timeout_s": 0.3}), "timeout_s"),
        (json!({"stall_s": 0.3}), "stall_s"),
        (json!({"run_timeout_s": 0.3}), "run_timeout_s"),
    ] {
        let workflow = start(&mut server, &["r0"], &gate.command(), limit);
        server.wait_done(&workflow);
        let done = look(&mut server, &workflow);
        assert_eq!(states(&done), ["timed_out"], "{done:#}");
        let error = done["items"][0]["error"].to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_workflow_of_two_is_not_held_up_by_one_of_many() {
    let home = home(1);
    home.many_repos(8);
    let (many, two) = (Gate::named(&home, "many"), Gate::named(&home, "two"));
    let mut server = Server::start(&home);
    let large = start(&mut server, &["r*"], &many.command(), json!({}));
    many.wait_for(&["r0"]);
    let small = start(&mut server, &["r6", "r7"], &two.command(), json!({}));
    // They take turns: of the large one no more are let through than there are turns before the small one's last.
    for repo in ["r0", "r1", "r2"] {
        many.open_for(repo);
    }
    two.open();
    assert_eq!(server.wait_done(&small)["status"], "succeeded");
    let rest = look(&mut server, &large);
    assert!(rest["counts"]["queued"].as_u64() >= Some(4), "{rest:#}");
}

#[test]
fn waiting_items_go_to_a_pool_that_is_made_later() {
    let home = home(1);
    home.many_repos(2);
    let gate = Gate::new(&home);
    let mut server = Server::start(&home);
    let workflow = start(&mut server, &["r*"], &gate.command(), json!({}));
    gate.wait_for(&["r0"]);
    let pool = json!({"name": "late", "worker": "command", "max_workers": 1});
    let _made = server.call("set_pool", pool).ok();
    gate.wait_for(&["r1"]);
    let both = look(&mut server, &workflow);
    assert_eq!(both["items"][0]["pool"], "p");
    assert_eq!(both["items"][1]["pool"], "late");
    gate.open();
    assert_eq!(server.wait_done(&workflow)["status"], "succeeded");
}

#[test]
fn repeats_of_one_repository_take_turns_in_its_working_copy() {
    let home = home(4);
    home.many_repos(1);
    let gate = Gate::new(&home);
    let mut server = Server::start(&home);
    let workflow = start(&mut server, &["r0"], &alone(&gate), json!({"repeat": 5}));
    assert_eq!(server.wait_done(&workflow)["counts"]["succeeded"], 5);
}
