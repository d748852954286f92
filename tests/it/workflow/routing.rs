//! Single tasks: the freest pool, its queue, and the same call twice.

use super::*;
use std::collections::BTreeMap;

#[test]
fn a_thousand_concurrent_routes_over_ten_equal_pools_put_a_hundred_on_each() {
    use std::fmt::Write;
    let mut config = String::from("[workers.command]\nallow = [\"*\"]\n");
    for pool in 0..10 {
        writeln!(
            config,
            "[[pools]]\nname = \"p{pool}\"\nworker = \"command\"\nmax_workers = 1\nqueue = 1000"
        )
        .expect("a string grows");
    }
    let home = Home::with_config(&config);
    home.many_repos(11);
    let mut server = Server::start(&home);
    let task = |repo: &str| json!({"repo": repo, "command": ["sleep", "3600"], "wait_s": 0});
    // No slot gets free from here on, so that nothing but the routing decides.
    for pool in 0..10 {
        let first = server.call("route_least_loaded", task(&format!("r{pool}")));
        assert_eq!(first.ok()["pool"], format!("p{pool}"));
    }
    let calls: Vec<i64> = (0..1_000)
        .map(|_| server.begin("route_least_loaded", task("r10")))
        .collect();
    let mut routed: BTreeMap<String, u32> = BTreeMap::new();
    for call in calls {
        let begun = server.finish(call).ok();
        let pool = begun["pool"].as_str().expect("a pool");
        *routed.entry(pool.to_owned()).or_default() += 1;
    }
    assert_eq!(routed.len(), 10);
    assert!(routed.values().all(|&count| count == 100), "{routed:?}");
    let listed = server.call("list_pools", json!({})).ok();
    for pool in listed["pools"].as_array().expect("pools") {
        let outstanding = pool["in_flight"].as_u64().zip(pool["queued"].as_u64());
        assert_eq!(
            outstanding.map(|(runs, waits)| runs + waits),
            Some(101),
            "{pool:#}"
        );
        assert_eq!(pool["load"], 101.0);
    }
}

#[test]
fn a_task_says_why_it_went_where_it_went_even_into_a_queue() {
    let home = Home::with_config(
        "[[pools]]\nname = \"p\"\nworker = \"command\"\nmax_workers = 1\nqueue = 1\n\
         [workers.command]\nallow = [\"*\"]\n",
    );
    home.many_repos(3);
    let gate = Gate::new(&home);
    let mut server = Server::start(&home);
    let task = |repo: &str| json!({"repo": repo, "command": gate.command(), "wait_s": 0});
    let first = server.call("route_least_loaded", task("r0")).ok();
    assert_eq!(first["why"]["candidates"][0]["in_flight"], 0, "{first:#}");
    let second = server.call("route_least_loaded", task("r1")).ok();
    assert_eq!(second["pool"], "p");
    assert_eq!(second["why"]["candidates"][0]["name"], "p", "{second:#}");
    assert_eq!(second["why"]["candidates"][0]["in_flight"], 1);
    assert_eq!(second["why"]["excluded"], json!([]));
    let full = server.call("route_least_loaded", task("r2")).error();
    assert_eq!(
        (&full["kind"], &full["retryable"]),
        (&json!("busy"), &json!(true))
    );
    assert!(
        full["message"]
            .as_str()
            .is_some_and(|text| text.contains("p is full")),
        "{full:#}"
    );
    gate.open();
    for begun in [first, second] {
        assert_eq!(
            server.wait_done(&begun["workflow_id"])["status"],
            "succeeded"
        );
    }
}

#[test]
fn the_same_key_finds_its_workflow_whatever_became_of_pools_and_repositories() {
    let home = home(1);
    home.many_repos(2);
    let gate = Gate::new(&home);
    let mut server = Server::start(&home);
    let task = json!({"repo": "r0", "command": gate.command(), "pools": ["p"],
        "idempotency_key": "nightly", "wait_s": 0});
    let first = server.call("route_least_loaded", task.clone()).ok();
    assert!(first["existing"].is_null());
    let again = server.call("route_least_loaded", task.clone()).ok();
    assert_eq!(
        (&again["workflow_id"], &again["existing"]),
        (&first["workflow_id"], &json!(true))
    );
    gate.open();
    server.wait_done(&first["workflow_id"]);
    let _closed = server.call("close_pool", json!({"name": "p"})).ok();
    std::fs::remove_dir_all(home.repos().join("r0")).expect("it is there");
    let later = server.call("route_least_loaded", task.clone()).ok();
    assert_eq!(
        (&later["workflow_id"], &later["status"]),
        (&first["workflow_id"], &json!("succeeded"))
    );
    let other = merged(task, json!({"repo": "r1"}));
    let refused = server.call("route_least_loaded", other).error();
    assert_eq!(
        (&refused["kind"], &refused["field"]),
        (&json!("conflict"), &json!("idempotency_key"))
    );
    let message = refused["message"].as_str().expect("a text");
    assert!(
        message.contains("nightly")
            && message.contains(first["workflow_id"].as_str().expect("an id"))
    );
    assert_eq!(gate.ran("r0").len(), 1);
}

#[test]
fn of_concurrent_calls_with_one_key_one_begins_a_workflow() {
    let home = home(4);
    home.many_repos(1);
    let gate = Gate::new(&home);
    let mut server = Server::start(&home);
    let task =
        json!({"repo": "r0", "command": gate.command(), "idempotency_key": "k", "wait_s": 0});
    let calls: Vec<i64> = (0..8)
        .map(|_| server.begin("route_least_loaded", task.clone()))
        .collect();
    let begun: Vec<Value> = calls
        .into_iter()
        .map(|call| server.finish(call).ok())
        .collect();
    assert!(
        begun
            .iter()
            .all(|one| one["workflow_id"] == begun[0]["workflow_id"])
    );
    assert_eq!(
        begun.iter().filter(|one| one["existing"] != true).count(),
        1
    );
    let pools = server.call("list_pools", json!({})).ok();
    let taken = pools["pools"][0]["in_flight"].as_u64();
    assert_eq!(taken, Some(1), "the others gave their slots back");
}
