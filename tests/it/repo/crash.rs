//! `kill -9` in the middle of an apply or an undo: the next start finds either all of it or nothing of it.

use super::apply::{Files, files, item};
use super::support::{Place, Work, workflow};
use super::worktree::wanted;
use crate::support::HANG;
use crate::support::processes::wait_until;
use mahavishnu::model::BaseRef;
use mahavishnu::repo::{ApplyRequest, Change, CleanRequest, How, NewWorktree, Recovery, Repos};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Names for the child which place to work in; without it the child's test does nothing.
const BASE: &str = "MAHAVISHNU_TEST_CRASH_BASE";
/// How many files the change has: enough to be caught in the middle.
const FILES: usize = 120;

fn request(repo: &Work, change: &Change, how: How) -> ApplyRequest {
    ApplyRequest {
        repo: repo.path(),
        workflow: workflow(),
        changes: vec![change.clone()],
        how,
        check_only: false,
    }
}

/// Not a test of its own: the process that the test below kills. Applies and undoes until it dies.
#[tokio::test]
async fn child() {
    let Some(base) = std::env::var_os(BASE).map(PathBuf::from) else {
        return;
    };
    let place = Place::existing(base.clone());
    let repo = place.at(place.root().join("app"));
    if !base.join("change").exists() {
        make_worktrees(&place, &repo).await;
    }
    let text = fs::read_to_string(base.join("change")).expect("readable");
    let [how, from, to] = text.lines().collect::<Vec<_>>()[..] else {
        panic!("three lines");
    };
    let change = Change {
        item: 0,
        base: from.to_owned(),
        commit: to.to_owned(),
        message: "x\n".to_owned(),
        branch: "x".to_owned(),
    };
    let how = if how == "merge" {
        How::Merge
    } else {
        How::WorkingCopy
    };
    let mut setup = place.setup();
    if base.join("slow").exists() {
        setup.git = base.join("git");
    }
    let repos = Repos::new(setup);
    eprintln!("ready");
    loop {
        let outcome = repos
            .apply(request(&repo, &change, how))
            .await
            .expect("applied");
        repos
            .undo(&outcome.undo.expect("a token"))
            .await
            .expect("undone");
    }
}

/// Makes worktrees, works in them and commits, until it dies.
async fn make_worktrees(place: &Place, repo: &Work) {
    let repos = place.repos();
    eprintln!("ready");
    for item in 0.. {
        let mut worktree = repos
            .create_worktree(NewWorktree {
                item,
                ..wanted(repo.path())
            })
            .await
            .expect("made");
        place
            .at(worktree.path().to_owned())
            .write("work", format!("{item}"));
        repos
            .commit_work(&mut worktree, "Work\n")
            .await
            .expect("committed");
    }
}

#[tokio::test]
async fn worktrees_survive_kill_9_with_all_that_was_written() {
    let place = Place::new();
    let repo = place.repo("app");
    for nth in 0..FILES {
        repo.write(format!("dir{}/{nth}", nth % 7), "x");
    }
    repo.commit("many");
    for round in 0..10_u64 {
        run_and_kill(&place, Duration::from_millis(2 + round * 13));
        settle_strays(&repo).await;
        let written = works(&place);
        let next = place.repos();
        let clean = async |include_unapplied| {
            let request = CleanRequest {
                include_unapplied,
                ..CleanRequest::default()
            };
            next.clean(request).await.expect("cleaned")
        };
        clean(false).await;
        assert_eq!(
            works(&place),
            written,
            "round {round}: nothing unapplied goes by itself"
        );
        let cleaned = clean(true).await;
        assert!(cleaned.kept.is_empty(), "{:?}", cleaned.kept);
        let mut kept: Vec<String> = cleaned
            .removed
            .iter()
            .filter_map(|removed| removed.kept_ref.as_ref())
            .map(|name| repo.git(["show", &format!("{name}:work")]))
            .collect();
        kept.sort();
        assert_eq!(kept, written, "round {round}: what was written is kept");
        for removed in &cleaned.removed {
            if let Some(name) = &removed.kept_ref {
                repo.git(["update-ref", "-d", name]);
            }
        }
        assert_eq!(
            repo.git(["for-each-ref", "refs/heads/mahavishnu", "refs/mahavishnu"]),
            ""
        );
        assert_eq!(repo.git(["worktree", "list"]).lines().count(), 1);
    }
}

/// What workers have written, in any worktree.
fn works(place: &Place) -> Vec<String> {
    // The first kill can come before the folder is made.
    let homes = fs::read_dir(place.state().join("worktrees")).into_iter();
    let mut works: Vec<String> = homes
        .flatten()
        .flatten()
        .filter_map(|home| fs::read_to_string(home.path().join("app/work")).ok())
        .collect();
    works.sort();
    works
}

/// Starts the child and waits until it is at work.
fn start_child(place: &Place) -> Child {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "repo::crash::child", "--nocapture"])
        .env(BASE, &place.base)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    assert!(lines.any(|line| line.expect("text").contains("ready")));
    child
}

/// Runs the child for `delay` from its first step and kills it.
fn run_and_kill(place: &Place, delay: Duration) {
    let mut child = start_child(place);
    pause(delay);
    assert!(
        child.try_wait().expect("asked").is_none(),
        "the child ended by itself"
    );
    child.kill().expect("killed");
    child.wait().expect("reaped");
}

fn pause(time: Duration) {
    let (never, wait) = std::sync::mpsc::channel::<()>();
    assert!(wait.recv_timeout(time).is_err());
    drop(never);
}

/// A git that stands still at a moment for which `hold-MOMENT` exists, reports it by `at-MOMENT`, and fails once it may go.
const GIT: &str = r#"
dir=$(dirname "$0")
at() {
    [ -e "$dir/hold-$1" ] || return 0
    : > "$dir/at-$1"
    while [ -e "$dir/hold-$1" ]; do sleep 0.02; done
    exit 1
}
case "$*" in
*"update-ref -m mahavishnu: apply"*)
    at BeforeTheRef
    git "$@" || exit
    at AfterTheRef;;
*"update-ref -m mahavishnu: undo"*)
    at UndoBeforeTheRef
    git "$@" || exit
    at UndoAfterTheRef;;
*) exec git "$@";;
esac"#;

/// Kills the child at `moment`.
fn kill_at(place: &Place, repo: &Work, stages: &Stages, moment: Moment) {
    let wanted = match moment {
        Moment::ApplyingFiles => "applying",
        Moment::UndoingFiles => "undoing",
        _ => return hold_and_kill(place, moment),
    };
    let is_phase = || phase(place).as_deref() == Some(wanted);
    let is_between = || is_phase() && stages.are_between(repo);
    freeze_and_kill(place, is_phase, is_between);
}

/// Has the child's git stand still at `moment`, and kills the child there.
fn hold_and_kill(place: &Place, moment: Moment) {
    let hold = place.base.join(format!("hold-{moment:?}"));
    let slow = place.base.join("slow");
    fs::write(&slow, "").expect("written");
    let there = place.base.join(format!("at-{moment:?}"));
    fs::write(&hold, "").expect("written");
    let mut child = start_child(place);
    let arrived = wait_until(HANG, || there.exists());
    child.kill().expect("killed");
    child.wait().expect("reaped");
    assert!(arrived, "never at {moment:?}");
    for file in [hold, slow] {
        fs::remove_file(file).expect("removed");
    }
}

/// Freezes the child whenever it may be there, until `is_there` says that it is, and kills it then.
fn freeze_and_kill(place: &Place, may_be_there: impl Fn() -> bool, is_there: impl Fn() -> bool) {
    let mut child = start_child(place);
    let pid = Pid::from_child(&child);
    let end = Instant::now() + HANG;
    loop {
        assert!(Instant::now() < end, "never there");
        if !may_be_there() {
            pause(Duration::from_micros(300));
            continue;
        }
        kill_process(pid, Signal::STOP).expect("frozen");
        waitpid(Some(pid), WaitOptions::UNTRACED).expect("it stands still");
        if is_there() {
            break;
        }
        kill_process(pid, Signal::CONT).expect("thawed");
    }
    child.kill().expect("killed");
    child.wait().expect("reaped");
}

/// Where a crash hits an apply or an undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Some files are new.
    ApplyingFiles,
    /// All files are new, the branch is where it was.
    BeforeTheRef,
    /// The branch has moved, the index has not.
    AfterTheRef,
    /// The undo has begun, the branch has not moved back.
    UndoBeforeTheRef,
    /// The branch has moved back, nothing else has.
    UndoAfterTheRef,
    /// Some files are old again.
    UndoingFiles,
}

/// A working copy as the child leaves it, before and after an apply.
struct Stages {
    old: Files,
    new: Files,
}

impl Stages {
    /// Whether the files are neither all old nor all new.
    fn are_between(&self, repo: &Work) -> bool {
        let now = files(&repo.dir);
        now != self.old && now != self.new
    }
}

/// Returns how far the one recorded apply has come.
fn phase(place: &Place) -> Option<String> {
    let applies = fs::read_dir(place.state().join("applies")).ok()?.flatten();
    let record = applies
        .filter_map(|entry| fs::read(entry.path().join("record.json")).ok())
        .next()?;
    let record: serde_json::Value = serde_json::from_slice(&record).ok()?;
    Some(record["phase"].as_str()?.to_owned())
}

async fn survives(how: How, moments: &[Moment]) {
    let place = Place::new();
    let repo = place.repo("app");
    for nth in 0..FILES {
        repo.write(format!("dir{}/{nth}", nth % 7), format!("old {nth}\n"));
    }
    repo.commit("many");
    repo.write("mine", "dirty");
    let repos = place.repos();
    let change = item(&repos, &place, &repo, 0, BaseRef::Head, |work| {
        for nth in 0..FILES {
            match nth % 3 {
                0 => fs::remove_file(work.dir.join(format!("dir{}/{nth}", nth % 7)))
                    .expect("removed"),
                1 => work.write(format!("dir{}/{nth}", nth % 7), format!("new {nth}\n")),
                _ => work.write(format!("new{}/{nth}", nth % 5), "added\n"),
            }
        }
    })
    .await;
    let state = || {
        (
            files(&repo.dir),
            repo.git(["status", "--porcelain=v2"]),
            repo.git(["rev-parse", "HEAD"]),
        )
    };
    let untouched = state();
    let outcome = repos
        .apply(request(&repo, &change, how))
        .await
        .expect("applied");
    let applied = (files(&repo.dir), repo.git(["status", "--porcelain=v2"]));
    repos
        .undo(&outcome.undo.expect("a token"))
        .await
        .expect("undone");
    let name = if how == How::Merge {
        "merge"
    } else {
        "working_copy"
    };
    fs::write(
        place.base.join("change"),
        format!("{name}\n{}\n{}\n", change.base, change.commit),
    )
    .expect("written");
    let stages = Stages {
        old: untouched.0.clone(),
        new: applied.0.clone(),
    };
    place.at(place.base.clone()).script("git", GIT);

    for &moment in moments {
        kill_at(&place, &repo, &stages, moment);
        settle_strays(&repo).await;
        let next: Repos = place.repos();
        let health = next.health().await.expect("looked");
        assert_eq!(
            (health.interrupted_applies.len(), health.stuck_applies.len()),
            (1, 0),
            "{moment:?}"
        );
        let recovered = next.recover().await.expect("looked");
        let outcome = recovered[0].outcome.as_ref().expect("recovered");
        let health = next.health().await.expect("looked");
        assert!(health.interrupted_applies.is_empty() && health.stuck_applies.is_empty());

        let now = (files(&repo.dir), repo.git(["status", "--porcelain=v2"]));
        let is_applied = now == applied;
        let expected = if is_applied {
            Recovery::Finished
        } else {
            Recovery::RolledBack
        };
        assert_eq!(*outcome, expected, "{moment:?}");
        if is_applied {
            // Applied wholly: its record must be there to undo it.
            let token = place.only_undo_token();
            next.undo(&token).await.expect("undone");
        }
        assert!(state() == untouched, "{moment:?}");
        assert!(!repo.dir.join(".git/index.lock").exists());
    }
}

/// A git that the killed server had started may still be ending: waits until it is quiet.
async fn settle_strays(repo: &Work) {
    const QUIET_LOOKS: u32 = 4;
    let mut quiet = 0;
    let mut before = Vec::new();
    for _ in 0..400 {
        let now = files_of(&repo.dir.join(".git"));
        // The dead server's own lock on the index stays until somebody recovers.
        let is_lock = |path: &PathBuf| {
            path.extension().is_some_and(|name| name == "lock") && !path.ends_with("index.lock")
        };
        let is_same = now == before && !now.iter().any(is_lock);
        quiet = if is_same { quiet + 1 } else { 0 };
        before = now;
        if quiet == QUIET_LOOKS {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Returns the paths below `dir`.
fn files_of(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut all: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    for below in all.clone() {
        all.extend(files_of(&below));
    }
    all.sort();
    all
}

#[tokio::test]
async fn an_apply_to_files_survives_kill_9() {
    survives(
        How::WorkingCopy,
        &[Moment::ApplyingFiles, Moment::UndoingFiles],
    )
    .await;
}

#[tokio::test]
async fn an_apply_by_merge_survives_kill_9() {
    survives(
        How::Merge,
        &[
            Moment::ApplyingFiles,
            Moment::BeforeTheRef,
            Moment::AfterTheRef,
            Moment::UndoBeforeTheRef,
            Moment::UndoAfterTheRef,
            Moment::UndoingFiles,
        ],
    )
    .await;
}
