//! Odd repositories: worked in, applied to, undone and cleaned.

use super::*;

/// Plays the whole way on one repository: change, apply, compare, undo, apply again, clean.
fn whole_way(name: &str, how: &str, prepare: impl FnOnce(&Home) -> GitRepo, script: &str) {
    let home = Home::with_config("");
    let repo = prepare(&home);
    let state = |repo: &GitRepo| {
        let refs = repo.git(&["for-each-ref", "--exclude=refs/heads/mahavishnu/*/*"]);
        let is_bare = repo.git(&["rev-parse", "--is-bare-repository"]) == "true";
        let files = match is_bare {
            true => String::new(),
            false => repo.git(&["status", "--porcelain", "--ignore-submodules=dirty"]),
        };
        (refs, files)
    };
    let before = state(&repo);
    let mut server = Server::start(&home);
    let ran = run(&mut server, &[&repo], script, json!({}));
    assert_eq!(ran["items"][0]["changed"], true, "{name}: {ran:#}");
    assert_eq!(state(&repo), before, "{name}: the user sees nothing of it");
    // Checking out a submodule writes its URL into the repository's settings.
    let risks = match name {
        "submodule" => json!(["git_config", "submodule"]),
        _ => json!([]),
    };
    let order = json!({"how": how, "allow_risks": risks});
    let applied = apply(&mut server, &ran, order.clone());
    assert_eq!(applied["done_count"], 1, "{name}: {applied:#}");
    assert_ne!(state(&repo), before, "{name}");
    let token = &applied["items"][0]["undo"];
    let undone = apply(&mut server, &ran, json!({"undo": [token]}));
    assert_eq!(undone["done_count"], 1, "{name}: {undone:#}");
    assert_eq!(state(&repo), before, "{name}");
    assert_eq!(apply(&mut server, &ran, order)["done_count"], 1, "{name}");
    let cleaned = clean(&mut server, json!({"dry_run": false}));
    assert_eq!(cleaned["removed_count"], 1, "{name}: {cleaned:#}");
    assert_eq!(
        repo.git(&["for-each-ref", "refs/heads/mahavishnu/*/*"]),
        "",
        "{name}"
    );
}

/// Clones the repository `origin` that `with` has filled.
fn clone(home: &Home, options: &[&str], with: impl FnOnce(&GitRepo)) -> GitRepo {
    let origin = GitRepo::new(home.path(), "origin");
    with(&origin);
    origin.commit("Second");
    let url = format!("file://{}", origin.text());
    let clone = home.repos().join("clone");
    let mut arguments = vec!["clone", "--quiet"];
    arguments.extend(options);
    let to = clone.to_str().expect("UTF-8");
    arguments.extend([url.as_str(), to]);
    origin.git(&arguments);
    GitRepo::existing(&clone)
}

#[test]
fn shallow_sparse_and_bare_ones() {
    let edit = "echo work >> README.md; echo new > new";
    whole_way(
        "shallow",
        "merge",
        |home| clone(home, &["--depth=1"], |_| {}),
        edit,
    );
    whole_way(
        "bare",
        "branch",
        |home| clone(home, &["--bare"], |_| {}),
        edit,
    );
    let sparse = |home: &Home| {
        let repo = clone(home, &[], |origin| {
            origin.write("in/x", "x");
            origin.write("out/x", "x");
        });
        repo.git(&["sparse-checkout", "set", "in"]);
        repo
    };
    whole_way(
        "sparse",
        "merge",
        sparse,
        "mkdir -p out && echo new > out/new; echo 2 > in/x",
    );
    whole_way(
        "sparse",
        "working_copy",
        sparse,
        "mkdir -p out && echo new > out/new",
    );
}

#[test]
fn pointers_of_large_files_and_names_that_clash_without_case() {
    let lfs = |home: &Home| {
        let repo = home.repo("lfs");
        repo.write(
            ".gitattributes",
            "*.bin filter=lfs diff=lfs merge=lfs -text\n",
        );
        repo.write(
            "big.bin",
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        );
        repo.commit("pointers");
        repo
    };
    whole_way(
        "LFS",
        "working_copy",
        lfs,
        "sed -i.bak s/sha256:0/sha256:1/ big.bin; rm -f *.bak",
    );
    let clash = |home: &Home| {
        let repo = home.repo("clash");
        repo.write("other/Readme", "one\n");
        repo.commit("one");
        repo.git(&["config", "core.ignorecase", "true"]);
        repo
    };
    whole_way(
        "case",
        "working_copy",
        clash,
        "git mv other/Readme other/README && echo 2 >> other/README",
    );
}

#[test]
fn a_submodule_with_a_new_commit_is_applied() {
    let with_submodule = |home: &Home| {
        let origin = GitRepo::new(home.path(), "origin");
        let repo = home.repo("parent");
        let url = format!("file://{}", origin.text());
        repo.git(&[
            "-c",
            "protocol.file.allow=always",
            "submodule",
            "--quiet",
            "add",
            &url,
            "sub",
        ]);
        repo.commit("a submodule");
        repo
    };
    let script = "git -c protocol.file.allow=always submodule --quiet update --init && cd sub && echo 2 > two && \
                  git add two && git -c user.name=a -c user.email=a@b commit -q -m two";
    whole_way("submodule", "merge", with_submodule, script);
}
