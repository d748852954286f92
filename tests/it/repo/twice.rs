//! The same call made twice at once, or again after it failed.

use super::apply::{everything, item};
use super::support::{Place, workflow};
use mahavishnu::model::BaseRef;
use mahavishnu::repo::{ApplyRequest, CleanRequest, How, Repos};
use std::fs;

#[tokio::test]
async fn two_applies_of_one_workflow_both_report_it_applied() {
    for how in [How::WorkingCopy, How::Merge, How::Branch] {
        let place = Place::new();
        let repo = place.repo("app");
        let repos = place.repos();
        let before = everything(&repo);
        let change = item(&repos, &place, &repo, 3, BaseRef::Head, |work| {
            work.write("a.txt", "work\n");
            work.write("new", "work\n");
        })
        .await;
        let request = ApplyRequest {
            repo: repo.path(),
            workflow: workflow(),
            changes: vec![change],
            how,
            check_only: false,
        };
        // Two handles stand for two server processes.
        let other: Repos = place.repos();
        let (one, two) = tokio::join!(repos.apply(request.clone()), other.apply(request.clone()));
        let (one, two) = (one.expect("answered"), two.expect("answered"));
        assert!(one.applied && two.applied, "{how:?}: {one:?} {two:?}");
        let tokens: Vec<_> = [&one, &two]
            .iter()
            .filter_map(|all| all.undo.clone())
            .collect();
        let [token] = tokens.as_slice() else {
            panic!("{how:?}: one of them did it: {tokens:?}");
        };
        let loser = if one.undo.is_some() { &two } else { &one };
        assert_eq!(loser.earlier, [(3, token.clone())], "{how:?}");
        assert_eq!(loser.items[0].overlaps_dirty, [""; 0], "{how:?}");

        let (one, two) = tokio::join!(repos.undo(token), other.undo(token));
        assert!(one.is_ok() != two.is_ok(), "{how:?}: undone once");
        assert_eq!(everything(&repo), before, "{how:?}");
        let again = repos.apply(request).await.expect("answered");
        assert!(
            again.undo.is_some(),
            "{how:?}: undone work can be applied again"
        );
    }
}

#[tokio::test]
async fn two_cleanings_at_once_both_succeed() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    for nth in 0..12 {
        item(&repos, &place, &repo, nth, BaseRef::Head, |_| {}).await;
    }
    let others: Vec<Repos> = (0..4).map(|_| place.repos()).collect();
    let cleanings = others
        .iter()
        .map(|repos| repos.clean(CleanRequest::default()));
    let cleaned = futures_util::future::join_all(cleanings).await;
    let removed: usize = cleaned
        .into_iter()
        .map(|cleaned| cleaned.expect("cleaned").removed.len())
        .sum();
    assert!(removed >= 12, "{removed}");
    let left = fs::read_dir(place.state().join("worktrees")).expect("listed");
    assert_eq!(left.count(), 0);
    assert_eq!(repo.git(["worktree", "list"]).lines().count(), 1);
}

#[tokio::test]
async fn an_undo_that_failed_half_way_is_finished_by_the_next() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let before = everything(&repo);
    let change = item(&repos, &place, &repo, 0, BaseRef::Head, |work| {
        work.write("a.txt", "work\n");
    })
    .await;
    let request = ApplyRequest {
        repo: repo.path(),
        workflow: workflow(),
        changes: vec![change],
        how: How::Merge,
        check_only: false,
    };
    let token = repos.apply(request).await.expect("applied").undo;
    let token = token.expect("a token");
    // A git that fails when the undo moves the branch back.
    place.at(place.base.clone()).script(
        "git",
        "case \"$*\" in *\"mahavishnu: undo\"*) exit 1;; esac\nexec git \"$@\"",
    );
    let mut setup = place.setup();
    setup.git = place.base.join("git");
    Repos::new(setup).undo(&token).await.expect_err("it fails");
    repos.undo(&token).await.expect("the next one finishes it");
    assert_eq!(everything(&repo), before);
}
