//! The directories under which repositories may be touched, and the way from a caller's word to one of them.
//!
//! A path is judged by where it really leads: links and `..` are resolved first. Checks are a few system calls each,
//! no process, so that ten thousand repositories are judged in well under a second.

use super::discover::Stop;
use super::layout::is_absent;
use super::{Layout, RepoError};
use crate::error::nearest;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// A repository's canonical absolute path: it was under the roots and a git repository when it was resolved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoPath(Arc<str>);

impl RepoPath {
    /// Wraps a path that is canonical already.
    pub(super) fn canonical(path: &Path) -> Result<Self, RepoError> {
        path.to_str()
            .map(|text| Self(text.into()))
            .ok_or_else(|| RepoError::NotUtf8 {
                path: path.to_owned(),
            })
    }

    /// Returns the path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the path.
    pub fn as_path(&self) -> &Path {
        Path::new(&*self.0)
    }

    /// Returns the repository's name: the last part of its path.
    pub fn name(&self) -> &str {
        self.0
            .rsplit('/')
            .find(|part| !part.is_empty())
            .unwrap_or(&self.0)
    }
}

impl AsRef<Path> for RepoPath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

impl std::fmt::Display for RepoPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The directories under which repositories may be touched.
#[derive(Debug, Clone)]
pub struct Roots {
    dirs: Vec<PathBuf>,
    unusable: Vec<(PathBuf, String)>,
    home: Option<PathBuf>,
    config_file: PathBuf,
    /// Our own state: what lies in it is nobody's repository.
    state_dir: Option<PathBuf>,
}

impl Roots {
    /// Takes the config's `roots`, or the start directory where it has none.
    ///
    /// Nothing is refused here, so that a server without a usable root still starts and can say so.
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

    /// Leaves `state_dir`, which may lie under a root, out of every walk.
    pub(super) fn without(self, state_dir: &Path) -> Self {
        Self {
            state_dir: Some(state_dir.to_owned()),
            ..self
        }
    }

    /// Returns the state directory as a walk meets it, where it exists.
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
            let why = "it is too wide to be a root by default, and no roots are configured";
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
    /// [`RepoError::NoRoots`].
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
        Err(RepoError::NoRoots {
            why,
            how_to_add: self.how_to_add(),
        })
    }

    /// Returns the configured roots that cannot be used, each with the reason.
    pub fn unusable(&self) -> &[(PathBuf, String)] {
        &self.unusable
    }

    /// Returns how a person adds a root.
    pub fn how_to_add(&self) -> String {
        format!(
            "add the directory to `roots` in {} (roots = [\"/path/to/code\"]) and restart the server",
            self.config_file.display()
        )
    }

    /// Returns the repository that `spec` means: an absolute path, a path from a root, `~/...`, or a name.
    ///
    /// A path wins over a name. A name is looked for by walking the roots.
    ///
    /// # Errors
    ///
    /// [`RepoError::OutsideRoots`], [`RepoError::NotFound`] with the nearest name, [`RepoError::NotARepository`],
    /// [`RepoError::NotUtf8`], [`RepoError::Ambiguous`], [`RepoError::NoRoots`].
    pub fn resolve(&self, spec: &str) -> Result<RepoPath, RepoError> {
        match self.by_path(spec)? {
            Lookup::Found(repo) => Ok(repo),
            Lookup::Name(instead) => by_name(spec, instead, &self.discover(&Stop::never())?),
        }
    }

    /// Returns the repository at the path `spec`, or that `spec` can only be a name.
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
        match Layout::at(&canonical) {
            Ok(Some(layout)) => Ok((RepoPath::canonical(&canonical)?, layout)),
            Ok(None) => Err(RepoError::not_a_repository(&canonical)),
            Err(error) => Err(RepoError::io("read", &canonical)(error)),
        }
    }

    fn inside(&self, canonical: &Path) -> Result<(), RepoError> {
        let roots = self.dirs()?;
        if roots.iter().any(|root| canonical.starts_with(root)) {
            return Ok(());
        }
        Err(RepoError::OutsideRoots {
            path: canonical.to_owned(),
            roots: roots.to_vec(),
            how_to_add: self.how_to_add(),
        })
    }

    /// Tells a path that does not exist from one that would lie outside: the nearest directory that exists decides.
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

/// What a word turned out to be.
pub(super) enum Lookup {
    /// A path to this repository.
    Found(RepoPath),
    /// At most a name; where no repository has it, this error says more than that.
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
    Err(RepoError::BadSpec {
        spec: spec.chars().take(SHOWN_CHARS).collect(),
        why,
    })
}

/// Returns the one repository of `all` whose name is `name`; where there is none, the error `instead`, if given.
pub(super) fn by_name(
    name: &str,
    instead: Option<RepoError>,
    all: &[RepoPath],
) -> Result<RepoPath, RepoError> {
    let fits: Vec<&RepoPath> = all.iter().filter(|repo| repo.name() == name).collect();
    match fits.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(instead.unwrap_or_else(|| RepoError::NotFound {
            spec: name.to_owned(),
            nearest: nearest(name, all.iter().map(RepoPath::name)).map(str::to_owned),
        })),
        many => Err(RepoError::Ambiguous {
            spec: name.to_owned(),
            candidates: many.iter().map(|repo| (*repo).clone()).collect(),
        }),
    }
}
