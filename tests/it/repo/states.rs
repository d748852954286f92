//! Repositories in the states that git allows: worked in, or reported with what mends them.

use super::apply::{apply, item};
use super::support::{Place, Work};
use super::worktree::wanted;
use mahavishnu::error::Fault;
use mahavishnu::model::BaseRef;
use mahavishnu::repo::{CleanRequest, Committed, How, ListRequest, NewWorktree, Repos, Selection};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Has an item do `work` in a new worktree of `repo`, and commits it.
async fn committed(place: &Place, repo: &Work, work: impl FnOnce(&Work)) -> Committed {
    let repos = place.repos();
    let request = wanted(repo.path());
    let mut worktree = repos.create_worktree(request).await.expect("made");
    work(&place.at(worktree.path().to_owned()));
    let done = repos.commit_work(&mut worktree, "Work\n").await;
    done.expect("committed")
}

fn tree(repo: &Work, commit: &str) -> String {
    repo.git(["ls-tree", "-r", "--name-only", commit])
}

#[tokio::test]
async fn a_nested_repository_without_a_commit_is_named_and_the_rest_committed() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let request = wanted(repo.path());
    let mut worktree = repos.create_worktree(request).await.expect("made");
    let path = worktree.path().to_owned();
    let work = place.at(path.clone());
    work.write("w", "work");
    work.git(["init", "-q", "sub"]);
    work.write("sub/inner", "x");
    let done = repos.commit_work(&mut worktree, "x").await.expect("done");
    assert_eq!(
        (done.changed, done.uncommitted.as_slice()),
        (true, ["sub".to_owned()].as_slice())
    );
    assert_eq!(tree(&repo, &done.commit), "a.txt\nw");

    // A later attempt and a cleaning go on; nothing is lost, and the reason names it.
    drop(worktree);
    let worktree = repos.open_worktree(&path).await.expect("opened again");
    drop(worktree);
    let all = CleanRequest {
        include_unapplied: true,
        ..CleanRequest::default()
    };
    let cleaned = repos.clean(all.clone()).await.expect("cleaned");
    assert!(cleaned.kept[0].reason.contains("sub"), "{cleaned:?}");
    assert_eq!(work.read("sub/inner"), "x");
    fs::remove_dir_all(path.join("sub")).expect("removed");
    let cleaned = repos.clean(all).await.expect("cleaned");
    assert_eq!(cleaned.removed.len(), 1, "{cleaned:?}");
}

#[tokio::test]
async fn what_git_cannot_add_is_named_and_the_rest_committed() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.write(".gitattributes", "*.locked filter=locked\n");
    repo.commit("attributes");
    repo.git(["config", "filter.locked.clean", "false"]);
    repo.git(["config", "filter.locked.required", "true"]);
    let pipe = committed(&place, &repo, |work| {
        work.write("w", "work");
        fs::remove_file(work.dir.join("a.txt")).expect("removed");
        work.pipe("a.txt");
    })
    .await;
    assert_eq!(pipe.uncommitted, ["a.txt"]);
    assert!(tree(&repo, &pipe.commit).contains('w'));

    let filtered = committed(&place, &repo, |work| {
        for name in ["a.locked", "dir/b.locked"] {
            work.write(name, "cannot be cleaned");
        }
        for nth in 0..9 {
            work.write(format!("dir/{nth}"), "work");
        }
        work.write("odd\n*", "work");
        fs::remove_file(work.dir.join("a.txt")).expect("removed");
    })
    .await;
    assert_eq!(filtered.uncommitted, ["a.locked", "dir/b.locked"]);
    let listed = tree(&repo, &filtered.commit);
    assert_eq!(listed.lines().count(), 11, "{listed}");
    assert!(!listed.contains("a.txt") && listed.contains("dir/8"));

    let reserved = committed(&place, &repo, |work| {
        work.write("git~1/x", "a name that git refuses");
        work.write("w", "work");
    })
    .await;
    assert_eq!(reserved.uncommitted, ["git~1"]);
    assert!(tree(&repo, &reserved.commit).contains('w'));
}

#[tokio::test]
async fn sockets_and_pipes_are_named_and_are_no_change() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.write(".gitignore", "ignored\n");
    repo.commit("ignored");
    let done = committed(&place, &repo, |work| {
        work.pipe("pipe");
        fs::create_dir_all(work.dir.join("ignored")).expect("made");
        work.pipe("ignored/pipe");
        let socket = work.dir.join("socket");
        drop(std::os::unix::net::UnixListener::bind(socket).expect("a socket"));
    })
    .await;
    assert_eq!(done.uncommitted, ["pipe", "socket"]);
    assert!(!done.changed);
    let cleaned = place.repos().clean(CleanRequest::default()).await;
    assert_eq!(cleaned.expect("cleaned").removed.len(), 1);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named_and_the_rest_committed() {
    if rustix::process::geteuid().is_root() {
        // Nothing is unreadable to root; the pipe and the filter above stand for it there.
        return;
    }
    let place = Place::new();
    let repo = place.repo("app");
    let done = committed(&place, &repo, |work| {
        work.write("w", "work");
        work.write("secret", "work");
        let mode = fs::Permissions::from_mode(0o0);
        fs::set_permissions(work.dir.join("secret"), mode).expect("mode");
    })
    .await;
    assert_eq!(done.uncommitted, ["secret"]);
    assert_eq!(tree(&repo, &done.commit), "a.txt\nw");
    let done = committed(&place, &repo, |work| {
        work.write("w", "work");
        work.write("closed/x", "work");
        let mode = fs::Permissions::from_mode(0o0);
        fs::set_permissions(work.dir.join("closed"), mode).expect("mode");
    })
    .await;
    assert_eq!(done.uncommitted, ["closed"]);
}

/// Makes `app/.bare` with `app/.git` pointing to it, and a worktree `app/main` beside.
fn with_bare_pointer(place: &Place) -> Work {
    let origin = place.repo("origin");
    let app = place.at(place.root().join("app"));
    fs::create_dir(&app.dir).expect("made");
    let url = origin.dir.to_str().expect("UTF-8").to_owned();
    app.git(["clone", "-q", "--bare", &url, ".bare"]);
    app.write(".git", "gitdir: ./.bare\n");
    app.git(["worktree", "add", "-q", "main"]);
    app
}

#[tokio::test]
async fn a_bare_clone_behind_a_git_file_is_a_bare_repository() {
    let place = Place::new();
    let app = with_bare_pointer(&place);
    let repos = place.repos();
    let all = repos.list(ListRequest::default()).await.expect("listed");
    let names: Vec<_> = all.iter().map(|repo| repo.name()).collect();
    assert_eq!(names, ["app", "main", "origin"]);
    for row in repos.rows(all).await {
        let status = row.status.expect("a state");
        assert_eq!(
            (status.dirty, status.head.branch.as_deref()),
            (0, Some("main"))
        );
    }
    let done = committed(&place, &app, |work| work.write("w", "work")).await;
    assert!(done.changed);
    assert!(tree(&app, &done.commit).contains('w'));
}

#[tokio::test]
async fn a_working_copy_marked_bare_names_the_setting_and_serves_worktrees() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.git(["config", "core.bare", "true"]);
    let repos = place.repos();
    let rows = repos.rows(vec![repo.path()]).await;
    let problem = rows[0].status.clone().expect_err("git refuses it");
    assert!(problem.message.contains("core.bare"), "{problem}");
    let hint = problem.hint.expect("a hint");
    assert!(hint.contains("config core.bare false"), "{hint}");
    let done = committed(&place, &repo, |work| work.write("w", "work")).await;
    assert!(done.changed, "a worktree does not need the working copy");
    let base = NewWorktree {
        base: BaseRef::WorkingCopy,
        ..wanted(repo.path())
    };
    let error = repos.create_worktree(base).await.expect_err("it does");
    assert!(error.to_string().contains("core.bare"), "{error}");
}

/// Breaks `git status` in `repo` without touching its commits.
fn break_status(repo: &Work, how: &str) {
    match how {
        "index" => repo.write(".git/index", "garbage"),
        "submodule" => {
            repo.git([
                "update-index",
                "--add",
                "--cacheinfo",
                "160000",
                &"1".repeat(40),
                "sub",
            ]);
            repo.write("sub/.git", "gitdir: ../.git/modules/gone\n");
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_status_that_fails_stops_no_worktree() {
    for how in ["index", "submodule"] {
        let place = Place::new();
        let repo = place.repo("app");
        break_status(&repo, how);
        let repos = place.repos();
        let rows = repos.rows(vec![repo.path()]).await;
        assert!(rows[0].status.is_err(), "{how}: {rows:?}");
        let request = wanted(repo.path());
        let worktree = repos.create_worktree(request).await.expect(how);
        assert_eq!(worktree.record().left_out_dirty, None, "{how}");
        drop(worktree);
        let done = committed(&place, &repo, |work| work.write("w", "work")).await;
        assert!(done.changed, "{how}");
    }
}

async fn trouble(repos: &Repos, dir: &Path) -> String {
    let all = repos.list(ListRequest::default()).await.expect("listed");
    let found: Vec<_> = all
        .into_iter()
        .filter(|repo| repo.as_path() == dir)
        .collect();
    let row = repos.rows(found).await.pop().expect("a row");
    row.status.expect_err("it cannot be read").message
}

#[tokio::test]
async fn repositories_that_cannot_be_read_are_rows_and_fail_no_glob() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.git(["worktree", "add", "-q", "../orphan"]);
    fs::remove_dir_all(repo.dir.join(".git/worktrees")).expect("removed");
    let odd = place.root().join("odd");
    fs::create_dir(&odd).expect("made");
    fs::write(odd.join(".git"), "nonsense").expect("written");
    let half = place.repo("half");
    fs::remove_file(half.dir.join(".git/HEAD")).expect("removed");
    fs::create_dir_all(place.root().join("empty/.git")).expect("made");

    let repos = place.repos();
    let text = trouble(&repos, &place.root().join("orphan")).await;
    assert!(text.contains("its .git file names"), "{text}");
    let text = trouble(&repos, &odd).await;
    assert!(text.contains("gitdir: "), "{text}");
    let text = trouble(&repos, &half.dir).await;
    assert!(text.contains("lacks HEAD"), "{text}");
    let every = Selection {
        specs: vec!["*".to_owned()],
        ..Selection::default()
    };
    let found = repos.expand(every).await.expect("found");
    assert_eq!(found.len(), 1, "{found:?}");
    let error = repos.resolve("half").await.expect_err("named");
    assert!(error.to_string().contains("lacks HEAD"), "{error}");
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn a_root_inside_a_repository_names_it() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.write("src/x", "x");
    let setup = |dir: &Path| mahavishnu::repo::Setup {
        roots: Vec::new(),
        start_dir: dir.to_owned(),
        ..place.setup()
    };
    let inside = Repos::new(setup(&repo.dir.join("src")));
    let note = inside.roots().inside_repositories().expect("a note");
    assert!(note.contains(repo.dir.to_str().expect("UTF-8")), "{note}");
    let at_top = Repos::new(setup(&repo.dir));
    assert_eq!(at_top.roots().inside_repositories(), None);
}

#[tokio::test]
async fn a_branch_that_blocks_the_branches_of_items_is_named() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.git(["branch", "mahavishnu"]);
    let repos = place.repos();
    let error = repos.create_worktree(wanted(repo.path())).await;
    let hint = error.expect_err("git refuses it").hint();
    assert!(hint.is_some_and(|hint| hint.contains("rename the branch")));
    let left = fs::read_dir(place.state().join("worktrees")).expect("listed");
    assert_eq!(left.count(), 0);
}

#[tokio::test]
async fn an_index_that_is_split_or_has_hidden_changes_is_applied_to() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.write("b.txt", "b\n");
    repo.commit("b");
    repo.git(["update-index", "--split-index"]);
    repo.git(["update-index", "--assume-unchanged", "b.txt"]);
    repo.write("b.txt", "a change that status hides\n");
    let repos = place.repos();
    let change = item(&repos, &place, &repo, 0, BaseRef::Head, |work| {
        work.write("a.txt", "work\n");
    })
    .await;
    let outcome = apply(&repos, &repo, How::Merge, &[change]).await;
    assert!(outcome.applied, "{outcome:?}");
    assert_eq!(repo.git(["status", "--porcelain"]), "");
    let token = outcome.undo.expect("a token");
    repos.undo(&token).await.expect("undone");
    assert_eq!(repo.read("a.txt"), "one\ntwo\nthree\n");
    let hidden = item(&repos, &place, &repo, 1, BaseRef::Head, |work| {
        work.write("b.txt", "work\n");
    })
    .await;
    let outcome = apply(&repos, &repo, How::WorkingCopy, &[hidden]).await;
    assert_eq!(outcome.items[0].overlaps_dirty, ["b.txt"]);
}
