//! How an attempt ended, written into its item's record.

use super::cause;
use super::live::LiveAttempt;
use super::stop::Stop;
use crate::error::{ErrorKind, Problem};
use crate::model::{CheckStatus, ItemRecord, ItemState, Stage, VerifyResult};
use crate::panic::Panicked;
use crate::redact::{Redacted, redact};
use crate::text::on_screen;
use crate::worker::{End, Outcome};

/// The cause of an item that failed after the machine had slept.
const HOST_SLEPT: &str = "host_slept";

/// Writes the end of an attempt into the record: the outcome, and the stage that ended it where it did not succeed. `slept`
/// is whether the machine slept meanwhile.
pub(super) fn conclude(
    record: &mut ItemRecord,
    (stage, outcome): (Stage, Outcome),
    live: &LiveAttempt,
    slept: bool,
) {
    record.duration_ms = u64::try_from(live.started.elapsed().as_millis()).ok();
    record.exit_code = outcome.exit_code;
    let tail = shown(outcome.final_text.as_deref().unwrap_or(tail_of(&outcome)));
    record.output_tail = (!tail.is_empty()).then_some(tail);
    let (status, failure) = match outcome.end {
        End::Succeeded => (ItemState::Succeeded, None),
        End::Failed(problem) => (ItemState::Failed, Some((stage, problem))),
        End::NotStarted(problem) => (ItemState::Failed, Some((Stage::Start, problem))),
        End::TimedOut(problem) => (ItemState::TimedOut, Some((stage, problem))),
        End::Cancelled => {
            let (status, problem) = live.stopped().unwrap_or(Stop::Closing).end();
            (status, Some((stage, problem)))
        }
    };
    record.status = status;
    let Some((stage, mut problem)) = failure else {
        return;
    };
    record.stage = Some(stage);
    let ran = matches!(status, ItemState::Failed | ItemState::TimedOut);
    record.cause = Some(if ran && slept {
        problem = host_slept(&problem);
        HOST_SLEPT.into()
    } else {
        redact(&cause::of(
            &problem,
            &outcome.stdout_end,
            &outcome.stderr_end,
        ))
    });
    record.error = Some(problem.into());
}

/// Returns the failure of an attempt in which the machine slept: connections are gone and tokens have expired, whatever the
/// failure itself looks like.
fn host_slept(problem: &Problem) -> Problem {
    let message = format!(
        "{HOST_SLEPT}: the machine slept while it ran; then: {}",
        problem.message
    );
    Problem::new(ErrorKind::Interrupted, message).with_hint("resume_workflow runs it again")
}

/// Returns the record of an attempt that met a defect of this program.
pub(super) fn panicked(record: ItemRecord, panic: &Panicked) -> ItemRecord {
    let problem = Problem::new(
        ErrorKind::Internal,
        format!("the attempt met a defect of mahavishnu: {}", panic.0),
    )
    .with_hint("please report it; resume_workflow runs the item again");
    ItemRecord {
        status: ItemState::Failed,
        stage: Some(Stage::Run),
        cause: Some("internal".into()),
        error: Some(problem.into()),
        ..record
    }
}

/// Returns whether another attempt could end better: it ran and failed, or what stopped its start may pass.
pub(super) fn may_retry(record: &ItemRecord) -> bool {
    match (record.status, record.stage) {
        (ItemState::Failed, Some(Stage::Start)) => {
            record.error.as_ref().is_some_and(|error| error.retryable)
        }
        (ItemState::Failed | ItemState::TimedOut, _) => true,
        _ => false,
    }
}

/// Returns the result of a verification without output.
pub(super) fn verify_result(status: CheckStatus, exit_code: Option<i32>) -> VerifyResult {
    VerifyResult {
        status,
        exit_code,
        output_tail: None,
    }
}

/// Returns the result of a verification whose last line ended like this, not well.
pub(super) fn verify_failed(line: &Outcome) -> VerifyResult {
    let status = match &line.end {
        End::TimedOut(_) => CheckStatus::TimedOut,
        // It was stopped before it found anything.
        End::Cancelled => CheckStatus::Skipped,
        _ => CheckStatus::Failed,
    };
    VerifyResult {
        output_tail: Some(shown(tail_of(line))),
        ..verify_result(status, line.exit_code)
    }
}

/// Returns a text as a terminal shows it, without secrets: the control sequences that are left out can have stood within one.
fn shown(text: &str) -> Redacted {
    redact(&on_screen(text))
}

/// Returns the end of the stream that says more: stderr where it failed and stderr has text.
fn tail_of(outcome: &Outcome) -> &str {
    let failed = outcome.end != End::Succeeded;
    let by_stderr = failed && !outcome.stderr_tail.trim().is_empty();
    if by_stderr || outcome.stdout_tail.trim().is_empty() {
        &outcome.stderr_tail
    } else {
        &outcome.stdout_tail
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn concluded(end: End, slept: bool) -> ItemRecord {
        let mut record = ItemRecord::unstarted(0, "/r", ItemState::Running);
        let live = LiveAttempt::new(Duration::ZERO);
        conclude(&mut record, (Stage::Run, Outcome::of(end)), &live, slept);
        record
    }

    #[test]
    fn what_fails_after_the_machine_slept_has_that_cause() {
        let failed = || End::Failed(Problem::new(ErrorKind::Failed, "exit code 1"));
        let record = concluded(failed(), true);
        assert_eq!(record.cause.as_deref(), Some("host_slept"));
        let error = record.error.expect("it failed");
        assert!(
            error.message.contains("exit code 1") && error.retryable,
            "{error:?}"
        );
        assert_eq!(
            concluded(failed(), false).cause.as_deref(),
            Some("exit code 1")
        );
        let well = concluded(End::Succeeded, true);
        assert_eq!((well.status, well.cause), (ItemState::Succeeded, None));
        let stopped = concluded(End::Cancelled, true);
        assert_ne!(stopped.cause.as_deref(), Some("host_slept"));
    }
}
