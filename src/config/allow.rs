//! Which programs a call may name.

use std::path::{Path, PathBuf};

/// The programs that `command`, `setup` and `verify` of a call may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allow {
    /// Any program: `["*"]`.
    Any,
    /// These and no others; an empty list permits none.
    Only(Vec<Allowed>),
}

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// A program called by this name and found on the PATH.
    Name(String),
    /// The program at this absolute path, however it was called.
    Path(PathBuf),
}

impl Default for Allow {
    fn default() -> Self {
        Self::Only(Vec::new())
    }
}

impl Allow {
    /// What the list may hold.
    pub const ALLOWED: &'static str = "program names, absolute paths, or \"*\" alone for any";

    /// Reads the list of a config file.
    ///
    /// # Errors
    ///
    /// The place of the first entry that is no program name, absolute path or lone `*`.
    pub fn parse(entries: &[String]) -> Result<Self, usize> {
        if let [all] = entries
            && all == "*"
        {
            return Ok(Self::Any);
        }
        let entry = |(place, text): (usize, &String)| {
            let path = Path::new(text);
            if path.is_absolute() {
                Ok(Allowed::Path(path.to_owned()))
            } else if is_program_name(text) {
                Ok(Allowed::Name(text.clone()))
            } else {
                Err(place)
            }
        };
        let only: Result<_, _> = entries.iter().enumerate().map(entry).collect();
        only.map(Self::Only)
    }

    /// Returns whether a call may start `program`, the first word of an argv, which is the file `resolved`.
    ///
    /// A name permits only what was called by that name: `/tmp/git` is not `git`.
    pub fn permits(&self, program: &str, resolved: Option<&Path>) -> bool {
        match self {
            Self::Any => true,
            Self::Only(entries) => entries.iter().any(|entry| match entry {
                Allowed::Name(name) => name == program,
                Allowed::Path(path) => path == Path::new(program) || resolved == Some(path),
            }),
        }
    }

    /// Returns the names in the list; none where it permits any program.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let entries = match self {
            Self::Any => [].as_slice(),
            Self::Only(entries) => entries.as_slice(),
        };
        entries.iter().filter_map(|entry| match entry {
            Allowed::Name(name) => Some(name.as_str()),
            Allowed::Path(path) => path.to_str(),
        })
    }

    /// Returns the list as an error shows it.
    pub fn describe(&self) -> String {
        match self {
            Self::Any => "any program".to_owned(),
            Self::Only(entries) if entries.is_empty() => "none".to_owned(),
            Self::Only(entries) => entries
                .iter()
                .map(|entry| match entry {
                    Allowed::Name(name) => name.clone(),
                    Allowed::Path(path) => path.display().to_string(),
                })
                .collect::<Vec<_>>()
                .join(", "),
        }
    }
}

fn is_program_name(text: &str) -> bool {
    !text.is_empty()
        && text != "*"
        && text != "."
        && text != ".."
        && !text.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(entries: &[&str]) -> Allow {
        let entries: Vec<String> = entries.iter().map(|&entry| entry.into()).collect();
        Allow::parse(&entries).expect("a good list")
    }

    #[test]
    fn a_missing_list_permits_nothing_and_a_star_anything() {
        assert!(!Allow::default().permits("git", Some(Path::new("/usr/bin/git"))));
        assert!(allow(&["*"]).permits("anything", None));
    }

    #[test]
    fn a_name_permits_the_name_and_no_other_file_of_that_name() {
        let git = allow(&["git"]);
        assert!(git.permits("git", Some(Path::new("/usr/bin/git"))));
        assert!(!git.permits("/tmp/evil/git", Some(Path::new("/tmp/evil/git"))));
        assert!(!git.permits("./git", None));
        assert!(!git.permits("gitk", None));
    }

    #[test]
    fn a_path_permits_that_file_however_it_was_called() {
        let git = allow(&["/usr/bin/git"]);
        assert!(git.permits("/usr/bin/git", None));
        assert!(git.permits("git", Some(Path::new("/usr/bin/git"))));
        assert!(!git.permits("git", Some(Path::new("/opt/git"))));
        assert!(!git.permits("git", None));
    }

    #[test]
    fn what_is_no_program_is_refused_with_its_place() {
        for bad in ["npm test", "bin/x", "", "*", ".."] {
            let entries = ["git".to_owned(), bad.to_owned()];
            assert_eq!(Allow::parse(&entries), Err(1), "{bad:?}");
        }
    }
}
