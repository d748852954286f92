//! A program to start, and which file its name means.

use super::error::SpawnError;
use crate::error::nearest;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Names and values, shared by all programs that get them.
pub type Environment = std::sync::Arc<[(OsString, OsString)]>;

/// A program to start.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program: an absolute path, as [`find_program`] returns it.
    pub program: PathBuf,
    /// Its arguments, without the program's name.
    pub args: Vec<OsString>,
    /// The folder it runs in: an absolute path.
    pub cwd: PathBuf,
    /// Its whole environment; nothing is inherited.
    pub env: Environment,
}

impl SpawnError {
    /// Finds out what errno `code` of a spawn meant: `ENOENT` alone may be the program, its interpreter or the folder.
    pub(super) fn diagnose(started: &Program, code: i32) -> Self {
        let (program, cwd) = (started.program.clone(), &started.cwd);
        if !cwd.is_dir() || rustix::fs::access(cwd, rustix::fs::Access::EXEC_OK).is_err() {
            return Self::NoFolder {
                cwd: cwd.to_path_buf(),
            };
        }
        match Errno::from_raw_os_error(code) {
            Errno::NOENT | Errno::NOTDIR if !program.exists() => Self::NotFound {
                program: program.display().to_string(),
                nearest: None,
            },
            Errno::NOENT => Self::NoInterpreter { program },
            Errno::ACCESS => Self::NotExecutable {
                is_dir: program.is_dir(),
                program,
            },
            Errno::NOEXEC => Self::NotAProgram { program },
            Errno::TOOBIG => Self::TooLong,
            errno => Self::Refused {
                program,
                source: errno.into(),
            },
        }
    }
}

/// Returns the absolute path of the program that `name` means: a path (absolute, or relative to `cwd`) where it has a
/// slash, else the first file with the run bit in the folders of `path_env`.
///
/// Empty entries of the PATH are skipped; to POSIX they mean the current folder, which is the repository here.
///
/// # Errors
///
/// [`SpawnError::NotFound`] with the nearest name on the PATH, [`SpawnError::NotExecutable`].
pub fn find_program(name: &OsStr, path_env: &OsStr, cwd: &Path) -> Result<PathBuf, SpawnError> {
    if name.as_encoded_bytes().contains(&b'/') {
        return runnable(cwd.join(name));
    }
    let mut refused = None;
    for folder in std::env::split_paths(path_env).filter(|folder| !folder.as_os_str().is_empty()) {
        match runnable(cwd.join(folder).join(name)) {
            Ok(program) if !name.is_empty() => return Ok(program),
            Err(error @ SpawnError::NotExecutable { is_dir: false, .. }) => refused = Some(error),
            _ => {}
        }
    }
    Err(refused.unwrap_or_else(|| SpawnError::NotFound {
        program: name.to_string_lossy().into_owned(),
        nearest: nearest_program(name, path_env),
    }))
}

fn runnable(program: PathBuf) -> Result<PathBuf, SpawnError> {
    let Ok(metadata) = program.metadata() else {
        return Err(SpawnError::NotFound {
            program: program.display().to_string(),
            nearest: None,
        });
    };
    if !metadata.is_file() || access(&program, Access::EXEC_OK).is_err() {
        return Err(SpawnError::NotExecutable {
            is_dir: metadata.is_dir(),
            program,
        });
    }
    Ok(program)
}

fn nearest_program(name: &OsStr, path_env: &OsStr) -> Option<String> {
    let names: Vec<String> = std::env::split_paths(path_env)
        .filter_map(|folder| folder.read_dir().ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    nearest(name.to_str()?, names.iter().map(String::as_str)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_program_is_found_by_name_path_and_nearest_name() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for (folder, mode) in [(&a, 0o644), (&b, 0o755)] {
            fs::create_dir(folder).expect("mkdir");
            fs::write(folder.join("tool"), "#!/bin/sh\n").expect("write");
            fs::set_permissions(folder.join("tool"), Permissions::from_mode(mode)).expect("chmod");
        }
        let both = std::env::join_paths([&a, &b]).expect("joins");
        let find = |name: &str, path: &OsStr| find_program(name.as_ref(), path, dir.path());
        assert_eq!(find("tool", &both).expect("found"), b.join("tool"));
        assert_eq!(
            find("b/tool", OsStr::new("")).expect("found"),
            b.join("tool")
        );
        assert!(matches!(
            find("tool", a.as_os_str()),
            Err(SpawnError::NotExecutable { is_dir: false, .. })
        ));
        assert!(matches!(
            find("./a", &both),
            Err(SpawnError::NotExecutable { is_dir: true, .. })
        ));
        assert!(matches!(find("", &both), Err(SpawnError::NotFound { .. })));
        match find("tol", &both) {
            Err(SpawnError::NotFound { nearest, .. }) => {
                assert_eq!(nearest.as_deref(), Some("tool"))
            }
            other => panic!("{other:?}"),
        }
    }
}
