//! The workflow engine on the real server: real processes and repositories, over stdio.
//!
//! Workers wait for files that the tests make, so that a test decides what runs when.

mod cancel;
mod causes;
mod ends;
mod limits;
mod lines;
mod neighbours;
mod plans;
mod resume;
mod routing;
mod stops;
mod waiting;

use crate::support::HANG;
use crate::support::processes::wait_until;
use crate::support::server::{Home, Server};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A home with a pool `p` of `slots` that runs any program.
fn home(slots: u32) -> Home {
    Home::with_config(&config(slots, ""))
}

fn config(slots: u32, more: &str) -> String {
    format!(
        "{more}\n[[pools]]\nname = \"p\"\nworker = \"command\"\nmax_workers = {slots}\n\
         [workers.command]\nallow = [\"*\"]\n"
    )
}

/// A folder through which a test holds workers and sees what they do.
struct Gate(PathBuf);

impl Gate {
    fn new(home: &Home) -> Self {
        Self::named(home, "gate")
    }

    fn named(home: &Home, name: &str) -> Self {
        let dir = home.path().join(name);
        std::fs::create_dir(&dir).expect("it is new");
        Self(dir)
    }

    /// A command that notes its process and waits until it is let through.
    fn command(&self) -> Value {
        self.script("")
    }

    /// The same; then does what `then` says.
    fn script(&self, then: &str) -> Value {
        let script = format!(
            "name=$(basename \"$PWD\"); echo $$ >> \"$0/ran-$name\"; \
             until [ -e \"$0/open\" ] || [ -e \"$0/open-$name\" ]; do sleep 0.03; done; {then}"
        );
        json!(["sh", "-c", script, self.0])
    }

    /// Lets all through, those to come too.
    fn open(&self) {
        self.touch("open");
    }

    /// Lets those in this repository through.
    fn open_for(&self, repo: &str) {
        self.touch(&format!("open-{repo}"));
    }

    fn touch(&self, name: &str) {
        std::fs::write(self.0.join(name), "").expect("it can be written");
    }

    /// Returns the processes that ran in this repository, in order.
    fn ran(&self, repo: &str) -> Vec<u32> {
        let text = std::fs::read_to_string(self.0.join(format!("ran-{repo}"))).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Waits until a worker has begun in each of these repositories.
    #[track_caller]
    fn wait_for(&self, repos: &[&str]) {
        let began = wait_until(HANG, || repos.iter().all(|repo| !self.ran(repo).is_empty()));
        assert!(began, "no worker began in one of {repos:?}");
    }
}

/// Returns whether a process lives; one that nobody has waited for yet does not.
fn lives(pid: u32) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline"));
    arguments.is_ok_and(|arguments| !arguments.is_empty())
}

/// Starts a workflow over these repositories and does not wait for it; returns its id.
#[track_caller]
fn start(server: &mut Server, repos: &[&str], command: &Value, more: Value) -> Value {
    let arguments = merged(
        json!({"repos": repos, "command": command, "wait_s": 0}),
        more,
    );
    let begun = server.call("execute_workflow_parallel", arguments).ok();
    begun["workflow_id"].clone()
}

fn merged(mut arguments: Value, more: Value) -> Value {
    for (key, value) in more.as_object().expect("an object") {
        arguments[key] = value.clone();
    }
    arguments
}

/// Returns a workflow with its items as it is now.
#[track_caller]
fn look(server: &mut Server, workflow: &Value) -> Value {
    let arguments = json!({"workflow_id": workflow, "detail": "full"});
    server.call("get_workflow", arguments).ok()
}

/// Looks at a workflow until `condition` holds of it.
#[track_caller]
fn until(server: &mut Server, workflow: &Value, condition: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let held = wait_until(HANG, || {
        last = look(server, workflow);
        condition(&last)
    });
    assert!(held, "it stays so: {last:#}");
    last
}

/// Returns the items' states, in order.
fn states(workflow: &Value) -> Vec<&str> {
    let items = workflow["items"].as_array().expect("items");
    items
        .iter()
        .map(|item| item["status"].as_str().expect("a status"))
        .collect()
}

/// Makes a folder that git takes for a repository without commits: much cheaper than a real one.
fn bare_bones(parent: &Path, name: &str) {
    let git = parent.join(name).join(".git");
    for folder in ["objects", "refs/heads"] {
        std::fs::create_dir_all(git.join(folder)).expect("it can be made");
    }
    std::fs::write(git.join("HEAD"), "ref: refs/heads/main\n").expect("it can be written");
}

/// Kills the server as if it had crashed.
fn crash(server: &mut Server) {
    server.signal("KILL");
    let _ended = server.wait_end();
}
