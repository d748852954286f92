//! The one place that runs the git program.
//!
//! Every call: argv with options ended by the callers where a ref or path follows, repository hooks and the file
//! system monitor off, no prompt, no pager, messages in English, a deadline, and an environment in which nothing points
//! git at another repository. Paths are bytes. git runs under the guardian like every program: it does not outlive the
//! server, and a call that is given up returns only after git is dead, so that no lock is free before.

use super::RepoError;
use crate::process::{Call, Ended, Processes, Program, SearchPath, SpawnError, find_program};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a call that reads may take.
const READ_LIMIT: Duration = Duration::from_secs(60);
/// How long a call that writes a working copy may take; a first checkout of a huge repository is slow.
const WRITE_LIMIT: Duration = Duration::from_secs(600);
/// How much of stderr an error keeps, in bytes.
const STDERR_TAIL: usize = 2_000;
/// The most that one call's stdout may hold in memory, in bytes.
const MAX_STDOUT: u64 = 256 << 20;
/// The `GIT_*` variables that are passed on: a person's settings, not a pointer to some repository.
const PASSED: [&str; 8] = [
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_SYSTEM",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_COUNT",
    "GIT_EXEC_PATH",
    "GIT_SSH",
    "GIT_SSL_CAINFO",
    "GIT_CEILING_DIRECTORIES",
];
/// The families of such variables, by prefix.
const PASSED_PREFIXES: [&str; 4] = [
    "GIT_CONFIG_KEY_",
    "GIT_CONFIG_VALUE_",
    "GIT_AUTHOR_",
    "GIT_COMMITTER_",
];

/// Whether a call changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It only looks, and takes no lock for that.
    Read,
    /// It changes refs, objects, an index or files.
    Write,
}

/// The git program and the environment it runs in.
#[derive(Debug, Clone)]
pub(super) struct Git {
    processes: Processes,
    program: PathBuf,
    search: SearchPath,
    /// Without a PATH.
    env: Arc<[(OsString, OsString)]>,
    stop: CancellationToken,
}

impl Git {
    /// Takes the program, a path or a name that is searched, and the environment of which git gets the part that is safe.
    pub(super) fn new(
        processes: Processes,
        program: PathBuf,
        search: SearchPath,
        env: Vec<(OsString, OsString)>,
    ) -> Self {
        let mut kept: Vec<(OsString, OsString)> =
            env.into_iter().filter(|(name, _)| passes(name)).collect();
        for (name, value) in &mut kept {
            // `ssh` asks on the terminal; without a person there, that would hang.
            if name == "GIT_SSH_COMMAND" {
                value.push(" -o BatchMode=yes");
            }
        }
        for (name, value) in [
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", ""),
            // Without a GIT_SSH_COMMAND the user's core.sshCommand counts; ssh then "asks" a program that fails.
            ("SSH_ASKPASS", "false"),
            ("SSH_ASKPASS_REQUIRE", "force"),
            ("LC_ALL", "C"),
            ("GIT_PAGER", "cat"),
            ("GIT_EDITOR", "false"),
        ] {
            kept.push((name.into(), value.into()));
        }
        Self {
            processes,
            program,
            search,
            env: kept.into(),
            stop: CancellationToken::new(),
        }
    }

    /// Returns the same git, whose calls are given up when `stop` is cancelled.
    pub(super) fn until(&self, stop: CancellationToken) -> Self {
        Self {
            stop,
            ..self.clone()
        }
    }

    /// Begins a call of `subcommand` in `dir` with more options of git itself.
    pub(super) fn cmd_with(
        &self,
        dir: &Path,
        mode: Mode,
        options: &[&str],
        subcommand: &'static str,
    ) -> Cmd {
        let fixed = [
            ["-c", "core.hooksPath=/dev/null"],
            ["-c", "core.fsmonitor=false"],
            ["-c", "gc.auto=0"],
            ["-c", "maintenance.auto=false"],
        ];
        let args = fixed.iter().flatten().chain(options);
        let mut cmd = Cmd {
            git: self.clone(),
            args: args
                .chain(&["--no-pager", subcommand])
                .map(OsString::from)
                .collect(),
            env: Vec::new(),
            subcommand,
            dir: dir.to_owned(),
            limit: match mode {
                Mode::Read => READ_LIMIT,
                Mode::Write => WRITE_LIMIT,
            },
            accepted: &[],
            stdin: None,
            max_stdout: MAX_STDOUT,
        };
        if mode == Mode::Read {
            cmd = cmd.env("GIT_OPTIONAL_LOCKS", "0");
        }
        cmd
    }
}

fn passes(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    if matches!(
        name,
        "PATH" | "SSH_ASKPASS" | "SSH_ASKPASS_REQUIRE" | "LC_ALL" | "LANGUAGE"
    ) {
        return false;
    }
    !name.starts_with("GIT_")
        || name == "GIT_SSH_COMMAND"
        || PASSED.contains(&name)
        || PASSED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// One call of git, not started yet.
#[must_use]
pub(super) struct Cmd {
    git: Git,
    args: Vec<OsString>,
    /// Variables beside git's environment.
    env: Vec<(OsString, OsString)>,
    subcommand: &'static str,
    dir: PathBuf,
    limit: Duration,
    accepted: &'static [i32],
    stdin: Option<Vec<u8>>,
    max_stdout: u64,
}

/// What a call wrote.
#[derive(Debug)]
pub(super) struct Answer {
    /// The exit code: 0, or one that was said to be accepted.
    pub(super) code: i32,
    /// All of stdout, up to the limit.
    pub(super) stdout: Vec<u8>,
}

impl Answer {
    /// Returns stdout's first line as text.
    pub(super) fn line(&self) -> String {
        let line = self.stdout.split(|byte| *byte == b'\n').next();
        String::from_utf8_lossy(line.unwrap_or_default()).into_owned()
    }

    /// Returns what a `-z` listing names, one by one.
    pub(super) fn records(&self) -> impl Iterator<Item = &[u8]> {
        self.stdout
            .split(|byte| *byte == 0)
            .filter(|record| !record.is_empty())
    }
}

impl Cmd {
    /// Adds an argument.
    pub(super) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub(super) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    pub(super) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Takes these exit codes for answers, not for failures.
    pub(super) fn accept(mut self, codes: &'static [i32]) -> Self {
        self.accepted = codes;
        self
    }

    /// Writes `bytes` to git's stdin.
    pub(super) fn stdin(mut self, bytes: Vec<u8>) -> Self {
        self.stdin = Some(bytes);
        self
    }

    /// Keeps at most `bytes` of stdout; the rest is read and dropped.
    pub(super) fn keep_at_most(mut self, bytes: u64) -> Self {
        self.max_stdout = bytes;
        self
    }

    /// Runs git to its end.
    ///
    /// # Errors
    ///
    /// [`RepoError::GitMissing`], [`RepoError::GitTimedOut`], [`RepoError::Abandoned`] where it was stopped,
    /// [`RepoError::Git`] for any other exit.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills git and what it started; git leaves its own lock files behind then, if it held any.
    pub(super) async fn run(self) -> Result<Answer, RepoError> {
        let Self { git, dir, .. } = self;
        let not_started = |source| match source {
            SpawnError::NoFolder { .. } => RepoError::io("enter", &dir)(
                dir.metadata()
                    .err()
                    .unwrap_or_else(|| std::io::ErrorKind::NotADirectory.into()),
            ),
            source => RepoError::GitMissing {
                program: git.program.clone(),
                source,
            },
        };
        let path = git.search.get();
        let program = git.program.as_os_str();
        let program = find_program(program, &path, &dir).map_err(not_started)?;
        // A program takes the first of two values of one name.
        let is_set = |name| self.env.iter().any(|(set, _)| set == name);
        let inherited = git.env.iter().filter(|(name, _)| !is_set(name)).cloned();
        let call = Call {
            program: Program {
                program,
                args: self.args,
                cwd: dir.clone(),
                env: inherited
                    .chain(self.env.iter().cloned())
                    .chain([("PATH".into(), path.to_os_string())])
                    .collect(),
            },
            stdin: self.stdin,
            stdout_bytes: self.max_stdout,
            stderr_bytes: STDERR_TAIL,
        };
        let stop = async {
            tokio::select! {
                () = git.stop.cancelled() => {}
                () = tokio::time::sleep(self.limit) => {}
            }
        };
        let output = git
            .processes
            .output(call, stop)
            .await
            .map_err(not_started)?;
        let Some(output) = output else {
            return Err(match git.stop.is_cancelled() {
                true => RepoError::Abandoned,
                false => RepoError::GitTimedOut {
                    command: self.subcommand.to_owned(),
                    dir,
                    limit: self.limit,
                },
            });
        };
        let code = match output.end {
            Ended::NotSpawned(error) => return Err(not_started(error)),
            Ended::Exited(code) => Some(code),
            Ended::Signalled(_) | Ended::GuardianLost | Ended::Unkillable => None,
        };
        match code {
            Some(code) if code == 0 || self.accepted.contains(&code) => Ok(Answer {
                code,
                stdout: output.stdout,
            }),
            code => Err(RepoError::Git {
                command: self.subcommand.to_owned(),
                dir,
                code,
                stderr: output.stderr,
            }),
        }
    }
}
