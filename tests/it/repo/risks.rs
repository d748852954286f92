//! What items do beside plain work on files.

use super::apply::apply;
use super::support::{Place, Work};
use super::worktree::wanted;
use mahavishnu::model::{Risk, RiskKind};
use mahavishnu::repo::{Change, How, Repos, SetupRan, Worktree};
use std::fs;
use std::os::unix::fs::symlink;

async fn begin(repos: &Repos, repo: &Work) -> Worktree {
    let made = repos.create_worktree(wanted(repo.path())).await;
    made.expect("made")
}

async fn end(repos: &Repos, worktree: &mut Worktree) -> Vec<Risk> {
    let done = repos.commit_work(worktree, "Work\n").await;
    done.expect("committed").risks
}

/// Has an item do `work` in a worktree of `repo`, and returns its risks.
async fn risks(place: &Place, repo: &Work, work: impl FnOnce(&Work)) -> Vec<Risk> {
    let repos = place.repos();
    let mut worktree = begin(&repos, repo).await;
    work(&place.at(worktree.path().to_owned()));
    end(&repos, &mut worktree).await
}

fn found(kind: RiskKind, path: impl AsRef<std::path::Path>) -> Risk {
    Risk {
        kind,
        path: path.as_ref().display().to_string(),
    }
}

#[tokio::test]
async fn plain_work_has_none() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.write("mine", "dirty before");
    let plain = risks(&place, &repo, |work| {
        work.write("new", "x");
        work.write("a.txt", "changed\n");
        fs::create_dir(work.dir.join("d")).expect("made");
        symlink("../a.txt", work.dir.join("d/inside")).expect("link");
        work.commit("by the worker itself");
    })
    .await;
    assert_eq!(plain, []);
}

#[tokio::test]
async fn hooks_and_settings_of_the_repository_are_found() {
    let place = Place::new();
    let repo = place.repo("app");
    let git = repo.dir.join(".git");
    let changed = risks(&place, &repo, |work| {
        let hooks = work.git(["rev-parse", "--git-path", "hooks"]);
        fs::create_dir_all(&hooks).expect("there");
        fs::write(format!("{hooks}/post-commit"), "#!/bin/sh\n").expect("written");
        work.git(["config", "core.hooksPath", "/tmp/hooks"]);
        work.write(".husky/pre-commit", "npm test\n");
    })
    .await;
    assert_eq!(
        changed,
        [
            found(RiskKind::Hook, ".husky/pre-commit"),
            found(RiskKind::Hook, git.join("hooks/post-commit")),
            found(RiskKind::GitConfig, git.join("config")),
        ]
    );
}

#[tokio::test]
async fn what_setup_does_is_no_risk_of_the_item() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let mut worktree = begin(&repos, &repo).await;
    let work = place.at(worktree.path().to_owned());
    work.git(["config", "core.hooksPath", ".husky"]);
    work.write(".husky/pre-commit", "npm test\n");
    let sealed = repos.seal_base(&mut worktree, SetupRan::Yes).await;
    sealed.expect("sealed");
    assert_eq!(end(&repos, &mut worktree).await, []);
}

#[tokio::test]
async fn ci_definitions_submodules_and_links_out_are_found() {
    let place = Place::new();
    let repo = place.repo("app");
    place.repo("library");
    let origin = place.root().join("library");
    let changed = risks(&place, &repo, |work| {
        work.write(".github/workflows/ci.yml", "on: push\n");
        work.write("deploy/Jenkinsfile", "pipeline {}\n");
        let origin = origin.to_str().expect("UTF-8");
        work.git(["submodule", "--quiet", "add", origin, "lib"]);
        symlink("/etc/passwd", work.dir.join("absolute")).expect("link");
        symlink("../../outside", work.dir.join("climbing")).expect("link");
        symlink(".git/config", work.dir.join("into-git")).expect("link");
    })
    .await;
    let of_the_work: Vec<_> = changed
        .iter()
        .filter(|risk| !risk.path.starts_with('/'))
        .map(|risk| (risk.kind, risk.path.as_str()))
        .collect();
    assert_eq!(
        of_the_work,
        [
            (RiskKind::CiDefinition, ".github/workflows/ci.yml"),
            (RiskKind::CiDefinition, "deploy/Jenkinsfile"),
            (RiskKind::Submodule, ".gitmodules"),
            (RiskKind::Submodule, "lib"),
            (RiskKind::SymlinkOut, "absolute"),
            (RiskKind::SymlinkOut, "climbing"),
            (RiskKind::SymlinkOut, "into-git"),
        ]
    );
}

/// A branch `side` that conflicts with `main` in `a.txt`.
fn with_conflict(repo: &Work) {
    repo.git(["checkout", "-q", "-b", "side"]);
    repo.write("a.txt", "theirs\n");
    repo.commit("theirs");
    repo.git(["checkout", "-q", "main"]);
    repo.write("a.txt", "ours\n");
    repo.commit("ours");
}

#[tokio::test]
async fn an_unfinished_merge_is_found_until_it_is_resolved() {
    let place = Place::new();
    let repo = place.repo("app");
    with_conflict(&repo);
    let repos = place.repos();
    let mut worktree = begin(&repos, &repo).await;
    let work = place.at(worktree.path().to_owned());
    work.git(["merge", "-q", "--no-commit", "-s", "ours", "side"]);
    let merging = end(&repos, &mut worktree).await;
    assert_eq!(merging, [found(RiskKind::UnfinishedMerge, "MERGE_HEAD")]);

    for begin_one in [
        ["merge", "-q", "side"].as_slice(),
        &["cherry-pick", "side"],
        &["rebase", "-q", "side"],
    ] {
        let mut worktree = begin(&repos, &repo).await;
        let work = place.at(worktree.path().to_owned());
        work.fails(begin_one);
        let conflicts = end(&repos, &mut worktree).await;
        let expected = [found(RiskKind::UnfinishedMerge, "a.txt")];
        assert_eq!(conflicts, expected, "{begin_one:?}");
        // A later attempt that resolves it is plain work again.
        let path = worktree.path().to_owned();
        drop(worktree);
        let mut worktree = repos.open_worktree(&path).await.expect("opened");
        let still = end(&repos, &mut worktree).await;
        assert!(still.contains(&expected[0]), "{begin_one:?}: {still:?}");
        work.write("a.txt", "resolved\n");
        work.quit_operations();
        assert_eq!(end(&repos, &mut worktree).await, [], "{begin_one:?}");
    }

    let mut worktree = begin(&repos, &repo).await;
    let work = place.at(worktree.path().to_owned());
    work.write("a.txt", "stashed\n");
    work.git(["stash", "-q"]);
    work.write("a.txt", "other\n");
    work.commit("other");
    work.fails(&["stash", "pop"]);
    let popped = end(&repos, &mut worktree).await;
    assert_eq!(popped, [found(RiskKind::UnfinishedMerge, "a.txt")]);
}

#[tokio::test]
async fn writes_into_the_users_copy_are_found_and_applies_are_not() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.write("b.txt", "b\n");
    repo.commit("b");
    repo.write("mine", "dirty");
    repo.write("untouched", "dirty");
    let users = |name: &str| repo.dir.join(name);
    let written = risks(&place, &repo, |_| {
        repo.write("a.txt", "written by absolute path\n");
        repo.write("mine", "and my work overwritten");
        repo.write("new", "x");
    })
    .await;
    let outside = |name: &str| found(RiskKind::WroteOutside, users(name));
    assert_eq!(written, [outside("a.txt"), outside("mine"), outside("new")]);

    let reverted = risks(&place, &repo, |_| {
        repo.git(["checkout", "-q", "a.txt"]);
    })
    .await;
    assert_eq!(reverted, [outside("a.txt")], "work that was thrown away");

    let committed = risks(&place, &repo, |_| {
        repo.git(["add", "new"]);
        repo.git(["commit", "-q", "-m", "mine"]);
    })
    .await;
    assert_eq!(committed, [], "a commit takes nothing away");

    // Another item of the same workflow is applied meanwhile.
    let repos = place.repos();
    let mut slow = begin(&repos, &repo).await;
    let mut quick = begin(&repos, &repo).await;
    place.at(quick.path().to_owned()).write("b.txt", "work\n");
    let done = repos.commit_work(&mut quick, "x").await.expect("committed");
    let change = Change {
        item: 0,
        base: quick.record().base_commit.clone(),
        commit: done.commit,
        message: "x".to_owned(),
        branch: "x".to_owned(),
    };
    let outcome = apply(&repos, &repo, How::WorkingCopy, &[change]).await;
    assert!(outcome.applied, "{outcome:?}");
    assert_eq!(end(&repos, &mut slow).await, []);
}

#[tokio::test]
async fn what_was_done_outside_stays_known_to_later_attempts() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let mut worktree = begin(&repos, &repo).await;
    place
        .at(worktree.path().to_owned())
        .git(["config", "user.name", "Somebody"]);
    let config = found(RiskKind::GitConfig, repo.dir.join(".git/config"));
    assert_eq!(
        end(&repos, &mut worktree).await,
        std::slice::from_ref(&config)
    );
    let path = worktree.path().to_owned();
    drop(worktree);
    let mut worktree = repos.open_worktree(&path).await.expect("opened");
    assert_eq!(end(&repos, &mut worktree).await, [config]);
}
