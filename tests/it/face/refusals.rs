//! Bad input through the real tools: the field, what is allowed, the next step; nothing started, no hang.

use super::*;
use crate::support::repos::GitRepo;
use crate::support::server::{Era, Link};
use std::os::unix::fs::symlink;
use std::path::Path;

/// A refusal: the tool and its arguments, the error's kind and field, and a part of what it allows or advises.
type Case = (&'static str, Value, &'static str, &'static str, String);

/// Returns a server over one pool that runs `touch` only, two repositories, and what is not one.
fn world() -> (Home, Server) {
    let home = Home::with_config(
        "[limits]\nmax_items = 3\n[workers.run]\nkind = \"command\"\nallow = [\"touch\"]\n\
         [[pools]]\nname = \"local\"\nworker = \"run\"\nmax_workers = 2\nlabels = [\"cpu\"]\n",
    );
    home.many_repos(2);
    std::fs::create_dir(home.repos().join("plain")).expect("it can be made");
    GitRepo::new(home.path(), "outside");
    symlink(home.path().join("outside"), home.repos().join("link")).expect("it can be made");
    let server = Server::start(&home);
    (home, server)
}

#[track_caller]
fn check(server: &mut Server, case: Case) {
    let (tool, arguments, kind, field, part) = case;
    let shown: String = format!("{tool} {arguments}").chars().take(200).collect();
    let answer = server.call(tool, arguments);
    let text = answer.result["content"][0]["text"].as_str().expect("text");
    assert!(text.len() <= 9_000, "{shown}: {} bytes", text.len());
    let error = answer.error();
    assert_eq!(error["kind"], kind, "{shown}: {error:#}");
    assert_eq!(error["field"], field, "{shown}: {error:#}");
    let told = |name: &str| {
        let text = error[name].as_str().unwrap_or_default().to_owned();
        assert!(!text.is_empty(), "{shown} has no {name}: {error:#}");
        text
    };
    let (message, allowed, hint) = (told("message"), told("allowed"), told("hint"));
    assert!(
        [message, allowed, hint]
            .iter()
            .any(|text| text.contains(&part)),
        "{shown}: {part} in {error:#}"
    );
}

/// Asserts that nothing was journaled, is running or has written anything.
#[track_caller]
fn assert_untouched(home: &Home, server: &mut Server) {
    let listed = server.call("get_workflow", json!({})).ok();
    assert_eq!(listed["workflows"], json!([]), "{listed:#}");
    let local = row(server, "local");
    assert_eq!(local["in_flight"], 0, "{local:#}");
    assert_eq!(local["queued"], 0, "{local:#}");
    assert!(!home.state().join("runs").exists(), "nothing was logged");
    for repo in ["r0", "r1", "plain"] {
        assert!(!home.repos().join(repo).join("started").exists(), "{repo}");
    }
    assert!(!home.path().join("outside/started").exists());
}

#[test]
fn forbidden_repositories_are_refused_with_the_next_step() {
    let (home, mut server) = world();
    let outside = home.path().join("outside");
    let spec = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let cases = [
        (
            spec(&home.repos().join("plain")),
            "invalid_argument",
            "a git repository",
        ),
        (spec(&outside), "forbidden", "roots"),
        (spec(&home.repos().join("link")), "forbidden", "roots"),
        (spec(&home.repos().join("../outside")), "forbidden", "roots"),
        ("../outside".to_owned(), "forbidden", "roots"),
        ("/".to_owned(), "forbidden", "roots"),
        ("r00".to_owned(), "not_found", "did you mean \"r0\"?"),
        (
            spec(&home.repos().join("r1/no/such")),
            "not_found",
            "list_repos",
        ),
    ];
    for (repo, kind, part) in cases {
        let command = json!(["touch", "started"]);
        let one = json!({"repo": repo, "command": command});
        check(
            &mut server,
            ("route_least_loaded", one, kind, "repo", part.to_owned()),
        );
        let many = json!({"repos": ["r0", repo], "command": command});
        check(
            &mut server,
            (
                "execute_workflow_parallel",
                many,
                kind,
                "repos",
                part.to_owned(),
            ),
        );
    }
    assert_untouched(&home, &mut server);
}

#[test]
fn bad_arguments_of_a_start_are_refused_before_anything_starts() {
    let (home, mut server) = world();
    let many: Vec<String> = (0..10_000).map(|at| format!("repository-{at}")).collect();
    let cases = [
        (
            json!({"pools": ["locl"]}),
            "pools",
            "did you mean \"local\"?",
        ),
        (json!({"labels": ["gpu"]}), "labels", "list_pools"),
        (
            json!({"workers": ["rum"]}),
            "workers",
            "did you mean \"run\"?",
        ),
        (json!({"repos": []}), "repos", "at least one"),
        (json!({"repos": many}), "repos", "list_repos"),
        (
            json!({"repos": ["r0", "r1"], "repeat": 2}),
            "repos",
            "max_items",
        ),
        (json!({"repos": {"r0": 1}}), "repos", "a list"),
        (json!({"repos": [["r0"]]}), "repos[0]", "a list"),
        (json!({"repo": "r0"}), "repo", "did you mean `repos`?"),
        (
            json!({"command": ["npm test"]}),
            "command",
            "[\"npm\",\"test\"]",
        ),
        (
            json!({"command": "touch started"}),
            "command",
            "[\"touch\",\"started\"]",
        ),
        (json!({"command": []}), "command", "`task`"),
        (json!({"command": [""]}), "command", "program"),
        (json!({"command": ["touch", "\0"]}), "command", "NUL"),
        (json!({"command": ["rm", "-rf", "."]}), "command", "touch"),
        (json!({"task": "too"}), "task", "either"),
        (
            json!({"setup": ["touch a && touch b"]}),
            "setup[0]",
            "[\"touch a\",\"touch b\"]",
        ),
        (json!({"verify": ["make"]}), "verify", "touch"),
        (json!({"verify": ["touch 'open"]}), "verify[0]", "split"),
        (
            json!({"isolation": "worktre"}),
            "isolation",
            "did you mean `worktree`?",
        ),
        (json!({"base_ref": "--upload-pack=x"}), "base_ref", "head"),
        (json!({"retries": -1}), "retries", "0 to 10"),
        (json!({"retries": 11}), "retries", "0 to 10"),
        (json!({"retries": i64::MAX}), "retries", "0 to 10"),
        (json!({"retries": 1e30}), "retries", "a whole number"),
        (json!({"retries": "three"}), "retries", "a whole number"),
        (json!({"repeat": 0}), "repeat", "1 to 20"),
        (json!({"max_parallel": 0}), "max_parallel", "1 to"),
        (json!({"max_failures": -3}), "max_failures", "1 to"),
        (json!({"timeout_s": 0}), "timeout_s", "seconds"),
        (json!({"timeout_s": -1}), "timeout_s", "seconds"),
        (json!({"stall_s": 1e300}), "stall_s", "seconds"),
        (json!({"run_timeout_s": true}), "run_timeout_s", "a number"),
        (json!({"wait_s": -5}), "wait_s", "0 to"),
        (json!({"dry_run": 1}), "dry_run", "true or false"),
        (
            json!({"idempotency_key": ""}),
            "idempotency_key",
            "1 to 200",
        ),
        (json!({"model": "large"}), "model", "leave `model` out"),
        (json!({"retrys": 1}), "retrys", "did you mean `retries`?"),
        (json!({"labels": [1]}), "labels[0]", "a text"),
        (
            json!({"pools": ["Not A Name"]}),
            "pools[0]",
            "beginning with a letter",
        ),
    ];
    for (more, field, part) in cases {
        let mut arguments = json!({"repos": ["r0"], "command": ["touch", "started"]});
        for (name, value) in more.as_object().expect("an object") {
            arguments[name] = value.clone();
        }
        let kind = match (field, part) {
            ("repos", "list_repos") => "not_found",
            ("command" | "verify", "touch") | ("setup[0]", _) => "forbidden",
            _ => "invalid_argument",
        };
        let case = (
            "execute_workflow_parallel",
            arguments,
            kind,
            field,
            part.to_owned(),
        );
        check(&mut server, case);
    }
    assert_untouched(&home, &mut server);
}

#[test]
fn bad_arguments_of_the_other_tools_are_refused_alike() {
    let (home, mut server) = world();
    let nobody = "01M8ZZZZZZZZZZZZZZZZZZZZZZ";
    let cases: [(&str, Value, &str, &str, &str); 24] = [
        (
            "list_pools",
            json!({"pool": []}),
            "invalid_argument",
            "pool",
            "`pools`",
        ),
        (
            "list_pools",
            json!({"pools": ["lokal"]}),
            "invalid_argument",
            "pools",
            "\"local\"",
        ),
        (
            "list_pools",
            json!({"detail": "ful"}),
            "invalid_argument",
            "detail",
            "`full`",
        ),
        (
            "list_repos",
            json!({"match": ["["]}),
            "invalid_argument",
            "match",
            "glob",
        ),
        ("set_pool", json!({}), "invalid_argument", "name", "a text"),
        (
            "set_pool",
            json!({"name": "n0123456789"}),
            "invalid_argument",
            "name",
            "ten digits",
        ),
        (
            "set_pool",
            json!({"name": "new"}),
            "invalid_argument",
            "worker",
            "run",
        ),
        (
            "set_pool",
            json!({"name": "new", "worker": "rum"}),
            "invalid_argument",
            "worker",
            "\"run\"",
        ),
        (
            "set_pool",
            json!({"name": "new", "worker": "run"}),
            "invalid_argument",
            "max_workers",
            "1 to 10000",
        ),
        (
            "set_pool",
            json!({"name": "local", "max_workers": 0}),
            "invalid_argument",
            "max_workers",
            "1 to 10000",
        ),
        (
            "set_pool",
            json!({"name": "local", "max_workers": -1}),
            "invalid_argument",
            "max_workers",
            "1 to 10000",
        ),
        (
            "set_pool",
            json!({"name": "local", "max_workers": 10_001}),
            "invalid_argument",
            "max_workers",
            "1 to 10000",
        ),
        (
            "set_pool",
            json!({"name": "local", "worker": "other"}),
            "conflict",
            "worker",
            "close_pool",
        ),
        (
            "set_pool",
            json!({"name": "local", "labels": ["a b"]}),
            "invalid_argument",
            "labels",
            "blanks",
        ),
        (
            "close_pool",
            json!({"name": "lokal"}),
            "invalid_argument",
            "name",
            "\"local\"",
        ),
        (
            "close_pool",
            json!({"name": "local", "grace_s": 31}),
            "invalid_argument",
            "grace_s",
            "0 to 30",
        ),
        (
            "close_pool",
            json!({"name": "local", "grace_s": -0.5}),
            "invalid_argument",
            "grace_s",
            "0 to 30",
        ),
        (
            "get_workflow",
            json!({"workflow_id": "x"}),
            "invalid_argument",
            "workflow_id",
            "26 letters",
        ),
        (
            "get_workflow",
            json!({"since": "soon"}),
            "invalid_argument",
            "since",
            "7d",
        ),
        (
            "get_workflow",
            json!({"cursor": "x"}),
            "invalid_argument",
            "cursor",
            "cursor",
        ),
        (
            "cancel_workflow",
            json!({"workflow_id": nobody, "grace_s": 99}),
            "invalid_argument",
            "grace_s",
            "0 to 30",
        ),
        (
            "resume_workflow",
            json!({"workflow_id": nobody, "from": "old"}),
            "invalid_argument",
            "from",
            "fresh",
        ),
        (
            "cross_pool_search",
            json!({"limit": 0}),
            "invalid_argument",
            "limit",
            "1 to 100",
        ),
        (
            "check_health",
            json!({"probe": "all"}),
            "invalid_argument",
            "probe",
            "workers",
        ),
    ];
    for (tool, arguments, kind, field, part) in cases {
        check(&mut server, (tool, arguments, kind, field, part.to_owned()));
    }
    for tool in [
        "get_workflow",
        "read_output",
        "cancel_workflow",
        "resume_workflow",
    ] {
        let error = server.call(tool, json!({"workflow_id": nobody})).error();
        assert_eq!(error["kind"], "not_found", "{tool}: {error:#}");
        assert_eq!(error["field"], "workflow_id", "{tool}: {error:#}");
        assert!(error["hint"].is_string(), "{tool}: {error:#}");
    }
    let local = row(&mut server, "local");
    assert_eq!(local["max_workers"], 2, "{local:#}");
    assert_eq!(local["labels"], json!(["cpu"]));
    assert_eq!(server.call("list_pools", json!({})).ok()["total"], 1);
    assert_untouched(&home, &mut server);
}

#[test]
fn the_root_folder_and_home_are_refused_as_roots() {
    for folder in ["/", "home"] {
        let home = Home::new();
        let folder = home.path().join(folder);
        let mut command = home.command();
        command.current_dir(&folder);
        let mut server = Server::raw(command, Link::Pipes, Era::Initialize);
        server.greet();
        for (tool, arguments) in [
            ("list_repos", json!({})),
            (
                "execute_workflow_parallel",
                json!({"repos": ["*"], "command": ["touch", "started"]}),
            ),
            (
                "route_least_loaded",
                json!({"repo": home.path().join("home"), "command": ["touch", "started"]}),
            ),
        ] {
            let error = server.call(tool, arguments).error();
            assert_eq!(error["kind"], "forbidden", "{tool}: {error:#}");
            let hint = error["hint"].as_str().unwrap_or_default();
            assert!(hint.contains("roots"), "{tool} in {folder:?}: {error:#}");
        }
        assert!(!home.path().join("home/started").exists());
        let health = server.call("check_health", json!({})).ok();
        assert_eq!(health["status"], "fault", "{health:#}");
    }
}

#[test]
fn a_typo_in_the_config_stops_the_server_with_the_nearest_key() {
    let cases = [
        (
            "[[pools]]\nname = \"a\"\nworker = \"command\"\nmax_worker = 3\n",
            "max_workers",
        ),
        (
            "[[pools]]\nname = \"a\"\nworker = \"comand\"\nmax_workers = 3\n",
            "did you mean \"command\"?",
        ),
        ("[limit]\nmax_items = 3\n", "limits"),
        ("[workers.run]\nallows = [\"*\"]\n", "allow"),
        ("[limits]\nmax_items = -3\n", "1 to 100000"),
        (
            "[[pools]]\nname = \"a\"\nworker = \"claude\"\nmax_workers = 10001\n",
            "1 to 10000",
        ),
    ];
    for (text, part) in cases {
        let home = Home::with_config(text);
        for arguments in [&["serve"][..], &["call", "list_pools"][..]] {
            let output = home.command().args(arguments).output().expect("it runs");
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
            assert!(!output.status.success(), "{arguments:?}: {stderr}");
            assert!(stderr.contains(part), "{part}: {stderr}");
            assert!(stderr.contains("config.toml"), "which file: {stderr}");
        }
        assert!(!home.state().exists(), "nothing was begun");
    }
}
