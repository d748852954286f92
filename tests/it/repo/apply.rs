//! Applying work: every way, every refusal, every undo.

use super::support::{Place, Work, workflow};
use super::worktree::wanted;
use mahavishnu::error::{ErrorKind, Fault};
use mahavishnu::model::{BaseRef, ItemIndex};
use mahavishnu::repo::{
    ApplyOutcome, ApplyRequest, Change, How, Lane, NewWorktree, RepoError, Repos, SetupRan,
};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Has an item on `base` do `work`, and returns its change.
pub(super) async fn item(
    repos: &Repos,
    place: &Place,
    repo: &Work,
    item: ItemIndex,
    base: BaseRef,
    work: impl FnOnce(&Work),
) -> Change {
    let mut worktree = repos
        .create_worktree(NewWorktree {
            item,
            base,
            ..wanted(repo.path())
        })
        .await
        .expect("made");
    work(&place.at(worktree.path().to_owned()));
    let done = repos
        .commit_work(&mut worktree, "Work\n")
        .await
        .expect("committed");
    Change {
        item,
        base: worktree.record().base_commit.clone(),
        commit: done.commit,
        message: "Work, applied\n".to_owned(),
        branch: format!("mine/{item}"),
    }
}

pub(super) async fn apply(
    repos: &Repos,
    repo: &Work,
    how: How,
    changes: &[Change],
) -> ApplyOutcome {
    repos
        .apply(ApplyRequest {
            repo: repo.path(),
            workflow: workflow(),
            changes: changes.to_vec(),
            how,
            check_only: false,
        })
        .await
        .expect("answered")
}

/// Mode and content by path.
pub(super) type Files = BTreeMap<PathBuf, (u32, Vec<u8>)>;

/// All that a person sees in a working copy: every file, its kind, mode and content.
pub(super) fn files(dir: &Path) -> Files {
    fn walk(top: &Path, dir: &Path, into: &mut Files) {
        for entry in fs::read_dir(dir).expect("listed") {
            let path = entry.expect("an entry").path();
            if path.file_name() == Some(OsStr::new(".git")) {
                continue;
            }
            let meta = path.symlink_metadata().expect("metadata");
            if meta.is_dir() {
                walk(top, &path, into);
                continue;
            }
            let content = if meta.is_symlink() {
                fs::read_link(&path)
                    .expect("a link")
                    .as_os_str()
                    .as_bytes()
                    .to_vec()
            } else {
                fs::read(&path).expect("readable")
            };
            let name = path.strip_prefix(top).expect("below").to_owned();
            into.insert(name, (meta.permissions().mode(), content));
        }
    }
    let mut all = BTreeMap::new();
    walk(dir, dir, &mut all);
    all
}

/// Files, what is staged, HEAD, branches: what an undo must bring back.
pub(super) fn everything(repo: &Work) -> (Files, String, String) {
    (
        files(&repo.dir),
        repo.git([
            "status",
            "--porcelain=v2",
            "--branch",
            "--untracked-files=all",
        ]),
        repo.git(["for-each-ref", "--exclude=refs/heads/mahavishnu"]),
    )
}

#[tokio::test]
async fn a_working_copy_gets_the_files_and_nothing_is_staged() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.write("run.sh", "#!/bin/sh\n");
    repo.write("gone/deep/file", "x");
    repo.write("becomes_dir", "x");
    repo.write("dir/becomes_file", "x");
    symlink("a.txt", repo.dir.join("link")).expect("link");
    repo.commit("more");
    fs::create_dir_all(repo.dir.join("dir/empty/deep")).expect("a folder git does not know");
    fs::set_permissions(repo.dir.join("a.txt"), fs::Permissions::from_mode(0o600)).expect("mode");
    repo.write("mine", "dirty and elsewhere");
    repo.write("staged", "staged");
    repo.git(["add", "staged"]);
    let before = everything(&repo);
    let repos = place.repos();
    let odd = Path::new(OsStr::from_bytes(b"odd \n\xff"));
    let change = item(&repos, &place, &repo, 0, BaseRef::Head, |work| {
        work.write("a.txt", "one\ntwo\nthree\nfour\n");
        work.script("run.sh", "true");
        fs::remove_dir_all(work.dir.join("gone")).expect("removed");
        fs::remove_file(work.dir.join("becomes_dir")).expect("removed");
        work.write("becomes_dir/x", "x");
        fs::remove_dir_all(work.dir.join("dir")).expect("removed");
        work.write("dir", "a file now");
        fs::remove_file(work.dir.join("link")).expect("removed");
        symlink("run.sh", work.dir.join("link")).expect("link");
        work.write(odd, "odd");
    })
    .await;

    let check = repos
        .apply(ApplyRequest {
            repo: repo.path(),
            workflow: workflow(),
            changes: vec![change.clone()],
            how: How::WorkingCopy,
            check_only: true,
        })
        .await
        .expect("checked");
    assert!(check.applied && check.undo.is_none());
    assert_eq!(everything(&repo), before);

    let outcome = apply(&repos, &repo, How::WorkingCopy, &[change]).await;
    assert!(outcome.applied, "{outcome:?}");
    assert_eq!(repo.read("a.txt"), "one\ntwo\nthree\nfour\n");
    let mode = |name: &str| {
        fs::metadata(repo.dir.join(name))
            .expect("metadata")
            .permissions()
            .mode()
    };
    assert_eq!(
        (mode("a.txt") & 0o777, mode("run.sh") & 0o777),
        (0o600, 0o755)
    );
    assert!(!repo.dir.join("gone").exists());
    assert_eq!(repo.read("becomes_dir/x"), "x");
    assert_eq!(repo.read("dir"), "a file now");
    assert_eq!(
        fs::read_link(repo.dir.join("link")).expect("a link"),
        Path::new("run.sh")
    );
    assert!(repo.dir.join(odd).exists());
    assert_eq!(repo.git(["diff", "--cached", "--name-only"]), "staged");

    repos
        .undo(&outcome.undo.clone().expect("a token"))
        .await
        .expect("undone");
    assert_eq!(everything(&repo), before);
    let error = repos
        .undo(&outcome.undo.expect("a token"))
        .await
        .expect_err("once only");
    assert!(matches!(error, RepoError::UndoUnknown { .. }), "{error}");
}

#[tokio::test]
async fn overlaps_with_dirty_files_are_named_and_nothing_is_touched() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.write("b.txt", "b\n");
    repo.write(".gitignore", "ignored\n");
    repo.commit("b");
    let repos = place.repos();
    let change = item(&repos, &place, &repo, 4, BaseRef::Head, |work| {
        work.write("a.txt", "changed\n");
        work.write("b.txt", "changed\n");
        work.write("new", "theirs");
        work.write("sub/x", "x");
        work.write(".gitignore", "");
        work.write("ignored", "not ignored any more");
    })
    .await;
    repo.write("a.txt", "mine\n");
    repo.write("new", "mine");
    repo.write("sub", "a file in the way");
    repo.write("ignored", "precious");
    for how in [How::WorkingCopy, How::Merge] {
        let before = everything(&repo);
        let outcome = apply(&repos, &repo, how, std::slice::from_ref(&change)).await;
        assert!(!outcome.applied);
        assert_eq!(outcome.items[0].item, 4);
        let mut overlaps = outcome.items[0].overlaps_dirty.clone();
        overlaps.sort();
        assert_eq!(overlaps, ["a.txt", "ignored", "new"], "{how:?}");
        assert_eq!(everything(&repo), before);
    }
    for name in ["a.txt", "new", "ignored"] {
        fs::remove_file(repo.dir.join(name)).expect("removed");
    }
    repo.git(["checkout", "-q", "a.txt"]);
    let outcome = apply(
        &repos,
        &repo,
        How::WorkingCopy,
        std::slice::from_ref(&change),
    )
    .await;
    assert_eq!(outcome.items[0].overlaps_dirty, ["sub"]);
    fs::remove_file(repo.dir.join("sub")).expect("removed");
    repo.write("b.txt", "staged\n");
    repo.git(["add", "b.txt"]);
    repo.write("b.txt", "b\n");
    let outcome = apply(&repos, &repo, How::Merge, std::slice::from_ref(&change)).await;
    assert_eq!(
        outcome.items[0].overlaps_dirty,
        ["b.txt"],
        "staged counts for a merge"
    );
    let outcome = apply(
        &repos,
        &repo,
        How::WorkingCopy,
        std::slice::from_ref(&change),
    )
    .await;
    assert!(outcome.applied, "{outcome:?}");
}

#[tokio::test]
async fn conflicts_with_later_commits_are_named_and_all_or_nothing_holds() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let fine = item(&repos, &place, &repo, 0, BaseRef::Head, |work| {
        work.write("new", "x")
    })
    .await;
    let bad = item(&repos, &place, &repo, 1, BaseRef::Head, |work| {
        work.write("a.txt", "theirs\n");
    })
    .await;
    repo.write("a.txt", "ours\n");
    repo.commit("moved on");
    for how in [How::WorkingCopy, How::Merge] {
        let before = everything(&repo);
        let outcome = apply(&repos, &repo, how, &[fine.clone(), bad.clone()]).await;
        assert!(!outcome.applied);
        assert_eq!(outcome.items[0].conflicts, [""; 0]);
        assert_eq!(outcome.items[1].conflicts, ["a.txt"]);
        assert_eq!(everything(&repo), before);
    }
}

#[tokio::test]
async fn files_follow_renames_and_merge_with_later_commits() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.write("a.txt", "1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    repo.commit("long");
    let repos = place.repos();
    let change = item(&repos, &place, &repo, 0, BaseRef::Head, |work| {
        work.write("a.txt", "1\n2\n3\n4\n5\n6\n7\n8\nnine\n");
    })
    .await;
    repo.git(["mv", "a.txt", "b.txt"]);
    repo.write("b.txt", "one\n2\n3\n4\n5\n6\n7\n8\n9\n");
    repo.commit("renamed");
    let before = everything(&repo);
    let outcome = apply(
        &repos,
        &repo,
        How::WorkingCopy,
        std::slice::from_ref(&change),
    )
    .await;
    assert!(outcome.applied, "{outcome:?}");
    assert_eq!(repo.read("b.txt"), "one\n2\n3\n4\n5\n6\n7\n8\nnine\n");
    repos
        .undo(&outcome.undo.expect("a token"))
        .await
        .expect("undone");
    assert_eq!(everything(&repo), before);
    repo.write("b.txt", "mine\n");
    let outcome = apply(&repos, &repo, How::WorkingCopy, &[change]).await;
    assert_eq!(outcome.items[0].overlaps_dirty, ["b.txt"]);
}

#[tokio::test]
async fn merges_fast_forward_merge_or_make_one_commit() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let first = item(&repos, &place, &repo, 0, BaseRef::Head, |work| {
        work.write("x", "x")
    })
    .await;
    let second = item(&repos, &place, &repo, 1, BaseRef::Head, |work| {
        work.write("y", "y")
    })
    .await;
    repo.write("mine", "dirty");
    repo.write("staged", "staged");
    repo.git(["add", "staged"]);
    let before = everything(&repo);

    let forward = apply(&repos, &repo, How::Merge, std::slice::from_ref(&first)).await;
    assert_eq!(forward.commit.as_deref(), Some(first.commit.as_str()));
    assert_eq!(repo.git(["rev-parse", "main"]), first.commit);
    assert_eq!(repo.git(["status", "--porcelain"]), "A  staged\n?? mine");
    let between = everything(&repo);
    let merge = apply(&repos, &repo, How::Merge, std::slice::from_ref(&second)).await;
    assert_eq!(
        repo.git(["log", "-1", "--format=%P %s"]),
        format!("{} {} Work, applied", first.commit, second.commit)
    );
    assert_eq!(repo.git(["status", "--porcelain"]), "A  staged\n?? mine");
    repos
        .undo(&merge.undo.expect("a token"))
        .await
        .expect("undone");
    assert_eq!(everything(&repo), between);
    repos
        .undo(&forward.undo.expect("a token"))
        .await
        .expect("undone");
    assert_eq!(everything(&repo), before);

    // Both at once are one step and one undo.
    let both = apply(&repos, &repo, How::Merge, &[first, second]).await;
    assert!(repo.dir.join("x").exists() && repo.dir.join("y").exists());
    repos
        .undo(&both.undo.expect("a token"))
        .await
        .expect("undone");
    assert_eq!(everything(&repo), before);
}

#[tokio::test]
async fn a_base_that_was_never_committed_does_not_become_history() {
    let place = Place::new();
    let repo = place.repo("app");
    let head = repo.git(["rev-parse", "HEAD"]);
    repo.write(".env", "SECRET=1");
    let repos = place.repos();
    let mut worktree = repos
        .create_worktree(NewWorktree {
            copy_files: vec![".env".to_owned()],
            ..wanted(repo.path())
        })
        .await
        .expect("made");
    repos
        .seal_base(&mut worktree, SetupRan::No)
        .await
        .expect("sealed");
    place.at(worktree.path().to_owned()).write("b", "work");
    let done = repos
        .commit_work(&mut worktree, "x")
        .await
        .expect("committed");
    let change = Change {
        item: 0,
        base: worktree.record().base_commit.clone(),
        commit: done.commit,
        message: "Only the work\n".to_owned(),
        branch: "mine/0".to_owned(),
    };
    for how in [How::Merge, How::Branch] {
        let outcome = apply(&repos, &repo, how, std::slice::from_ref(&change)).await;
        let commit = outcome.commit.expect("a commit");
        assert_eq!(
            repo.git(["ls-tree", "--name-only", &commit]),
            "a.txt\nb",
            "{how:?}"
        );
        assert_eq!(repo.git(["log", "-1", "--format=%P", &commit]), head);
        repos
            .undo(&outcome.undo.expect("a token"))
            .await
            .expect("undone");
    }
    assert_eq!(repo.git(["rev-parse", "HEAD"]), head);
    assert_eq!(repo.git(["branch", "--list", "mine/*"]), "");
}

#[tokio::test]
async fn work_on_dirty_files_is_applied_where_they_are_unchanged() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.write("a.txt", "one\ntwo\nthree\nmine\n");
    repo.write("new", "mine\n");
    let repos = place.repos();
    let change = item(&repos, &place, &repo, 0, BaseRef::WorkingCopy, |work| {
        work.write("a.txt", "ONE\ntwo\nthree\nmine\n");
        work.write("new", "mine\ntheirs\n");
    })
    .await;
    let before = everything(&repo);
    let outcome = apply(
        &repos,
        &repo,
        How::WorkingCopy,
        std::slice::from_ref(&change),
    )
    .await;
    assert!(outcome.applied, "{outcome:?}");
    assert_eq!(repo.read("a.txt"), "ONE\ntwo\nthree\nmine\n");
    assert_eq!(repo.read("new"), "mine\ntheirs\n");
    repos
        .undo(&outcome.undo.expect("a token"))
        .await
        .expect("undone");
    assert_eq!(everything(&repo), before);
    repo.write("new", "mine, later\n");
    let outcome = apply(&repos, &repo, How::WorkingCopy, &[change]).await;
    assert_eq!(outcome.items[0].overlaps_dirty, ["new"]);
}

#[tokio::test]
async fn a_branch_touches_no_file_and_never_another_branch() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let change = item(&repos, &place, &repo, 0, BaseRef::Head, |work| {
        work.write("x", "x")
    })
    .await;
    repo.write("x", "dirty, but nothing is touched");
    let before = everything(&repo);
    let outcome = apply(&repos, &repo, How::Branch, std::slice::from_ref(&change)).await;
    assert_eq!(repo.git(["rev-parse", "mine/0"]), change.commit);
    let again = apply(&repos, &repo, How::Branch, std::slice::from_ref(&change)).await;
    assert!(again.applied && again.undo.is_none());
    repo.git(["branch", "-f", "mine/0", "main"]);
    let error = repos
        .undo(&outcome.undo.clone().expect("a token"))
        .await
        .expect_err("moved");
    assert!(error.to_string().contains("refs/heads/mine/0"), "{error}");
    let request = |branch: &str| ApplyRequest {
        repo: repo.path(),
        workflow: workflow(),
        changes: vec![Change {
            branch: branch.to_owned(),
            ..change.clone()
        }],
        how: How::Branch,
        check_only: false,
    };
    let error = repos.apply(request("mine/0")).await.expect_err("taken");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("mine/0"), "{error}");
    for bad in ["-x", "a..b", "", "x y", "HEAD"] {
        let error = repos.apply(request(bad)).await.expect_err(bad);
        let text = error.to_string();
        assert!(text.contains("cannot be a branch's name"), "{bad}: {text}");
    }
    repo.git(["branch", "-f", "mine/0", &change.commit]);
    repos
        .undo(&outcome.undo.expect("a token"))
        .await
        .expect("undone");
    assert_eq!(everything(&repo), before);
}

#[tokio::test]
async fn an_undo_that_would_lose_changes_is_refused() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let change = item(&repos, &place, &repo, 0, BaseRef::Head, |work| {
        work.write("a.txt", "theirs\n");
        work.write("b.txt", "b\n");
    })
    .await;
    let outcome = apply(
        &repos,
        &repo,
        How::WorkingCopy,
        std::slice::from_ref(&change),
    )
    .await;
    repo.write("b.txt", "edited since\n");
    let before = everything(&repo);
    let token = outcome.undo.expect("a token");
    let error = repos.undo(&token).await.expect_err("stale");
    assert_eq!(
        (error.kind(), error.field().as_deref()),
        (ErrorKind::Conflict, Some("undo"))
    );
    assert!(
        error.to_string().ends_with("changed since: b.txt"),
        "{error}"
    );
    assert_eq!(everything(&repo), before);
    repo.write("b.txt", "b\n");
    repos.undo(&token).await.expect("undone");

    let outcome = apply(&repos, &repo, How::Merge, &[change]).await;
    let token = outcome.undo.expect("a token");
    repo.write("a.txt", "staged since\n");
    repo.git(["add", "a.txt"]);
    repo.write("a.txt", "theirs\n");
    let error = repos.undo(&token).await.expect_err("staged");
    assert!(error.to_string().contains("a.txt"), "{error}");
    repo.git(["reset", "-q"]);
    repo.git(["checkout", "-q", "-b", "elsewhere"]);
    assert!(repos.undo(&token).await.is_err());
    repo.git(["checkout", "-q", "main"]);
    repo.commit("later");
    assert!(repos.undo(&token).await.is_err());
    repo.git(["reset", "-q", "--hard", "HEAD^"]);
    repos.undo(&token).await.expect("undone");
    for bad in ["", "undo-", "undo-../../x", "nonsense"] {
        let error = repos.undo(bad).await.expect_err(bad);
        assert_eq!(
            (error.kind(), error.field().as_deref()),
            (ErrorKind::NotFound, Some("undo"))
        );
    }
}

#[tokio::test]
async fn refused_applies_name_the_reason() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let change = item(&repos, &place, &repo, 0, BaseRef::Head, |work| {
        work.write("x", "x")
    })
    .await;
    let request = |how| ApplyRequest {
        repo: repo.path(),
        workflow: workflow(),
        changes: vec![change.clone()],
        how,
        check_only: false,
    };
    fs::write(repo.dir.join(".git/MERGE_HEAD"), &change.commit).expect("written");
    let error = repos
        .apply(request(How::Merge))
        .await
        .expect_err("in progress");
    assert!(
        error.to_string().contains("a merge is in progress"),
        "{error}"
    );
    fs::remove_file(repo.dir.join(".git/MERGE_HEAD")).expect("removed");
    let held = place
        .repos()
        .lock(&repo.path(), Lane::WorkingCopy)
        .await
        .expect("locked");
    let error = repos.apply(request(How::Merge)).await.expect_err("in use");
    assert_eq!(error.kind(), ErrorKind::Busy);
    drop(held);
    let mut gone = request(How::WorkingCopy);
    gone.changes[0].commit = "1".repeat(40);
    let error = repos.apply(gone).await.expect_err("no commit");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");

    fs::write(repo.dir.join(".git/index.lock"), "").expect("written");
    let before = files(&repo.dir);
    let error = repos
        .apply(request(How::Merge))
        .await
        .expect_err("index locked");
    assert!(error.to_string().contains("index"), "{error}");
    assert_eq!(files(&repo.dir), before);
    fs::remove_file(repo.dir.join(".git/index.lock")).expect("removed");
    let outcome = apply(&repos, &repo, How::Merge, std::slice::from_ref(&change)).await;
    assert!(outcome.applied);
    let left: Vec<_> = fs::read_dir(repo.dir.join(".git"))
        .expect("listed")
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().contains("mahavishnu") || name == "index.lock")
        .collect();
    assert!(left.is_empty(), "{left:?}");

    let bare = place.at(place.root().join("bare"));
    place
        .at(place.root())
        .git(["clone", "-q", "--bare", "app", "bare"]);
    let error = repos
        .apply(ApplyRequest {
            repo: bare.path(),
            workflow: workflow(),
            ..request(How::Merge)
        })
        .await
        .expect_err("bare");
    assert_eq!(error.field().as_deref(), Some("how"), "{error}");
}

#[tokio::test]
async fn linked_worktrees_unborn_branches_and_line_ends_are_served() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.git(["worktree", "add", "-q", "-b", "side", "../linked"]);
    let linked = place.at(place.root().join("linked"));
    let repos = place.repos();
    let change = item(&repos, &place, &linked, 0, BaseRef::Head, |work| {
        work.write("x", "x")
    })
    .await;
    let outcome = apply(&repos, &linked, How::Merge, &[change]).await;
    assert!(outcome.applied && linked.dir.join("x").exists() && !repo.dir.join("x").exists());
    assert_eq!(linked.git(["status", "--porcelain"]), "");

    let unborn = place.empty("unborn");
    unborn.write("mine", "mine\n");
    let change = item(&repos, &place, &unborn, 0, BaseRef::WorkingCopy, |work| {
        work.write("mine", "mine\nmore\n");
        work.write("theirs", "theirs\n");
    })
    .await;
    let outcome = apply(&repos, &unborn, How::WorkingCopy, &[change]).await;
    assert!(outcome.applied, "{outcome:?}");
    assert_eq!(unborn.read("mine"), "mine\nmore\n");
    repos
        .undo(&outcome.undo.expect("a token"))
        .await
        .expect("undone");
    assert_eq!(files(&unborn.dir).len(), 1);

    let dos = place.repo("dos");
    dos.write(".gitattributes", "*.txt text eol=crlf\n");
    dos.commit("line ends");
    fs::remove_file(dos.dir.join("a.txt")).expect("removed");
    dos.git(["checkout", "-q", "a.txt"]);
    assert!(dos.read("a.txt").contains("\r\n"));
    let before = files(&dos.dir);
    let change = item(&repos, &place, &dos, 0, BaseRef::Head, |work| {
        work.write("a.txt", "one\r\ntwo\r\n");
    })
    .await;
    let outcome = apply(&repos, &dos, How::WorkingCopy, &[change]).await;
    assert_eq!(dos.read("a.txt"), "one\r\ntwo\r\n");
    repos
        .undo(&outcome.undo.expect("a token"))
        .await
        .expect("undone");
    assert_eq!(files(&dos.dir), before);
}

#[tokio::test]
async fn a_sparse_checkout_gets_its_changes_without_the_files_it_leaves_out() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.write("in/x", "1\n");
    repo.write("out/x", "1\n");
    repo.write("out/gone", "1\n");
    repo.commit("second");
    repo.git(["sparse-checkout", "set", "in"]);
    assert!(!repo.dir.join("out").exists());
    let repos = place.repos();
    let before = everything(&repo);
    let change = item(&repos, &place, &repo, 0, BaseRef::WorkingCopy, |work| {
        work.write("in/x", "2\n");
        work.git(["sparse-checkout", "disable"]);
        work.write("out/x", "2\n");
        work.write("out/new", "2\n");
        fs::remove_file(work.dir.join("out/gone")).expect("removed");
    })
    .await;
    let changes = std::slice::from_ref(&change);
    let refused = apply(&repos, &repo, How::WorkingCopy, changes).await;
    assert!(!refused.applied);
    let named = refused.items[0].conflicts.join(" ");
    assert!(
        named.contains("out/x (outside your sparse checkout"),
        "{named}"
    );
    assert_eq!(everything(&repo), before);

    let outcome = apply(&repos, &repo, How::Merge, changes).await;
    assert!(outcome.applied, "{outcome:?}");
    assert_eq!(repo.git(["status", "--porcelain"]), "");
    assert_eq!(repo.read("in/x"), "2\n");
    assert!(!repo.dir.join("out/x").exists(), "it stays left out");
    assert_eq!(repo.git(["show", "HEAD:out/x"]), "2");
    repos
        .undo(&outcome.undo.expect("a token"))
        .await
        .expect("undone");
    assert_eq!(everything(&repo), before);
    assert_eq!(repo.git(["ls-files", "-t", "out/x"]), "S out/x");
}

#[tokio::test]
async fn a_new_file_outside_a_sparse_checkout_is_applied() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.write("in/x", "1\n");
    repo.write("out/x", "1\n");
    repo.commit("second");
    repo.git(["sparse-checkout", "set", "in"]);
    let repos = place.repos();
    let change = item(&repos, &place, &repo, 0, BaseRef::Head, |work| {
        work.write("out/new", "2\n");
    })
    .await;
    assert_eq!(
        repo.git(["diff", "--name-only", &change.base, &change.commit]),
        "out/new"
    );
    let outcome = apply(
        &repos,
        &repo,
        How::WorkingCopy,
        std::slice::from_ref(&change),
    )
    .await;
    assert!(outcome.applied, "{outcome:?}");
    assert_eq!(repo.read("out/new"), "2\n");
}
