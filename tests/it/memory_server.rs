//! Memories through the real server: what workers write, what is forgotten, and peers that are none.

use crate::mcp_client::scripted::{Scripted, done};
use crate::support::server::{Home, Server};
use serde_json::{Value, json};
use std::path::Path;

/// A config whose tails are short, so that they are soon cut.
const CONFIG: &str = "[[pools]]\nname = 'local'\nworker = 'command'\nmax_workers = 2\n\
    [workers.command]\nallow = ['*']\n[limits]\noutput_tail = '256B'\n";

fn token() -> String {
    // Put together at run time so that no scanner takes this file for a leak.
    format!("ghp_{}", "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYz")
}

/// Runs a shell line in the repository and returns the ended workflow.
fn run(server: &mut Server, script: &str) -> Value {
    let arguments = json!({"repo": "r", "command": ["sh", "-c", script], "wait_s": 30});
    let started = server.call("route_least_loaded", arguments).ok();
    server.wait_done(&started["workflow_id"])
}

fn outcomes(server: &mut Server, query: &str) -> Vec<Value> {
    let found = server
        .call(
            "cross_pool_search",
            json!({"query": query, "kind": ["outcome"]}),
        )
        .ok();
    let ids: Vec<&Value> = found["hits"]
        .as_array()
        .expect("hits")
        .iter()
        .map(|hit| &hit["id"])
        .collect();
    if ids.is_empty() {
        return Vec::new();
    }
    let whole = server.call("cross_pool_search", json!({"ids": ids})).ok();
    whole["hits"].as_array().expect("hits").clone()
}

fn stands_below(dir: &Path, text: &str) -> Option<std::path::PathBuf> {
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            if let Some(found) = stands_below(&path, text) {
                return Some(found);
            }
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        {
            return Some(path);
        }
    }
    None
}

#[test]
fn a_token_at_the_cut_of_a_tail_or_page_leaves_no_half_anywhere() {
    let home = Home::with_config(CONFIG);
    home.repo("r");
    let mut server = Server::start(&home);
    let token = token();
    std::fs::write(home.repos().join("r/key"), &token).expect("it can be written");
    // The tail of 256 bytes begins within the token, at one place of it after the other.
    for before in [0, 4, 12, 30] {
        let after = 255 - before;
        let script = format!(
            "head -c 5000 /dev/zero | tr '\\0' x; printf ' '; cat key; printf ' '; head -c {after} /dev/zero | tr '\\0' y"
        );
        let ended = run(&mut server, &script);
        let tail = ended["items"][0]["output_tail"].as_str().expect("a tail");
        assert!(tail.contains("yyyy"), "{tail}");
        let mut shown = tail.to_owned();
        let mut offset = 4_990;
        while offset < 5_050 {
            let page =
                json!({"workflow_id": ended["workflow_id"], "offset": offset, "max_bytes": 17});
            let page = server.call("read_output", page).ok();
            shown.push_str(page["text"].as_str().expect("a text"));
            offset = page["next_offset"].as_u64().expect("it goes on");
        }
        assert!(shown.contains("[REDACTED-GITHUB-TOKEN]"), "{shown}");
        for at in 0..token.len() - 4 {
            assert!(!shown.contains(&token[at..at + 4]), "{shown}");
        }
    }
    for memory in outcomes(&mut server, "yyyy*") {
        let text = memory["text"].as_str().expect("a text");
        for at in 0..token.len() - 4 {
            assert!(!text.contains(&token[at..at + 4]), "{text}");
        }
    }
}

#[test]
fn what_a_worker_writes_that_is_no_text_becomes_a_memory_all_the_same() {
    let home = Home::with_config(CONFIG);
    home.repo("r");
    let mut server = Server::start(&home);
    let ended = run(&mut server, "printf 'wombat \\377\\376\\200 burrow'");
    assert_eq!(ended["status"], "succeeded");
    let found = outcomes(&mut server, "burrow");
    assert_eq!(found.len(), 1, "{found:?}");
    let text = found[0]["text"].as_str().expect("a text");
    assert!(
        text.ends_with("wombat \u{fffd}\u{fffd}\u{fffd} burrow"),
        "{text}"
    );
    let page = json!({"workflow_id": ended["workflow_id"]});
    assert_eq!(server.call("read_output", page).ok()["total_bytes"], 17);
}

#[test]
fn forget_removes_an_outcome_from_every_file_while_a_server_runs() {
    let home = Home::with_config(CONFIG);
    home.repo("r");
    let mut server = Server::start(&home);
    let ended = run(&mut server, "echo quokka-$((6 * 7))-word; exit 3");
    assert_eq!(ended["status"], "failed");
    let found = outcomes(&mut server, "\"quokka-42-word\"");
    let id = found[0]["id"].as_str().expect("an id").to_owned();
    assert!(stands_below(&home.state(), "quokka-42-word").is_some());
    let forget = |id: &str| {
        let output = home
            .command()
            .args(["forget", id])
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (
            output.status.code(),
            text + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (status, said) = forget(&id);
    assert_eq!(
        (status, said.as_str()),
        (Some(0), format!("{id} is forgotten.\n").as_str())
    );
    assert_eq!(stands_below(&home.state(), "quokka-42-word"), None);
    assert_eq!(
        stands_below(&home.state(), "quokka-$"),
        None,
        "the prompt goes with the only outcome"
    );
    assert_eq!(outcomes(&mut server, "quokka*"), [Value::Null; 0]);
    let workflow = json!({"workflow_id": ended["workflow_id"]});
    let kept = server.call("get_workflow", workflow.clone()).ok();
    assert_eq!(
        (&kept["title"], &kept["items"][0]["exit_code"]),
        (&json!("(forgotten)"), &json!(3))
    );
    let refused = server.call("resume_workflow", workflow).error();
    assert!(
        refused["message"]
            .as_str()
            .is_some_and(|said| said.contains("forgotten")),
        "{refused}"
    );
    let (status, said) = forget(&id);
    assert_eq!(status, Some(0));
    assert!(said.contains("forgotten before"), "{said}");
    let (status, said) = forget("01D00000000000000000000000");
    assert!(
        status == Some(1) && said.contains("there is no memory"),
        "{status:?} {said}"
    );
    let (status, said) = forget("nonsense");
    assert!(
        status == Some(2) && said.contains("26 letters and digits"),
        "{status:?} {said}"
    );
}

fn check<'a>(health: &'a Value, name: &str) -> &'a Value {
    let checks = health["checks"].as_array().expect("checks");
    let found = checks.iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no check {name}: {health:#}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_none_is_told_by_every_tool_and_nothing_is_lost() {
    let page = Scripted::start(|_| {
        let html = "content-type: text/html\r\n".to_owned();
        Some((200, html, "<html>hello</html>".to_owned()))
    })
    .await;
    let elsewhere = Scripted::mcp(done).await;
    let there = elsewhere.url();
    let redirect =
        Scripted::start(move |_| Some((307, format!("location: {there}\r\n"), String::new())))
            .await;
    let plain = Scripted::mcp(done).await;
    let gone = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let closed = gone.local_addr().expect("it is bound").port();
    drop(gone);
    let cases = [
        ("a web page", page.url(), "/mcp"),
        ("a redirect", redirect.url(), "redirects"),
        (
            "a wrong port",
            format!("http://127.0.0.1:{closed}/mcp"),
            "start",
        ),
        ("bad TLS", plain.url().replace("http:", "https:"), "scheme"),
    ];
    for (what, url, next_step) in cases {
        tokio::task::block_in_place(|| bad_peer(what, &url, next_step));
    }
}

fn bad_peer(what: &str, url: &str, next_step: &str) {
    let home = Home::with_config(&format!("{CONFIG}[session_buddy]\nurl = '{url}'\n"));
    let mut server = Server::start(&home);
    let kept = server
        .call("remember", json!({"text": "the numbat eats termites"}))
        .ok();
    assert_eq!(kept["forwarding"], "pending", "{what}");
    let sum = server.call("aggregate_memory", json!({"wait_s": 10})).ok();
    assert_eq!(sum["forwarding"], "down", "{what}: {sum:#}");
    assert!(sum["down_since"].is_string(), "{what}: {sum:#}");
    assert_eq!(
        (
            &sum["pending"],
            &sum["failed"],
            &sum["outbox_pending"],
            &sum["outbox_failed"]
        ),
        (&json!(1), &json!(0), &json!(1), &json!(0)),
        "{what}: {sum:#}"
    );
    let found = server
        .call("cross_pool_search", json!({"query": "numbat"}))
        .ok();
    assert_eq!(found["hits"][0]["id"], kept["id"], "{what}: {found:#}");
    let source = &found["sources"][1];
    assert_eq!(
        (&source["name"], &source["status"]),
        (&json!("session_buddy"), &json!("failed"))
    );
    let hint = source["error"]["hint"].as_str().unwrap_or_default();
    assert!(hint.contains(next_step), "{what}: {source:#}");
    let health = server.call("check_health", json!({"probe": "peers"})).ok();
    let peer = check(&health, "session_buddy");
    assert_eq!(peer["status"], "fault", "{what}: {peer:#}");
    let fix = peer["fix"].as_str().unwrap_or_default();
    assert!(fix.contains(next_step), "{what}: {peer:#}");
    let forwarding = check(&health, "forwarding");
    assert_eq!(forwarding["status"], "warning", "{what}: {forwarding:#}");
    let detail = forwarding["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("down since") && detail.contains("1 waiting"),
        "{what}: {detail}"
    );
}

#[test]
fn what_ran_when_its_server_died_is_remembered_by_the_next_one() {
    let home = Home::with_config(CONFIG);
    home.repo("r");
    let mut server = Server::start(&home);
    let arguments =
        json!({"repo": "r", "command": ["sh", "-c", "echo bandicoot; sleep 600"], "wait_s": 0});
    let started = server.call("route_least_loaded", arguments).ok();
    // What it says is there only once its begin is journaled.
    let output = json!({"workflow_id": started["workflow_id"], "item": 0, "stream": "stdout"});
    let deadline = std::time::Instant::now() + crate::support::HANG;
    while server.call("read_output", output.clone()).ok()["text"] != "bandicoot\n" {
        assert!(std::time::Instant::now() < deadline, "it never ran");
    }
    server.signal("KILL");
    drop(server);
    let mut server = Server::start(&home);
    let ended = server.wait_done(&started["workflow_id"]);
    assert_eq!(ended["status"], "interrupted", "{ended:#}");
    let found = outcomes(&mut server, "bandicoot");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (&found[0]["worker"], &found[0]["item"]),
        (&json!("command"), &json!(0))
    );
    let text = found[0]["text"].as_str().expect("a text");
    assert!(text.contains("\ninterrupted: interrupted"), "{text}");
}

/// Returns what `check_health` says about the peer at `url` where the environment has these variables.
fn probed(url: &str, env: &[(&str, &str)]) -> Value {
    let home = Home::with_config(&format!("{CONFIG}[session_buddy]\nurl = '{url}'\n"));
    let mut command = home.command();
    command.envs(env.iter().copied());
    let mut server = Server::start_command(command);
    let health = server.call("check_health", json!({"probe": "peers"})).ok();
    check(&health, "session_buddy").clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_is_asked_for_other_hosts_only() {
    let peer = Scripted::mcp(done).await;
    let proxy = Scripted::mcp(done).await;
    let at = format!("http://127.0.0.1:{}", proxy.port);
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let port = peer.port;
        for local in [
            format!("http://127.0.0.1:{port}/mcp"),
            format!("http://localhost:{port}/mcp"),
        ] {
            tokio::task::block_in_place(|| probed(&local, &[(name, &at)]));
        }
    }
    assert!(
        proxy.seen("initialize").is_empty(),
        "a local server was asked through the proxy"
    );
    assert!(peer.seen("initialize").len() >= 6);
    let far = "http://peer.example.test/mcp";
    for (name, value) in [
        ("NO_PROXY", "peer.example.test"),
        ("no_proxy", ".example.test"),
    ] {
        let env = [("HTTP_PROXY", at.as_str()), (name, value)];
        tokio::task::block_in_place(|| probed(far, &env));
    }
    assert!(proxy.seen("initialize").is_empty(), "NO_PROXY was ignored");
    tokio::task::block_in_place(|| probed(far, &[("HTTP_PROXY", &at)]));
    let asked = proxy.seen("initialize");
    assert_eq!(asked[0].path, far, "the proxy was not used");
}

#[test]
fn a_wrong_root_on_the_command_line_is_the_command_lines_to_correct() {
    let home = Home::with_config(CONFIG);
    let refused = |command: &mut std::process::Command| {
        let output = command.output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr)
    };
    let said = refused(
        home.command()
            .args(["--root", "/no/such/folder", "call", "list_repos"]),
    );
    assert!(
        said.contains("/no/such/folder") && said.contains("correct --root"),
        "{said}"
    );
    let said = refused(
        home.command()
            .env("MAHAVISHNU_ROOTS", "/no/such/folder")
            .args(["call", "list_repos"]),
    );
    assert!(said.contains("correct MAHAVISHNU_ROOTS"), "{said}");
}
