//! Why a program was not started.

use crate::error::{ErrorKind, Fault};
use std::io;
use std::path::PathBuf;

/// Why a program was not started; nothing of it ran.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// No file of this name, at the path given or on the PATH.
    #[error("program `{program}` was not found")]
    NotFound {
        /// The program as it was named.
        program: String,
        /// A program on the PATH whose name is near.
        nearest: Option<String>,
    },
    /// The file is there but has no run bit for this user, or is no plain file.
    #[error("`{}` cannot be run: {}", .program.display(), no_run(.is_dir))]
    NotExecutable {
        /// The file.
        program: PathBuf,
        /// Whether it is a folder.
        is_dir: bool,
    },
    /// The file has the run bit but is neither a program of this platform nor a script with a `#!` line.
    #[error("`{}` cannot be run: it is no program for this platform and has no `#!` line", .program.display())]
    NotAProgram {
        /// The file.
        program: PathBuf,
    },
    /// The file is there but what its `#!` line (or its loader entry) names is not.
    #[error("`{}` cannot be run: the interpreter it names is missing", .program.display())]
    NoInterpreter {
        /// The file.
        program: PathBuf,
    },
    /// The folder to run in is not there or is no folder.
    #[error("the folder to run in, `{}`, does not exist or cannot be entered", .cwd.display())]
    NoFolder {
        /// The folder.
        cwd: PathBuf,
    },
    /// The arguments and the environment together are longer than the system allows.
    #[error("the arguments are longer than the system allows")]
    TooLong,
    /// An argument, the folder or the environment holds a NUL byte, which ends a text for the system.
    #[error("an argument, the folder or a variable of the environment holds a NUL byte")]
    Nul,
    /// The program's path is not absolute.
    #[error("program path `{}` is not absolute", .program.display())]
    Relative {
        /// The path.
        program: PathBuf,
    },
    /// The guardian could not be started, so nothing may run.
    #[error("the guardian process `{}` could not be started", .program.display())]
    Guardian {
        /// The guardian's program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The pipes to the program could not be made.
    #[error("the pipes to the program could not be made")]
    Pipes(#[source] io::Error),
    /// The system refused for another reason.
    #[error("`{}` could not be started", .program.display())]
    Refused {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server is shutting down.
    #[error("the server is shutting down; no program is started any more")]
    Closed,
    /// It was stopped (cancelled, or its deadline had passed) before it was started.
    #[error("it was stopped before it was started")]
    Stopped,
}

fn no_run(is_dir: &bool) -> &'static str {
    if *is_dir {
        "it is a folder"
    } else {
        "it has no run permission"
    }
}

impl Fault for SpawnError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::NoFolder { .. } => ErrorKind::NotFound,
            Self::NotExecutable { .. }
            | Self::NotAProgram { .. }
            | Self::NoInterpreter { .. }
            | Self::TooLong
            | Self::Nul
            | Self::Relative { .. } => ErrorKind::InvalidArgument,
            Self::Guardian { .. } | Self::Pipes(_) | Self::Refused { .. } => ErrorKind::Unavailable,
            Self::Closed => ErrorKind::Interrupted,
            Self::Stopped => ErrorKind::Cancelled,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotFound {
                nearest: Some(name),
                ..
            } => format!("did you mean `{name}`? Else install the program or give its absolute path"),
            Self::NotFound { .. } => {
                "install the program, or give its absolute path; it is searched on the server's PATH, the login shell's and in the usual folders of tools"
                    .into()
            }
            Self::NotExecutable {
                program,
                is_dir: false,
            } => format!("run `chmod +x {}`", program.display()),
            Self::NotExecutable { .. } => "name the program in the folder".into(),
            Self::NotAProgram { .. } => {
                "give the script a first line such as `#!/bin/sh`, or name its interpreter as the program".into()
            }
            Self::NoInterpreter { .. } => "install what the script's first line names, or correct that line".into(),
            Self::NoFolder { cwd } => format!("make `{}` or name another repository", cwd.display()),
            Self::TooLong => "pass long input as the task or in a file instead of as arguments".into(),
            Self::Nul => "give binary data in a file instead of as an argument".into(),
            Self::Guardian { program, .. } => {
                format!("check that `{}` is there and can be run", program.display())
            }
            Self::Pipes(_) => "raise the limit of open files (`ulimit -n`), or use fewer workers".into(),
            Self::Relative { .. } => "give an absolute path".into(),
            Self::Refused { .. } | Self::Closed | Self::Stopped => return None,
        })
    }
}
