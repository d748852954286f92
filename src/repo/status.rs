//! How a repository stands: its branch, its default branch, what is not committed, and what it is made of.

use super::git::{Git, Mode};
use super::head::{self, Head};
use super::layout::read_small;
use super::{Layout, RepoError, RepoPath};
use std::collections::BTreeSet;
use std::path::Path;

/// How a repository stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Commit and branch.
    pub head: Head,
    /// The branch that new work starts from by custom, where one can be told.
    pub default_branch: Option<String>,
    /// How many files are changed, staged, in conflict or new; 0 for a bare repository.
    pub dirty: u32,
    /// What it is made of, by the files at its top.
    pub kinds: Vec<Kind>,
}

/// What a repository is made of.
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

/// Returns how `repo` stands.
pub(super) async fn of(git: &Git, repo: &RepoPath) -> Result<Status, RepoError> {
    let layout = Layout::of(repo)?;
    let (head, dirty) = tokio::try_join!(head::of(git, &layout), dirty_count(git, &layout))?;
    Ok(Status {
        default_branch: default_branch(git, &layout, &head).await?,
        kinds: kinds(&layout),
        head,
        dirty,
    })
}

/// Returns how many files are changed, staged, in conflict or new.
pub(super) async fn dirty_count(git: &Git, layout: &Layout) -> Result<u32, RepoError> {
    if !layout.has_working_copy() {
        return Ok(0);
    }
    let answer = git
        .cmd(&layout.dir, Mode::Read, "status")
        .args([
            "--porcelain=v2",
            "-z",
            "--no-renames",
            "--untracked-files=normal",
        ])
        .args(["--ignore-submodules=none"])
        .run()
        .await?;
    Ok(u32::try_from(answer.records().count()).unwrap_or(u32::MAX))
}

/// Returns the default branch: what `origin` says, else `init.defaultBranch`, `main` or `master` where it exists, else
/// the current branch.
pub(super) async fn default_branch(
    git: &Git,
    layout: &Layout,
    head: &Head,
) -> Result<Option<String>, RepoError> {
    if let Some(branch) = origin_head(layout) {
        return Ok(Some(branch));
    }
    let configured = git
        .cmd(&layout.dir, Mode::Read, "config")
        .args(["--get", "init.defaultBranch"])
        .accept(&[1])
        .run()
        .await?
        .line();
    for branch in [configured.as_str(), "main", "master"] {
        if !branch.is_empty() && has_branch(git, layout, branch).await? {
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

async fn has_branch(git: &Git, layout: &Layout, branch: &str) -> Result<bool, RepoError> {
    let name = format!("refs/heads/{branch}");
    if let Some(found) = head::read_ref(&layout.common_dir, &name) {
        return Ok(found.is_some());
    }
    let answer = git
        .cmd(&layout.dir, Mode::Read, "show-ref")
        .args(["--verify", "--quiet", "--", &name])
        .accept(&[1])
        .run()
        .await?;
    Ok(answer.code == 0)
}

/// Returns what the repository is made of, sorted.
pub(super) fn kinds(layout: &Layout) -> Vec<Kind> {
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
