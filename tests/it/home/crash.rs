//! `kill -9` of the server at every step from an item's start to its apply: nothing is lost, and the next server continues.

use super::*;
use rusqlite::Connection;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// A home whose server finds a git that stands still at a step for which `hold-STEP` exists, reports it by `at-STEP`, and
/// fails once it may go.
struct Stage {
    home: Home,
    repo: GitRepo,
}

const GIT: &str = r#"#!/bin/sh
dir=$(dirname "$0")
at() {
    [ -e "$dir/hold-$1" ] || return 0
    : > "$dir/at-$1"
    while [ -e "$dir/hold-$1" ]; do sleep 0.02; done
    exit 1
}
case "$*" in
*" reset --hard "*)
    at worktree
    if [ -e "$dir/hold-journal" ]; then
        : > "$dir/at-journal"
        while [ -e "$dir/hold-journal" ]; do sleep 0.02; done
    fi;;
*" commit-tree "*) at commit;;
*"update-ref -m mahavishnu: commit"*) at branch;;
*"update-ref -m mahavishnu: apply"*) [ -e "$dir/hold-apply" ] && REAL "$@" && at apply;;
*"update-ref -d "*) at clean;;
esac
exec REAL "$@""#;

/// Kills the server and waits until nothing of it lives.
fn kill(mut server: Server) {
    server.signal("KILL");
    server.wait_end();
    let quiet = wait_until(HANG, || server.marker.living().is_empty());
    assert!(quiet, "{:?}", server.marker.living());
}

impl Stage {
    fn new() -> Self {
        let home = Home::with_config("");
        let repo = home.repo("app");
        let stage = Self { home, repo };
        std::fs::create_dir(stage.bin()).expect("it is new");
        let real = std::env::split_paths(&std::env::var_os("PATH").expect("PATH is set"))
            .map(|dir| dir.join("git"))
            .find(|git| git.is_file());
        let real = real.expect("git is installed");
        let script = GIT.replace("REAL", real.to_str().expect("UTF-8"));
        let git = stage.bin().join("git");
        std::fs::write(&git, script).expect("written");
        std::fs::set_permissions(git, PermissionsExt::from_mode(0o755)).expect("it is ours");
        stage
    }

    fn bin(&self) -> PathBuf {
        self.home.path().join("bin")
    }

    fn file(&self, kind: &str, step: &str) -> PathBuf {
        self.bin().join(format!("{kind}-{step}"))
    }

    fn command(&self) -> Command {
        let mut command = self.home.command();
        let path = std::env::var_os("PATH").expect("PATH is set");
        let dirs = [self.bin()].into_iter().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(dirs).expect("no colons"));
        command
    }

    fn server(&self) -> Server {
        Server::start_command(self.command())
    }

    /// Returns shell text that stands still at `step` as the git does.
    fn stop(&self, step: &str) -> String {
        let [hold, at] = ["hold", "at"].map(|kind| self.file(kind, step).display().to_string());
        format!("if [ -e {hold} ]; then : > {at}; while [ -e {hold} ]; do sleep 0.02; done; fi")
    }

    fn start(&self, server: &mut Server) -> Value {
        let script = format!("echo work > new; {}", self.stop("run"));
        let arguments = json!({
            "repos": [self.repo.text()],
            "command": ["sh", "-c", script],
            "isolation": "worktree",
            "verify": [format!("sh -c {:?}", format!("test -e new; {}", self.stop("verify")))],
            "wait_s": 0,
        });
        server.call("execute_workflow_parallel", arguments).ok()
    }

    /// Waits until somebody stands at `step` and kills the server there.
    fn kill_at(&self, server: Server, step: &str) {
        let arrived = wait_until(HANG, || self.file("at", step).exists());
        server.signal("KILL");
        std::fs::remove_file(self.file("hold", step)).expect("it was held");
        assert!(arrived, "never at {step}");
        kill(server);
    }

    /// What is interrupted is resumed and applied completely, and nothing is left.
    fn resumes(&self, id: &Value) {
        let mut server = self.server();
        let found = server.call("get_workflow", json!({"workflow_id": id})).ok();
        assert_eq!(found["counts"]["interrupted"], 1, "{found:#}");
        let resume = json!({"workflow_id": id, "wait_s": 20});
        server.call("resume_workflow", resume).ok();
        let ran = done(&mut server, id);
        let item = &ran["items"][0];
        assert_eq!(item["status"], "succeeded", "{ran:#}");
        assert_eq!(
            (&item["changed"], &item["verify"]["status"]),
            (&json!(true), &json!("passed")),
            "{ran:#}"
        );
        assert_eq!(apply(&mut server, &ran, json!({}))["done_count"], 1);
        assert_eq!(read(self.repo.path().join("new")), "work\n");
        let cleaned = clean(&mut server, json!({"dry_run": false}));
        assert_eq!(cleaned["kept_count"], 0, "{cleaned:#}");
        assert_nothing_left(&self.home, &[&self.repo]);
    }
}

#[test]
fn a_kill_at_any_step_of_an_item_loses_nothing() {
    for step in ["worktree", "run", "verify", "commit", "branch"] {
        let stage = Stage::new();
        std::fs::write(stage.file("hold", step), "").expect("written");
        let mut server = stage.server();
        let started = stage.start(&mut server);
        stage.kill_at(server, step);
        let was_there = ["run", "verify", "commit", "branch"].contains(&step);
        assert_eq!(
            files_named_new(&stage.home),
            usize::from(was_there),
            "{step}"
        );
        stage.resumes(&started["workflow_id"]);
    }
}

/// How many worktrees hold the work.
fn files_named_new(home: &Home) -> usize {
    let homes = std::fs::read_dir(home.state().join("worktrees")).expect("listed");
    homes
        .flatten()
        .filter(|home| home.path().join("app/new").exists())
        .count()
}

#[test]
fn a_kill_between_worktree_and_journal_loses_nothing() {
    let stage = Stage::new();
    let hold = stage.file("hold", "journal");
    std::fs::write(&hold, "").expect("written");
    let mut server = stage.server();
    let started = stage.start(&mut server);
    assert!(wait_until(HANG, || stage.file("at", "journal").exists()));
    // An open transaction keeps the server from journaling that the attempt begins.
    let db = Connection::open(stage.home.state().join("mahavishnu.db")).expect("the store");
    db.execute_batch("BEGIN IMMEDIATE").expect("nobody writes");
    std::fs::remove_file(hold).expect("it was held");
    let is_ready = || {
        let homes = std::fs::read_dir(stage.home.state().join("worktrees")).expect("listed");
        homes.flatten().any(|home| {
            let record = std::fs::read_to_string(home.path().join("record.json"));
            record.is_ok_and(|text| text.contains("\"ready\":true"))
        })
    };
    assert!(wait_until(HANG, is_ready));
    kill(server);
    drop(db);
    stage.resumes(&started["workflow_id"]);
}

#[test]
fn a_kill_while_applying_is_recovered() {
    let stage = Stage::new();
    let mut server = stage.server();
    let started = stage.start(&mut server);
    let id = started["workflow_id"].clone();
    done(&mut server, &id);
    let before = stage.repo.head();
    std::fs::write(stage.file("hold", "apply"), "").expect("written");
    server.begin("apply_changes", json!({"workflow_id": id, "how": "merge"}));
    stage.kill_at(server, "apply");

    let mut server = stage.server();
    let recovered = wait_until(HANG, || {
        stage.repo.git(&["status", "--porcelain"]).is_empty()
    });
    assert!(recovered, "{}", stage.repo.git(&["status"]));
    assert_ne!(stage.repo.head(), before);
    // The notice follows the last change of the repository.
    let mut told = Value::Null;
    let noticed = wait_until(HANG, || {
        told = server
            .call("get_workflow", json!({"workflow_id": id, "detail": "full"}))
            .ok();
        let notices = told["notices"].to_string();
        notices.contains("that was interrupted was finished")
    });
    assert!(noticed, "{told:#}");
    let item = &told["items"][0];
    assert!(
        item["applied"]
            .as_str()
            .is_some_and(|how| how.starts_with("merge")),
        "{item:#}"
    );
    let undo = json!({"undo": [item["undo"]]});
    assert_eq!(apply(&mut server, &told, undo)["done_count"], 1);
    assert_eq!(stage.repo.head(), before);
    assert!(!stage.repo.path().join("new").exists());
}

#[test]
fn a_kill_while_cleaning_is_recovered() {
    let stage = Stage::new();
    let mut server = stage.server();
    let started = stage.start(&mut server);
    let ran = done(&mut server, &started["workflow_id"]);
    assert_eq!(apply(&mut server, &ran, json!({}))["done_count"], 1);
    std::fs::write(stage.file("hold", "clean"), "").expect("written");
    server.begin("clean_worktrees", json!({"dry_run": false}));
    stage.kill_at(server, "clean");
    let mut server = stage.server();
    let cleaned = clean(&mut server, json!({"dry_run": false}));
    assert_eq!(
        (&cleaned["removed_count"], &cleaned["kept_count"]),
        (&json!(1), &json!(0)),
        "{cleaned:#}"
    );
    assert_nothing_left(&stage.home, &[&stage.repo]);
    assert_eq!(read(stage.repo.path().join("new")), "work\n");
}
