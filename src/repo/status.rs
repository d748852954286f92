//! The state of a repository: branch, default branch, uncommitted files, and the languages and tools it uses.

use super::head::{self, Head};
use super::layout::read_small;
use super::plumbing::Plumbing;
use super::repos::{Context, Repos};
use super::{Layout, RepoError, RepoPath};
use std::collections::BTreeSet;
use std::path::Path;

/// The state of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Commit and branch.
    pub head: Head,
    /// The branch that new work starts from by custom, where it is known.
    pub default_branch: Option<String>,
    /// How many files are changed, staged, in conflict or new; 0 for a bare repository.
    pub dirty: u32,
    /// Languages and build tools, by the files at its top.
    pub kinds: Vec<Kind>,
}

/// A language or build tool.
pub type Kind = &'static str;

/// Marker files at a repository's top, by whole name.
const BY_NAME: [(&str, Kind); 34] = [
    ("Cargo.toml", "rust"),
    ("package.json", "node"),
    ("deno.json", "deno"),
    ("pyproject.toml", "python"),
    ("setup.py", "python"),
    ("setup.cfg", "python"),
    ("requirements.txt", "python"),
    ("Pipfile", "python"),
    ("go.mod", "go"),
    ("pom.xml", "java"),
    ("build.gradle", "java"),
    ("build.gradle.kts", "kotlin"),
    ("build.sbt", "scala"),
    ("Gemfile", "ruby"),
    ("composer.json", "php"),
    ("CMakeLists.txt", "cmake"),
    ("meson.build", "meson"),
    ("configure.ac", "autotools"),
    ("Makefile", "make"),
    ("Package.swift", "swift"),
    ("mix.exs", "elixir"),
    ("rebar.config", "erlang"),
    ("stack.yaml", "haskell"),
    ("dune-project", "ocaml"),
    ("build.zig", "zig"),
    ("pubspec.yaml", "dart"),
    ("Project.toml", "julia"),
    ("deps.edn", "clojure"),
    ("project.clj", "clojure"),
    ("DESCRIPTION", "r"),
    ("flake.nix", "nix"),
    ("MODULE.bazel", "bazel"),
    ("WORKSPACE", "bazel"),
    ("Dockerfile", "docker"),
];

/// Marker files by extension.
const BY_EXTENSION: [(&str, Kind); 7] = [
    ("csproj", "dotnet"),
    ("fsproj", "dotnet"),
    ("sln", "dotnet"),
    ("tf", "terraform"),
    ("cabal", "haskell"),
    ("gemspec", "ruby"),
    ("xcodeproj", "xcode"),
];

impl Repos {
    /// Returns the state of `repo`.
    ///
    /// # Errors
    ///
    /// The repository is gone or git cannot read it.
    pub async fn status(&self, repo: &RepoPath) -> Result<Status, RepoError> {
        let layout = Layout::of(repo)?;
        let git = self.0.user(&layout);
        let dirty = async {
            match layout.has_working_copy() {
                true => self.0.uncommitted(&layout).await,
                false => Ok(Vec::new()),
            }
        };
        let (head, dirty) = tokio::try_join!(head::of(&git, &layout), dirty)?;
        Ok(Status {
            default_branch: default_branch(&git, &layout, &head).await?,
            kinds: kinds(&layout),
            head,
            dirty: u32::try_from(dirty.len()).unwrap_or(u32::MAX),
        })
    }
}

impl Context {
    /// Returns the uncommitted files of a working copy, as `git status` lists them.
    pub(super) async fn uncommitted(&self, layout: &Layout) -> Result<Vec<Vec<u8>>, RepoError> {
        layout.require_working_copy()?;
        self.user(layout).status().await
    }
}

/// Returns the default branch: the one that `origin/HEAD` names, else `init.defaultBranch`, `main` or `master` where it
/// exists, else the current branch.
pub(super) async fn default_branch(
    git: &Plumbing<'_>,
    layout: &Layout,
    head: &Head,
) -> Result<Option<String>, RepoError> {
    if let Some(branch) = origin_head(layout) {
        return Ok(Some(branch));
    }
    let configured = git
        .read("config --get init.defaultBranch")
        .accept(&[1])
        .run()
        .await?
        .line();
    for branch in [configured.as_str(), "main", "master"] {
        let name = format!("refs/heads/{branch}");
        if !branch.is_empty() && head::ref_at(git, layout, &name).await?.is_some() {
            return Ok(Some(branch.to_owned()));
        }
    }
    Ok(head.branch.clone())
}

/// Returns the branch that `refs/remotes/origin/HEAD` points to. A ref that points to a ref is never packed.
fn origin_head(layout: &Layout) -> Option<String> {
    let text = read_small(&layout.common_dir.join("refs/remotes/origin/HEAD")).ok()?;
    String::from_utf8(text)
        .ok()?
        .strip_prefix("ref: refs/remotes/origin/")
        .map(str::to_owned)
}

/// Returns the languages and build tools of the repository, sorted.
fn kinds(layout: &Layout) -> Vec<Kind> {
    if !layout.has_working_copy() {
        return Vec::new();
    }
    let Ok(entries) = std::fs::read_dir(&layout.dir) else {
        return Vec::new();
    };
    let kinds: BTreeSet<Kind> = entries
        .flatten()
        .filter_map(|entry| kind_of(Path::new(&entry.file_name())))
        .collect();
    kinds.into_iter().collect()
}

fn kind_of(file: &Path) -> Option<Kind> {
    let by_name = BY_NAME.iter().find(|(name, _)| file.as_os_str() == *name);
    let by_extension = || {
        let extension = file.extension()?;
        BY_EXTENSION.iter().find(|(name, _)| extension == *name)
    };
    by_name.or_else(by_extension).map(|(_, kind)| *kind)
}
