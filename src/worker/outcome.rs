//! How an attempt ended, and what the end of a program means for it.

use crate::error::{ErrorKind, Fault, Problem};
use crate::process::{Captured, Ended, Exit, StopReason};
use crate::redact::{Scan, redact};
use crate::text::left_out_line;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    /// It did what it was asked to.
    Succeeded,
    /// It ran and failed.
    Failed(Problem),
    /// It never ran: the program is missing, the peer is down, the guardian could not be started.
    NotStarted(Problem),
    /// Its deadline passed or it wrote nothing for too long; it was stopped.
    TimedOut(Problem),
    /// It was stopped on request.
    Cancelled,
}

/// The result of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    /// How it ended.
    pub(crate) end: End,
    /// The program's exit code, where it is a program that exited by itself.
    pub(crate) exit_code: Option<i32>,
    /// The worker's answer, where its kind has one apart from its output.
    pub(crate) final_text: Option<String>,
    /// The end of its stdout, at most a few kilobytes.
    pub(crate) stdout_tail: String,
    /// The end of its stderr, at most a few kilobytes.
    pub(crate) stderr_tail: String,
    /// Of a failed attempt more of the end of its stdout than the tail, some 16 KiB: where its reason is looked for.
    pub(crate) stdout_end: String,
    /// The same of its stderr.
    pub(crate) stderr_end: String,
}

impl Outcome {
    /// Returns the outcome of an attempt that wrote nothing.
    pub(crate) fn of(end: End) -> Self {
        Self {
            end,
            exit_code: None,
            final_text: None,
            stdout_tail: String::new(),
            stderr_tail: String::new(),
            stdout_end: String::new(),
            stderr_end: String::new(),
        }
    }
}

/// Returns how an attempt ended, by how its program did.
pub(super) fn outcome(exit: Exit) -> Outcome {
    let (end, exit_code) = end_of(&exit);
    let failed = end != End::Succeeded;
    let whole = |stream| {
        if failed {
            whole_end_of(stream)
        } else {
            String::new()
        }
    };
    Outcome {
        exit_code,
        stdout_tail: tail_of(&exit.stdout),
        stderr_tail: tail_of(&exit.stderr),
        stdout_end: whole(&exit.stdout),
        stderr_end: whole(&exit.stderr),
        ..Outcome::of(end)
    }
}

/// Returns all that is in memory of a stream's end, from the beginning of a line, without secrets.
fn whole_end_of(stream: &Captured) -> String {
    let text = format!("{}{}", stream.before_tail, stream.tail);
    let is_cut = (text.len() as u64) < stream.total_bytes;
    let text = redact(&text).into_string();
    match text.split_once('\n') {
        Some((_, lines)) if is_cut => lines.to_owned(),
        _ => text,
    }
}

/// Returns the end of a stream without secrets; where it was cut, its first line is the number of missing bytes.
///
/// What came before the cut is looked at too: of a token that it parts, no half is a secret by itself.
fn tail_of(stream: &Captured) -> String {
    let text = format!("{}{}", stream.before_tail, stream.tail);
    let tail = Scan::of(&text)
        .part(stream.before_tail.len()..text.len())
        .into_string();
    match stream.left_out_bytes {
        0 => tail,
        missing => format!("{}{tail}", left_out_line(missing)),
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
}
