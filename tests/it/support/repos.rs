//! Real git repositories, made fast: one template per test run, copied.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A git repository with one commit on `main`.
#[derive(Debug, Clone)]
pub(crate) struct GitRepo {
    path: PathBuf,
}

impl GitRepo {
    /// Makes the repository `parent/name` with a `README.md` in its first commit.
    pub(crate) fn new(parent: &Path, name: &str) -> Self {
        Self::with_files(parent, name, &[("README.md", "# A repository\n")])
    }

    /// Makes the repository `parent/name` with these files in its first commit.
    pub(crate) fn with_files(parent: &Path, name: &str, files: &[(&str, &str)]) -> Self {
        let repo = Self {
            path: parent.join(name),
        };
        std::fs::create_dir_all(&repo.path).expect("the repository's folder can be made");
        repo.git(&["init", "--quiet", "--template=", "--initial-branch=main"]);
        for (file, text) in files {
            repo.write(file, text);
        }
        repo.commit("First commit");
        Self {
            path: repo.path.canonicalize().expect("it was just made"),
        }
    }

    /// Takes a repository that git has made otherwise.
    pub(crate) fn existing(path: &Path) -> Self {
        Self {
            path: path.canonicalize().expect("it exists"),
        }
    }

    /// Makes `count` repositories `PREFIX0`, `PREFIX1`, ... below `parent`, with the same first commit.
    pub(crate) fn many(parent: &Path, prefix: &str, count: usize) -> Vec<Self> {
        let Some(last) = count.checked_sub(1) else {
            return Vec::new();
        };
        let first = Self::new(parent, &format!("{prefix}0"));
        let mut repos = vec![first.clone()];
        for index in 1..=last {
            let path = first.path.with_file_name(format!("{prefix}{index}"));
            copy_folder(&first.path, &path);
            repos.push(Self { path });
        }
        repos
    }

    /// Returns its canonical absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns its path as the tools write it.
    pub(crate) fn text(&self) -> String {
        self.path
            .to_str()
            .expect("the tests' paths are UTF-8")
            .to_owned()
    }

    /// Writes a file of the working copy.
    pub(crate) fn write(&self, file: &str, text: &str) {
        let path = self.path.join(file);
        let folder = path.parent().expect("a file lies in a folder");
        std::fs::create_dir_all(folder).expect("the file's folder can be made");
        std::fs::write(path, text).expect("the file can be written");
    }

    /// Commits all that is in the working copy and returns the commit.
    pub(crate) fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", message]);
        self.head()
    }

    /// Returns the commit that is checked out.
    pub(crate) fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    /// Runs git in the repository and returns what it wrote, trimmed.
    ///
    /// # Panics
    ///
    /// When git fails; shows its arguments and its errors.
    #[track_caller]
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let output = hermetic_git(&self.path)
            .args(arguments)
            .output()
            .expect("git is installed");
        assert!(
            output.status.success(),
            "git {arguments:?} in {}: {}",
            self.path.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// Returns git with no configuration but the tests' own.
fn hermetic_git(folder: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_AUTHOR_NAME", "Ada")
        .env("GIT_AUTHOR_EMAIL", "ada@example.com")
        .env("GIT_COMMITTER_NAME", "Ada")
        .env("GIT_COMMITTER_EMAIL", "ada@example.com")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE");
    git
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the copy's folder can be made");
    for entry in std::fs::read_dir(from).expect("the folder can be listed") {
        let entry = entry.expect("the folder can be listed");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it has a type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("the file can be copied");
        }
    }
}
