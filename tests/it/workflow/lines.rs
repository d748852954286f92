//! The lines of `setup` and `verify`: argvs, scripts for a shell, and what cannot start.

use super::*;

/// A repository with a script that succeeds and one that exits 7.
fn scripts(home: &Home) -> PathBuf {
    let repo = home.repo("r0");
    repo.write("ok.sh", "exit 0\n");
    repo.write("bad.sh", "exit 7\n");
    repo.write("sub/here", "");
    repo.commit("scripts");
    repo.path().to_owned()
}

/// Runs `true` in `r0` with these lines in `verify` and returns the item.
fn verified(server: &mut Server, lines: &[&str]) -> Value {
    let arguments = json!({"repo": "r0", "command": ["true"], "verify": lines, "wait_s": 45});
    let done = server.call("route_least_loaded", arguments).ok();
    done["items"][0].clone()
}

#[test]
fn two_commands_in_one_line_pass_only_if_both_do() {
    let home = home(1);
    scripts(&home);
    let mut server = Server::start(&home);
    for line in [
        "sh ok.sh\nsh bad.sh",
        "sh bad.sh\nsh ok.sh",
        "sh ok.sh && sh bad.sh",
        "sh bad.sh; sh ok.sh",
    ] {
        let item = verified(&mut server, &[line]);
        assert_eq!(item["status"], "failed", "{line:?}: {item:#}");
        let verify = (&item["verify"]["status"], &item["verify"]["exit_code"]);
        assert_eq!(verify, (&json!("failed"), &json!(7)), "{line:?}: {item:#}");
    }
    let item = verified(&mut server, &["sh ok.sh\n\nsh ok.sh\n"]);
    assert_eq!(item["verify"]["status"], "passed", "{item:#}");
}

#[test]
fn shell_syntax_means_what_it_means_in_a_shell() {
    let home = home(1);
    scripts(&home);
    let mut server = Server::start(&home);
    for (line, passes) in [
        ("sh bad.sh || true", true),
        ("printf a | grep -q b", false),
        ("printf a > out && grep -q a out", true),
        ("grep -q nothing < ok.sh", false),
        ("sh bad.sh & wait $!", false),
        ("test \"`cat ok.sh`\" = 'exit 0'", true),
        ("test \"$(cat ok.sh)\" = other", false),
        ("test \"$NOT_SET_ANYWHERE\" = ''", false),
        ("test $HOME = '$HOME'", false),
        ("test '$HOME' = '$HOME'", true),
        ("ls *.sh", true),
        ("ls *.rs", false),
        ("ls ?k.sh", true),
        ("test -d ~", true),
        ("A=1 sh -c 'test \"$A\" = 1'", true),
        ("cd sub && test -e here", true),
        ("cd missing", false),
        ("! grep -q nothing ok.sh", true),
        ("! grep -q exit ok.sh", false),
        ("if test -e bad.sh; then exit 3; fi", false),
        ("(exit 4)", false),
    ] {
        let item = verified(&mut server, &[line]);
        let status = if passes { "passed" } else { "failed" };
        assert_eq!(item["verify"]["status"], status, "{line:?}: {item:#}");
    }
}

#[test]
fn a_script_is_refused_before_anything_starts_where_sh_is_not_allowed() {
    let home = Home::with_config(
        "[[pools]]\nname = \"p\"\nworker = \"command\"\nmax_workers = 1\n\
         [workers.command]\nallow = [\"touch\", \"true\"]\n",
    );
    let repo = scripts(&home);
    let mut server = Server::start(&home);
    for (line, hint) in [
        ("true\ntrue", "verify: [\"true\",\"true\"]"),
        ("true && true", "verify: [\"true\",\"true\"]"),
        ("true | true", "allow"),
        ("A=1 true", "allow"),
        ("cd sub && true", "allow"),
        ("! true", "allow"),
        ("touch $HOME/x", "allow"),
    ] {
        let arguments =
            json!({"repo": "r0", "command": ["touch", "started"], "verify": ["true", line]});
        let refused = server.call("route_least_loaded", arguments).error();
        let what = (&refused["kind"], &refused["field"]);
        assert_eq!(
            what,
            (&json!("forbidden"), &json!("verify[1]")),
            "{refused:#}"
        );
        assert!(
            refused["hint"]
                .as_str()
                .is_some_and(|text| text.contains(hint)),
            "{line:?}: {refused:#}"
        );
    }
    let listed = server.call("get_workflow", json!({})).ok();
    assert_eq!(listed["workflows"], json!([]));
    assert!(!repo.join("started").exists());
}

#[test]
fn a_command_that_is_a_line_is_refused_with_the_form_that_works() {
    let home = home(1);
    let repo = scripts(&home);
    let mut server = Server::start(&home);
    for command in [
        json!(["touch a && sh bad.sh"]),
        json!(["touch", "a", "&&", "sh", "bad.sh"]),
    ] {
        let arguments = json!({"repo": "r0", "command": command, "wait_s": 45});
        let refused = server.call("route_least_loaded", arguments).error();
        assert_eq!(refused["field"], "command", "{refused:#}");
        let hint = refused["hint"].as_str().expect("a hint");
        let form = hint.strip_prefix("write it as ").expect("a form");
        assert!(!repo.join("a").exists());
        let form: Value = serde_json::from_str(form).expect("an argv");
        let arguments = json!({"repo": "r0", "command": form, "wait_s": 45});
        let done = server.call("route_least_loaded", arguments).ok();
        assert_eq!(done["items"][0]["exit_code"], 7, "{done:#}");
        std::fs::remove_file(repo.join("a")).expect("it ran this time");
    }
}

#[test]
fn a_program_that_is_nowhere_is_refused_before_the_work() {
    let home = home(1);
    let repo = scripts(&home);
    let mut server = Server::start(&home);
    for field in ["setup", "verify"] {
        let arguments =
            json!({"repo": "r0", "command": ["touch", "started"], field: ["no-such-program x"]});
        let refused = server.call("route_least_loaded", arguments).error();
        assert_eq!(refused["field"], format!("{field}[0]"), "{refused:#}");
        assert!(
            refused["message"]
                .as_str()
                .is_some_and(|text| text.contains("no-such-program"))
        );
    }
    // Here `setup` might have installed it, so that it is looked for after that.
    let arguments = json!({"repo": "r0", "command": ["touch", "started"], "setup": ["true"],
        "verify": ["no-such-program x"], "wait_s": 45});
    let done = server.call("route_least_loaded", arguments).ok();
    assert_eq!(done["failures"][0]["stage"], "start", "{done:#}");
    assert!(!repo.join("started").exists(), "the work was not begun");
    // What the work itself makes may be run by `verify`.
    let arguments = json!({"repo": "r0", "verify": ["./made.sh"], "wait_s": 45,
        "command": ["sh", "-c", "printf '#!/bin/sh\\n' > made.sh; chmod +x made.sh"]});
    let done = server.call("route_least_loaded", arguments).ok();
    assert_eq!(done["items"][0]["verify"]["status"], "passed", "{done:#}");
}
