//! Where items work: worktrees, read-only looks, bases, `setup` and `verify`.

use super::*;

#[test]
fn setup_is_base_and_a_later_attempt_continues() {
    let home = Home::with_config("");
    let repo = home.repo("app");
    repo.write("mine", "not committed\n");
    let mut server = Server::start(&home);
    let script = "if [ -e first ]; then echo 2 > second; else echo 1 > first; fi";
    let more = json!({
        "setup": ["sh -c 'date +%N > from-setup'"],
        "verify": ["test -e second"],
    });
    let ran = run(&mut server, &[&repo], script, more);
    let item = &ran["items"][0];
    assert_eq!(item["verify"]["status"], "failed", "{item:#}");
    assert_eq!(
        (&item["stage"], &item["left_out_dirty"]),
        (&json!("verify"), &json!(1))
    );
    assert_eq!(
        item["diff"]["files"], 1,
        "what setup did is no change: {item:#}"
    );
    let resume = json!({"workflow_id": ran["workflow_id"], "wait_s": 20});
    server.call("resume_workflow", resume).ok();
    let ran = done(&mut server, &ran["workflow_id"]);
    let item = &ran["items"][0];
    assert_eq!(item["verify"]["status"], "passed", "{item:#}");
    assert_eq!(
        item["diff"]["files"], 2,
        "both attempts' work and no setup's: {item:#}"
    );
    let applied = apply(&mut server, &ran, json!({}));
    assert_eq!(applied["done_count"], 1, "{applied:#}");
    assert_eq!(read(repo.path().join("first")), "1\n");
    assert_eq!(read(repo.path().join("second")), "2\n");
    assert_eq!(
        clean(&mut server, json!({"dry_run": false}))["removed_count"],
        1
    );
    assert_nothing_left(&home, &[&repo]);
}

#[test]
fn a_later_attempt_without_changes_keeps_earlier_work() {
    let home = Home::with_config("");
    let repo = home.repo("app");
    let mut server = Server::start(&home);
    let script = "[ -e first ] || { echo 1 > first; exit 1; }";
    let more = json!({"setup": ["true"], "retries": 1});
    let ran = run(&mut server, &[&repo], script, more);
    let item = &ran["items"][0];
    assert_eq!(
        (&item["status"], &item["attempt"]),
        (&json!("succeeded"), &json!(2)),
        "{item:#}"
    );
    assert_eq!(item["changed"], true);
    let cleaned = clean(&mut server, json!({"dry_run": false}));
    assert_eq!(cleaned["removed_count"], 0, "{cleaned:#}");
    assert_eq!(apply(&mut server, &ran, json!({}))["done_count"], 1);
    assert_eq!(read(repo.path().join("first")), "1\n");
}

#[test]
fn a_read_only_item_that_writes_fails_without_trace() {
    let home = Home::with_config("");
    let repo = home.repo("app");
    let mut server = Server::start(&home);
    let read_only = json!({"isolation": "read_only"});
    let looked = run(&mut server, &[&repo], "cat README.md", read_only.clone());
    assert_eq!(looked["items"][0]["changed"], false, "{looked:#}");
    let wrote = run(&mut server, &[&repo], "echo x > new", read_only);
    let item = &wrote["items"][0];
    assert_eq!(item["status"], "failed");
    let cause = item["cause"].as_str().expect("a cause");
    assert!(cause.contains("wrote_in_read_only"), "{cause}");
    assert!(!repo.path().join("new").exists());
    assert_eq!(repo.git(&["for-each-ref", "refs/heads/mahavishnu"]), "");
    let id = wrote["workflow_id"].clone();
    let diff = json!({"workflow_id": id, "item": 0, "stream": "diff"});
    let diff = server.call("read_output", diff).ok();
    assert!(
        diff["text"].as_str().expect("text").contains("+x"),
        "{diff:#}"
    );
}

#[test]
fn invalid_bases_are_refused_by_name() {
    let home = Home::with_config("");
    let repo = home.repo("app");
    let mut server = Server::start(&home);
    for bad in ["-f", "no-such-branch"] {
        let arguments = json!({
            "repos": [repo.text()], "command": ["true"], "isolation": "worktree",
            "base_ref": bad, "wait_s": 20,
        });
        let error = match server.call("execute_workflow_parallel", arguments) {
            refused if refused.result["isError"] == true => refused.error(),
            started => {
                let id = started.ok()["workflow_id"].clone();
                done(&mut server, &id)["items"][0]["error"].clone()
            }
        };
        assert_eq!(error["field"], "base_ref", "{error:#}");
        assert!(
            error["message"].as_str().expect("text").contains(bad),
            "{error:#}"
        );
    }
    assert_nothing_left(&home, &[&repo]);
}

#[test]
fn a_repository_moved_during_a_run_names_where_the_files_are() {
    let home = Home::with_config("");
    let repo = home.repo("app");
    let away = home.path().join("away");
    let mut server = Server::start(&home);
    let script = format!(
        "[ -e new ] || {{ echo work > new; mv {:?} {away:?}; }}",
        repo.path()
    );
    let ran = run(&mut server, &[&repo], &script, json!({}));
    let item = &ran["items"][0];
    assert_eq!(item["status"], "failed", "{item:#}");
    let message = item["error"]["message"].as_str().expect("text");
    assert!(
        message.contains("was moved or deleted; the files are in"),
        "{message}"
    );
    assert_eq!(read(worktree_of(item).join("new")), "work\n");
    let cleaned = clean(
        &mut server,
        json!({"dry_run": false, "include_unapplied": true}),
    );
    assert_eq!(
        (&cleaned["removed_count"], &cleaned["kept_count"]),
        (&json!(0), &json!(1)),
        "{cleaned:#}"
    );

    std::fs::rename(&away, repo.path()).expect("moved back");
    let script = json!({"workflow_id": ran["workflow_id"], "wait_s": 20});
    server.call("resume_workflow", script).ok();
    let ran = done(&mut server, &ran["workflow_id"]);
    assert_eq!(ran["items"][0]["changed"], true, "{ran:#}");
}

#[test]
fn a_worktree_deleted_by_hand_is_made_again() {
    let home = Home::with_config("");
    let repo = home.repo("app");
    let mut server = Server::start(&home);
    let ran = run(
        &mut server,
        &[&repo],
        "[ -e /nonexistent ] || echo x > new; exit 1",
        json!({}),
    );
    let first = worktree_of(&ran["items"][0]);
    std::fs::remove_dir_all(&first).expect("removed");
    let resume = json!({"workflow_id": ran["workflow_id"], "wait_s": 20});
    server.call("resume_workflow", resume).ok();
    let ran = done(&mut server, &ran["workflow_id"]);
    let second = worktree_of(&ran["items"][0]);
    assert_ne!(first, second);
    assert_eq!(read(second.join("new")), "x\n");
}
