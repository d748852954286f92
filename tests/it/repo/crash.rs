//! `kill -9` in the middle of an apply or an undo: the next start finds either all of it or nothing of it.

use super::apply::{files, item};
use super::support::{Place, Work};
use super::worktree::wanted;
use mahavishnu::model::BaseRef;
use mahavishnu::repo::{ApplyRequest, Change, CleanRequest, How, NewWorktree, Repos};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Tells the child which place to work in; without it the child's test does nothing.
const BASE: &str = "MAHAVISHNU_TEST_CRASH_BASE";
/// How many files the change has: enough to be caught in the middle.
const FILES: usize = 240;
/// How many kills must hit an apply or an undo in the middle, and how many are tried for that.
const HITS: usize = 2;
const TRIES: u64 = 80;

fn request(repo: &Work, change: &Change, how: How) -> ApplyRequest {
    ApplyRequest {
        repo: repo.path(),
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
    let repos = place.repos();
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
    let homes = fs::read_dir(place.state().join("worktrees"))
        .expect("listed")
        .flatten();
    let mut works: Vec<String> = homes
        .filter_map(|home| fs::read_to_string(home.path().join("app/work")).ok())
        .collect();
    works.sort();
    works
}

/// Runs the child for `delay` from its first step and kills it.
fn run_and_kill(place: &Place, delay: Duration) {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "repo::crash::child", "--nocapture"])
        .env(BASE, &place.base)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    assert!(lines.any(|line| line.expect("text").contains("ready")));
    let (never, wait) = std::sync::mpsc::channel::<()>();
    assert!(wait.recv_timeout(delay).is_err());
    drop(never);
    assert!(
        child.try_wait().expect("asked").is_none(),
        "the child ended by itself"
    );
    child.kill().expect("killed");
    child.wait().expect("reaped");
}

async fn survives(how: How) {
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
    let untouched = (
        files(&repo.dir),
        repo.git(["status", "--porcelain=v2"]),
        repo.git(["rev-parse", "HEAD"]),
    );
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

    let mut interrupted = 0;
    for round in 0..TRIES {
        if interrupted >= HITS {
            break;
        }
        run_and_kill(&place, Duration::from_millis(40 + round * 37 % 400));
        let next: Repos = place.repos();
        let health = next.health().await.expect("looked");
        assert!(health.stuck_applies.is_empty());
        interrupted += health.interrupted_applies.len();
        settle_strays(&repo).await;
        next.recover().await.expect("recovered");
        let health = next.health().await.expect("looked");
        assert!(health.interrupted_applies.is_empty() && health.stuck_applies.is_empty());

        let now = (files(&repo.dir), repo.git(["status", "--porcelain=v2"]));
        if now == applied {
            // Applied wholly: its record must be there to undo it.
            let token = place.only_undo_token();
            next.undo(&token).await.expect("undone");
        }
        let now = (
            files(&repo.dir),
            repo.git(["status", "--porcelain=v2"]),
            repo.git(["rev-parse", "HEAD"]),
        );
        assert_eq!(now, untouched, "round {round}");
        assert!(!repo.dir.join(".git/index.lock").exists());
    }
    assert!(
        interrupted >= HITS,
        "only {interrupted} kills hit the middle"
    );
}

/// A git that the killed server had started may still be ending: waits until it is quiet.
async fn settle_strays(repo: &Work) {
    const QUIET_LOOKS: u32 = 4;
    let mut quiet = 0;
    let mut before = Vec::new();
    for _ in 0..400 {
        let now = files_of(&repo.dir.join(".git"));
        let is_lock = |path: &PathBuf| path.extension().is_some_and(|name| name == "lock");
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
    survives(How::WorkingCopy).await;
}

#[tokio::test]
async fn an_apply_by_merge_survives_kill_9() {
    survives(How::Merge).await;
}
