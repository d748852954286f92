//! The command lines of `setup` and `verify`.

use super::live::LiveAttempt;
use crate::error::Problem;
use crate::process::{Environment, Job, Program};
use crate::redact::CONTEXT_BYTES;
use crate::worker::command::{Host, outcome};
use crate::worker::{End, Outcome};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where and how the lines of an attempt run.
pub(super) struct Lines<'a> {
    pub(super) host: &'a Host,
    pub(super) env: &'a Environment,
    pub(super) live: &'a LiveAttempt,
    /// The folder they run in.
    pub(super) dir: &'a Path,
    /// The folder for their logs.
    pub(super) logs: &'a Path,
    /// The attempt's deadline, for all lines together.
    pub(super) deadline: Option<Instant>,
    pub(super) stall: Option<Duration>,
}

impl Lines<'_> {
    /// Runs the lines of a stage in order until one fails; returns how that one ended, or none where all exited 0.
    pub(super) async fn run(&self, stage: &str, lines: &[Vec<String>]) -> Option<Outcome> {
        for (number, argv) in lines.iter().enumerate() {
            self.live.doing(format!("{stage}: {}", argv.join(" ")));
            let ended = self.line(stage, number, argv).await;
            if ended.end != End::Succeeded {
                return Some(ended);
            }
        }
        None
    }

    async fn line(&self, stage: &str, number: usize, argv: &[String]) -> Outcome {
        match self.job(stage, number, argv) {
            Ok(job) => {
                let mut alive = |_, _: &[u8]| self.live.alive();
                let ran = self.host.processes.run(job, &mut alive, &self.live.cancel);
                outcome(ran.await)
            }
            Err(problem) => Outcome::of(End::NotStarted(problem)),
        }
    }

    fn job(&self, stage: &str, number: usize, argv: &[String]) -> Result<Job, Problem> {
        let (program, args) = argv.split_first().ok_or_else(|| {
            Problem::argument(
                stage,
                format!("{stage}[{number}] is empty"),
                "a command line",
            )
        })?;
        let log = |stream: &str| self.logs.join(format!("{stage}-{number}.{stream}"));
        Ok(Job {
            program: Program {
                program: self.host.find(program, self.dir)?,
                args: args.iter().map(OsString::from).collect(),
                cwd: self.dir.to_owned(),
                env: Arc::clone(self.env),
            },
            stdin: None,
            stdout_log: log("stdout"),
            stderr_log: log("stderr"),
            log_cap_bytes: self.host.log_cap_bytes,
            tail_bytes: self.host.tail_bytes,
            context_bytes: CONTEXT_BYTES,
            deadline: self.deadline,
            stall: self.stall,
            grace: self.live.grace.clone(),
        })
    }
}
