//! An item in a worktree of a large repository, beside the git commands that it cannot do without.
//!
//! Two figures: from the call to the start of the program, and the whole, with the commit of the change and the removal of
//! worktree and branch. The repository is generated: 80,000 small files in 800 folders, one commit.

use crate::client::{Client, Link, World};
use crate::figure::Bench;
use crate::peers::builds;
use crate::record::{Goal, Unit};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const START: &str = "worktree item in a repository of many files, from call to the program's start";
const WHOLE: &str = "worktree item in a repository of many files, whole, with commit and clean";

const FILES_IN_FOLDER: usize = 100;

/// The program of an item: writes when it started, then changes one file and adds one.
const PROGRAM: &str = "date +%s%N >\"$0\"; echo changed >f0/f0; echo new >added";

/// What one item took, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Took {
    to_start: f64,
    whole: f64,
}

/// The title of a figure and the part of an item's time that it shows.
type Part = (&'static str, fn(Took) -> f64);

pub(crate) fn measure(bench: &Bench) {
    let parts: [Part; 2] = [(START, |took| took.to_start), (WHOLE, |took| took.whole)];
    if !parts.iter().any(|(title, _)| bench.wants(title)) {
        return;
    }
    let files: usize = bench.size(80_000, 200);
    let world = World::new(
        "[[pools]]\nname = \"local\"\nworker = \"command\"\nmax_workers = 1\n[workers.command]\nallow = [\"*\"]\n",
    );
    let repo = generate(&world.repos(), files);
    let stamp = world.path().join("started");
    for (title, part) in parts {
        if !bench.wants(title) {
            continue;
        }
        bench
            .figure(title, Unit::Nanoseconds)
            .of(files)
            .rounds(3)
            .builds(&builds(), |build| {
                let mut server = Client::start(world.server(build), Link::Pipes);
                let stamp = stamp.clone();
                move || vec![part(by_server(&mut server, &stamp))]
            })
            .add("git itself", || {
                vec![part(by_git(&repo, world.path(), &stamp))]
            })
            .goal(Goal::AtMost(1.1))
            .run();
    }
}

/// Makes a repository of `files` files with one commit.
fn generate(repos: &Path, files: usize) -> PathBuf {
    let repo = repos.join("large");
    git(
        repos,
        &["init", "--quiet", "--initial-branch=main", "large"],
    );
    for folder in 0..files.div_ceil(FILES_IN_FOLDER) {
        let path = repo.join(format!("f{folder}"));
        fs::create_dir(&path).expect("it is new");
        for file in 0..FILES_IN_FOLDER {
            let text = format!("file {file} of folder {folder}\n").repeat(8);
            fs::write(path.join(format!("f{file}")), text).expect("it is new");
        }
    }
    git(&repo, &["add", "--all"]);
    commit(&repo);
    repo
}

/// One item by mahavishnu, removed again with its change.
fn by_server(server: &mut Client, stamp: &Path) -> Took {
    let (clock, called) = (now_ns(), Instant::now());
    let arguments = json!({
        "repo": "large", "command": ["sh", "-c", PROGRAM, stamp], "isolation": "worktree", "wait_s": 45,
    });
    let mut state = server.call("route_least_loaded", arguments);
    while state["status"] == "running" {
        let next = json!({"workflow_id": state["workflow_id"], "wait_for": "done", "wait_s": 45});
        state = server.call("get_workflow", next);
    }
    assert_eq!(state["status"], "succeeded", "{state:#}");
    assert_eq!(state["items"][0]["changed"], true, "{state:#}");
    let cleaned = server.call(
        "clean_worktrees",
        json!({"workflow_id": state["workflow_id"], "dry_run": false, "include_unapplied": true}),
    );
    let whole = called.elapsed().as_nanos() as f64;
    let removed = cleaned["removed"].as_array().map(Vec::len);
    assert_eq!(removed, Some(1), "{cleaned:#}");
    Took {
        to_start: started_at(stamp) - clock,
        whole,
    }
}

/// The same by hand.
fn by_git(repo: &Path, folder: &Path, stamp: &Path) -> Took {
    let worktree = folder.join("by-hand");
    let path = worktree.to_str().expect("UTF-8");
    let (clock, called) = (now_ns(), Instant::now());
    git(
        repo,
        &["worktree", "add", "--quiet", "-b", "by-hand", path, "HEAD"],
    );
    let mut program = Command::new("sh");
    program
        .args(["-c", PROGRAM])
        .arg(stamp)
        .current_dir(&worktree);
    assert!(program.status().expect("sh is there").success());
    git(&worktree, &["add", "--all"]);
    commit(&worktree);
    git(repo, &["worktree", "remove", "--force", path]);
    git(repo, &["branch", "--quiet", "-D", "by-hand"]);
    Took {
        to_start: started_at(stamp) - clock,
        whole: called.elapsed().as_nanos() as f64,
    }
}

fn commit(folder: &Path) {
    let identity = [
        "-c",
        "user.name=Bench",
        "-c",
        "user.email=bench@example.com",
    ];
    let commit = ["commit", "--quiet", "--message=work"];
    git(folder, &[identity.as_slice(), &commit].concat());
}

fn git(folder: &Path, arguments: &[&str]) {
    let status = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .status();
    assert!(status.expect("git is there").success(), "git {arguments:?}");
}

fn now_ns() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("the clock is set").as_nanos() as f64
}

fn started_at(stamp: &Path) -> f64 {
    let text = fs::read_to_string(stamp).expect("the program wrote it");
    text.trim().parse().expect("nanoseconds")
}
