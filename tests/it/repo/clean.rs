//! Cleaning up: nothing needed goes, nothing needless stays.

use super::apply::{apply, everything, item};
use super::support::{Place, Work};
use super::worktree::wanted;
use mahavishnu::error::Fault;
use mahavishnu::model::{BaseRef, Isolation};
use mahavishnu::repo::{CleanRequest, Cleaned, How, NewWorktree, Repos};
use std::fs;
use std::time::Duration;

async fn clean(repos: &Repos) -> Cleaned {
    repos.clean(CleanRequest::default()).await.expect("cleaned")
}

async fn clean_all(repos: &Repos) -> Cleaned {
    let request = CleanRequest {
        include_unapplied: true,
        ..CleanRequest::default()
    };
    repos.clean(request).await.expect("cleaned")
}

/// Nothing of the server's is left in the repository or among the worktrees.
fn assert_nothing_left(place: &Place, repo: &Work) {
    let ours = ["refs/heads/mahavishnu", "refs/mahavishnu"];
    assert_eq!(repo.git(["for-each-ref", ours[0], ours[1]]), "");
    assert_eq!(repo.git(["worktree", "list"]).lines().count(), 1);
    assert!(!repo.dir.join(".git/worktrees").exists());
    for dir in ["worktrees", "tmp"] {
        let Ok(listed) = fs::read_dir(place.state().join(dir)) else {
            continue;
        };
        let left: Vec<_> = listed.flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test]
async fn applied_worktrees_are_removed_completely() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let change = item(&repos, &place, &repo, 0, BaseRef::Head, |work| {
        work.write("x", "x")
    })
    .await;
    item(&repos, &place, &repo, 1, BaseRef::Head, |_| {}).await;
    let dry = repos
        .clean(CleanRequest {
            dry_run: true,
            ..CleanRequest::default()
        })
        .await
        .expect("looked");
    assert_eq!((dry.removed.len(), dry.kept.len()), (1, 1));
    assert_eq!(dry.kept[0].reason, "its changes were never applied");
    assert!(dry.kept[0].worktree.bytes > 0);
    let health = repos.health().await.expect("looked");
    assert_eq!(
        (health.worktrees, health.unapplied.len(), health.in_use),
        (2, 1, 0)
    );

    let outcome = apply(
        &repos,
        &repo,
        How::WorkingCopy,
        std::slice::from_ref(&change),
    )
    .await;
    let token = outcome.undo.expect("a token");
    let cleaned = clean(&repos).await;
    assert_eq!((cleaned.removed.len(), cleaned.kept.len()), (2, 0));
    assert_nothing_left(&place, &repo);
    repos
        .undo(&token)
        .await
        .expect("an undo outlives the worktree");
    assert!(!repo.dir.join("x").exists());
}

#[tokio::test]
async fn unapplied_work_stays_until_asked_and_then_a_ref_keeps_it() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let committed = item(&repos, &place, &repo, 0, BaseRef::Head, |work| {
        work.write("x", "x")
    })
    .await;
    let outcome = apply(
        &repos,
        &repo,
        How::WorkingCopy,
        std::slice::from_ref(&committed),
    )
    .await;
    repos
        .undo(&outcome.undo.expect("a token"))
        .await
        .expect("undone");
    let mut uncommitted = wanted(repo.path());
    uncommitted.item = 1;
    let worktree = repos.create_worktree(uncommitted).await.expect("made");
    fs::write(worktree.path().join("y"), "not committed").expect("written");
    let in_use = clean(&repos).await;
    assert!(
        in_use
            .kept
            .iter()
            .any(|kept| kept.reason == "an item works in it")
    );
    drop(worktree);

    let cleaned = clean(&repos).await;
    assert_eq!((cleaned.removed.len(), cleaned.kept.len()), (0, 2));
    let cleaned = clean_all(&repos).await;
    assert_eq!((cleaned.removed.len(), cleaned.kept.len()), (2, 0));
    for removed in &cleaned.removed {
        let kept = removed.kept_ref.as_deref().expect("a ref");
        let file = if removed.worktree.item == Some(0) {
            "x"
        } else {
            "y"
        };
        assert!(repo.git(["ls-tree", "--name-only", kept]).contains(file));
        repo.git(["update-ref", "-d", kept]);
    }
    assert_nothing_left(&place, &repo);
}

#[tokio::test]
async fn work_merged_by_hand_counts_as_applied() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let change = item(&repos, &place, &repo, 0, BaseRef::Head, |work| {
        work.write("x", "x")
    })
    .await;
    repo.git(["merge", "-q", &change.commit]);
    assert_eq!(clean(&repos).await.removed.len(), 1);
    assert_nothing_left(&place, &repo);
}

#[tokio::test]
async fn deleted_worktrees_and_moved_repositories_are_cleaned_safely() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let request = NewWorktree {
        isolation: Isolation::ReadOnly,
        ..wanted(repo.path())
    };
    let unchanged = repos.create_worktree(request).await.expect("made");
    fs::remove_dir_all(unchanged.path()).expect("removed");
    drop(unchanged);
    item(&repos, &place, &repo, 1, BaseRef::Head, |work| {
        work.write("x", "x")
    })
    .await;
    let listed = clean(&repos).await;
    assert_eq!((listed.removed.len(), listed.kept.len()), (1, 1));
    fs::remove_dir_all(&listed.kept[0].worktree.path).expect("removed");
    let still = clean(&repos).await;
    assert_eq!(still.kept[0].reason, "its changes were never applied");
    let kept = clean_all(&repos)
        .await
        .removed
        .remove(0)
        .kept_ref
        .expect("a ref");
    assert!(repo.git(["ls-tree", "--name-only", &kept]).contains('x'));
    repo.git(["update-ref", "-d", &kept]);
    assert_nothing_left(&place, &repo);

    item(&repos, &place, &repo, 2, BaseRef::Head, |work| {
        work.write("x", "x")
    })
    .await;
    fs::rename(&repo.dir, place.root().join("moved")).expect("moved");
    let cleaned = clean_all(&repos).await;
    assert_eq!(cleaned.removed.len(), 0);
    assert!(
        cleaned.kept[0].reason.contains("moved or deleted"),
        "{:?}",
        cleaned.kept
    );
    fs::rename(place.root().join("moved"), &repo.dir).expect("moved back");
    let nested = place.at(cleaned.kept[0].worktree.path.join("nested"));
    fs::create_dir(&nested.dir).expect("directory");
    nested.git(["init", "-q"]);
    nested.commit("inside");
    let cleaned = clean_all(&repos).await;
    assert!(
        cleaned.kept[0].reason.contains("nested"),
        "{:?}",
        cleaned.kept
    );
    assert!(nested.dir.join(".git").exists());
}

#[tokio::test]
async fn only_requested_worktrees_are_inspected() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let (first, second) = (wanted(repo.path()), wanted(repo.path()));
    let workflow = first.workflow;
    drop(repos.create_worktree(first).await.expect("made"));
    drop(repos.create_worktree(second).await.expect("made"));
    let request = |workflow, older_than| CleanRequest {
        workflow,
        older_than,
        ..CleanRequest::default()
    };
    let hour = Some(Duration::from_secs(3600));
    assert_eq!(
        repos
            .clean(request(None, hour))
            .await
            .expect("cleaned")
            .removed
            .len(),
        0
    );
    let one = repos
        .clean(request(Some(workflow), None))
        .await
        .expect("cleaned");
    assert_eq!(one.removed.len(), 1);
    assert_eq!(one.removed[0].worktree.workflow, Some(workflow));
    assert_eq!(clean(&repos).await.removed.len(), 1);
    assert_nothing_left(&place, &repo);
}

#[tokio::test]
async fn the_users_own_worktrees_and_branches_are_kept() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.git(["worktree", "add", "-q", "-b", "mahavishnu/mine", "../side"]);
    fs::remove_dir_all(place.root().join("side")).expect("removed");
    let before = everything(&repo);
    let repos = place.repos();
    item(&repos, &place, &repo, 0, BaseRef::Head, |_| {}).await;
    assert_eq!(clean_all(&repos).await.removed.len(), 1);
    assert_eq!(everything(&repo), before);
    assert!(
        repo.git(["branch", "--list", "mahavishnu/mine"])
            .contains("mine")
    );
    assert!(repo.git(["worktree", "list"]).contains("side"));
}

#[tokio::test]
async fn a_folder_without_a_record_is_removed() {
    let place = Place::new();
    let home = place.state().join("worktrees/left-0-1");
    fs::create_dir_all(&home).expect("made");
    fs::write(home.join("in-use"), "/gone/server.lock").expect("written");
    let repos = place.repos();
    assert_eq!(clean(&repos).await.removed.len(), 1);
    assert!(!home.exists());
    fs::create_dir_all(&home).expect("made");
    fs::write(home.join("somebodys"), "file").expect("written");
    assert_eq!(clean(&repos).await.kept.len(), 1);
}

#[tokio::test]
async fn no_worktree_is_made_at_the_disk_limit() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = Repos::new(mahavishnu::repo::Setup {
        worktrees_max_bytes: Some(1_000_000),
        ..place.setup()
    });
    let worktree = repos.create_worktree(wanted(repo.path())).await;
    let worktree = worktree.expect("there is room");
    repo.write(".git/info/exclude", "large\n");
    fs::write(worktree.path().join("large"), vec![0; 1_000_000]).expect("written");
    // A size is used again for a while; a server that has not measured yet sees the new one.
    let repos = Repos::new(mahavishnu::repo::Setup {
        worktrees_max_bytes: Some(1_000_000),
        ..place.setup()
    });
    let error = repos.create_worktree(wanted(repo.path())).await;
    let problem = error.expect_err("no room").problem();
    assert!(problem.retryable, "{problem:?}");
    assert!(problem.message.contains("worktrees_max_bytes"), "{problem}");
    assert!(problem.hint.expect("a hint").contains("clean_worktrees"));
    drop(worktree);
    let health = repos.health().await.expect("inspected");
    assert_eq!(health.max_bytes, Some(1_000_000));
    assert!(health.bytes >= 1_000_000 && health.removable_bytes >= 1_000_000);
    assert_eq!(clean(&repos).await.removed.len(), 1);
    let made = repos.create_worktree(wanted(repo.path())).await;
    made.expect("there is room again");
}
