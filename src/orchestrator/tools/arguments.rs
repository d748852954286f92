//! Checks of arguments: ranges, work, names. Limits are errors, never clamps.

use super::command_lines;
use crate::error::{Problem, nearest};
use crate::model::Work;
use std::ops::RangeInclusive;
use std::time::Duration;

/// The longest time that is no mistake, in seconds: 30 days.
pub(super) const MAX_SECONDS: f64 = 30.0 * 86_400.0;

/// Returns the duration that argument `field` gives in seconds.
pub(super) fn seconds(
    field: &str,
    value: Option<f64>,
    range: RangeInclusive<f64>,
) -> Result<Option<Duration>, Problem> {
    let Some(value) = value else {
        return Ok(None);
    };
    if !range.contains(&value) {
        return Err(Problem::argument(
            field,
            format!("{field} is {value}"),
            format!("{} to {} seconds", range.start(), range.end()),
        ));
    }
    Ok(Some(Duration::from_secs_f64(value)))
}

/// Returns the count that argument `field` gives.
pub(super) fn count(
    field: &str,
    value: Option<i64>,
    range: RangeInclusive<u32>,
) -> Result<Option<u32>, Problem> {
    let Some(value) = value else {
        return Ok(None);
    };
    match u32::try_from(value) {
        Ok(count) if range.contains(&count) => Ok(Some(count)),
        _ => Err(Problem::argument(
            field,
            format!("{field} is {value}"),
            format!("{} to {}", range.start(), range.end()),
        )),
    }
}

/// Returns the work that `task` or `command` asks for.
pub(super) fn work(task: Option<String>, command: Vec<String>) -> Result<Work, Problem> {
    const EITHER: &str = "either `task` (a prompt) or `command` (an argv), and one of them";
    match (task, command.is_empty()) {
        (Some(_), false) => Err(Problem::argument(
            "task",
            "both `task` and `command` are given",
            EITHER,
        )),
        (None, true) => Err(Problem::argument(
            "command",
            "neither `task` nor `command` is given",
            EITHER,
        )),
        (Some(task), true) if task.trim().is_empty() => {
            Err(Problem::argument("task", "the task is empty", "a prompt"))
        }
        (Some(task), true) => Ok(Work::Task(task)),
        (None, false) => argv(command).map(Work::Command),
    }
}

/// Checks an argv: no empty program, no NUL, no command line in one word.
fn argv(command: Vec<String>) -> Result<Vec<String>, Problem> {
    const ARGV: &str = "one argv: the program, then each argument by itself; no shell reads it";
    let refuse = |message: &str| Problem::argument("command", message, ARGV);
    if command.iter().any(|word| word.contains('\0')) {
        return Err(refuse("a word contains a NUL byte"));
    }
    if command
        .first()
        .is_none_or(|program| program.trim().is_empty())
    {
        return Err(refuse("the program is empty"));
    }
    match command_lines::corrected(&command) {
        None => Ok(command),
        Some(form) => Err(refuse(&format!(
            "{} is a command line, not an argv",
            command_lines::json(&command)
        ))
        .with_hint(format!("write it as {}", command_lines::json(&form)))),
    }
}

/// Returns the refusal of a name that is not known, with the nearest one that is.
pub(super) fn unknown<'a>(
    field: &str,
    what: &str,
    name: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
    look: &str,
) -> Problem {
    const LISTED: usize = 20;
    let near = nearest(name, known.clone());
    let mut listed: Vec<&str> = known.into_iter().take(LISTED + 1).collect();
    if listed.len() > LISTED {
        listed[LISTED] = "...";
    }
    let hint = match near {
        Some(near) => format!("did you mean {near:?}?"),
        None => look.to_owned(),
    };
    let allowed = if listed.is_empty() {
        "there is none".to_owned()
    } else {
        listed.join(", ")
    };
    Problem::argument(field, format!("there is no {what} {name:?}"), allowed).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_in_one_word_is_refused_with_the_corrected_form() {
        let problem = work(None, vec!["npm test".into()]).expect_err("refused");
        assert_eq!(problem.field.as_deref(), Some("command"));
        assert_eq!(
            problem.hint.as_deref(),
            Some("write it as [\"npm\",\"test\"]")
        );
        assert!(work(None, vec!["npm".into(), "run test".into()]).is_ok());
    }

    #[test]
    fn task_and_command_exclude_each_other_and_one_is_needed() {
        assert!(work(Some("x".into()), vec!["y".into()]).is_err());
        assert!(work(None, vec![]).is_err());
        assert!(work(Some("  ".into()), vec![]).is_err());
        assert!(work(None, vec![String::new()]).is_err());
    }

    #[test]
    fn ranges_are_errors_never_clamps() {
        assert!(seconds("timeout_s", Some(-1.0), 0.0..=10.0).is_err());
        assert!(seconds("timeout_s", Some(f64::NAN), 0.0..=10.0).is_err());
        assert!(seconds("timeout_s", Some(1e300), 0.0..=10.0).is_err());
        assert_eq!(count("retries", Some(3), 0..=10), Ok(Some(3)));
        assert!(count("retries", Some(-1), 0..=10).is_err());
        assert!(count("retries", Some(i64::MAX), 0..=10).is_err());
    }
}
