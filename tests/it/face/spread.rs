//! Many routes at once over equal pools.

use super::*;
use crate::support::binary;
use std::collections::BTreeMap;

/// Calls of a peer's tool that never answers hold the slots: no process is started for them.
fn config() -> String {
    let examples = binary().with_file_name("examples");
    let peer = examples.join("faulty_server");
    let mut text = format!(
        r#"[workers.held]
kind = "mcp"
server.command = [{peer:?}, "serve"]
tool = "remember"
arguments = {{ text = "{{task}}" }}
"#
    );
    for pool in 0..10 {
        text.push_str(&format!(
            "[[pools]]\nname = \"p{pool}\"\nworker = \"held\"\nmax_workers = 100\n"
        ));
    }
    text
}

#[test]
fn a_thousand_routes_spread_evenly_over_ten_pools() {
    let home = Home::with_config(&config());
    home.repo("r");
    let mut server = Server::start(&home);
    let route = json!({"repo": "r", "task": "wait", "wait_s": 0});
    let calls: Vec<i64> = (0..1_000)
        .map(|_| server.begin("route_least_loaded", route.clone()))
        .collect();
    let mut landed: BTreeMap<String, u32> = BTreeMap::new();
    for call in calls {
        let routed = server.finish(call).ok();
        let pool = routed["pool"].as_str().expect("a pool").to_owned();
        *landed.entry(pool).or_default() += 1;
    }
    let even: BTreeMap<String, u32> = (0..10).map(|pool| (format!("p{pool}"), 100)).collect();
    assert_eq!(landed, even);
    let listed = server.call("list_pools", json!({})).ok();
    for row in listed["pools"].as_array().expect("rows") {
        assert_eq!(
            (&row["in_flight"], &row["queued"]),
            (&json!(100), &json!(0)),
            "{row:#}"
        );
    }
}
