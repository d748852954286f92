//! Worktrees: bases, copied files, commits, and the odd repositories.

use super::support::{Place, Work};
use mahavishnu::error::{ErrorKind, Fault};
use mahavishnu::model::{BaseRef, Isolation, WorkflowId};
use mahavishnu::repo::{
    ApplyRequest, Change, CleanRequest, How, NewWorktree, RepoError, RepoPath, Repos, SetupRan,
    Worktree,
};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

pub(super) fn wanted(repo: RepoPath) -> NewWorktree {
    NewWorktree {
        repo,
        workflow: WorkflowId::new(),
        item: 0,
        attempt: 1,
        isolation: Isolation::Worktree,
        base: BaseRef::Head,
        copy_files: Vec::new(),
    }
}

fn inside(place: &Place, worktree: &Worktree) -> Work {
    place.at(worktree.path().to_owned())
}

#[tokio::test]
async fn work_is_committed_on_its_own_branch_unseen_by_the_user() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.write(".gitignore", "*.log\n");
    let first = repo.commit("ignore");
    repo.write("dirty", "mine");
    repo.script(".git/hooks/pre-commit", "exit 1");
    repo.script(".git/hooks/post-checkout", "exit 1");
    repo.script(".git/hooks/reference-transaction", "exit 1");
    repo.git(["config", "commit.gpgSign", "true"]);
    repo.git(["config", "gpg.program", "/no/such/gpg"]);
    let repos = place.repos();
    let wanted = wanted(repo.path());
    let mut worktree = repos.create_worktree(wanted.clone()).await.expect("made");

    assert!(worktree.path().starts_with(place.state().join("worktrees")));
    assert_eq!(worktree.path().file_name(), Some("app".as_ref()));
    let record = worktree.record().clone();
    assert_eq!(record.base_commit, first);
    assert_eq!(record.base_branch.as_deref(), Some("main"));
    assert_eq!(record.left_out_dirty, Some(1));
    let branch = record.branch.expect("a branch");
    assert_eq!(branch, format!("mahavishnu/{}/0-1", wanted.workflow));

    let work = inside(&place, &worktree);
    work.write("a.txt", "changed\n");
    work.write("new dir/new\nfile", "new\n");
    work.write(
        Path::new(std::ffi::OsStr::from_bytes(b"\xff.txt")),
        "bytes\n",
    );
    work.write("noise.log", "ignored");
    let done = repos
        .commit_work(&mut worktree, "Work\n")
        .await
        .expect("committed");
    assert!(done.changed);
    assert_eq!(
        (done.diff.files, done.diff.insertions, done.diff.deletions),
        (3, 3, 3)
    );
    assert_eq!(repo.git(["rev-parse", &format!("{branch}^")]), first);
    assert_eq!(repo.git(["rev-parse", &branch]), done.commit);
    assert_eq!(
        repo.git(["log", "-1", "--format=%an %s", &branch]),
        "Test Work"
    );
    assert_eq!(repo.git(["status", "--porcelain"]), "?? dirty");
    assert_eq!(repo.read("a.txt"), "one\ntwo\nthree\n");
    let again = repos
        .commit_work(&mut worktree, "Again\n")
        .await
        .expect("committed");
    assert_eq!(again.commit, done.commit);
    let diff = repos
        .diff(&repo.path(), &first, &done.commit, 1 << 20)
        .await
        .expect("a diff");
    assert!(String::from_utf8_lossy(&diff).contains("+changed"));
    assert_eq!(
        repos
            .diff(&repo.path(), &first, &done.commit, 10)
            .await
            .expect("a diff")
            .len(),
        10
    );
}

#[tokio::test]
async fn nothing_done_is_not_a_change_and_moved_heads_are() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let mut worktree = repos
        .create_worktree(wanted(repo.path()))
        .await
        .expect("made");
    let nothing = repos
        .commit_work(&mut worktree, "x")
        .await
        .expect("committed");
    assert!(!nothing.changed);
    assert_eq!(nothing.diff.files, 0);

    let work = inside(&place, &worktree);
    work.write("b", "by the worker itself");
    let own = work.commit("own commit");
    let done = repos
        .commit_work(&mut worktree, "x")
        .await
        .expect("committed");
    assert_eq!((done.changed, &done.commit), (true, &own));
    work.git(["checkout", "-q", "--detach"]);
    work.write("c", "more, on a detached head");
    let done = repos
        .commit_work(&mut worktree, "x")
        .await
        .expect("committed");
    let branch = worktree.record().branch.clone().expect("a branch");
    assert_eq!(repo.git(["rev-parse", &branch]), done.commit);
    assert_eq!(work.git(["symbolic-ref", "--short", "HEAD"]), branch);
    work.git(["reset", "-q", "--hard", "main"]);
    work.write("d", "after throwing everything away");
    repos
        .commit_work(&mut worktree, "x")
        .await
        .expect("committed");
    let kept = repo.git([
        "for-each-ref",
        "--format=%(objectname)",
        "refs/mahavishnu/kept",
    ]);
    assert_eq!(
        kept, done.commit,
        "what was committed before stays reachable"
    );
}

#[tokio::test]
async fn what_setup_and_copied_files_did_is_base() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.write(".env", "SECRET=1");
    repo.write("conf/local.toml", "x = 1");
    let repos = place.repos();
    let mut worktree = repos
        .create_worktree(NewWorktree {
            copy_files: vec![".env".to_owned(), "conf".to_owned()],
            ..wanted(repo.path())
        })
        .await
        .expect("made");
    let work = inside(&place, &worktree);
    assert_eq!(work.read("conf/local.toml"), "x = 1");
    work.write("a.txt", "one\ntwo\nthree\nfrom setup\n");
    repos
        .seal_base(&mut worktree, SetupRan::Yes)
        .await
        .expect("sealed");
    let done = repos
        .commit_work(&mut worktree, "x")
        .await
        .expect("committed");
    assert!(!done.changed);
    work.write("b", "work");
    let done = repos
        .commit_work(&mut worktree, "x")
        .await
        .expect("committed");
    assert_eq!((done.changed, done.diff.files), (true, 1));
    assert_ne!(
        worktree.record().base_commit,
        worktree.record().start_commit
    );
}

/// Starts again what is in a worktree, as a later attempt does.
async fn again(repos: &Repos, worktree: Worktree) -> Worktree {
    let path = worktree.path().to_owned();
    drop(worktree);
    repos.open_worktree(&path).await.expect("opened")
}

#[tokio::test]
async fn a_later_setup_does_not_turn_work_into_base() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let mut worktree = repos
        .create_worktree(wanted(repo.path()))
        .await
        .expect("made");
    let work = inside(&place, &worktree);
    let seal = async |worktree: &mut Worktree| {
        let sealed = repos.seal_base(worktree, SetupRan::Yes).await;
        sealed.expect("sealed");
    };
    work.write("from-setup", "1");
    seal(&mut worktree).await;
    let base = worktree.record().base_commit.clone();
    work.write("first", "1");
    let done = repos.commit_work(&mut worktree, "x").await;
    assert_eq!(done.expect("committed").diff.files, 1);

    let mut worktree = again(&repos, worktree).await;
    work.write("from-setup", "2");
    seal(&mut worktree).await;
    let done = repos.commit_work(&mut worktree, "x").await;
    let done = done.expect("committed");
    assert_eq!((done.changed, done.diff.files), (true, 1));
    assert_ne!(worktree.record().base_commit, base);
    let reachable = repo.git(["rev-list", &done.commit]);
    assert!(reachable.contains(&worktree.record().base_commit));

    let mut worktree = again(&repos, worktree).await;
    work.write("first", "touched by setup");
    seal(&mut worktree).await;
    let done = repos.commit_work(&mut worktree, "x").await;
    let done = done.expect("committed");
    assert_eq!((done.changed, done.diff.files), (true, 1));
    drop(worktree);

    let cleaned = repos.clean(CleanRequest::default()).await.expect("looked");
    assert_eq!((cleaned.removed.len(), cleaned.kept.len()), (0, 1));
    assert_eq!(
        repo.git(["show", &format!("{}:first", done.commit)]),
        "touched by setup"
    );
}

#[tokio::test]
async fn a_failed_setup_leaves_base_and_a_crash_leaves_work() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    for crashed in [false, true] {
        let mut worktree = repos
            .create_worktree(wanted(repo.path()))
            .await
            .expect("made");
        let work = inside(&place, &worktree);
        work.write("half", "1");
        if !crashed {
            let sealed = repos.seal_base(&mut worktree, SetupRan::Yes).await;
            sealed.expect("sealed");
            let done = repos.commit_work(&mut worktree, "x").await;
            assert!(!done.expect("committed").changed);
        }
        let mut worktree = again(&repos, worktree).await;
        work.write("whole", "1");
        repos
            .seal_base(&mut worktree, SetupRan::Yes)
            .await
            .expect("sealed");
        let done = repos.commit_work(&mut worktree, "x").await;
        let done = done.expect("committed");
        assert_eq!(
            (done.changed, done.diff.files),
            (crashed, u32::from(crashed))
        );
    }
}

#[tokio::test]
async fn a_worktree_left_by_a_crash_does_not_block_the_attempt() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let request = wanted(repo.path());
    let mut paths = Vec::new();
    for _ in 0..3 {
        let worktree = repos.create_worktree(request.clone()).await.expect("made");
        paths.push((worktree.path().to_owned(), worktree.record().branch.clone()));
    }
    paths.dedup();
    assert_eq!(paths.len(), 3);
    let cleaned = repos.clean(CleanRequest::default()).await.expect("cleaned");
    assert_eq!((cleaned.removed.len(), cleaned.kept.len()), (3, 0));
    assert_eq!(repo.git(["for-each-ref", "refs/heads/mahavishnu"]), "");
}

/// A repository `parent` with a submodule `sub`, which the user has checked out.
fn with_submodule(place: &Place) -> Work {
    let origin = place.repo("origin");
    let url = format!("file://{}", origin.dir.display());
    let parent = place.repo("parent");
    parent.git(["submodule", "--quiet", "add", &url, "sub"]);
    parent.commit("with a submodule");
    parent
}

#[tokio::test]
async fn submodule_commits_are_applied_and_uncommitted_work_is_named() {
    let place = Place::new();
    let repo = with_submodule(&place);
    let repos = place.repos();
    let request = wanted(repo.path());
    let mut worktree = repos.create_worktree(request.clone()).await.expect("made");
    let work = inside(&place, &worktree);
    work.git(["submodule", "--quiet", "update", "--init"]);
    let done = repos.commit_work(&mut worktree, "x").await;
    assert!(!done.expect("committed").changed, "only checked out");

    let sub = place.at(work.dir.join("sub"));
    sub.write("in-sub", "work");
    let done = repos.commit_work(&mut worktree, "x").await;
    let done = done.expect("committed");
    assert_eq!(
        (done.changed, done.diff.files, done.uncommitted),
        (true, 0, vec!["sub".to_owned()])
    );
    let path = worktree.path().to_owned();
    drop(worktree);
    let everything = CleanRequest {
        include_unapplied: true,
        ..CleanRequest::default()
    };
    let cleaned = repos.clean(everything.clone()).await.expect("looked");
    assert_eq!(cleaned.removed.len(), 0);
    assert!(cleaned.kept[0].reason.contains("sub"), "{cleaned:?}");
    assert_eq!(sub.read("in-sub"), "work");

    let commit = sub.commit("in the submodule");
    let cleaned = repos.clean(CleanRequest::default()).await.expect("looked");
    assert_eq!(cleaned.removed.len(), 0);
    let mut worktree = repos.open_worktree(&path).await.expect("opened");
    let done = repos.commit_work(&mut worktree, "x").await;
    let done = done.expect("committed");
    assert_eq!((done.changed, done.diff.files), (true, 1));
    assert!(done.uncommitted.is_empty(), "{:?}", done.uncommitted);
    let applied = repos
        .apply(ApplyRequest {
            repo: repo.path(),
            workflow: request.workflow,
            changes: vec![Change {
                item: 0,
                base: worktree.record().base_commit.clone(),
                commit: done.commit,
                message: "x".to_owned(),
                branch: "x".to_owned(),
            }],
            how: How::Merge,
            check_only: false,
        })
        .await
        .expect("applied");
    assert!(applied.applied, "{applied:?}");
    drop(worktree);
    let cleaned = repos.clean(CleanRequest::default()).await.expect("cleaned");
    assert_eq!((cleaned.removed.len(), cleaned.kept.len()), (1, 0));
    repo.git(["submodule", "--quiet", "update"]);
    let users = place.at(repo.dir.join("sub"));
    assert_eq!(users.git(["rev-parse", "HEAD"]), commit);
    assert_eq!(users.read("in-sub"), "work");
}

#[tokio::test]
async fn submodule_commits_without_a_users_copy_keep_their_worktree() {
    let place = Place::new();
    let parent = with_submodule(&place);
    let root = place.at(place.root());
    root.git(["clone", "-q", "parent", "other"]);
    drop(parent);
    let repo = place.at(place.root().join("other"));
    let repos = place.repos();
    let mut worktree = repos
        .create_worktree(wanted(repo.path()))
        .await
        .expect("made");
    let work = inside(&place, &worktree);
    work.git(["submodule", "--quiet", "update", "--init"]);
    let sub = place.at(work.dir.join("sub"));
    sub.write("in-sub", "work");
    sub.commit("in the submodule");
    work.write("beside", "work");
    let done = repos.commit_work(&mut worktree, "x").await;
    let done = done.expect("committed");
    assert_eq!(
        (done.uncommitted, done.diff.files),
        (vec!["sub".to_owned()], 1)
    );
    drop(worktree);
    let everything = CleanRequest {
        include_unapplied: true,
        ..CleanRequest::default()
    };
    let cleaned = repos.clean(everything).await.expect("looked");
    assert_eq!((cleaned.removed.len(), cleaned.kept.len()), (0, 1));
    assert_eq!(sub.read("in-sub"), "work");
}

#[tokio::test]
async fn a_snapshot_of_the_working_copy_leaves_it_as_it_is() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.write("a.txt", "staged\n");
    repo.git(["add", "a.txt"]);
    repo.write("a.txt", "dirty\n");
    repo.write("new", "untracked");
    let before = repo.git(["status", "--porcelain=v2"]);
    let index = fs::read(repo.dir.join(".git/index")).expect("readable");
    let repos = place.repos();
    let mut worktree = repos
        .create_worktree(NewWorktree {
            base: BaseRef::WorkingCopy,
            ..wanted(repo.path())
        })
        .await
        .expect("made");
    let work = inside(&place, &worktree);
    assert_eq!(
        (work.read("a.txt"), work.read("new")),
        ("dirty\n".to_owned(), "untracked".to_owned())
    );
    assert_eq!(worktree.record().left_out_dirty, Some(0));
    assert!(
        !repos
            .commit_work(&mut worktree, "x")
            .await
            .expect("committed")
            .changed
    );
    assert_eq!(repo.git(["status", "--porcelain=v2"]), before);
    assert_eq!(
        fs::read(repo.dir.join(".git/index")).expect("readable"),
        index
    );
}

#[tokio::test]
async fn bases_are_named_and_bad_ones_refused() {
    let place = Place::new();
    let repo = place.repo("app");
    let first = repo.git(["rev-parse", "HEAD"]);
    repo.git(["tag", "v1"]);
    repo.git(["checkout", "-q", "-b", "feature"]);
    repo.commit("second");
    let repos = place.repos();
    let make = |base| {
        repos.create_worktree(NewWorktree {
            base,
            ..wanted(repo.path())
        })
    };
    let named = |name: &str| BaseRef::Ref(name.to_owned());

    let worktree = make(BaseRef::DefaultBranch).await.expect("made");
    assert_eq!(worktree.record().base_commit, first);
    assert_eq!(worktree.record().base_branch.as_deref(), Some("main"));
    let worktree = make(named("v1")).await.expect("made");
    assert_eq!(
        (
            worktree.record().base_commit.as_str(),
            &worktree.record().base_branch
        ),
        (first.as_str(), &None)
    );
    for bad in ["nope", "-f", "--help", "", "a b", "HEAD:a.txt", "x\ny"] {
        let error = make(named(bad)).await.expect_err(bad);
        assert_eq!(error.field().as_deref(), Some("base_ref"), "{bad}: {error}");
    }
    let empty = place.empty("empty");
    let error = repos
        .create_worktree(wanted(empty.path()))
        .await
        .expect_err("no commit");
    assert!(matches!(error, RepoError::NoCommits { .. }), "{error}");
    empty.write("x", "x");
    let worktree = repos
        .create_worktree(NewWorktree {
            base: BaseRef::WorkingCopy,
            ..wanted(empty.path())
        })
        .await
        .expect("a snapshot is a start");
    assert_eq!(inside(&place, &worktree).read("x"), "x");
}

#[tokio::test]
async fn files_outside_the_repository_are_not_copied() {
    let place = Place::new();
    let repo = place.repo("app");
    fs::write(place.base.join("secret"), "secret").expect("written");
    symlink(&place.base, repo.dir.join("dirlink")).expect("link");
    let repos = place.repos();
    for bad in [
        "../secret",
        "/etc/passwd",
        "dirlink/secret",
        ".git/config",
        "absent",
        "",
    ] {
        let error = repos
            .create_worktree(NewWorktree {
                copy_files: vec![bad.to_owned()],
                ..wanted(repo.path())
            })
            .await
            .expect_err(bad);
        assert_eq!(
            error.field().as_deref(),
            Some("copy_files"),
            "{bad}: {error}"
        );
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
    let left: Vec<_> = fs::read_dir(place.state().join("worktrees"))
        .expect("listed")
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(repo.git(["worktree", "list"]).lines().count(), 1);
    assert_eq!(repo.git(["branch", "--list", "mahavishnu/*"]), "");
}

#[tokio::test]
async fn a_tracked_link_does_not_lead_a_copy_out_of_the_worktree() {
    let place = Place::new();
    let repo = place.repo("app");
    symlink(&place.base, repo.dir.join("out")).expect("link");
    repo.commit("a tracked link");
    fs::remove_file(repo.dir.join("out")).expect("removed");
    repo.write("out/planted", "x");
    let error = place
        .repos()
        .create_worktree(NewWorktree {
            copy_files: vec!["out/planted".to_owned()],
            ..wanted(repo.path())
        })
        .await
        .expect_err("refused");
    assert_eq!(error.field().as_deref(), Some("copy_files"));
    assert!(!place.base.join("planted").exists());
}

#[tokio::test]
async fn read_only_worktrees_have_no_branch_and_report_changes() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let mut worktree = repos
        .create_worktree(NewWorktree {
            isolation: Isolation::ReadOnly,
            ..wanted(repo.path())
        })
        .await
        .expect("made");
    assert_eq!(worktree.record().branch, None);
    assert_eq!(repo.git(["branch", "--list", "mahavishnu/*"]), "");
    assert!(
        !repos
            .commit_work(&mut worktree, "x")
            .await
            .expect("looked")
            .changed
    );
    inside(&place, &worktree).write("a.txt", "written");
    assert!(
        repos
            .commit_work(&mut worktree, "x")
            .await
            .expect("looked")
            .changed
    );
}

#[tokio::test]
async fn odd_repositories_work_too() {
    let place = Place::new();
    let origin = place.repo("origin");
    origin.write("deep/x", "x");
    origin.write("Readme", "one case");
    origin.write("README", "another");
    origin.write(
        ".gitattributes",
        "*.bin filter=lfs diff=lfs merge=lfs -text\n",
    );
    origin.write(
        "big.bin",
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    );
    origin.commit("second");
    let url = format!("file://{}", origin.dir.display());
    let root = place.at(place.root());
    root.git(["clone", "-q", "--bare", &url, "bare.git"]);
    root.git(["clone", "-q", "--depth=1", &url, "shallow"]);
    root.git(["clone", "-q", &url, "sparse"]);
    place.at(place.root().join("sparse")).git([
        "sparse-checkout",
        "set",
        "--no-cone",
        "/*",
        "!/deep/",
    ]);
    origin.git(["worktree", "add", "-q", "--detach", "../linked"]);
    let parent = place.repo("parent");
    parent.git(["submodule", "--quiet", "add", &url, "sub"]);
    parent.commit("with a submodule");
    let repos = place.repos();

    for name in [
        "origin",
        "bare.git",
        "shallow",
        "sparse",
        "linked",
        "parent",
        "parent/sub",
    ] {
        let repo = place.at(place.root().join(name));
        let mut worktree = repos
            .create_worktree(wanted(repo.path()))
            .await
            .expect(name);
        let work = inside(&place, &worktree);
        assert!(
            !repos
                .commit_work(&mut worktree, "x")
                .await
                .expect(name)
                .changed,
            "{name}"
        );
        assert_eq!(
            work.dir.join("deep").exists(),
            !matches!(name, "sparse" | "parent"),
            "{name}"
        );
        work.write("a.txt", "changed\n");
        work.write("big.bin", "changed pointer\n");
        let done = repos.commit_work(&mut worktree, "x").await.expect(name);
        assert_eq!((done.changed, done.diff.files), (true, 2), "{name}");
    }
}

#[tokio::test]
async fn a_repository_made_by_the_worker_is_named_and_kept() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let mut worktree = repos
        .create_worktree(wanted(repo.path()))
        .await
        .expect("made");
    let nested = place.at(worktree.path().join("nested"));
    fs::create_dir(&nested.dir).expect("directory");
    nested.git(["init", "-q"]);
    nested.commit("inside");
    let done = repos
        .commit_work(&mut worktree, "x")
        .await
        .expect("committed");
    assert_eq!(
        (done.changed, done.uncommitted),
        (true, vec!["nested".to_owned()])
    );
    assert_eq!(repo.git(["ls-tree", "--name-only", &done.commit]), "a.txt");
}

#[tokio::test]
async fn removing_dot_git_does_not_lead_git_to_another_repository() {
    let place = Place::new();
    // The state directory lies in a repository of the user's.
    place.at(place.base.clone()).git(["init", "-q"]);
    let repo = place.repo("app");
    let repos = place.repos();
    let mut worktree = repos
        .create_worktree(wanted(repo.path()))
        .await
        .expect("made");
    fs::remove_file(worktree.path().join(".git")).expect("removed");
    inside(&place, &worktree).write("b", "work");
    let done = repos
        .commit_work(&mut worktree, "x")
        .await
        .expect("committed");
    assert_eq!(
        repo.git(["ls-tree", "--name-only", &done.commit]),
        "a.txt\nb"
    );
}

#[tokio::test]
async fn many_items_and_two_servers_share_one_repository() {
    let place = Place::new();
    let repo = place.repo("app");
    let servers = [place.repos(), place.repos()];
    let workflow = WorkflowId::new();
    let mut items = tokio::task::JoinSet::new();
    for item in 0..24 {
        let repos: Repos = servers[item % 2].clone();
        let wanted = NewWorktree {
            workflow,
            item: u32::try_from(item).expect("small"),
            ..wanted(repo.path())
        };
        items.spawn(async move {
            let mut worktree = repos.create_worktree(wanted).await.expect("made");
            fs::write(worktree.path().join("a.txt"), format!("{item}\n")).expect("written");
            repos
                .commit_work(&mut worktree, "x")
                .await
                .expect("committed")
                .commit
        });
    }
    let commits: std::collections::HashSet<_> = items.join_all().await.into_iter().collect();
    assert_eq!(commits.len(), 24);
    assert_eq!(
        repo.git(["for-each-ref", "--format=x", "refs/heads/mahavishnu"])
            .lines()
            .count(),
        24
    );
    assert_eq!(repo.git(["status", "--porcelain"]), "");
}

#[tokio::test]
async fn a_worktree_is_opened_by_one_at_a_time() {
    let place = Place::new();
    let repo = place.repo("app");
    let repos = place.repos();
    let worktree = repos
        .create_worktree(wanted(repo.path()))
        .await
        .expect("made");
    let path = worktree.path().to_owned();
    assert!(matches!(
        place.repos().open_worktree(&path).await,
        Err(RepoError::WorktreeInUse { .. })
    ));
    drop(worktree);
    drop(place.repos().open_worktree(&path).await.expect("free"));
    fs::remove_dir_all(&path).expect("removed");
    assert!(matches!(
        repos.open_worktree(&path).await,
        Err(RepoError::WorktreeGone { .. })
    ));
    assert!(matches!(
        repos.open_worktree(&repo.dir).await,
        Err(RepoError::WorktreeGone { .. })
    ));
}

#[tokio::test]
async fn a_worktree_stays_in_use_while_a_dead_servers_programs_live() {
    let place = Place::new();
    let repo = place.repo("app");
    let lock = place.base.join("server.lock");
    let guardian = fs::File::create(&lock).expect("made");
    guardian.lock().expect("free");
    let mut setup = place.setup();
    setup.alive = Some(lock);
    let worktree = Repos::new(setup).create_worktree(wanted(repo.path())).await;
    let worktree = worktree.expect("made");
    let path = worktree.path().to_owned();
    // As `kill -9` leaves it: the lock is free, the file still names the server.
    let in_use = path.with_file_name("in-use");
    let named = fs::read(&in_use).expect("readable");
    assert!(!named.is_empty());
    drop(worktree);
    assert!(
        fs::read(&in_use).expect("readable").is_empty(),
        "over is over"
    );
    fs::write(&in_use, named).expect("written");

    let next = place.repos();
    let clean = async || next.clean(CleanRequest::default()).await.expect("looked");
    let kept = clean().await.kept;
    assert_eq!(kept[0].reason, "an item works in it");
    assert!(matches!(
        next.open_worktree(&path).await,
        Err(RepoError::WorktreeInUse { .. })
    ));
    // Not only closed: a program that another test is just starting shares it until its exec.
    guardian.unlock().expect("ours");
    assert_eq!(clean().await.removed.len(), 1);
}

#[tokio::test]
async fn commits_are_made_without_a_configured_user() {
    let place = Place::new();
    let repo = place.repo("app");
    let mut setup = place.setup();
    setup.env.retain(|(name, _)| {
        let name = name.to_string_lossy();
        !name.starts_with("GIT_AUTHOR") && !name.starts_with("GIT_COMMITTER")
    });
    let repos = Repos::new(setup);
    let mut worktree = repos
        .create_worktree(wanted(repo.path()))
        .await
        .expect("made");
    inside(&place, &worktree).write("b", "x");
    let done = repos
        .commit_work(&mut worktree, "x")
        .await
        .expect("committed");
    assert_eq!(
        repo.git(["log", "-1", "--format=%an", &done.commit]),
        "mahavishnu"
    );
}
