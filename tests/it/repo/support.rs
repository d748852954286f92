//! A hermetic place with real git repositories.

use mahavishnu::model::WorkflowId;
use mahavishnu::repo::{RepoPath, Repos, Setup};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A temporary directory with a root, a home and a state directory.
pub(super) struct Place {
    _temp: Option<TempDir>,
    pub(super) base: PathBuf,
}

impl Place {
    pub(super) fn new() -> Self {
        let temp = tempfile::tempdir().expect("temporary directory");
        let base = fs::canonicalize(temp.path()).expect("canonical");
        for dir in ["root", "home", "state"] {
            fs::create_dir(base.join(dir)).expect("directory");
        }
        Self {
            _temp: Some(temp),
            base,
        }
    }

    /// Works in a place that another process has made and removes.
    pub(super) fn existing(base: PathBuf) -> Self {
        Self { _temp: None, base }
    }

    /// Returns the undo token of the one apply that is recorded.
    pub(super) fn only_undo_token(&self) -> String {
        let applies = fs::read_dir(self.state().join("applies"))
            .expect("listed")
            .flatten();
        let mut ids: Vec<_> = applies
            .filter(|entry| entry.path().join("record.json").exists())
            .map(|entry| entry.file_name().into_string().expect("UTF-8"))
            .collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
        format!("undo-{}", ids.remove(0))
    }

    pub(super) fn root(&self) -> PathBuf {
        self.base.join("root")
    }

    pub(super) fn state(&self) -> PathBuf {
        self.base.join("state")
    }

    pub(super) fn setup(&self) -> Setup {
        Setup {
            roots: vec![self.root()],
            roots_by: Default::default(),
            start_dir: self.base.clone(),
            home: Some(self.base.join("home")),
            config_file: self.base.join("config.toml"),
            state_dir: self.state(),
            alive: None,
            processes: crate::support::launcher().processes,
            worktrees_max_bytes: None,
            git: "git".into(),
            search: crate::support::search(),
            env: env(&self.base.join("home")),
        }
    }

    pub(super) fn repos(&self) -> Repos {
        Repos::new(self.setup())
    }

    /// Makes a repository with one commit that holds `a.txt`.
    pub(super) fn repo(&self, name: &str) -> Work {
        let work = self.empty(name);
        work.write("a.txt", "one\ntwo\nthree\n");
        work.commit("first");
        work
    }

    /// Makes a repository without a commit.
    pub(super) fn empty(&self, name: &str) -> Work {
        let dir = self.root().join(name);
        fs::create_dir_all(&dir).expect("directory");
        let work = self.at(dir);
        work.git(["init", "-q", "-b", "main"]);
        work
    }

    pub(super) fn at(&self, dir: PathBuf) -> Work {
        Work {
            dir,
            home: self.base.join("home"),
        }
    }
}

/// The environment that git gets everywhere in these tests.
pub(super) fn env(home: &Path) -> Vec<(OsString, OsString)> {
    let path = std::env::var_os("PATH").expect("PATH is set");
    [
        ("PATH", path),
        ("HOME", home.into()),
        ("GIT_CONFIG_GLOBAL", "/dev/null".into()),
        ("GIT_CONFIG_SYSTEM", "/dev/null".into()),
        ("GIT_AUTHOR_NAME", "Test".into()),
        ("GIT_AUTHOR_EMAIL", "test@example.invalid".into()),
        ("GIT_COMMITTER_NAME", "Test".into()),
        ("GIT_COMMITTER_EMAIL", "test@example.invalid".into()),
    ]
    .into_iter()
    .map(|(name, value)| (name.into(), value))
    .collect()
}

/// Returns the workflow that work comes from where a test does not care.
pub(super) fn workflow() -> WorkflowId {
    WorkflowId::new()
}

/// A directory in which plain git is run.
pub(super) struct Work {
    pub(super) dir: PathBuf,
    home: PathBuf,
}

impl Work {
    /// Runs git, which must succeed, and returns what it wrote, trimmed.
    pub(super) fn git<const N: usize>(&self, args: [&str; N]) -> String {
        let output = Command::new("git")
            .args(["-c", "protocol.file.allow=always"])
            .args(args)
            .current_dir(&self.dir)
            .env_clear()
            .envs(env(&self.home))
            .output()
            .expect("git starts");
        assert!(
            output.status.success(),
            "git {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(super) fn write(&self, path: impl AsRef<Path>, text: impl AsRef<[u8]>) {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
        fs::write(path, text).expect("written");
    }

    pub(super) fn read(&self, path: impl AsRef<Path>) -> String {
        fs::read_to_string(self.dir.join(path)).expect("readable")
    }

    /// Writes an executable shell script.
    pub(super) fn script(&self, path: impl AsRef<Path>, body: &str) {
        self.write(&path, format!("#!/bin/sh\n{body}\n"));
        fs::set_permissions(self.dir.join(path), fs::Permissions::from_mode(0o755)).expect("mode");
    }

    /// Runs git, which must fail.
    pub(super) fn fails(&self, args: &[&str]) {
        let output = Command::new("git")
            .args(args)
            .current_dir(&self.dir)
            .env_clear()
            .envs(env(&self.home))
            .output()
            .expect("git starts");
        assert!(!output.status.success(), "git {args:?} succeeded");
    }

    /// Ends whatever merge, rebase or cherry-pick is unfinished, without touching a file.
    pub(super) fn quit_operations(&self) {
        let git_dir = PathBuf::from(self.git(["rev-parse", "--absolute-git-dir"]));
        for name in ["MERGE_HEAD", "CHERRY_PICK_HEAD", "AUTO_MERGE", "MERGE_MSG"] {
            let _absent = fs::remove_file(git_dir.join(name));
        }
        let _absent = fs::remove_dir_all(git_dir.join("rebase-merge"));
    }

    /// Makes a named pipe.
    pub(super) fn pipe(&self, path: impl AsRef<Path>) {
        let status = Command::new("mkfifo").arg(self.dir.join(path)).status();
        assert!(status.expect("mkfifo starts").success());
    }

    pub(super) fn commit(&self, message: &str) -> String {
        self.git(["add", "-A"]);
        self.git(["commit", "-q", "--allow-empty", "-m", message]);
        self.git(["rev-parse", "HEAD"])
    }

    pub(super) fn path(&self) -> RepoPath {
        resolved(&self.dir)
    }
}

fn resolved(dir: &Path) -> RepoPath {
    let place = Setup {
        roots: vec![dir.parent().expect("a parent").to_owned()],
        roots_by: Default::default(),
        start_dir: dir.to_owned(),
        home: None,
        config_file: "config.toml".into(),
        state_dir: "state".into(),
        alive: None,
        processes: crate::support::launcher().processes,
        worktrees_max_bytes: None,
        git: "git".into(),
        search: crate::support::search(),
        env: Vec::new(),
    };
    Repos::new(place)
        .roots()
        .resolve(dir.to_str().expect("UTF-8"))
        .expect("a repository")
}
