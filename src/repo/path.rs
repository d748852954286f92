//! The path of a repository that was resolved.

use std::path::Path;
use std::sync::Arc;

/// A repository's canonical absolute path: it was under the roots and a git repository when it was resolved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoPath(Arc<str>);

impl RepoPath {
    /// Wraps a path that is canonical already; none where it is not UTF-8 and so cannot be written in JSON.
    pub(super) fn canonical(path: &Path) -> Option<Self> {
        path.to_str().map(|text| Self(text.into()))
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
