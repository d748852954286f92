//! What killed processes leave behind is removed by the next start and by a cleaning.

use super::apply::{apply, item};
use super::support::{Place, Work};
use super::worktree::wanted;
use crate::support::HANG;
use mahavishnu::model::BaseRef;
use mahavishnu::repo::{CleanRequest, How, Repos};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
enum Way {
    Start,
    Clean,
}

async fn remove(repos: &Repos, way: Way) {
    match way {
        Way::Start => drop(repos.recover().await.expect("recovered")),
        Way::Clean => drop(repos.clean(CleanRequest::default()).await.expect("cleaned")),
    }
}

fn entries(dir: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.collect()
}

#[tokio::test]
async fn folders_of_worktrees_without_a_record_are_removed() {
    for way in [Way::Start, Way::Clean] {
        let place = Place::new();
        let worktrees = place.state().join("worktrees");
        for (folder, file) in [
            ("record-gone-first", "trash/app/deep/file"),
            ("never-renamed", "record.tmp"),
            ("only-claimed", "in-use"),
        ] {
            let file = worktrees.join(folder).join(file);
            fs::create_dir_all(file.parent().expect("a parent")).expect("made");
            fs::write(file, "").expect("written");
        }
        fs::create_dir_all(worktrees.join("somebodys/app")).expect("made");
        fs::write(worktrees.join("somebodys/app/file"), "x").expect("written");
        remove(&place.repos(), way).await;
        assert_eq!(entries(worktrees), ["somebodys"], "{way:?}");
    }
}

#[tokio::test]
async fn registrations_without_a_folder_are_removed_and_the_users_stay() {
    for way in [Way::Start, Way::Clean] {
        let place = Place::new();
        let repo = place.repo("app");
        repo.git(["worktree", "add", "-q", "../side"]);
        fs::remove_dir_all(place.root().join("side")).expect("removed");
        let repos = place.repos();
        // One worktree stays, so that a start knows of the repository.
        let kept = repos
            .create_worktree(wanted(repo.path()))
            .await
            .expect("made");
        let gone = repos
            .create_worktree(wanted(repo.path()))
            .await
            .expect("made");
        let folder = gone.path().parent().expect("its folder").to_owned();
        drop(gone);
        fs::remove_dir_all(folder).expect("removed");
        assert_eq!(repo.git(["worktree", "list"]).lines().count(), 4);
        remove(&repos, way).await;
        let listed = repo.git(["worktree", "list"]);
        assert_eq!(listed.lines().count(), 3, "{way:?}: {listed}");
        assert!(listed.contains("side") && kept.path().exists());
        let branches = repo.git(["for-each-ref", "--format=x", "refs/heads/mahavishnu"]);
        assert_eq!(
            branches.lines().count(),
            1,
            "{way:?}: its branch held nothing"
        );
    }
}

#[tokio::test]
async fn a_lost_state_directory_leaves_work_on_branches_only() {
    for way in [Way::Start, Way::Clean] {
        let place = Place::new();
        let repo = place.repo("app");
        let repos = place.repos();
        let change = item(&repos, &place, &repo, 0, BaseRef::Head, |work| {
            work.write("new", "work");
        })
        .await;
        fs::remove_dir_all(place.state()).expect("removed");
        fs::create_dir_all(place.state().join("worktrees")).expect("made");
        let next = place.repos();
        remove(&next, way).await;
        // No record names the repository any more, so a start has to search the roots, which it does a little later.
        let end = Instant::now() + HANG;
        while repo.git(["worktree", "list"]).lines().count() > 1 {
            assert!(Instant::now() < end, "{way:?}: never removed");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let branches = repo.git([
            "for-each-ref",
            "--format=%(objectname)",
            "refs/heads/mahavishnu",
        ]);
        assert_eq!(branches, change.commit, "{way:?}: unapplied work is kept");
    }
}

#[tokio::test]
async fn abandoned_indexes_and_applies_without_a_record_are_removed() {
    for way in [Way::Start, Way::Clean] {
        let place = Place::new();
        let (tmp, applies) = (place.state().join("tmp"), place.state().join("applies"));
        let id = "01KB0000000000000000000000";
        fs::create_dir_all(applies.join(id).join("before")).expect("made");
        fs::write(applies.join(id).join("record.tmp"), "{").expect("written");
        fs::create_dir_all(&tmp).expect("made");
        for name in [
            "index-01KB",
            "index-01KB.lock",
            "index-01KC",
            "index-01KC.in-use",
        ] {
            fs::write(tmp.join(name), "").expect("written");
        }
        let used = fs::File::create(tmp.join("index-01KD.in-use")).expect("made");
        used.lock().expect("free");
        fs::write(tmp.join("index-01KD"), "of a live process").expect("written");
        remove(&place.repos(), way).await;
        let mut left = entries(tmp);
        left.sort();
        assert_eq!(left, ["index-01KD", "index-01KD.in-use"], "{way:?}");
        assert_eq!(entries(applies), [""; 0], "{way:?}");
    }
}

fn staged(repo: &Work) -> Vec<String> {
    let mut names = entries(repo.dir.join(".git"));
    names.retain(|name| name.contains("mahavishnu"));
    names
}

#[tokio::test]
async fn files_that_a_complete_apply_left_staged_are_removed() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let change = item(&repos, &place, &repo, 0, BaseRef::Head, |work| {
        work.write("new", "work");
    })
    .await;
    let outcome = apply(&repos, &repo, How::WorkingCopy, &[change]).await;
    assert!(staged(&repo).is_empty(), "{:?}", staged(&repo));
    let token = outcome.undo.expect("a token");
    let id = token.strip_prefix("undo-").expect("an id");
    fs::create_dir_all(repo.dir.join(format!(".git/mahavishnu-{id}/old"))).expect("made");
    remove(&repos, Way::Start).await;
    assert!(staged(&repo).is_empty(), "{:?}", staged(&repo));
    repos.undo(&token).await.expect("undone");
}

#[cfg(unix)]
#[tokio::test]
async fn a_state_directory_behind_a_link_leaves_no_registration() {
    let place = Place::new();
    let repo = place.repo("app");
    let linked = place.base.join("linked-state");
    std::os::unix::fs::symlink(place.state(), &linked).expect("link");
    let repos = Repos::new(mahavishnu::repo::Setup {
        state_dir: linked,
        ..place.setup()
    });
    let worktree = repos
        .create_worktree(wanted(repo.path()))
        .await
        .expect("made");
    drop(worktree);
    remove(&repos, Way::Clean).await;
    assert_eq!(repo.git(["worktree", "list"]).lines().count(), 1);
    assert!(!repo.dir.join(".git/worktrees").exists());
}
