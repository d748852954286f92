//! The environment that programs meet: variables, PATH, open files.

use crate::support::binary;
use crate::support::server::{Era, Home, Link, Server};
use serde_json::{Value, json};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Starts the server of `home` with more variables.
fn start(home: &Home, variables: &[(&str, &str)]) -> Server {
    let mut command = home.command();
    command.envs(variables.iter().copied());
    Server::start_command(command)
}

/// Runs one item on the repository `r` and returns it in full.
fn run(server: &mut Server, arguments: Value) -> Value {
    let mut whole = json!({"repo": "r", "wait_s": 30});
    for (name, value) in arguments.as_object().expect("an object") {
        whole[name] = value.clone();
    }
    let started = server.call("route_least_loaded", whole).ok();
    server.wait_done(&started["workflow_id"]);
    let id = json!({"workflow_id": started["workflow_id"], "detail": "full"});
    server.call("get_workflow", id).ok()["items"][0].clone()
}

fn write_program(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, Permissions::from_mode(0o755)).expect("it is ours");
}

/// Returns the detail and the status of a check.
fn check(server: &mut Server, name: &str) -> (String, String) {
    let health = server.call("check_health", json!({})).ok();
    let checks = health["checks"].as_array().expect("a list").clone();
    let found = checks.iter().find(|check| check["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no check {name}: {health:#}"));
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("detail"), text("status"))
}

const OUTSIDE: [(&str, &str); 10] = [
    ("SSH_AUTH_SOCK", "/run/agent"),
    ("GPG_TTY", "/dev/pts/7"),
    ("HTTPS_PROXY", "http://proxy:1"),
    ("https_proxy", "http://proxy:2"),
    ("no_proxy", "localhost"),
    ("NODE_EXTRA_CA_CERTS", "/etc/ca.pem"),
    ("DOCKER_HOST", "unix:///run/docker.sock"),
    ("KUBECONFIG", "/home/x/.kube/config"),
    ("AWS_SECRET_ACCESS_KEY", "secret-value"),
    ("CLAUDECODE", "1"),
];

#[test]
fn command_programs_reach_agents_proxies_and_services() {
    let home = Home::with_config("[workers.command]\nallow = [\"*\"]\n");
    home.repo("r");
    let mut server = start(&home, &OUTSIDE);
    let item = run(&mut server, json!({"command": ["env"]}));
    let output = item["output_tail"].as_str().expect("the environment");
    for (name, value) in &OUTSIDE[..8] {
        assert!(
            output.contains(&format!("{name}={value}\n")),
            "{name}: {output}"
        );
    }
    assert!(output.contains("LANG=C.UTF-8\n"), "{output}");
    for name in ["AWS_SECRET_ACCESS_KEY", "CLAUDECODE"] {
        assert!(!output.contains(name), "{name}: {output}");
    }
}

#[test]
fn agent_programs_get_agents_and_proxies_by_env_pass_only() {
    let home = Home::with_config(
        r#"
[[pools]]
name = "agents"
worker = "claude"
max_workers = 1
[workers.claude]
command = ["sh", "-c", "cat >/dev/null; env"]
env_pass = ["GPG_TTY"]
"#,
    );
    home.repo("r");
    let mut server = start(
        &home,
        &[&OUTSIDE[..], &[("LC_CTYPE", "de_DE.UTF-8")]].concat(),
    );
    let item = run(&mut server, json!({"task": "x"}));
    let output = item["output_tail"].as_str().expect("the environment");
    assert!(output.contains("GPG_TTY=/dev/pts/7\n"), "{output}");
    assert!(
        output.contains("LC_CTYPE=de_DE.UTF-8\n") && !output.contains("LANG="),
        "{output}"
    );
    for name in [
        "SSH_AUTH_SOCK",
        "PROXY",
        "proxy",
        "DOCKER_HOST",
        "KUBECONFIG",
    ] {
        assert!(!output.contains(name), "{name}: {output}");
    }
}

#[test]
fn setup_and_verify_have_the_kinds_environment_and_path() {
    let home = Home::new();
    let tools = home.path().join("tools");
    write_program(
        &tools.join("mytool"),
        "#!/bin/sh\nprintenv FLAVOUR && printenv PASSED\n",
    );
    home.configure(&format!(
        "[workers.command]\nallow = [\"*\"]\nenv_pass = [\"PASSED\"]\n\
         env = {{ FLAVOUR = \"sweet\", PATH = \"{}:/usr/bin:/bin\" }}\n",
        tools.display()
    ));
    home.repo("r");
    let mut server = start(&home, &[("PASSED", "on")]);
    let arguments = json!({"command": ["mytool"], "setup": ["mytool"], "verify": ["mytool"]});
    let item = run(&mut server, arguments);
    assert_eq!(item["status"], "succeeded", "{item:#}");
    assert_eq!(item["output_tail"], "sweet\non\n");
    assert_eq!(item["verify"]["status"], "passed", "{item:#}");
}

#[test]
fn programs_are_found_on_the_login_shells_path_and_in_usual_folders() {
    let home = Home::with_config(
        "[workers.command]\nallow = [\"logintool\", \"usualtool\", \"nowheretool\"]\n",
    );
    let login = home.path().join("login");
    write_program(&login.join("logintool"), "#!/bin/sh\necho \"$PATH\"\n");
    write_program(
        &home.path().join("home/.cargo/bin/usualtool"),
        "#!/bin/sh\necho usual\n",
    );
    let shell = home.path().join("shell");
    let start_files = format!(
        "#!/bin/sh\necho Welcome back\nPATH=\"$PATH:{}\"; export PATH\nshift 3; exec /bin/sh -c \"$1\"\n",
        login.display()
    );
    write_program(&shell, &start_files);
    home.repo("r");
    let mut server = start(&home, &[("SHELL", shell.to_str().expect("UTF-8"))]);
    let item = run(&mut server, json!({"command": ["logintool"]}));
    let path = item["output_tail"].as_str().expect("a PATH");
    assert!(path.contains(login.to_str().expect("UTF-8")), "{item:#}");
    assert!(path.contains("/.cargo/bin"), "{path}");
    let item = run(&mut server, json!({"command": ["usualtool"]}));
    assert_eq!(item["output_tail"], "usual\n", "{item:#}");
    let (detail, status) = check(&mut server, "programs");
    assert!(
        detail.contains("login/logintool (the login shell's PATH)"),
        "{detail}"
    );
    assert!(
        detail.contains(".cargo/bin/usualtool (a usual folder of tools)"),
        "{detail}"
    );
    assert!(detail.contains("nowheretool: not found"), "{detail}");
    assert_eq!(status, "info");
    assert!(check(&mut server, "git").0.ends_with("(the server's PATH)"));
}

#[test]
fn a_login_shell_that_hangs_holds_nothing_up() {
    let home = Home::with_config("[workers.command]\nallow = [\"*\"]\n");
    let shell = home.path().join("shell");
    write_program(&shell, "#!/bin/sh\nsleep 1000\n");
    home.repo("r");
    let mut server = start(&home, &[("SHELL", shell.to_str().expect("UTF-8"))]);
    let item = run(&mut server, json!({"command": ["true"]}));
    assert_eq!(item["status"], "succeeded", "{item:#}");
    let item = run(&mut server, json!({"command": ["no-such-program"]}));
    assert_eq!(item["error"]["kind"], "not_found", "{item:#}");
    let shells = server.marker.living();
    assert!(
        !shells.iter().any(|(_, line)| line.contains("sleep 1000")),
        "{shells:?}"
    );
}

#[test]
fn slots_beyond_the_limit_of_open_files_wait() {
    let home = Home::with_config(
        "[[pools]]\nname = \"many\"\nworker = \"command\"\nmax_workers = 200\n[workers.command]\nallow = [\"*\"]\n",
    );
    home.many_repos(200);
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 256; exec \"$0\""])
        .arg(binary());
    home.dress(&mut command);
    let mut server = Server::raw(command, Link::Pipes, Era::Initialize);
    server.greet();
    let started = server.call(
        "execute_workflow_parallel",
        json!({"repos": ["r*"], "command": ["sleep", "0.2"], "timeout_s": 60, "wait_s": 0}),
    );
    let done = server.wait_done(&started.ok()["workflow_id"]);
    assert_eq!(done["counts"]["succeeded"], 200, "{done:#}");
    let (detail, status) = check(&mut server, "open files");
    assert_eq!(status, "warning", "{detail}");
    assert!(
        detail.contains("256 open files") && detail.contains("200 slots"),
        "{detail}"
    );
}

#[test]
fn git_filters_and_server_programs_are_found_like_any_program() {
    let home = Home::new();
    let usual = home.path().join("home/.cargo/bin");
    write_program(&usual.join("shout"), "#!/bin/sh\ntr a-z A-Z\n");
    let faulty = binary().with_file_name("examples").join("faulty_server");
    let start = format!("#!/bin/sh\nexec {:?} serve\n", faulty);
    write_program(&usual.join("peertool"), &start);
    home.configure(
        r#"
[[pools]]
name = "local"
worker = "command"
max_workers = 1
[[pools]]
name = "peer"
worker = "peer"
max_workers = 1
[workers.command]
allow = ["*"]
[workers.peer]
kind = "mcp"
server.command = ["peertool"]
tool = "execute_workflow_parallel"
"#,
    );
    let repo = home.repo("r");
    repo.write(".gitattributes", "loud filter=shout\n");
    repo.write("loud", "text\n");
    repo.commit("A file with a filter");
    repo.git(&["config", "filter.shout.smudge", "shout"]);
    let mut server = Server::start(&home);
    let row = super::pool_row(&mut server, "peer");
    assert_eq!(row["health"], "healthy", "{row:#}");
    let arguments = json!({
        "command": ["cat", "loud"], "isolation": "worktree", "pools": ["local"],
    });
    let item = run(&mut server, arguments);
    assert_eq!(item["output_tail"], "TEXT\n", "{item:#}");
}
