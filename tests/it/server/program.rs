//! The real program: help, refusals, exit statuses.

use crate::support::server::{Era, Home, Link, Server};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

fn run(home: &Home, args: &[&str]) -> (Option<i32>, String, String) {
    let output = home.command().args(args).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn help_and_version_are_no_errors() {
    let home = Home::new();
    let (status, stdout, _) = run(&home, &["--version"]);
    assert_eq!(
        (status, stdout.starts_with("mahavishnu ")),
        (Some(0), true),
        "{stdout}"
    );
    let (status, stdout, _) = run(&home, &["--help"]);
    assert_eq!(status, Some(0));
    assert!(
        stdout.contains("call") && stdout.contains("--state-dir"),
        "{stdout}"
    );
    assert!(
        !stdout.contains("schemas"),
        "what only we need is hidden: {stdout}"
    );
}

#[test]
fn a_host_gets_the_error_of_a_broken_config_in_every_answer() {
    let home = Home::with_config("max_worker = 3\n");
    for (link, era) in [
        (Link::Pipes, Era::Initialize),
        (Link::Sockets, Era::Stateless),
    ] {
        let mut server = Server::start_as(&home, link, era);
        for (tool, arguments) in [
            ("list_pools", json!({})),
            ("remember", json!({"text": "a"})),
        ] {
            let error = server.call(tool, arguments).error();
            let message = error["message"].as_str().expect("a message");
            assert!(message.contains("max_worker"), "{message}");
            let hint = error["hint"].as_str().expect("a hint");
            assert!(hint.contains("restart this server"), "{hint}");
        }
        server.close_stdin();
        assert_eq!(server.wait_end().0.code(), Some(2));
    }
}

#[test]
fn a_host_gets_the_error_of_bad_arguments_in_every_answer() {
    let home = Home::new();
    let mut command = home.command();
    command.args(["--rot", "/tmp"]);
    let mut server = Server::start_command(command);
    let error = server.call("list_pools", json!({})).error();
    assert_eq!(error["kind"], "invalid_argument");
    let message = error["message"].as_str().expect("a message");
    assert!(
        message.contains("'--rot'") && message.contains("'--root'"),
        "{message}"
    );
}

#[test]
fn a_call_reports_a_broken_config_without_the_transports_words() {
    let home = Home::with_config("max_worker = 3\n");
    let (status, stdout, stderr) = run(&home, &["call", "list_pools"]);
    assert_eq!(status, Some(2), "{stderr}");
    assert_eq!(stdout, "", "{stderr}");
    assert!(stderr.contains("max_worker"), "{stderr}");
    for word in ["rmcp", "transport", "greet", "connection closed"] {
        assert!(!stderr.contains(word), "{word}: {stderr}");
    }
}

#[test]
fn a_bad_config_or_flag_is_refused_before_anything_starts() {
    let home = Home::with_config("max_worker = 3\n");
    let (status, stdout, stderr) = run(&home, &["serve"]);
    assert_eq!((status, stdout.as_str()), (Some(2), ""), "{stderr}");
    assert!(stderr.contains("max_worker"), "{stderr}");
    let (status, stdout, stderr) = run(&home, &["--confi", "x"]);
    assert_eq!((status, stdout.as_str()), (Some(2), ""), "{stderr}");
    assert!(stderr.contains("--config"), "{stderr}");
    let (status, _, stderr) = run(&Home::new(), &["--config", "/no/such/file", "serve"]);
    assert_eq!(status, Some(2));
    assert!(stderr.contains("/no/such/file"), "{stderr}");
}

#[test]
fn a_closed_stdout_is_no_error() {
    let home = Home::new();
    for args in [
        &["call", "list_pools"][..],
        &["call", "--help"],
        &["--version"],
    ] {
        let mut command = home.command();
        command
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("ours");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

#[test]
fn windows_builds_a_message_without_any_dependency() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "metadata",
        "--offline",
        "--no-deps",
        "--format-version",
        "1",
    ]);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.expect("cargo is there");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let dependencies = metadata["packages"][0]["dependencies"].as_array();
    let dependencies = dependencies.expect("a list").iter();
    for dependency in dependencies.filter(|dependency| dependency["kind"].is_null()) {
        let target = dependency["target"].as_str().unwrap_or("any target");
        assert!(
            ["cfg(unix)", "cfg(target_os = \"linux\")"].contains(&target),
            "{dependency:#}"
        );
    }
    let main = include_str!("../../../src/main.rs");
    let (_, elsewhere) = main
        .split_once("#[cfg(not(unix))]\n")
        .expect("a main for it");
    assert!(elsewhere.contains("Linux and macOS are supported"));
}
