//! The worker kind `command`, and headless agent programs as far as they are programs: an argv, run through the
//! guardian, judged by its exit code.

use super::template::fill;
use super::{Capabilities, End, Event, Events, Outcome, Task, Worker};
use crate::config::{AgentPreset, Allow, PromptBy};
use crate::error::{ErrorKind, Fault, Problem};
use crate::model::Work;
use crate::process::{
    Captured, Ended, Environment, Exit, Job, Processes, Program, StopReason, base_env, find_program,
};
use crate::redact::{CONTEXT_BYTES, Scan};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often at most a program's output is told as a sign of life.
const ALIVE_EVERY: Duration = Duration::from_millis(100);

/// What running a program needs of this machine.
#[derive(Clone)]
pub struct Host {
    /// Runs programs so that none outlives the server.
    pub processes: Processes,
    /// The server's own environment.
    pub env: Arc<[(OsString, OsString)]>,
    /// The PATH that programs are looked for on.
    pub path: Arc<OsStr>,
    /// The most bytes of a stream that are kept on disk.
    pub log_cap_bytes: u64,
    /// The most bytes of a stream's end that are kept in memory.
    pub tail_bytes: usize,
}

impl Host {
    /// Returns the absolute path of the program that `name` means in `cwd`.
    ///
    /// # Errors
    ///
    /// It is missing or has no run bit.
    pub fn find(&self, name: &str, cwd: &Path) -> Result<PathBuf, Problem> {
        find_program(OsStr::new(name), &self.path, cwd).map_err(|error| error.problem())
    }

    /// Refuses a program, named by the argument `field`, that `allow` does not permit.
    pub(super) fn permits(&self, allow: &Allow, field: &str, program: &str) -> Result<(), Problem> {
        let resolved = find_program(OsStr::new(program), &self.path, Path::new("/")).ok();
        if allow.permits(program, resolved.as_deref()) {
            return Ok(());
        }
        Err(Problem {
            kind: ErrorKind::Forbidden,
            ..Problem::argument(
                field,
                format!("program {program:?} is not allowed here"),
                allow.describe(),
            )
        }
        .with_hint(format!(
            "add {program:?} to `allow` of the worker kind in the config file, or use an allowed program"
        )))
    }
}

/// How a prompt becomes an argv and a stdin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    argv: Vec<String>,
    by: By,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum By {
    Placeholder,
    Preset(PromptBy),
}

impl Prompt {
    /// Returns the one that the config's `command` means: `{task}` in it, or else stdin.
    pub fn template(argv: &[String]) -> Self {
        let named = argv.iter().any(|word| word.contains("{task}"));
        Self {
            argv: argv.to_vec(),
            by: if named {
                By::Placeholder
            } else {
                By::Preset(PromptBy::Stdin)
            },
        }
    }

    /// Returns the one of an agent program.
    pub fn preset(preset: &AgentPreset) -> Self {
        Self {
            argv: preset.argv.iter().map(|&word| word.to_owned()).collect(),
            by: By::Preset(preset.prompt),
        }
    }

    /// Returns the argv and the stdin for `text`; a prompt that goes by file is written below `logs`.
    fn render(&self, text: &str, task: &Task) -> std::io::Result<(Vec<String>, Option<Vec<u8>>)> {
        let mut argv: Vec<String> = self
            .argv
            .iter()
            .map(|word| fill(word, text, task))
            .collect();
        match self.by {
            By::Placeholder => Ok((argv, None)),
            By::Preset(PromptBy::Stdin) => Ok((argv, Some(text.as_bytes().to_vec()))),
            By::Preset(PromptBy::Argument) => {
                argv.push(text.to_owned());
                Ok((argv, None))
            }
            By::Preset(PromptBy::FileAfter(flag)) => {
                let file = task.logs.join("prompt");
                std::fs::create_dir_all(&task.logs)?;
                std::fs::write(&file, text)?;
                argv.extend([flag.to_owned(), file.display().to_string()]);
                Ok((argv, None))
            }
        }
    }
}

/// Runs programs.
pub struct CommandWorker {
    host: Host,
    prompt: Option<Prompt>,
    commands: bool,
    allow: Allow,
    env: Environment,
}

impl CommandWorker {
    /// Makes a worker that takes prompts where `prompt` says how, and commands that `allow` permits where `commands`.
    pub fn new(
        host: Host,
        prompt: Option<Prompt>,
        commands: bool,
        allow: &Allow,
        env_pass: &[String],
        env: &BTreeMap<String, String>,
    ) -> Self {
        let extra: Vec<(OsString, OsString)> = env
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let env = base_env(host.env.iter().cloned(), env_pass, &extra);
        Self {
            host,
            prompt,
            commands,
            allow: allow.clone(),
            env,
        }
    }

    async fn run_program(
        &self,
        task: Task,
        events: Events,
        cancel: CancellationToken,
    ) -> Result<Exit, Problem> {
        let (argv, stdin) = match (&task.work, &self.prompt) {
            (Work::Command(argv), _) => (argv.clone(), None),
            (Work::Task(text), Some(prompt)) => prompt.render(text, &task).map_err(|error| {
                Problem::new(
                    ErrorKind::Unavailable,
                    format!("the prompt could not be written: {error}"),
                )
            })?,
            (Work::Task(_), None) => return Err(self.takes_no_prompt()),
        };
        let (name, args) = argv.split_first().ok_or_else(empty_command)?;
        let program = self.host.find(name, &task.dir)?;
        let job = Job {
            program: Program {
                program,
                args: args.iter().map(OsString::from).collect(),
                cwd: task.dir,
                env: Arc::clone(&self.env),
            },
            stdin,
            stdout_log: task.logs.join("stdout"),
            stderr_log: task.logs.join("stderr"),
            log_cap_bytes: self.host.log_cap_bytes,
            tail_bytes: self.host.tail_bytes,
            context_bytes: CONTEXT_BYTES,
            deadline: task.deadline,
            stall: task.stall,
            grace: task.grace,
        };
        let mut told: Option<Instant> = None;
        let mut alive = move |_, _: &[u8]| {
            let now = Instant::now();
            if told.is_none_or(|told| now.duration_since(told) >= ALIVE_EVERY) {
                told = Some(now);
                events(Event::Alive);
            }
        };
        Ok(self.host.processes.run(job, &mut alive, &cancel).await)
    }

    fn takes_no_prompt(&self) -> Problem {
        Problem::argument(
            "task",
            "this worker kind takes commands, not prompts",
            "`command` with an argv, or a pool whose worker takes prompts",
        )
        .with_hint("give `command`, or set `command` of the worker kind in the config file to the argv of an agent program")
    }
}

fn empty_command() -> Problem {
    Problem::argument(
        "command",
        "the command is empty",
        "one argv, the program first, such as [\"cargo\", \"test\"]",
    )
}

impl Worker for CommandWorker {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            tasks: self.prompt.is_some(),
            commands: self.commands,
            local: true,
        }
    }

    fn check(&self, work: &Work) -> Result<(), Problem> {
        match work {
            Work::Task(_) if self.prompt.is_some() => Ok(()),
            Work::Task(_) => Err(self.takes_no_prompt()),
            Work::Command(argv) => {
                let program = argv.first().ok_or_else(empty_command)?;
                self.check_program("command", program)
            }
        }
    }

    fn check_program(&self, field: &str, program: &str) -> Result<(), Problem> {
        self.host.permits(&self.allow, field, program)
    }

    fn run(&self, task: Task, events: Events, cancel: CancellationToken) -> BoxFuture<'_, Outcome> {
        async move {
            match self.run_program(task, events, cancel).await {
                Ok(exit) => outcome(exit),
                Err(problem) => Outcome::of(End::NotStarted(problem)),
            }
        }
        .boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Problem>> {
        let found = match self.prompt.as_ref().and_then(|prompt| prompt.argv.first()) {
            Some(program) => self.host.find(program, Path::new("/")).map(|_| ()),
            None => Ok(()),
        };
        std::future::ready(found).boxed()
    }
}

/// Returns how an attempt ended, by how its program did.
pub fn outcome(exit: Exit) -> Outcome {
    let (end, exit_code) = end_of(&exit);
    Outcome {
        end,
        exit_code,
        final_text: None,
        stdout_tail: tail_of(&exit.stdout),
        stderr_tail: tail_of(&exit.stderr),
        usage: None,
    }
}

/// Returns the end of a stream without secrets; where it is not all, its first line says how many bytes are missing.
///
/// What came before the cut is looked at too: of a token that it parts, no half is a secret by itself.
fn tail_of(stream: &Captured) -> String {
    let text = format!("{}{}", stream.before_tail, stream.tail);
    let tail = Scan::of(&text)
        .part(stream.before_tail.len()..text.len())
        .into_string();
    match stream.left_out_bytes {
        0 => tail,
        missing => format!("[{missing} earlier bytes left out]\n{tail}"),
    }
}

fn end_of(exit: &Exit) -> (End, Option<i32>) {
    let code = match exit.end {
        Ended::Exited(code) => Some(code),
        _ => None,
    };
    let end = match (&exit.end, exit.stopped_by) {
        (Ended::NotSpawned(error), None) => End::NotStarted(error.problem()),
        (_, Some(StopReason::Cancelled)) => End::Cancelled,
        (_, Some(StopReason::Deadline)) => End::TimedOut(
            Problem::new(
                ErrorKind::TimedOut,
                "it ran into its deadline and was stopped",
            )
            .with_hint("raise timeout_s, or see with read_output what it was at"),
        ),
        (_, Some(StopReason::Stall)) => End::TimedOut(
            Problem::new(
                ErrorKind::TimedOut,
                "it wrote nothing for longer than stall_s and was stopped",
            )
            .with_hint("raise stall_s, or see with read_output what it was at"),
        ),
        (Ended::Exited(0), None) => End::Succeeded,
        (Ended::Exited(code), None) => {
            End::Failed(Problem::new(ErrorKind::Failed, format!("exit code {code}")))
        }
        (Ended::Signalled(signal), None) => End::Failed(Problem::new(
            ErrorKind::Failed,
            format!("ended by signal {signal}"),
        )),
        (Ended::GuardianLost, None) => End::Failed(Problem::new(
            ErrorKind::Unavailable,
            "the guardian process died and everything it had started was killed",
        )),
        (Ended::Unkillable, None) => End::Failed(Problem::new(
            ErrorKind::Unavailable,
            "it did not end when it was killed",
        )),
    };
    (end, code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::WorkflowId;
    use crate::worker::RepoRef;

    fn task() -> Task {
        Task {
            workflow: WorkflowId::new(),
            item: 7,
            attempt: 1,
            work: Work::Command(vec![]),
            repo: RepoRef {
                path: "/r".into(),
                remote_url: None,
                commit: None,
            },
            dir: "/r".into(),
            logs: "/l".into(),
            deadline: None,
            stall: None,
            grace: Duration::ZERO.into(),
        }
    }

    #[test]
    fn a_token_that_the_cut_parts_leaves_no_half() {
        let token = format!("ghp_{}", "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYz");
        let whole = format!("log in with {token}\nand go on");
        for cut in 0..whole.len() {
            let tail = tail_of(&Captured {
                before_tail: whole[..cut].to_owned(),
                tail: whole[cut..].to_owned(),
                left_out_bytes: 1_000 + cut as u64,
                ..Captured::default()
            });
            assert!(
                tail.starts_with("[1")
                    && tail.ends_with("go on"[cut.saturating_sub(50).min(5)..].trim_start()),
                "{tail}"
            );
            for length in [4, 8] {
                let leaked =
                    (0..token.len() - length).find(|&at| tail.contains(&token[at..at + length]));
                assert_eq!(leaked, None, "cut at {cut}: {tail}");
            }
        }
    }

    #[test]
    fn a_prompt_goes_where_the_template_says() {
        let argv = |words: &[&str]| words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
        let by_stdin = Prompt::template(&argv(&["agent", "-p"]));
        let (words, stdin) = by_stdin.render("hi", &task()).expect("renders");
        assert_eq!(
            (words, stdin),
            (argv(&["agent", "-p"]), Some(b"hi".to_vec()))
        );
        let by_word = Prompt::template(&argv(&["agent", "{task}"]));
        let (words, stdin) = by_word.render("hi", &task()).expect("renders");
        assert_eq!((words, stdin), (argv(&["agent", "hi"]), None));
    }
}
