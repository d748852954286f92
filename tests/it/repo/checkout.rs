//! Applied files have the bytes that a checkout of the same commit gives.

use super::apply::{apply, files, item};
use super::support::{Place, Work};
use mahavishnu::model::BaseRef;
use mahavishnu::repo::How;
use std::fs;

/// Applies `work` in a repository that `prepare` has set up, and compares its files with those of a fresh clone.
async fn same_as_a_checkout(prepare: impl Fn(&Work), work: impl FnOnce(&Work)) {
    let place = Place::new();
    let repo = place.repo("app");
    prepare(&repo);
    repo.commit("prepared");
    let repos = place.repos();
    let change = item(&repos, &place, &repo, 0, BaseRef::Head, work).await;
    let before = files(&repo.dir);
    let outcome = apply(
        &repos,
        &repo,
        How::WorkingCopy,
        std::slice::from_ref(&change),
    )
    .await;
    assert!(outcome.applied, "{outcome:?}");

    let root = place.at(place.root());
    root.git(["clone", "-q", "--no-checkout", "app", "fresh"]);
    let fresh = place.at(place.root().join("fresh"));
    fs::copy(repo.dir.join(".git/config"), fresh.dir.join(".git/config")).expect("copied");
    fresh.git([
        "fetch",
        "-q",
        repo.dir.to_str().expect("UTF-8"),
        &change.commit,
    ]);
    fresh.git(["checkout", "-q", "--detach", &change.commit]);
    assert_eq!(files(&repo.dir), files(&fresh.dir));

    let token = outcome.undo.expect("a token");
    repos.undo(&token).await.expect("undone");
    assert_eq!(files(&repo.dir), before);
}

/// Sets up a filter that stores `POINTER` and checks out the content, as LFS does.
fn with_pointers(repo: &Work) {
    let store = repo.dir.join(".git/content");
    let store = store.to_str().expect("UTF-8");
    repo.git([
        "config",
        "filter.lfs.clean",
        &format!("cat > {store}; echo POINTER"),
    ]);
    repo.git([
        "config",
        "filter.lfs.smudge",
        &format!("cat > /dev/null; cat {store}"),
    ]);
    repo.git(["config", "filter.lfs.required", "true"]);
}

#[tokio::test]
async fn a_filter_that_the_change_itself_adds_is_used() {
    same_as_a_checkout(with_pointers, |work| {
        work.write(".gitattributes", "*.png filter=lfs\n");
        work.write("image.png", "the content\n");
    })
    .await;
}

#[tokio::test]
async fn line_ends_and_encodings_that_the_change_sets_are_used() {
    same_as_a_checkout(
        |_| {},
        |work| {
            work.write(
                ".gitattributes",
                "*.bat eol=crlf\n*.u16 text working-tree-encoding=UTF-16LE\ndir/*.txt eol=crlf\n",
            );
            work.write("run.bat", "one\r\ntwo\r\n");
            work.write("dir/x.txt", "one\r\n");
            work.write("wide.u16", "a\0\n\0");
        },
    )
    .await;
}

#[tokio::test]
async fn attributes_in_folders_and_ones_that_the_change_removes_are_followed() {
    same_as_a_checkout(
        |repo| {
            repo.write(".gitattributes", "*.txt eol=crlf\n");
            repo.write("sub/.gitattributes", "*.txt -text\n");
            repo.write("sub/x.txt", "one\n");
        },
        |work| {
            work.write(".gitattributes", "");
            work.write("new.txt", "one\ntwo\n");
            work.write("sub/.gitattributes", "*.txt eol=crlf\n");
            work.write("sub/x.txt", "one\r\ntwo\r\n");
        },
    )
    .await;
}
