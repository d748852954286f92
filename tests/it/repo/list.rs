//! `list_repos`: filters and rows.

use super::support::Place;
use mahavishnu::error::{ErrorKind, Fault};
use mahavishnu::repo::{ListRequest, RepoPath};
use std::fs;

#[tokio::test]
async fn filters_select_and_rows_have_the_state() {
    let place = Place::new();
    for (name, file, text) in [
        ("rust-a", "Cargo.toml", "serde = \"1\"\n"),
        ("rust-b", "Cargo.toml", "tokio = \"1\"\n"),
        ("node", "package.json", "{\"serde\": 1}\n"),
    ] {
        let repo = place.repo(name);
        repo.write(file, text);
        repo.commit("file");
    }
    fs::write(place.root().join("rust-b/untracked"), "serde").expect("written");
    place
        .at(place.root())
        .git(["clone", "-q", "--bare", "rust-a", "bare.git"]);
    place.empty("empty");
    let repos = place.repos();
    let list = async |request: ListRequest| -> Vec<String> {
        let found = repos.list(request).await.expect("listed");
        found
            .iter()
            .map(RepoPath::name)
            .map(str::to_owned)
            .collect()
    };
    let strings = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| (*text).to_owned())
            .collect::<Vec<_>>()
    };

    assert_eq!(
        list(ListRequest::default()).await,
        ["bare.git", "empty", "node", "rust-a", "rust-b"]
    );
    let serde = ListRequest {
        grep: Some("serde".to_owned()),
        ..ListRequest::default()
    };
    assert_eq!(list(serde.clone()).await, ["bare.git", "node", "rust-a"]);
    let rust_with_serde = ListRequest {
        has_file: strings(&["Cargo.toml"]),
        matching: strings(&["rust-*", "no*"]),
        ..serde
    };
    assert_eq!(list(rust_with_serde).await, ["rust-a"]);
    let dirty = |wanted| ListRequest {
        dirty: Some(wanted),
        ..ListRequest::default()
    };
    assert_eq!(list(dirty(true)).await, ["rust-b"]);
    assert_eq!(
        list(dirty(false)).await,
        ["bare.git", "empty", "node", "rust-a"]
    );
    let odd = ListRequest {
        grep: Some("-e --open-files-in-pager".to_owned()),
        ..ListRequest::default()
    };
    assert_eq!(list(odd).await, [""; 0]);
    let bad = ListRequest {
        matching: strings(&["a{"]),
        ..ListRequest::default()
    };
    let error = repos.list(bad).await.expect_err("refused");
    assert_eq!(
        (error.kind(), error.field().as_deref()),
        (ErrorKind::InvalidArgument, Some("match"))
    );

    let all = repos.list(ListRequest::default()).await.expect("listed");
    fs::remove_dir_all(place.root().join("node")).expect("removed");
    let rows = repos.rows(all).await;
    let status = |nth: usize| rows[nth].status.as_ref().expect("told");
    assert!(status(1).head.commit.is_none());
    assert!(
        rows[2].status.is_err(),
        "a repository that went away says so"
    );
    assert_eq!(
        (status(3).kinds.as_slice(), status(3).dirty),
        (["rust"].as_slice(), 0)
    );
    assert_eq!(
        (status(4).dirty, status(4).default_branch.as_deref()),
        (1, Some("main"))
    );
}
