//! `copy_files` of large folders: links stay links, and nothing leads back into the user's copy.

use super::support::{Place, Work};
use super::worktree::wanted;
use mahavishnu::repo::NewWorktree;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes a worktree of `repo` with `files` copied, and returns its folder.
async fn copied(place: &Place, repo: &Work, files: &[&str]) -> PathBuf {
    let worktree = place
        .repos()
        .create_worktree(NewWorktree {
            copy_files: files.iter().map(|file| (*file).to_owned()).collect(),
            ..wanted(repo.path())
        })
        .await
        .expect("made");
    worktree.path().to_owned()
}

fn link(repo: &Work, at: &str, target: impl AsRef<Path>) {
    let path = repo.dir.join(at);
    fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    symlink(target, path).expect("link");
}

fn target(dir: &Path, at: &str) -> PathBuf {
    fs::read_link(dir.join(at)).expect("a link")
}

#[tokio::test]
async fn node_modules_keep_their_links_and_tools_can_be_run() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.write(".gitignore", "node_modules\n");
    repo.write("packages/a/index.js", "a");
    repo.write("packages/b/index.js", "b");
    repo.commit("a workspace");
    repo.script("node_modules/tool/cli.sh", "echo ran");
    link(&repo, "node_modules/.bin/tool", "../tool/cli.sh");
    link(&repo, "node_modules/a", "../packages/a");
    // Workspace packages that link to each other.
    link(&repo, "packages/a/node_modules/b", "../../b");
    link(&repo, "packages/b/node_modules/a", "../../a");
    link(&repo, "node_modules/loop", "..");
    let dir = copied(&place, &repo, &["node_modules", "packages/a/node_modules"]).await;
    assert_eq!(
        target(&dir, "node_modules/.bin/tool"),
        Path::new("../tool/cli.sh")
    );
    assert_eq!(target(&dir, "node_modules/loop"), Path::new(".."));
    assert_eq!(
        target(&dir, "packages/a/node_modules/b"),
        Path::new("../../b")
    );
    let output = Command::new(dir.join("node_modules/.bin/tool")).output();
    assert_eq!(output.expect("it runs").stdout, b"ran\n");
    let mode = fs::metadata(dir.join("node_modules/tool/cli.sh")).expect("there");
    assert_eq!(mode.permissions().mode() & 0o777, 0o755);
}

#[tokio::test]
async fn an_environment_keeps_links_out_and_links_in_lead_to_the_copy() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.write(".gitignore", ".venv\n.env\nconf/\n");
    repo.commit("ignored");
    link(&repo, ".venv/bin/python", "/usr/bin/python3");
    link(&repo, ".venv/lib64", "lib");
    repo.write(".venv/lib/site.py", "x");
    link(&repo, ".venv/own", repo.dir.join(".venv/lib/site.py"));
    repo.write("conf/dev.env", "SECRET=1");
    link(&repo, ".env", "conf/dev.env");
    let dir = copied(&place, &repo, &[".venv", ".env"]).await;
    assert_eq!(
        target(&dir, ".venv/bin/python"),
        Path::new("/usr/bin/python3")
    );
    assert_eq!(target(&dir, ".venv/lib64"), Path::new("lib"));
    assert_eq!(target(&dir, ".venv/own"), dir.join(".venv/lib/site.py"));
    assert_eq!(target(&dir, ".env"), Path::new("conf/dev.env"));
    let text = fs::read_to_string(dir.join(".env")).expect("its target came along");
    assert_eq!(text, "SECRET=1");
}

#[tokio::test]
async fn many_files_are_copied_whole_without_git_data_and_pipes() {
    let place = Place::new();
    let repo = place.repo("app");
    repo.write(".gitignore", "cache\n");
    repo.commit("ignored");
    for nth in 0..500 {
        repo.write(format!("cache/{}/{nth}", nth % 17), format!("{nth}"));
    }
    repo.write("cache/inner/.git/HEAD", "x");
    repo.pipe("cache/pipe");
    let dir = copied(&place, &repo, &["cache"]).await;
    for nth in 0..500 {
        let text = fs::read_to_string(dir.join(format!("cache/{}/{nth}", nth % 17)));
        assert_eq!(text.expect("copied"), format!("{nth}"));
    }
    assert!(!dir.join("cache/inner/.git").exists());
    assert!(!dir.join("cache/pipe").exists());
}
