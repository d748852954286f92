//! Real MCP clients against the real server, started exactly from `mcp.json`: the MCP Inspector's command line and the
//! official TypeScript SDK.
//!
//! They are installed once, from `tests/clients/package-lock.json`, under `tests/.cache/clients` or the folder that
//! `MAHAVISHNU_CLIENTS_CACHE` names. Without Node the tests say that they skipped; with `MAHAVISHNU_REQUIRE_CLIENTS=1`
//! they fail instead.

use crate::support::processes::wait_until;
use crate::support::repos::GitRepo;
use crate::support::server::Home;
use crate::support::{HANG, binary};
use serde_json::{Value, json};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the folder with the installed clients; none where they cannot be had and need not.
fn clients() -> Option<PathBuf> {
    match install() {
        Ok(folder) => Some(folder),
        Err(why)
            if std::env::var_os("MAHAVISHNU_REQUIRE_CLIENTS").is_some_and(|set| set == "1") =>
        {
            panic!("MAHAVISHNU_REQUIRE_CLIENTS=1, but {why}")
        }
        Err(why) => {
            // Written past the test runner's capture, so that a run that skipped cannot look like one that did not.
            let line = format!("\nSKIPPED the real MCP clients: {why}\n");
            std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("stderr");
            None
        }
    }
}

/// Installs the clients where they are not yet; one process at a time.
fn install() -> Result<PathBuf, String> {
    let source = root().join("tests/clients");
    let folder = std::env::var_os("MAHAVISHNU_CLIENTS_CACHE")
        .map_or_else(|| root().join("tests/.cache/clients"), PathBuf::from);
    let text = |error: std::io::Error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(&folder).map_err(text)?;
    let lock = File::create(folder.join(".lock")).map_err(text)?;
    lock.lock().map_err(text)?;
    let wanted = std::fs::read(source.join("package-lock.json")).map_err(text)?;
    let done = folder.join(".installed");
    if std::fs::read(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    for file in ["package.json", "package-lock.json", ".npmrc"] {
        std::fs::copy(source.join(file), folder.join(file)).map_err(text)?;
    }
    let output = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("npm cannot be started ({error}); install Node 20 or later"))?;
    if !output.status.success() {
        return Err(format!(
            "npm ci failed: {}",
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    std::fs::write(&done, wanted).map_err(text)?;
    Ok(folder)
}

/// Runs a client to its end and returns its stdout.
///
/// It finds `mahavishnu` on the PATH, as `mcp.json` has it, and starts in the folder with the repositories, which makes
/// that the root; nothing else tells the server anything.
#[track_caller]
fn run(home: &Home, program: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("node");
    home.dress(&mut command);
    let ours = binary();
    let folder = ours.parent().expect("a binary lies in a folder").to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([folder].into_iter().chain(std::env::split_paths(&path)));
    let mut child = command
        .env("PATH", path.expect("it was a PATH before"))
        .env("MCP_INSPECTOR_SECRET_STORE", "memory")
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(File::create(home.path().join("stdout")).expect("it can be written"))
        .stderr(File::create(home.path().join("stderr")).expect("it can be written"))
        .spawn()
        .expect("node was there for npm");
    let mut status = None;
    wait_until(2 * HANG, || {
        status = child.try_wait().expect("the child is ours");
        status.is_some()
    });
    if status.is_none() {
        child.kill().expect("the child is ours");
    }
    let read = |name| std::fs::read_to_string(home.path().join(name)).expect("it was written");
    let (stdout, stderr) = (read("stdout"), read("stderr"));
    assert!(
        status.is_some_and(|status| status.success()),
        "{arguments:?}: {status:?}\nstdout:\n{stdout}\nstderr:\n{stderr}"
    );
    stdout
}

#[track_caller]
fn inspect(home: &Home, clients: &Path, arguments: &[&str]) -> Value {
    let program = clients.join("node_modules/.bin/mcp-inspector");
    let registration = root().join("mcp.json");
    let registration = registration.to_str().expect("UTF-8");
    let mut all = vec!["--cli", "--config", registration, "--server", "mahavishnu"];
    all.extend(arguments);
    let stdout = run(home, &program, &all);
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

#[test]
fn the_inspector_lists_and_calls_in_the_era_of_initialize() {
    inspector_lists_and_calls("legacy");
}

#[test]
fn the_inspector_lists_and_calls_in_the_stateless_era() {
    inspector_lists_and_calls("modern");
}

fn inspector_lists_and_calls(era: &str) {
    let Some(clients) = clients() else { return };
    let home = Home::new();
    let repo = home.repo("alpha");
    let ask = |rest: &[&str]| inspect(&home, &clients, &[&["--protocol-era", era], rest].concat());
    let call = |tool: &str, arguments: Value| {
        let arguments = arguments.to_string();
        let rest = [
            "--method",
            "tools/call",
            "--tool-name",
            tool,
            "--tool-args-json",
            &arguments,
        ];
        ask(&rest)["structuredContent"].clone()
    };
    // `--strict` exits with 6 where a schema would trouble any host.
    let listed = ask(&["--method", "tools/list", "--strict"]);
    let tools = listed["tools"].as_array().expect("a list");
    for name in [
        "list_pools",
        "execute_workflow_parallel",
        "get_workflow",
        "cancel_workflow",
    ] {
        assert!(
            tools.iter().any(|tool| tool["name"] == name),
            "{name}: {listed:#}"
        );
    }
    let pools = call("list_pools", json!({}));
    assert_eq!(pools["pools"][0]["name"], "local", "{pools:#}");

    let templates = ask(&["--method", "resources/templates/list"]);
    assert_eq!(
        templates["resourceTemplates"].as_array().map(Vec::len),
        Some(4),
        "{templates:#}"
    );
    let read = ask(&["--method", "resources/read", "--uri", "pool://local"]);
    let text = read["contents"][0]["text"].as_str().expect("text");
    let pool: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(pool["name"], "local", "{read:#}");

    let command = ["git", "rev-parse", "HEAD"];
    let work = json!({"repo": repo.text(), "command": command, "wait_s": 40});
    let done = call("route_least_loaded", work);
    assert_eq!(done["status"], "succeeded", "{done:#}");
    assert_eq!(done["pool"], "local", "{done:#}");
    let tail = done["items"][0]["output_tail"].as_str().expect("a tail");
    assert!(tail.contains(&repo.head()), "{done:#}");

    let found = call("get_workflow", json!({"workflow_id": done["workflow_id"]}));
    assert_eq!(found["status"], "succeeded", "{found:#}");
}

#[test]
fn the_official_sdk_calls_watches_and_cancels() {
    let Some(clients) = clients() else { return };
    let home = Home::new();
    let repos = home.many_repos(5);
    let paths: Vec<String> = repos.iter().map(GitRepo::text).collect();
    let registration = root().join("mcp.json");
    let mut arguments = vec![
        registration.to_str().expect("UTF-8"),
        clients.to_str().expect("UTF-8"),
    ];
    arguments.extend(paths.iter().map(String::as_str));
    let stdout = run(&home, &root().join("tests/clients/sdk.mjs"), &arguments);
    let seen: Value = serde_json::from_str(&stdout).expect("the script prints JSON");

    let instructions = seen["instructions"]
        .as_str()
        .expect("there are instructions");
    assert!(
        instructions.contains("execute_workflow_parallel"),
        "{instructions}"
    );
    assert_eq!(
        seen["pools"]["structuredContent"]["pools"][0]["name"],
        "local"
    );
    assert_eq!(seen["refused"]["isError"], true, "{:#}", seen["refused"]);

    let run = &seen["run"]["structuredContent"];
    assert_eq!(run["status"], "succeeded", "{run:#}");
    assert_eq!(run["counts"]["total"], 5);
    assert_eq!(run["counts"]["succeeded"], 5);
    let progress = seen["progress"].as_array().expect("a list");
    assert!(!progress.is_empty(), "no progress was told");
    let amounts: Vec<f64> = progress
        .iter()
        .filter_map(|note| note["progress"].as_f64())
        .collect();
    assert_eq!(amounts.len(), progress.len(), "{progress:?}");
    assert!(
        amounts.windows(2).all(|pair| pair[0] < pair[1]),
        "goes back: {amounts:?}"
    );

    assert_eq!(seen["gave_up"], "yes");
    let after = &seen["after_giving_up"]["structuredContent"];
    assert_eq!(after["workflows"][0]["status"], "running", "{after:#}");
    let cancelled = &seen["cancelled"]["structuredContent"];
    assert_eq!(cancelled["status"], "cancelled", "{cancelled:#}");
    assert_eq!(cancelled["counts"]["cancelled"], 1, "{cancelled:#}");
}
