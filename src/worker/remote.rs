//! Workers that are elsewhere: one call that is answered with a text, with a deadline, a stall limit and cancellation;
//! the text is stored where a program's output is.
//!
//! What is called, and what its answer means, is up to the [`Remote`].

use super::programs::Programs;
use super::{Capabilities, End, Event, Events, Outcome, Task, Worker};
use crate::error::{ErrorKind, Fault, Problem};
use crate::mcp_client::{ClientError, NotSent, Unclear};
use crate::model::Work;
use crate::text::{head, tail_with_count};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The deadline of an attempt that has none: a year.
const NO_LIMIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A service that does tasks elsewhere.
pub(crate) trait Remote: Send + Sync {
    /// Returns whether its calls name the folder to work in, so that it may work on files of this machine.
    fn is_local(&self) -> bool;

    /// Does one task and returns how it ended and with which text.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the remote request; the service may ignore that.
    fn perform<'a>(
        &'a self,
        task: &'a Task,
        prompt: &'a str,
        deadline: Instant,
        events: Events,
    ) -> BoxFuture<'a, (End, String)>;

    /// Asks whether it could do tasks now.
    fn probe(&self) -> BoxFuture<'_, Result<(), Problem>>;
}

/// Runs prompts elsewhere.
pub(super) struct RemoteWorker<R> {
    remote: R,
    programs: Programs,
}

impl<R: Remote> RemoteWorker<R> {
    /// Makes a worker over `remote`; `programs` are those of `setup` and `verify`, which run on this machine.
    pub(super) fn new(remote: R, programs: Programs) -> Self {
        Self { remote, programs }
    }

    async fn perform(
        &self,
        task: &Task,
        events: Events,
        cancel: &CancellationToken,
    ) -> (End, String) {
        let Work::Task(prompt) = &task.work else {
            return (End::NotStarted(takes_no_command()), String::new());
        };
        let deadline = task.deadline.unwrap_or_else(|| Instant::now() + NO_LIMIT);
        let (heard, beat) = watch::channel(Instant::now());
        let told: Events = Arc::new(move |event| {
            heard.send_replace(Instant::now());
            events(event);
        });
        tokio::select! {
            biased;
            () = cancel.cancelled() => (End::Cancelled, String::new()),
            done = self.remote.perform(task, prompt, deadline, told) => done,
            stalled = silent(beat, task.stall) => (End::TimedOut(stalled), String::new()),
        }
    }

    /// Keeps the text as the streams `stdout` and `final`, and returns its end.
    async fn keep(&self, logs: &Path, text: String) -> String {
        if text.is_empty() {
            return text;
        }
        let host = &self.programs.host;
        let (logs, cap) = (logs.to_owned(), host.log_cap_bytes);
        let mut tail = tail_with_count(&text, host.tail_bytes).into_owned();
        let written = tokio::task::spawn_blocking(move || write(&logs, &text, cap)).await;
        let error = match written {
            Ok(Ok(())) => return tail,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tail.push_str(&format!(
            "\n[mahavishnu: the whole of it could not be kept: {error}]"
        ));
        tail
    }
}

impl<R: Remote> Worker for RemoteWorker<R> {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            tasks: true,
            commands: false,
            local: self.remote.is_local(),
        }
    }

    fn check(&self, work: &Work) -> Result<(), Problem> {
        match work {
            Work::Task(_) => Ok(()),
            Work::Command(_) => Err(takes_no_command()),
        }
    }

    fn programs(&self) -> &Programs {
        &self.programs
    }

    fn run(&self, task: Task, events: Events, cancel: CancellationToken) -> BoxFuture<'_, Outcome> {
        async move {
            let (end, text) = self.perform(&task, events, &cancel).await;
            let tail = self.keep(&task.logs, text).await;
            Outcome {
                final_text: (!tail.is_empty()).then(|| tail.clone()),
                stdout_end: tail.clone(),
                stdout_tail: tail,
                ..Outcome::of(end)
            }
        }
        .boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Problem>> {
        self.remote.probe()
    }
}

fn takes_no_command() -> Problem {
    Problem::argument(
        "command",
        "this worker kind takes prompts, not commands",
        "`task` with a prompt, or a pool whose worker takes commands",
    )
    .with_hint("give `task`, or name a pool of kind command in `pools`; list_pools tells each pool's worker")
}

/// Returns when there was no sign of life for longer than `stall`; never where there is no such limit.
async fn silent(beat: watch::Receiver<Instant>, stall: Option<Duration>) -> Problem {
    let Some(stall) = stall else {
        return std::future::pending().await;
    };
    loop {
        let due = *beat.borrow() + stall;
        if Instant::now() >= due {
            return Problem::new(
                ErrorKind::TimedOut,
                "it reported nothing for longer than stall_s and was given up",
            )
            .with_hint("raise stall_s, or leave it out: a tool that reports no progress is silent until it answers");
        }
        tokio::time::sleep_until(due.into()).await;
    }
}

/// Returns what a call without an answer means for the attempt.
pub(crate) fn end_of(error: &ClientError) -> End {
    /// JSON-RPC's own refusals, before anything is executed: not a request, no such method, wrong parameters, no JSON.
    const NOT_EXECUTED: [i32; 4] = [-32600, -32601, -32602, -32700];
    let problem = error.problem();
    match error {
        ClientError::NotSent {
            cause: NotSent::Deadline,
            ..
        }
        | ClientError::Unclear {
            cause: Unclear::Deadline,
            ..
        } => End::TimedOut(
            Problem::new(
                ErrorKind::TimedOut,
                format!("it ran into its deadline: {}", problem.message),
            )
            .with_hint("raise timeout_s; the server was told that nobody waits any more"),
        ),
        ClientError::NotSent { .. } => End::NotStarted(problem),
        ClientError::Refused {
            code: Some(code), ..
        } if NOT_EXECUTED.contains(code) => End::NotStarted(problem),
        ClientError::Refused { .. } | ClientError::Unclear { .. } => End::Failed(problem),
    }
}

/// Returns the event that a step of a call is.
pub(super) fn step(step: crate::mcp_client::Step) -> Event {
    let total = step.total.map(|total| format!("/{total}"));
    let far = format!("{}{}", step.done, total.unwrap_or_default());
    Event::Doing(match step.message {
        Some(message) => format!("{message} ({far})"),
        None => far,
    })
}

fn write(logs: &Path, text: &str, cap: u64) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(logs)?;
    let kept = head(text, usize::try_from(cap).unwrap_or(usize::MAX));
    for stream in ["stdout", "final"] {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(logs.join(stream))?;
        file.write_all(kept.as_bytes())?;
        if kept.len() < text.len() {
            writeln!(
                file,
                "\n[mahavishnu: the log ends here, at its cap of {cap} bytes]"
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_up_to_the_cap_and_says_so() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write(folder.path(), "aéé", 4).expect("it can be written");
        let kept = std::fs::read_to_string(folder.path().join("final")).expect("written");
        assert!(
            kept.starts_with("aé\n[mahavishnu: the log ends here"),
            "{kept}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_counted_from_the_last_sign_of_life() {
        let (heard, beat) = watch::channel(Instant::now() - Duration::from_secs(60));
        let problem = silent(beat, Some(Duration::from_secs(1))).await;
        assert!(problem.message.contains("stall_s"));
        drop(heard);
    }

    #[test]
    fn what_was_certainly_not_executed_was_not_started() {
        let refused = |code| ClientError::Refused {
            peer: "p".into(),
            what: "t".into(),
            code,
            message: "no".into(),
        };
        assert!(matches!(end_of(&refused(Some(-32602))), End::NotStarted(_)));
        assert!(matches!(end_of(&refused(Some(-32603))), End::Failed(_)));
        assert!(matches!(end_of(&refused(None)), End::Failed(_)));
        let unclear = |cause| ClientError::Unclear {
            peer: "p".into(),
            what: "t".into(),
            cause,
        };
        assert!(matches!(
            end_of(&unclear(Unclear::Deadline)),
            End::TimedOut(_)
        ));
        assert!(matches!(
            end_of(&unclear(Unclear::Status(500))),
            End::Failed(_)
        ));
    }
}
