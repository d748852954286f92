//! `list_pools`, `set_pool`, `close_pool`, the queue's bound, `check_health`.

use super::*;
use crate::support::processes::wait_until;
use std::collections::BTreeSet;
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_pool_is_made_resized_labelled_and_drained() {
    let home = Home::with_config(&pools(&[("base", "max_workers = 1")]));
    home.repo("r");
    let mut server = Server::start(&home);
    let made = json!({"name": "extra", "worker": "run", "max_workers": 2, "labels": ["gpu"]});
    let made = server.call("set_pool", made).ok();
    assert_eq!(made["temporary"], true);
    assert_eq!(made["labels"], json!(["gpu"]));
    let routed = begin(
        &mut server,
        "r",
        json!(["true"]),
        json!({"labels": ["gpu"]}),
    );
    assert_eq!(routed["pool"], "extra", "{routed:#}");
    server.wait_done(&routed["workflow_id"]);

    let change = json!({"name": "extra", "max_workers": 5, "labels": ["cpu", "big"]});
    let changed = server.call("set_pool", change).ok();
    assert_eq!(changed["max_workers"], 5);
    assert_eq!(row(&mut server, "extra")["labels"], json!(["big", "cpu"]));
    let gone =
        json!({"repo": "r", "command": ["true"], "labels": ["gpu"], "idempotency_key": "none"});
    let refused = server.call("route_least_loaded", gone).error();
    assert_eq!(refused["field"], "labels", "{refused:#}");

    let drain = json!({"name": "extra", "draining": true});
    assert_eq!(server.call("set_pool", drain).ok()["health"], "draining");
    let wanted = json!({"repo": "r", "command": ["true"], "labels": ["big"]});
    let refused = server.call("route_least_loaded", wanted.clone()).error();
    assert_eq!(refused["kind"], "busy", "{refused:#}");
    assert_eq!(refused["retryable"], true);
    let open = json!({"name": "extra", "draining": false});
    assert_eq!(server.call("set_pool", open).ok()["health"], "healthy");
    let routed = server.call("route_least_loaded", wanted).ok();
    assert_eq!(routed["pool"], "extra");
    assert_eq!(
        routed["why"]["candidates"][0]["name"], "extra",
        "{routed:#}"
    );
    assert_eq!(
        routed["why"]["excluded"][0]["name"], "base",
        "the pool without the label: {routed:#}"
    );
}

#[test]
fn a_full_queue_refuses_a_single_task_and_a_workflow_waits() {
    let home = Home::with_config(&pools(&[("one", "max_workers = 1\nqueue = 1")]));
    home.many_repos(4);
    let hold = Held::new(&home, "hold");
    let mut server = Server::start(&home);
    let first = begin(&mut server, "r0", hold.command(), json!({}));
    let running = hold.running();
    let second = begin(&mut server, "r1", json!(["true"]), json!({}));
    let full = row(&mut server, "one");
    assert_eq!(
        (&full["in_flight"], &full["queued"], &full["load"]),
        (&json!(1), &json!(1), &json!(2.0)),
        "{full:#}"
    );
    let third = json!({"repo": "r2", "command": ["true"]});
    let refused = server.call("route_least_loaded", third).error();
    assert_eq!(refused["kind"], "busy", "{refused:#}");
    assert_eq!(refused["retryable"], true);
    let hint = refused["hint"].as_str().expect("the next step");
    assert!(hint.contains("execute_workflow_parallel"), "{hint}");

    let many = json!({"repos": ["r2", "r3"], "command": ["true"], "wait_s": 0});
    let many = server.call("execute_workflow_parallel", many).ok();
    assert_eq!(many["counts"]["queued"], 2, "{many:#}");
    drop(running);
    for started in [first, second, many] {
        let done = server.wait_done(&started["workflow_id"]);
        assert_eq!(done["status"], "succeeded", "{done:#}");
    }
    let listed = server.call("get_workflow", json!({})).ok();
    let listed = listed["workflows"].as_array().expect("a list").len();
    assert_eq!(listed, 3, "the refused task left nothing");
}

#[test]
fn a_closing_pool_finishes_running_tasks_and_takes_no_others() {
    let home = Home::with_config(&pools(&[("a", "max_workers = 2")]));
    home.many_repos(2);
    let hold = Held::new(&home, "hold");
    let mut server = Server::start(&home);
    let held = begin(&mut server, "r0", hold.command(), json!({}));
    let running = hold.running();
    let closing = server.begin("close_pool", json!({"name": "a", "grace_s": 30}));
    // Calls are answered side by side, so that a look at the pool may come before it closes.
    while row(&mut server, "a")["health"] != "draining" {}
    let refused = json!({"repo": "r1", "command": ["true"]});
    let refused = server.call("route_least_loaded", refused).error();
    assert_eq!(refused["kind"], "busy", "{refused:#}");
    drop(running);
    let closed = server.finish(closing).ok();
    assert_eq!(closed["in_flight"], 0, "{closed:#}");
    let done = server.wait_done(&held["workflow_id"]);
    assert_eq!(done["status"], "succeeded", "{done:#}");
    assert_eq!(server.call("list_pools", json!({})).ok()["total"], 0);
}

#[test]
fn a_closed_pool_stops_everything_after_the_grace() {
    let config = pools(&[
        ("a", "max_workers = 1\nlabels = [\"x\"]"),
        ("b", "max_workers = 1\nlabels = [\"x\"]"),
    ]);
    let home = Home::with_config(&config);
    home.many_repos(3);
    let hold = Held::new(&home, "hold");
    let mut server = Server::start(&home);
    let drain = json!({"name": "b", "draining": true});
    server.call("set_pool", drain).ok();
    let held = begin(&mut server, "r0", hold.command(), json!({}));
    let _running = hold.running();
    let only_here = json!({"pools": ["a"]});
    let bound = begin(&mut server, "r1", json!(["true"]), only_here);
    let free = begin(&mut server, "r2", json!(["true"]), json!({"labels": ["x"]}));
    assert_eq!(row(&mut server, "a")["queued"], 2);
    let open = json!({"name": "b", "draining": false});
    server.call("set_pool", open).ok();

    let closed = server.call("close_pool", json!({"name": "a", "grace_s": 0}));
    assert_eq!(closed.ok()["in_flight"], 0);
    let held = server.wait_done(&held["workflow_id"]);
    assert_eq!(held["status"], "cancelled", "{held:#}");
    let bound = server.wait_done(&bound["workflow_id"]);
    assert_eq!(bound["status"], "cancelled", "{bound:#}");
    let free = server.wait_done(&free["workflow_id"]);
    assert_eq!(free["status"], "succeeded", "{free:#}");
    assert_eq!(free["items"][0]["pool"], "b", "{free:#}");
    let gone = server.call("list_pools", json!({"pools": ["a"]})).error();
    assert_eq!(gone["field"], "pools");
    let gone = server.call("close_pool", json!({"name": "a"})).error();
    assert_eq!(gone["field"], "name");
}

#[test]
fn a_thousand_pools_are_listed_once_each_within_the_size() {
    let names: Vec<String> = (0..1_000).map(|at| format!("pool-{at:04}")).collect();
    let rest = "max_workers = 3\nlabels = [\"linux\", \"fast\"]";
    let all: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), rest)).collect();
    let home = Home::with_config(&pools(&all));
    let mut server = Server::start(&home);
    for detail in ["summary", "full"] {
        let mut seen = Vec::new();
        let mut asked = json!({"detail": detail});
        loop {
            let answer = server.call("list_pools", asked.clone());
            let text = answer.result["content"][0]["text"].as_str().expect("text");
            assert!(text.len() <= 9_000, "{} bytes", text.len());
            let page = answer.ok();
            assert_eq!(page["total"], 1_000);
            assert_ne!(page["truncated"], true, "paged, not cut");
            let rows = page["pools"].as_array().expect("rows");
            assert!(!rows.is_empty(), "no progress");
            seen.extend(rows.iter().map(|row| row["name"].clone()));
            match page.get("cursor") {
                Some(cursor) => asked["cursor"] = cursor.clone(),
                None => break,
            }
        }
        assert_eq!(json!(seen), json!(names), "each once, by name");
    }
}

#[test]
fn late_and_broken_pools_are_rows_with_their_error() {
    // Connections are taken by the system and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("bound");
    let config = format!(
        r#"{}
[limits]
collect_deadline = "300ms"
[[pools]]
name = "late"
worker = "late"
max_workers = 1
[workers.late]
kind = "mcp"
server.url = "http://{address}/mcp"
tool = "t"
arguments = {{ text = "{{task}}" }}
[[pools]]
name = "missing"
worker = "missing"
max_workers = 1
[workers.missing]
kind = "command"
command = ["no-such-agent-program", "{{task}}"]
"#,
        pools(&[("good", "max_workers = 1")])
    );
    let home = Home::with_config(&config);
    let mut server = Server::start(&home);
    let listed = server.call("list_pools", json!({})).ok();
    let told: Vec<_> = listed["pools"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| {
            (
                row["name"].as_str().expect("a name"),
                row["health"].as_str().expect("a health"),
                row["error"]["kind"].as_str().unwrap_or_default(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("good", "healthy", ""),
            ("late", "degraded", "timed_out"),
            ("missing", "unreachable", "not_found"),
        ]
    );

    let health = server
        .call("check_health", json!({"probe": "workers"}))
        .ok();
    assert_eq!(health["status"], "fault");
    let checks = health["checks"].as_array().expect("checks");
    let of = |name: &str| {
        let found = checks.iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("{name}: {health:#}"))
    };
    assert_eq!(of("pool good")["status"], "ok");
    assert_eq!(of("pool late")["status"], "warning");
    assert_eq!(of("pool missing")["status"], "fault");
    assert!(of("pool missing")["fix"].is_string(), "{health:#}");
}

#[test]
fn a_pool_recovers_when_its_program_comes_back() {
    let home = Home::new();
    let agent = home.path().join("agent");
    let install = || {
        std::fs::write(&agent, "#!/bin/sh\nexec true\n").expect("it can be written");
        std::fs::set_permissions(&agent, Permissions::from_mode(0o755)).expect("it is ours");
    };
    install();
    home.configure(&format!(
        "[[pools]]\nname = \"a\"\nworker = \"agent\"\nmax_workers = 1\n\
         [workers.agent]\nkind = \"command\"\ncommand = [{agent:?}]\n"
    ));
    let mut server = Server::start(&home);
    assert_eq!(row(&mut server, "a")["health"], "healthy");
    std::fs::remove_file(&agent).expect("it is there");
    let mut becomes = |health: &str| wait_until(HANG, || row(&mut server, "a")["health"] == health);
    assert!(becomes("unreachable"));
    install();
    assert!(becomes("healthy"));
}

#[test]
fn every_check_of_a_sound_server_is_ok() {
    let home = Home::with_config(&pools(&[("a", "max_workers = 1")]));
    let mut server = Server::start(&home);
    let health = server.call("check_health", json!({})).ok();
    let checks = health["checks"].as_array().expect("checks");
    let names: BTreeSet<&str> = checks
        .iter()
        .filter_map(|check| check["name"].as_str())
        .collect();
    for name in ["config", "store", "roots", "git", "processes", "runs"] {
        assert!(names.contains(name), "{name}: {health:#}");
    }
    let bad = |check: &&Value| check["status"] == "fault" || check["status"] == "warning";
    assert!(!checks.iter().any(|check| bad(&check)), "{health:#}");
}
