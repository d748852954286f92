//! The one place that runs the git program.
//!
//! Every call: argv with options ended by the callers where a ref or path follows, repository hooks and the file
//! system monitor off, no prompt, no pager, messages in English, its own process group, a deadline, and an environment
//! in which nothing points git at another repository. Paths are bytes.

use super::RepoError;
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

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
    program: PathBuf,
    env: Arc<[(OsString, OsString)]>,
}

impl Git {
    /// Takes the program and the environment of which git gets the part that is safe.
    pub(super) fn new(program: PathBuf, env: Vec<(OsString, OsString)>) -> Self {
        let mut kept: Vec<(OsString, OsString)> =
            env.into_iter().filter(|(name, _)| passes(name)).collect();
        for (name, value) in &mut kept {
            // `ssh` asks on the terminal; in a session of nobody that would hang.
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
            program,
            env: kept.into(),
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
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(dir)
            .args(["-c", "core.hooksPath=/dev/null"])
            .args(["-c", "core.fsmonitor=false"])
            .args(["-c", "gc.auto=0"])
            .args(["-c", "maintenance.auto=false"])
            .args(options)
            .args(["--no-pager", subcommand])
            .process_group(0)
            .kill_on_drop(true);
        if mode == Mode::Read {
            command.env("GIT_OPTIONAL_LOCKS", "0");
        }
        Cmd {
            program: self.program.clone(),
            command,
            subcommand,
            dir: dir.to_owned(),
            limit: match mode {
                Mode::Read => READ_LIMIT,
                Mode::Write => WRITE_LIMIT,
            },
            accepted: &[],
            stdin: None,
            max_stdout: MAX_STDOUT,
        }
    }
}

fn passes(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    if matches!(
        name,
        "SSH_ASKPASS" | "SSH_ASKPASS_REQUIRE" | "LC_ALL" | "LANGUAGE"
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
    program: PathBuf,
    command: Command,
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
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub(super) fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    pub(super) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
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
    /// [`RepoError::GitMissing`], [`RepoError::GitTimedOut`], [`RepoError::Git`] for any other exit.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills git and what it started; git leaves its own lock files behind then, if it held any.
    pub(super) async fn run(mut self) -> Result<Answer, RepoError> {
        self.command
            .stdin(match self.stdin {
                Some(_) => Stdio::piped(),
                None => Stdio::null(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = self.command.spawn().map_err(|source| match source.kind() {
            // A directory that is gone fails the same way as a missing program.
            _ if !self.dir.is_dir() => RepoError::io("enter", &self.dir)(source),
            _ => RepoError::GitMissing {
                program: self.program.clone(),
                source,
            },
        })?;
        let mut group = Group::of(child);
        let talk = converse(&mut group.child, self.stdin.take(), self.max_stdout);
        let (status, stdout, stderr) = match tokio::time::timeout(self.limit, talk).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(source)) => return Err(RepoError::io("talk to git in", &self.dir)(source)),
            Err(_) => {
                return Err(RepoError::GitTimedOut {
                    command: self.subcommand.to_owned(),
                    dir: self.dir,
                    limit: self.limit,
                });
            }
        };
        group.ended = true;
        match status.code() {
            Some(code) if code == 0 || self.accepted.contains(&code) => Ok(Answer { code, stdout }),
            code => Err(RepoError::Git {
                command: self.subcommand.to_owned(),
                dir: self.dir,
                code,
                stderr,
            }),
        }
    }
}

/// A running git; dropping it kills the whole group.
struct Group {
    child: Child,
    leader: Option<Pid>,
    ended: bool,
}

impl Group {
    fn of(child: Child) -> Self {
        let leader = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        Self {
            child,
            leader,
            ended: false,
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The leader is not reaped before `ended` is set, so its number cannot have passed to another group.
        if let (false, Some(leader)) = (self.ended, self.leader)
            && let Err(error) = kill_process_group(leader, Signal::KILL)
        {
            tracing::debug!(%error, "git's process group was gone already");
        }
    }
}

/// Writes stdin and reads both streams while it waits: waiting alone deadlocks on a full pipe.
async fn converse(
    child: &mut Child,
    stdin: Option<Vec<u8>>,
    max_stdout: u64,
) -> io::Result<(std::process::ExitStatus, Vec<u8>, String)> {
    let mut to = child.stdin.take();
    let out = child.stdout.take();
    let err = child.stderr.take();
    let write = async {
        if let (Some(to), Some(bytes)) = (&mut to, stdin) {
            match to.write_all(&bytes).await {
                // git may answer before it has read everything.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                other => other?,
            }
        }
        drop(to);
        io::Result::Ok(())
    };
    let ((), stdout, stderr) = tokio::try_join!(
        write,
        read_start(out, max_stdout),
        read_end(err, STDERR_TAIL)
    )?;
    Ok((child.wait().await?, stdout, stderr))
}

/// Reads to the end and keeps the first `max` bytes.
async fn read_start(from: Option<impl AsyncRead + Unpin>, max: u64) -> io::Result<Vec<u8>> {
    let Some(mut from) = from else {
        return Ok(Vec::new());
    };
    let mut kept = Vec::new();
    (&mut from).take(max).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(kept)
}

/// Reads to the end and keeps the last `max` bytes, as text.
async fn read_end(from: Option<impl AsyncRead + Unpin>, max: usize) -> io::Result<String> {
    let Some(mut from) = from else {
        return Ok(String::new());
    };
    let mut kept: Vec<u8> = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = from.read(&mut chunk).await?;
        if read == 0 {
            return Ok(String::from_utf8_lossy(&kept).trim().to_owned());
        }
        kept.extend_from_slice(&chunk[..read]);
        kept.drain(..kept.len().saturating_sub(max));
    }
}
