//! `apply_changes`, its undo, and `clean_worktrees`.

use super::*;

#[test]
fn changes_are_applied_undone_and_cleaned_completely() {
    let home = Home::with_config("");
    let repos = home.many_repos(3);
    let repos: Vec<&GitRepo> = repos.iter().collect();
    let mut server = Server::start(&home);
    let script = "echo work > new; case $PWD in */r2) exit 1;; esac";
    let ran = run(
        &mut server,
        &repos,
        script,
        json!({"verify": ["test -f new"]}),
    );
    assert_eq!(ran["counts"]["succeeded"], 2, "{ran:#}");
    assert_eq!(ran["items"][0]["verify"]["status"], "passed");
    assert_eq!(ran["items"][2]["verify"]["status"], "skipped");
    assert_eq!(ran["items"][0]["changed"], true);

    let checked = apply(&mut server, &ran, json!({"check_only": true}));
    assert_eq!(
        (&checked["done_count"], &checked["items"][0]["undo"]),
        (&json!(2), &Value::Null)
    );
    let row = &checked["items"][0];
    assert_eq!(
        (&row["applied"], &row["would_apply"]),
        (&json!(false), &json!(true))
    );
    assert!(!repos[0].path().join("new").exists());
    let applied = apply(&mut server, &ran, json!({}));
    assert_eq!(applied["done_count"], 2, "{applied:#}");
    assert_eq!(read(repos[0].path().join("new")), "work\n");
    assert!(!repos[2].path().join("new").exists(), "it failed");

    // Where the answer was lost, the same call and get_workflow return it again.
    assert_eq!(apply(&mut server, &ran, json!({})), applied);
    let told = done(&mut server, &ran["workflow_id"]);
    for item in 0..2 {
        assert_eq!(told["items"][item]["undo"], applied["items"][item]["undo"]);
        let how = told["items"][item]["applied"].as_str().expect("applied");
        assert!(how.starts_with("working_copy at "), "{how}");
    }

    let token = &applied["items"][1]["undo"];
    let undone = apply(&mut server, &ran, json!({"undo": [token]}));
    assert_eq!(undone["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&undone["items"][0]["item"], &undone["items"][0]["undone"]),
        (&json!(1), &json!(true))
    );
    assert!(!repos[1].path().join("new").exists());
    assert_eq!(repos[1].git(&["status", "--porcelain"]), "");
    let told = done(&mut server, &ran["workflow_id"]);
    assert_eq!(told["items"][1]["applied"], Value::Null);
    assert_ne!(
        told["items"][0]["applied"],
        Value::Null,
        "another item's is untouched"
    );
    let listed = server.call("list_repos", json!({})).ok();
    let unapplied: Vec<_> = listed["repos"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| &row["unapplied"])
        .collect();
    assert_eq!(unapplied, [0, 1, 1]);

    let again = apply(&mut server, &ran, json!({}));
    assert_eq!(
        (&again["done_count"], &again["items"][0]["item"]),
        (&json!(1), &json!(1))
    );
    let dry = clean(&mut server, json!({}));
    assert_eq!(
        (&dry["removed_count"], &dry["kept_count"]),
        (&json!(2), &json!(1)),
        "{dry:#}"
    );
    assert_eq!(dry["kept"][0]["reason"], "its changes were never applied");
    let cleaned = clean(
        &mut server,
        json!({"dry_run": false, "include_unapplied": true}),
    );
    let kept_ref = cleaned["removed"][2]["kept_ref"].as_str().expect("a ref");
    assert_eq!(repos[2].git(&["show", &format!("{kept_ref}:new")]), "work");
    repos[2].git(&["update-ref", "-d", kept_ref]);
    assert_nothing_left(&home, &repos);
}

#[test]
fn an_undo_belongs_to_one_workflow_and_takes_no_other_arguments() {
    let home = Home::with_config("");
    let repo = home.repo("app");
    let mut server = Server::start(&home);
    let one = run(&mut server, &[&repo], "echo 1 > one", json!({}));
    let two = run(&mut server, &[&repo], "echo 2 > two", json!({}));
    let token = apply(&mut server, &one, json!({}))["items"][0]["undo"].clone();
    let mut refused = |arguments: Value| server.call("apply_changes", arguments).error();
    let error = refused(json!({"workflow_id": two["workflow_id"], "undo": [token]}));
    assert_eq!(
        (&error["field"], &error["kind"]),
        (&json!("undo"), &json!("invalid_argument"))
    );
    let hint = error["hint"].as_str().expect("a hint");
    assert!(
        hint.contains(one["workflow_id"].as_str().expect("an id")),
        "{hint}"
    );
    let error =
        refused(json!({"workflow_id": one["workflow_id"], "undo": [token], "how": "merge"}));
    assert_eq!(error["field"], "how");
    let both = json!([token, "undo-nonsense"]);
    let error = refused(json!({"workflow_id": one["workflow_id"], "undo": both}));
    assert_eq!(error["field"], "undo");
    assert!(repo.path().join("one").exists(), "nothing was undone");

    repo.write("one", "mine now\n");
    let stale = apply(&mut server, &one, json!({"undo": [token]}));
    let row = &stale["items"][0];
    assert_eq!(
        (&row["item"], &row["applied"], &row["undo"]),
        (&json!(0), &json!(true), &token)
    );
    assert_eq!(row["repo"], repo.text());
    assert_eq!(row["error"]["kind"], "conflict");
    assert_eq!(read(repo.path().join("one")), "mine now\n");
    repo.write("one", "1\n");
    assert_eq!(
        apply(&mut server, &one, json!({"undo": [token, token]}))["done_count"],
        1
    );
    assert!(!repo.path().join("one").exists());
}

#[test]
fn many_rows_come_in_pages_with_every_undo() {
    let home = Home::with_config("");
    let repos = home.many_repos(64);
    let repos: Vec<&GitRepo> = repos.iter().collect();
    let mut server = Server::start(&home);
    let ran = run(&mut server, &repos, "echo work > new", json!({}));
    let mut page = apply(&mut server, &ran, json!({}));
    assert_eq!(page["done_count"], 64, "{page:#}");
    let mut undo = Vec::new();
    loop {
        let rows = page["items"].as_array().expect("rows");
        undo.extend(rows.iter().map(|row| row["undo"].clone()));
        match &page["cursor"] {
            Value::Null => break,
            cursor => page = apply(&mut server, &ran, json!({"cursor": cursor})),
        }
    }
    assert_eq!(undo.len(), 64);
    assert!(undo.iter().all(Value::is_string));

    let mut seen = Vec::new();
    let mut page = clean(&mut server, json!({}));
    assert_eq!(page["removed_count"], 64);
    loop {
        let rows = page["removed"].as_array().expect("rows");
        seen.extend(rows.iter().map(|row| row["item"].clone()));
        match &page["cursor"] {
            Value::Null => break,
            cursor => page = clean(&mut server, json!({"cursor": cursor})),
        }
    }
    seen.sort_by_key(Value::as_u64);
    seen.dedup();
    assert_eq!(seen.len(), 64);
    assert_eq!(
        clean(&mut server, json!({"dry_run": false}))["removed_count"],
        64
    );
    assert_nothing_left(&home, &repos);
    let undone = apply(&mut server, &ran, json!({"undo": undo}));
    assert_eq!(undone["done_count"], 64);
    assert!(repos.iter().all(|repo| !repo.path().join("new").exists()));
}

#[test]
fn obstacles_are_named_and_nothing_is_touched() {
    let home = Home::with_config("");
    let dirty = home.repo("dirty");
    let moved_on = home.repo("moved-on");
    let mut server = Server::start(&home);
    let ran = run(
        &mut server,
        &[&dirty, &moved_on],
        "echo work > README.md",
        json!({}),
    );
    dirty.write("README.md", "mine\n");
    moved_on.write("README.md", "theirs\n");
    moved_on.commit("moved on");
    let applied = apply(&mut server, &ran, json!({}));
    assert_eq!(
        (&applied["done_count"], &applied["refused_count"]),
        (&json!(0), &json!(2))
    );
    assert_eq!(applied["items"][0]["overlaps_dirty"], json!(["README.md"]));
    assert_eq!(applied["items"][1]["conflicts"], json!(["README.md"]));
    assert_eq!(read(dirty.path().join("README.md")), "mine\n");
    let branch = apply(&mut server, &ran, json!({"how": "branch"}));
    assert_eq!(branch["done_count"], 2, "{branch:#}");
    assert_eq!(
        dirty.git(&["for-each-ref", "--format=x", "refs/heads/mahavishnu/*"]),
        "x"
    );
    let error = server
        .call(
            "apply_changes",
            json!({"workflow_id": ran["workflow_id"], "items": ["nothing"]}),
        )
        .error();
    assert_eq!(error["field"], "items");
}

#[test]
fn an_item_with_risks_is_applied_only_where_the_call_allows_them() {
    let home = Home::with_config("");
    let repo = home.repo("app");
    let other = home.repo("other");
    let mut server = Server::start(&home);
    let script = "echo work > new; case $PWD in */app) mkdir -p .github/workflows && \
                  echo 'on: push' > .github/workflows/ci.yml && ln -s /etc/hosts out;; esac";
    let ran = run(&mut server, &[&repo, &other], script, json!({}));
    let risks = json!([
        {"kind": "ci_definition", "path": ".github/workflows/ci.yml"},
        {"kind": "symlink_out", "path": "out"},
    ]);
    assert_eq!(ran["items"][0]["risks"], risks, "{ran:#}");
    assert_eq!(ran["items"][1]["risks"], Value::Null);
    let refused = apply(&mut server, &ran, json!({"allow_risks": ["symlink_out"]}));
    assert_eq!(
        (&refused["done_count"], &refused["refused_count"]),
        (&json!(1), &json!(1)),
        "{refused:#}"
    );
    let error = &refused["items"][0]["error"];
    assert_eq!(error["field"], "allow_risks");
    let text = error["message"].as_str().expect("text");
    assert!(
        text.contains("ci_definition") && !text.contains("symlink_out"),
        "{text}"
    );
    assert!(!repo.path().join("new").exists());
    let both = json!({"allow_risks": ["ci_definition", "symlink_out"]});
    assert_eq!(apply(&mut server, &ran, both)["done_count"], 1);
    assert_eq!(read(repo.path().join("new")), "work\n");
    let bad = json!({"workflow_id": ran["workflow_id"], "allow_risks": ["everything"]});
    let error = server.call("apply_changes", bad).error();
    assert!(
        error["allowed"].to_string().contains("wrote_outside"),
        "{error:#}"
    );
}

#[test]
fn a_call_of_apply_changes_exits_with_what_was_done() {
    let home = Home::with_config("");
    let repo = home.repo("app");
    let mut server = Server::start(&home);
    let ran = run(&mut server, &[&repo], "echo work > new", json!({}));
    let id = ran["workflow_id"].as_str().expect("an id").to_owned();
    drop(server);
    let call = |more: &[&str]| {
        let output = home
            .command()
            .args(["call", "apply_changes", "--workflow-id", &id])
            .args(more)
            .output()
            .expect("it starts");
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), answer)
    };
    let (status, checked) = call(&["--check-only"]);
    assert_eq!(
        (status, &checked["items"][0]["applied"]),
        (Some(0), &json!(false)),
        "{checked:#}"
    );
    let (status, applied) = call(&[]);
    assert_eq!(status, Some(0), "{applied:#}");
    let token = applied["items"][0]["undo"]
        .as_str()
        .expect("a token")
        .to_owned();
    repo.write("new", "mine now\n");
    let (status, refused) = call(&["--undo", &token]);
    assert_eq!(status, Some(1), "{refused:#}");
    repo.write("new", "work\n");
    let (status, undone) = call(&["--undo", &token]);
    assert_eq!(
        (status, &undone["items"][0]["undone"]),
        (Some(0), &json!(true)),
        "{undone:#}"
    );
}

#[test]
fn list_repos_names_the_repository_around_a_root() {
    let home = Home::new();
    let repo = home.repo("app");
    repo.write("src/x", "x");
    let mut command = home.command();
    command.current_dir(repo.path().join("src"));
    let mut server = Server::start_command(command);
    let listed = server.call("list_repos", json!({})).ok();
    assert_eq!(listed["total"], 0, "{listed:#}");
    let note = listed["note"].as_str().expect("a note");
    assert!(note.contains(&repo.text()), "{note}");
}
