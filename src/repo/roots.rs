//! The directories under which repositories may be touched, and the check that a path lies under one of them.
//!
//! Links and `..` are resolved before a path is checked. A check is a few system calls and no process, so that ten
//! thousand repositories take well under a second.

use super::error::list;
use super::layout::{is_absent, not_a_repository, repository_above};
use super::{Layout, RepoError, RepoPath};
use crate::config::NamedBy;
use crate::error::{ErrorKind, Problem};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The directories under which repositories may be touched.
#[derive(Debug, Clone)]
pub struct Roots {
    dirs: Vec<PathBuf>,
    unusable: Vec<(PathBuf, String)>,
    home: Option<PathBuf>,
    config_file: PathBuf,
    named_by: NamedBy,
    /// The server's own state; repositories in it are not the user's.
    state_dir: Option<PathBuf>,
}

impl Roots {
    /// Takes the config's `roots`, or the start directory where it has none.
    ///
    /// Nothing is refused here, so that a server without a usable root still starts and reports it in every answer.
    pub fn new(
        configured: &[PathBuf],
        start_dir: &Path,
        home: Option<&Path>,
        config_file: &Path,
    ) -> Self {
        let mut roots = Self {
            dirs: Vec::new(),
            unusable: Vec::new(),
            home: home.map(Path::to_owned),
            config_file: config_file.to_owned(),
            named_by: NamedBy::File,
            state_dir: None,
        };
        if configured.is_empty() {
            roots.take_start_dir(start_dir);
        }
        for root in configured {
            roots.take(&roots.expand_home(root));
        }
        roots
    }

    /// Returns the user's home directory.
    pub(super) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// Notes where the roots were given, for hints.
    pub(super) fn named_by(self, named_by: NamedBy) -> Self {
        Self { named_by, ..self }
    }

    /// Leaves `state_dir`, which may lie under a root, out of every walk.
    pub(super) fn without(self, state_dir: &Path) -> Self {
        Self {
            state_dir: Some(state_dir.to_owned()),
            ..self
        }
    }

    /// Returns the state directory, resolved, where it exists; walks skip it.
    pub(super) fn left_out(&self) -> Option<PathBuf> {
        fs::canonicalize(self.state_dir.as_ref()?).ok()
    }

    fn take_start_dir(&mut self, start_dir: &Path) {
        let canonical = fs::canonicalize(start_dir).unwrap_or_else(|_| start_dir.to_owned());
        let home = self
            .home
            .as_deref()
            .and_then(|home| fs::canonicalize(home).ok());
        if canonical == Path::new("/") || Some(&canonical) == home.as_ref() {
            let why = "too much lies below it for a default root, and no roots are configured";
            self.unusable.push((canonical, why.to_owned()));
        } else {
            self.take(&canonical);
        }
    }

    fn take(&mut self, root: &Path) {
        match fs::canonicalize(root) {
            Ok(dir) if dir.is_dir() => {
                if !self.dirs.contains(&dir) {
                    self.dirs.push(dir);
                }
            }
            Ok(dir) => self
                .unusable
                .push((dir, "it is not a directory".to_owned())),
            Err(error) => self.unusable.push((root.to_owned(), error.to_string())),
        }
    }

    /// Returns the roots: canonical directories, at least one.
    ///
    /// # Errors
    ///
    /// A refusal where there is none.
    pub fn dirs(&self) -> Result<&[PathBuf], RepoError> {
        if !self.dirs.is_empty() {
            return Ok(&self.dirs);
        }
        let why = self
            .unusable
            .iter()
            .map(|(dir, why)| format!("{dir:?}: {why}"))
            .collect::<Vec<_>>()
            .join("; ");
        Err(RepoError::refused(
            ErrorKind::Forbidden,
            format!("no directory is open to tasks: {why}"),
            match self.named_by {
                NamedBy::File => self.how_to_add(),
                NamedBy::Environment => "correct MAHAVISHNU_ROOTS, or unset it".to_owned(),
                NamedBy::Flag => "correct --root, or leave it out".to_owned(),
            },
        ))
    }

    /// Returns the configured roots that cannot be used, each with the reason.
    pub fn unusable(&self) -> &[(PathBuf, String)] {
        &self.unusable
    }

    /// Returns which roots lie inside a repository, which is then not under the roots; none where no root does.
    pub fn inside_repositories(&self) -> Option<String> {
        let inside = self.dirs.iter().filter_map(|dir| {
            let is_repository = Layout::at(dir).is_ok_and(|layout| layout.is_some());
            let above = repository_above(dir).filter(|_| !is_repository)?;
            let (dir, above) = (dir.display(), above.display());
            Some(format!(
                "{dir} lies inside the repository {above}, which is not under the roots: start the server in {above}, or \
                 add it to `roots`"
            ))
        });
        let notes: Vec<String> = inside.collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    /// Returns how a person adds a root.
    pub fn how_to_add(&self) -> String {
        match self.named_by {
            NamedBy::File => format!(
                "add the directory to `roots` in {} (roots = [\"/path/to/code\"]) and restart the server",
                self.config_file.display()
            ),
            NamedBy::Environment => {
                "add the directory to MAHAVISHNU_ROOTS and restart the server".to_owned()
            }
            NamedBy::Flag => "start the server with one more --root for the directory".to_owned(),
        }
    }

    /// Returns the repository at the path `spec`, or that `spec` can at most be a name.
    pub(super) fn by_path(&self, spec: &str) -> Result<Lookup, RepoError> {
        check_text(spec)?;
        let roots = self.dirs()?;
        let path = self.expand_home(Path::new(spec));
        if path.is_absolute() {
            return self.check(&path).map(|(repo, _)| Lookup::Found(repo));
        }
        let mut found: Vec<RepoPath> = Vec::new();
        let mut refusal = None;
        for root in roots {
            match self.check(&root.join(&path)) {
                Ok((repo, _)) if found.contains(&repo) => {}
                Ok((repo, _)) => found.push(repo),
                Err(RepoError::NotFound { .. }) => {}
                Err(error) => refusal = Some(error),
            }
        }
        if found.len() > 1 {
            return Err(RepoError::Ambiguous {
                spec: spec.to_owned(),
                candidates: found,
            });
        }
        let is_name = matches!(
            path.components().collect::<Vec<_>>().as_slice(),
            [Component::Normal(_)]
        );
        match (found.pop(), refusal) {
            (Some(repo), _) => Ok(Lookup::Found(repo)),
            (None, Some(error)) if !is_name => Err(error),
            (None, refusal) => Ok(Lookup::Name(refusal)),
        }
    }

    /// Returns the repository at `path`, if it really lies under a root and is one, and where its git data is.
    pub(super) fn check(&self, path: &Path) -> Result<(RepoPath, Layout), RepoError> {
        let canonical = match fs::canonicalize(path) {
            Ok(canonical) => canonical,
            Err(error) => return Err(self.missing(path, error)),
        };
        self.inside(&canonical)?;
        let layout = Layout::at(&canonical)?.ok_or_else(|| not_a_repository(&canonical))?;
        let repo = RepoPath::canonical(&canonical).ok_or_else(|| {
            RepoError::argument(
                "repos",
                format!("the path {canonical:?} is not valid UTF-8"),
                "a directory whose path is UTF-8; rename this one",
            )
        })?;
        Ok((repo, layout))
    }

    fn inside(&self, canonical: &Path) -> Result<(), RepoError> {
        let roots = self.dirs()?;
        if roots.iter().any(|root| canonical.starts_with(root)) {
            return Ok(());
        }
        let roots = list(roots);
        let problem = Problem::argument(
            "repos",
            format!("{canonical:?} is outside the roots ({roots})"),
            format!("repositories under {roots}"),
        );
        Err(Problem {
            kind: ErrorKind::Forbidden,
            ..problem.with_hint(self.how_to_add())
        }
        .into())
    }

    /// Returns the error for a path that does not exist: outside the roots where the nearest existing directory is.
    fn missing(&self, path: &Path, error: io::Error) -> RepoError {
        if !is_absent(&error) {
            return RepoError::io("resolve", path)(error);
        }
        let existing = path
            .ancestors()
            .skip(1)
            .find_map(|ancestor| fs::canonicalize(ancestor).ok());
        if let Some(Err(outside)) = existing.map(|ancestor| self.inside(&ancestor)) {
            return outside;
        }
        RepoError::NotFound {
            spec: path.display().to_string(),
            nearest: None,
        }
    }

    fn expand_home(&self, path: &Path) -> PathBuf {
        match (&self.home, path.strip_prefix("~")) {
            (Some(home), Ok(rest)) => home.join(rest),
            _ => path.to_owned(),
        }
    }
}

/// What a path or name of a caller turned out to be.
pub(super) enum Lookup {
    /// The path of this repository.
    Found(RepoPath),
    /// At most a name; the error to return where no repository has it, if it is more precise than "not found".
    Name(Option<RepoError>),
}

/// Refuses what no path can be.
fn check_text(spec: &str) -> Result<(), RepoError> {
    const SHOWN_CHARS: usize = 200;
    let why = if spec.trim().is_empty() {
        "it is empty"
    } else if spec.contains('\0') {
        "it holds a NUL byte"
    } else {
        return Ok(());
    };
    let shown: String = spec.chars().take(SHOWN_CHARS).collect();
    let message = format!("{shown:?} names no repository: {why}");
    let allowed = "a repository's path, name, or a glob over both";
    Err(Problem::argument("repos", message, allowed)
        .with_hint("list_repos shows all repositories")
        .into())
}
