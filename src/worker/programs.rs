//! Programs of this machine as worker kinds run them: their own, and the lines of `setup` and `verify`.
//!
//! One environment, one search path and one `allow` for all of a kind's programs.

use super::outcome::{End, Outcome, outcome};
use crate::config::Allow;
use crate::error::{ErrorKind, Problem};
use crate::process::{
    Grace, Job, Processes, Program, ProgramEnv, Reach, Room, SearchPath, SpawnError, find_program,
};
use crate::redact::CONTEXT_BYTES;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often at most a program's output counts as a sign of life.
const ALIVE_EVERY: Duration = Duration::from_millis(100);

/// What running programs needs of this machine.
#[derive(Clone)]
pub(crate) struct Host {
    /// Runs programs so that none outlives the server.
    pub(crate) processes: Processes,
    /// The server's own environment.
    pub(crate) env: Arc<[(OsString, OsString)]>,
    /// Where programs are searched.
    pub(crate) search: SearchPath,
    /// How many attempts on this machine there may be at once.
    pub(crate) room: Room,
    /// The most bytes of a stream that are kept on disk.
    pub(crate) log_cap_bytes: u64,
    /// The most bytes of a stream's end that are kept in memory.
    pub(crate) tail_bytes: usize,
}

/// The programs of one worker kind.
pub(crate) struct Programs {
    pub(super) host: Host,
    env: ProgramEnv,
    allow: Allow,
    /// The program that gets the prompts.
    own: Option<String>,
}

/// One program to run for an attempt.
pub(crate) struct Run {
    /// The program and its arguments.
    pub(crate) argv: Vec<String>,
    /// The folder to run in.
    pub(crate) dir: PathBuf,
    /// What it reads; `None` is an empty stdin.
    pub(crate) stdin: Option<Vec<u8>>,
    /// The files of its stdout and its stderr, made at the first byte.
    pub(crate) logs: [PathBuf; 2],
    /// When it is out of time.
    pub(crate) deadline: Option<Instant>,
    /// The longest it may write nothing.
    pub(crate) stall: Option<Duration>,
    /// How long it may take to end once it was asked to.
    pub(crate) grace: Grace,
}

impl Programs {
    /// Makes the programs of a worker kind: what they get of the server's environment (`reach`, `env_pass`), what the config
    /// sets (`env`) and which may run (`allow`).
    pub(crate) fn new(
        host: Host,
        reach: Reach,
        allow: &Allow,
        env_pass: &[String],
        env: &BTreeMap<String, String>,
    ) -> Self {
        let env: Vec<(OsString, OsString)> = env
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Self {
            env: ProgramEnv::new(&host.env, reach, env_pass, &env, host.search.clone()),
            allow: allow.clone(),
            own: None,
            host,
        }
    }

    /// Adds the name of the program that gets the prompts.
    pub(super) fn with_own(self, program: Option<&str>) -> Self {
        Self {
            own: program.map(str::to_owned),
            ..self
        }
    }

    /// Returns the programs that the config names: none where any is allowed.
    pub(crate) fn named(&self) -> impl Iterator<Item = &str> {
        self.allow.names().chain(self.own.as_deref())
    }

    /// Refuses a program, named by the argument `field`, that `allow` does not permit.
    ///
    /// # Errors
    ///
    /// A [`Problem`] that names the field, the program and what is allowed.
    pub(crate) fn permits(&self, field: &str, program: &str) -> Result<(), Problem> {
        let found = find_program(OsStr::new(program), &self.env.path(), Path::new("/")).ok();
        if self.allow.permits(program, found.as_deref()) {
            return Ok(());
        }
        Err(Problem {
            kind: ErrorKind::Forbidden,
            ..Problem::argument(
                field,
                format!("program {program:?} is not allowed here"),
                self.allow.describe(),
            )
        }
        .with_hint(format!(
            "add {program:?} to `allow` of the worker kind in the config file, or use an allowed program"
        )))
    }

    /// Refuses command lines, named by the argument `field`, whose program is nowhere. A relative path is not looked for: it
    /// may be made before the line runs.
    ///
    /// # Errors
    ///
    /// A [`Problem`] that names the line and the nearest name there is.
    pub(crate) async fn exist(&self, field: &str, lines: &[Vec<String>]) -> Result<(), Problem> {
        for (number, argv) in lines.iter().enumerate() {
            let program = argv.first().map_or("", String::as_str);
            if program.contains('/') && !program.starts_with('/') {
                continue;
            }
            if let Err(error) = self.find(program, Path::new("/")).await {
                let problem = Problem::from(error);
                return Err(Problem {
                    message: format!("{field}[{number}] cannot run: {}", problem.message),
                    field: Some(format!("{field}[{number}]")),
                    ..problem
                });
            }
        }
        Ok(())
    }

    /// Returns the absolute path of the program that `name` means in `cwd`, on the PATH that it will have.
    ///
    /// Waits for the login shell's PATH, two seconds at most after the server's start, where it is not found without.
    ///
    /// # Errors
    ///
    /// It is missing or has no run bit.
    pub(crate) async fn find(&self, name: &str, cwd: &Path) -> Result<PathBuf, SpawnError> {
        let name = OsStr::new(name);
        match find_program(name, &self.env.path(), cwd) {
            Err(SpawnError::NotFound { .. }) => {
                find_program(name, &self.env.whole_path().await, cwd)
            }
            found => found,
        }
    }

    /// Runs a program to its end; `alive` is called when it writes.
    ///
    /// # Cancel safety
    ///
    /// Cancel with `cancel`: the program is asked to end and killed after its grace. Dropping the future kills it at once.
    pub(crate) async fn run(
        &self,
        run: Run,
        mut alive: impl FnMut() + Send,
        cancel: &CancellationToken,
    ) -> Outcome {
        let Some((name, args)) = run.argv.split_first() else {
            return Outcome::of(End::NotStarted(empty_command()));
        };
        let program = match self.find(name, &run.dir).await {
            Ok(program) => program,
            Err(error) => return Outcome::of(End::NotStarted(error.into())),
        };
        let [stdout_log, stderr_log] = run.logs;
        let job = Job {
            program: Program {
                program,
                args: args.iter().map(OsString::from).collect(),
                cwd: run.dir,
                env: self.env.get(),
            },
            stdin: run.stdin,
            stdout_log,
            stderr_log,
            log_cap_bytes: self.host.log_cap_bytes,
            tail_bytes: self.host.tail_bytes,
            context_bytes: CONTEXT_BYTES,
            deadline: run.deadline,
            stall: run.stall,
            grace: run.grace,
        };
        let mut last: Option<Instant> = None;
        let mut on_output = |_, _: &[u8]| {
            let now = Instant::now();
            if last.is_none_or(|last| now.duration_since(last) >= ALIVE_EVERY) {
                last = Some(now);
                alive();
            }
        };
        outcome(self.host.processes.run(job, &mut on_output, cancel).await)
    }
}

/// Returns the refusal of an argv without a program.
pub(super) fn empty_command() -> Problem {
    Problem::argument(
        "command",
        "the command is empty",
        "one argv, the program first, such as [\"cargo\", \"test\"]",
    )
}
