//! The worker kind `command`, and headless agent programs as far as they are programs: an argv, run through the
//! guardian, judged by its exit code.

use super::programs::{Programs, Run, empty_command};
use super::prompt::Prompt;
use super::{Capabilities, End, Event, Events, Outcome, Task, Worker};
use crate::error::{ErrorKind, Problem};
use crate::model::Work;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// What a worker of this kind may be given to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Takes {
    /// Commands, and prompts where a program takes them.
    Commands(Option<Prompt>),
    /// Prompts alone.
    Prompts(Prompt),
}

impl Takes {
    fn prompt(&self) -> Option<&Prompt> {
        match self {
            Self::Commands(prompt) => prompt.as_ref(),
            Self::Prompts(prompt) => Some(prompt),
        }
    }
}

/// Runs programs.
pub(super) struct CommandWorker {
    programs: Programs,
    takes: Takes,
}

impl CommandWorker {
    pub(super) fn new(programs: Programs, takes: Takes) -> Self {
        let program = takes.prompt().and_then(Prompt::program);
        Self {
            programs: programs.with_own(program),
            takes,
        }
    }

    fn prompt(&self) -> Option<&Prompt> {
        self.takes.prompt()
    }

    /// Returns the argv and the stdin of a task.
    fn argv(&self, task: &Task) -> Result<(Vec<String>, Option<Vec<u8>>), Problem> {
        match (&task.work, self.prompt()) {
            (Work::Command(argv), _) => Ok((argv.clone(), None)),
            (Work::Task(text), Some(prompt)) => prompt.render(text, task).map_err(|error| {
                let message = format!("the prompt could not be written: {error}");
                Problem::new(ErrorKind::Unavailable, message)
            }),
            (Work::Task(_), None) => Err(takes_no_prompt()),
        }
    }
}

fn takes_no_prompt() -> Problem {
    Problem::argument(
        "task",
        "this worker kind takes commands, not prompts",
        "`command` with an argv, or a pool whose worker takes prompts",
    )
    .with_hint("give `command`, or set `command` of the worker kind in the config file to the argv of an agent program")
}

impl Worker for CommandWorker {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            tasks: self.prompt().is_some(),
            commands: matches!(self.takes, Takes::Commands(_)),
            local: true,
        }
    }

    fn programs(&self) -> &Programs {
        &self.programs
    }

    fn check(&self, work: &Work) -> Result<(), Problem> {
        match work {
            Work::Task(_) if self.prompt().is_some() => Ok(()),
            Work::Task(_) => Err(takes_no_prompt()),
            Work::Command(argv) => {
                let program = argv.first().ok_or_else(empty_command)?;
                self.programs.permits("command", program)
            }
        }
    }

    fn run(&self, task: Task, events: Events, cancel: CancellationToken) -> BoxFuture<'_, Outcome> {
        async move {
            let (argv, stdin) = match self.argv(&task) {
                Ok(words) => words,
                Err(problem) => return Outcome::of(End::NotStarted(problem)),
            };
            let run = Run {
                argv,
                stdin,
                dir: task.dir,
                logs: ["stdout", "stderr"].map(|stream| task.logs.join(stream)),
                deadline: task.deadline,
                stall: task.stall,
                grace: task.grace,
            };
            let alive = || events(Event::Alive);
            self.programs.run(run, alive, &cancel).await
        }
        .boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Problem>> {
        async move {
            if let Some(program) = self.prompt().and_then(Prompt::program) {
                self.programs.find(program, Path::new("/")).await?;
            }
            Ok(())
        }
        .boxed()
    }
}
