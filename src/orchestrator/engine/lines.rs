//! The command lines of `setup` and `verify`.

use super::live::LiveAttempt;
use crate::redact::redact;
use crate::worker::{End, Outcome, Programs, Run};
use std::path::Path;
use std::time::{Duration, Instant};

/// Where and how the lines of an attempt run.
pub(super) struct Lines<'a> {
    /// The programs of the pool's worker kind.
    pub(super) programs: &'a Programs,
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
            let what = format!("{stage}: {}", argv.join(" "));
            self.live.doing(redact(&what));
            let ended = self.line(stage, number, argv).await;
            if ended.end != End::Succeeded {
                return Some(ended);
            }
        }
        None
    }

    async fn line(&self, stage: &str, number: usize, argv: &[String]) -> Outcome {
        let run = Run {
            argv: argv.to_vec(),
            dir: self.dir.to_owned(),
            stdin: None,
            logs: ["stdout", "stderr"].map(|it| self.logs.join(format!("{stage}-{number}.{it}"))),
            deadline: self.deadline,
            stall: self.stall,
            grace: self.live.grace.clone(),
        };
        let alive = || self.live.alive();
        self.programs.run(run, alive, &self.live.cancel).await
    }
}
