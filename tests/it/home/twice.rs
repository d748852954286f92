//! Calls that come twice, as from a host that timed out and calls again.

use super::*;
use std::os::unix::fs::PermissionsExt;

/// Puts a `git` before the real one on the PATH that is slow in every `git checkout-index`, a step of each apply.
fn with_slow_git(home: &Home) -> std::process::Command {
    let bin = home.path().join("bin");
    std::fs::create_dir(&bin).expect("a new folder");
    let path = std::env::var("PATH").expect("a PATH");
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' checkout-index '*) sleep 2;; esac\nPATH='{path}' exec git \"$@\"\n"
    );
    let git = bin.join("git");
    std::fs::write(&git, script).expect("written");
    std::fs::set_permissions(&git, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let mut command = home.command();
    command.env("PATH", format!("{}:{path}", bin.display()));
    command
}

#[test]
fn two_applies_at_once_both_report_the_change_as_applied() {
    let home = Home::with_config("");
    let repo = home.repo("app");
    let mut server = Server::start_command(with_slow_git(&home));
    let mut other = Server::start(&home);
    let ran = run(&mut server, &[&repo], "echo work > README.md", json!({}));
    let arguments = json!({"workflow_id": ran["workflow_id"]});
    let first = server.begin("apply_changes", arguments.clone());
    let again = server.begin("apply_changes", arguments.clone());
    let elsewhere = other.begin("apply_changes", arguments);
    let first = server.finish(first).ok();
    let again = server.finish(again).ok();
    let elsewhere = other.finish(elsewhere).ok();
    assert_eq!(first["items"][0]["applied"], true, "{first:#}");
    for answer in [&again, &elsewhere] {
        assert_eq!(answer["items"], first["items"], "{answer:#}");
        assert_eq!(answer["refused_count"], 0);
    }
    assert_eq!(read(repo.path().join("README.md")), "work\n");
    let undo = json!({"workflow_id": ran["workflow_id"], "undo": [first["items"][0]["undo"]]});
    let calls = [0, 1].map(|_| server.begin("apply_changes", undo.clone()));
    let answers = calls.map(|call| server.finish(call).result["structuredContent"].clone());
    let undone = answers.iter().filter(|answer| answer["done_count"] == 1);
    assert!(undone.count() >= 1, "{answers:#?}");
    for answer in &answers {
        let row = &answer["items"][0];
        assert_ne!(row["applied"], true, "it is undone: {answer:#}");
    }
    assert_eq!(repo.git(&["status", "--porcelain"]), "");
}

#[test]
fn two_cleanings_at_once_both_succeed() {
    let home = Home::with_config("");
    let repos = home.many_repos(8);
    let repos: Vec<&GitRepo> = repos.iter().collect();
    let mut server = Server::start(&home);
    let mut other = Server::start(&home);
    run(&mut server, &repos, "echo work > new", json!({}));
    let arguments = json!({"dry_run": false, "include_unapplied": true});
    let calls = [0, 1].map(|_| server.begin("clean_worktrees", arguments.clone()));
    let elsewhere = other.begin("clean_worktrees", arguments);
    let mut answers: Vec<Value> = calls.map(|call| server.finish(call).ok()).into();
    answers.push(other.finish(elsewhere).ok());
    let removed: u64 = answers
        .iter()
        .filter_map(|answer| answer["removed_count"].as_u64())
        .sum();
    assert_eq!(removed, 8, "{answers:#?}");
    let worktrees = std::fs::read_dir(home.state().join("worktrees"));
    assert_eq!(worktrees.map_or(0, Iterator::count), 0);
}
