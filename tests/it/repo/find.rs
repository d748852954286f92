//! Roots, discovery, HEAD, locks, status.

use super::support::Place;
use mahavishnu::error::{ErrorKind, Fault};
use mahavishnu::repo::{Lane, Layout, RepoError, RepoPath, Repos, Selection, Setup};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

fn names(found: &[RepoPath]) -> Vec<&str> {
    found.iter().map(RepoPath::name).collect()
}

fn select(specs: &[&str]) -> Selection {
    Selection {
        specs: specs.iter().map(|spec| (*spec).to_owned()).collect(),
        ..Selection::default()
    }
}

#[tokio::test]
async fn links_are_resolved_before_a_path_is_checked() {
    let place = Place::new();
    let inside = place.repo("app");
    let outside = place.at(place.base.join("outside"));
    fs::create_dir(&outside.dir).expect("directory");
    outside.git(["init", "-q"]);
    symlink(&outside.dir, place.root().join("link")).expect("link");
    symlink(&inside.dir, place.root().join("alias")).expect("link");
    let repos = place.repos();

    for spec in [
        "link",
        "app/../../outside",
        outside.dir.to_str().expect("UTF-8"),
        "../outside",
        "/etc",
        "/no/such/place",
    ] {
        let error = repos.resolve(spec).await.expect_err(spec);
        assert_eq!(error.kind(), ErrorKind::Forbidden, "{spec}: {error}");
        let problem = error.problem();
        assert!(
            problem
                .message
                .contains(place.root().to_str().expect("UTF-8")),
            "{problem}"
        );
        assert!(problem.hint.expect("a hint").contains("config.toml"));
    }
    for spec in ["alias", "app", "./app", "app/../app", "app/"] {
        let repo = repos.resolve(spec).await.expect(spec);
        assert_eq!(repo.as_path(), inside.dir, "{spec}");
    }
}

#[tokio::test]
async fn home_is_expanded() {
    let place = Place::new();
    let repo = place.at(place.base.join("home/mine"));
    fs::create_dir(&repo.dir).expect("directory");
    repo.git(["init", "-q"]);
    let repos = Repos::new(Setup {
        roots: vec!["~/".into()],
        ..place.setup()
    });
    assert_eq!(
        repos.resolve("~/mine").await.expect("found").as_path(),
        repo.dir
    );
}

#[test]
fn a_start_directory_that_is_too_wide_is_refused_at_first_use() {
    let place = Place::new();
    let home = place.base.join("home");
    for start_dir in [Path::new("/"), &home] {
        let repos = Repos::new(Setup {
            roots: Vec::new(),
            start_dir: start_dir.to_owned(),
            ..place.setup()
        });
        let error = repos.roots().dirs().expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Forbidden);
        assert!(error.hint().expect("a hint").contains("roots"), "{error}");
    }
    let repos = Repos::new(Setup {
        roots: Vec::new(),
        start_dir: place.root(),
        ..place.setup()
    });
    assert_eq!(repos.roots().dirs().expect("taken"), [place.root()]);
}

#[tokio::test]
async fn a_path_without_a_repository_gets_a_next_step() {
    let place = Place::new();
    let app = place.repo("app");
    fs::create_dir_all(place.root().join("plain")).expect("directory");
    app.write("src/x", "");
    let repos = place.repos();

    let plain = repos.resolve("plain").await.expect_err("refused");
    assert!(
        matches!(plain, RepoError::NotARepository { above: None, .. }),
        "{plain}"
    );
    assert!(plain.hint().expect("a hint").contains("git init"));
    let sub = repos.resolve("app/src").await.expect_err("refused");
    assert!(
        sub.hint()
            .expect("a hint")
            .contains(app.dir.to_str().expect("UTF-8"))
    );
    let typo = repos.resolve("aap").await.expect_err("refused");
    assert_eq!(typo.kind(), ErrorKind::NotFound);
    assert!(
        typo.hint().expect("a hint").contains("\"app\""),
        "{:?}",
        typo.hint()
    );
    for bad in ["", "  ", "a\0b"] {
        let error = repos.resolve(bad).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(error.field().as_deref(), Some("repos"));
    }
}

#[tokio::test]
async fn a_name_finds_nested_repositories_and_lists_ambiguous_ones() {
    let place = Place::new();
    place.repo("team/api");
    place.repo("team/web");
    place.repo("old/web");
    fs::create_dir(place.root().join("api")).expect("a folder in the way");
    let repos = place.repos();

    assert_eq!(repos.resolve("api").await.expect("found").name(), "api");
    match repos.resolve("web").await.expect_err("two") {
        RepoError::Ambiguous { candidates, .. } => assert_eq!(candidates.len(), 2),
        other => panic!("{other}"),
    }
    let error = repos.resolve("web").await.expect_err("two").problem();
    assert!(
        error.message.contains("old/web") && error.message.contains("team/web"),
        "{error}"
    );
}

#[tokio::test]
async fn the_walk_finds_what_a_person_calls_a_repository() {
    let place = Place::new();
    let app = place.repo("app");
    app.write(".gitignore", "/vendor/\n/nested/\n*.tmp/\n");
    for hidden in ["vendor/deep/lib", "node_modules/pkg", "app/x.tmp/y"] {
        place.repo(hidden);
    }
    place.repo("app/vendor/deep/lib");
    place.repo("app/node_modules/pkg/inner");
    place.repo("app/nested");
    place.repo("app/packages/inner");
    place.repo(".github");
    place.repo(".cache/clone");
    let bare = place.at(place.root().join("bare.git"));
    fs::create_dir(&bare.dir).expect("directory");
    bare.git(["init", "-q", "--bare"]);
    let library = place.repo("library");
    app.git([
        "submodule",
        "--quiet",
        "add",
        library.dir.to_str().expect("UTF-8"),
        "sub",
    ]);
    app.git(["worktree", "add", "-q", "../linked"]);
    let bad = place
        .root()
        .join(std::ffi::OsStr::from_bytes(b"not-\xff-utf8"));
    fs::create_dir_all(bad.join(".git/objects")).expect("directory");
    fs::create_dir_all(bad.join(".git/refs")).expect("directory");
    fs::write(bad.join(".git/HEAD"), "ref: refs/heads/main\n").expect("written");

    let found = place.repos().discover().await.expect("walked");
    let root = place.root();
    let found: Vec<_> = found
        .iter()
        .map(|repo| {
            repo.as_path()
                .strip_prefix(&root)
                .expect("under the root")
                .to_str()
                .expect("UTF-8")
        })
        .collect();
    assert_eq!(
        found,
        [
            ".github",
            "app",
            "app/nested",
            "app/packages/inner",
            "bare.git",
            "library",
            "linked",
            "vendor/deep/lib",
        ]
    );
}

#[tokio::test]
async fn lists_of_paths_names_and_globs_are_expanded_once_each_in_order() {
    let place = Place::new();
    for name in ["svc-a", "svc-b", "team/svc-c", "lib"] {
        place.repo(name).write("Cargo.toml", "");
    }
    fs::remove_file(place.root().join("svc-b/Cargo.toml")).expect("removed");
    let repos = place.repos();
    let expand = |selection| repos.expand(selection);

    let found = expand(select(&["lib", "svc-*", "./svc-a", "svc-c"]))
        .await
        .expect("found");
    assert_eq!(names(&found), ["lib", "svc-a", "svc-b", "svc-c"]);
    let found = expand(select(&["team/*"])).await.expect("found");
    assert_eq!(names(&found), ["svc-c"]);
    let mut selection = select(&["**"]);
    selection.exclude = vec!["lib".to_owned()];
    selection.has_file = vec!["Cargo.*".to_owned()];
    assert_eq!(
        names(&expand(selection.clone()).await.expect("found")),
        ["svc-a", "svc-c"]
    );
    selection.has_file.push("go.mod".to_owned());
    let error = expand(selection).await.expect_err("nothing is left");
    assert_eq!(error.field().as_deref(), Some("has_file"), "{error}");
    assert!(error.to_string().contains("none of 4"), "{error}");
    assert!(matches!(
        expand(select(&["zzz*"])).await,
        Err(RepoError::NotFound { .. })
    ));
    let error = expand(select(&["a{b"])).await.expect_err("refused");
    assert_eq!(
        (error.kind(), error.field().as_deref()),
        (ErrorKind::InvalidArgument, Some("repos"))
    );
}

#[tokio::test]
async fn head_is_read_as_git_reads_it() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let first = repo.git(["rev-parse", "HEAD"]);
    let head = || async { repos.head(&repo.path()).await.expect("read") };

    assert_eq!(
        (head().await.commit, head().await.branch),
        (Some(first.clone()), Some("main".to_owned()))
    );
    repo.git(["pack-refs", "--all"]);
    assert_eq!(head().await.commit, Some(first.clone()));
    repo.git(["checkout", "-q", "-b", "feat/ä-b"]);
    assert_eq!(head().await.branch.as_deref(), Some("feat/ä-b"));
    repo.git(["checkout", "-q", "--detach"]);
    assert_eq!(
        (head().await.commit, head().await.branch),
        (Some(first.clone()), None)
    );
    repo.git(["checkout", "-q", "--orphan", "new"]);
    assert_eq!(
        (head().await.commit, head().await.branch),
        (None, Some("new".to_owned()))
    );
    repo.git(["symbolic-ref", "refs/heads/alias", "refs/heads/main"]);
    repo.git(["symbolic-ref", "HEAD", "refs/heads/alias"]);
    assert_eq!(head().await.commit, Some(first.clone()));
    repo.git(["worktree", "add", "-q", "-b", "side", "../side", "main"]);
    let side = place.at(place.root().join("side")).path();
    let head = repos.head(&side).await.expect("read");
    assert_eq!(
        (head.commit, head.branch.as_deref()),
        (Some(first), Some("side"))
    );
}

#[tokio::test]
async fn head_of_a_reftable_repository_is_asked_of_git() {
    let place = Place::new();
    let repo = place.at(place.root().join("new"));
    fs::create_dir(&repo.dir).expect("directory");
    repo.git(["init", "-q", "-b", "main", "--ref-format=reftable"]);
    let unborn = place.repos().head(&repo.path()).await.expect("read");
    assert_eq!(
        (unborn.commit, unborn.branch.as_deref()),
        (None, Some("main"))
    );
    let commit = repo.commit("first");
    let head = place.repos().head(&repo.path()).await.expect("read");
    assert_eq!(
        (head.commit, head.branch.as_deref()),
        (Some(commit), Some("main"))
    );
    let status = place.repos().status(&repo.path()).await.expect("read");
    assert_eq!(status.default_branch.as_deref(), Some("main"));
}

#[tokio::test]
async fn status_has_dirty_files_kinds_and_default_branch() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.write("Cargo.toml", "");
    repo.write("x.tf", "");
    repo.commit("kinds");
    repo.git(["checkout", "-q", "-b", "work"]);
    let status = || async { place.repos().status(&repo.path()).await.expect("read") };

    assert_eq!(status().await.kinds, ["rust", "terraform"]);
    assert_eq!(status().await.dirty, 0);
    assert_eq!(status().await.default_branch.as_deref(), Some("main"));
    repo.write("a.txt", "changed");
    repo.write("new\nline", "new");
    repo.write("staged", "staged");
    repo.git(["add", "staged"]);
    assert_eq!(status().await.dirty, 3);
    repo.git(["update-ref", "refs/remotes/origin/trunk", "HEAD"]);
    repo.git([
        "symbolic-ref",
        "refs/remotes/origin/HEAD",
        "refs/remotes/origin/trunk",
    ]);
    assert_eq!(status().await.default_branch.as_deref(), Some("trunk"));
}

#[test]
fn repositories_that_share_git_data_by_a_link_share_a_lock() {
    let place = Place::new();
    let repo = place.repo("app");
    let linked = place.root().join("linked");
    fs::create_dir(&linked).expect("directory");
    symlink(repo.dir.join(".git"), linked.join(".git")).expect("link");
    let repos = place.repos();
    let lock = |dir| {
        let layout = Layout::of(&place.at(dir).path()).expect("a repository");
        repos.try_lock(&layout, Lane::WorkingCopy).expect("asked")
    };
    let held = lock(repo.dir.clone());
    assert!(held.is_some() && lock(linked.clone()).is_none());
    drop(held);
    assert!(lock(linked).is_some());

    let broken = place.root().join("broken");
    fs::create_dir(&broken).expect("directory");
    symlink("nowhere", broken.join(".git")).expect("link");
    let error = repos.roots().resolve("broken").expect_err("it is none");
    assert!(matches!(error, RepoError::NotARepository { .. }), "{error}");
}

#[tokio::test]
async fn worktrees_of_one_repository_share_one_lock() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.git(["worktree", "add", "-q", "../linked"]);
    let linked = place.at(place.root().join("linked")).path();
    let layout = Layout::of(&linked).expect("a repository");
    // Two handles stand for two server processes: they share nothing but the files.
    let (one, two) = (place.repos(), place.repos());

    let held = one
        .lock(&repo.path(), Lane::WorkingCopy)
        .await
        .expect("locked");
    assert!(
        two.try_lock(&layout, Lane::WorkingCopy)
            .expect("asked")
            .is_none()
    );
    assert!(
        one.try_lock(&layout, Lane::WorkingCopy)
            .expect("asked")
            .is_none()
    );
    assert!(
        two.try_lock(&layout, Lane::GitData)
            .expect("asked")
            .is_some()
    );
    let waiter = two.lock(&linked, Lane::WorkingCopy);
    tokio::pin!(waiter);
    assert!(
        tokio::time::timeout(Duration::from_millis(50), &mut waiter)
            .await
            .is_err()
    );
    drop(held);
    let held = tokio::time::timeout(Duration::from_secs(10), waiter)
        .await
        .expect("no hang");
    assert!(held.is_ok());
}

#[tokio::test]
async fn ten_thousand_paths_are_checked_without_a_process_each() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = Repos::new(Setup {
        git: "/no/such/git".into(),
        ..place.setup()
    });
    let specs: Vec<&str> = vec![repo.dir.to_str().expect("UTF-8"); 10_000];
    let began = Instant::now();
    let found = repos.expand(select(&specs)).await.expect("found");
    eprintln!("10,000 checks took {:?}", began.elapsed());
    assert_eq!(found.len(), 1);
    let began = Instant::now();
    for _ in 0..10_000 {
        repos.head(&found[0]).await.expect("read");
    }
    eprintln!("10,000 heads took {:?}", began.elapsed());
}

#[tokio::test]
async fn git_failures_name_the_program_or_its_message() {
    let place = Place::new();
    let repo = place.repo("app");
    let missing = Repos::new(Setup {
        git: "/no/such/git".into(),
        ..place.setup()
    });
    let error = missing.status(&repo.path()).await.expect_err("no git");
    assert!(matches!(error, RepoError::GitMissing { .. }), "{error}");
    fs::write(repo.dir.join(".git/index"), "garbage").expect("written");
    let error = place
        .repos()
        .status(&repo.path())
        .await
        .expect_err("broken");
    assert!(error.to_string().contains("index"), "{error}");
}

#[tokio::test]
async fn worktrees_are_not_listed_as_repositories() {
    let place = Place::new();
    place.repo("app");
    let repos = Repos::new(Setup {
        state_dir: place.root().join("state"),
        ..place.setup()
    });
    let repo = repos.resolve("app").await.expect("found");
    let worktree = repos
        .create_worktree(super::worktree::wanted(repo.clone()))
        .await
        .expect("made");
    assert!(worktree.path().starts_with(place.root()));
    assert_eq!(repos.discover().await.expect("walked"), [repo]);
}
