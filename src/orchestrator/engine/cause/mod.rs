//! Why items failed: one real line for each, and the groups of those whose lines differ in names, numbers and places only.
//!
//! `line` finds the line, `groups` puts failures together.

#[cfg(test)]
mod corpus;
mod groups;
mod line;

pub(in crate::orchestrator) use groups::{groups, with_causes};

use crate::error::Problem;
use crate::text::cut;

/// The longest cause, in characters.
const CAUSE_CHARS: usize = 200;

/// Returns the cause of a failure: the problem, and the line of the output that explains it. Both streams are looked at.
pub(super) fn of(problem: &Problem, stdout: &str, stderr: &str) -> String {
    let message = in_one_line(&problem.message);
    let cause = match line::telling_line(stdout, stderr) {
        Some(line) if !message.contains(&line) => format!("{message}: {line}"),
        _ => message,
    };
    cut(&cause, CAUSE_CHARS).into_owned()
}

/// Returns a message in one line. Of one that quotes several lines of a program's output, as git's errors do, the line that
/// explains it is kept after the words that introduce the quotation.
fn in_one_line(message: &str) -> String {
    let Some((first, rest)) = message.trim().split_once('\n') else {
        return message.trim().to_owned();
    };
    let (introduction, quoted) = first.split_once(": ").unwrap_or((first, ""));
    match line::telling_line("", &format!("{quoted}\n{rest}")) {
        Some(line) => format!("{introduction}: {line}"),
        None => first.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn problem(message: &str) -> Problem {
        Problem::new(ErrorKind::Failed, message)
    }

    #[test]
    fn the_cause_is_a_real_line_of_either_stream() {
        let cause = of(
            &problem("exit code 2"),
            "port 8080 is taken\n",
            "make: *** [Makefile:2: test] Error 3\n",
        );
        assert_eq!(cause, "exit code 2: port 8080 is taken");
    }

    #[test]
    fn a_quoted_output_keeps_its_reason() {
        let message = "git worktree failed in \"/r\": error: unable to write file a\nfatal: cannot create directory at 'b': No space left on device\nerror: unable to write file c";
        assert_eq!(
            of(&problem(message), "", ""),
            "git worktree failed in \"/r\": fatal: cannot create directory at 'b': No space left on device"
        );
    }

    #[test]
    fn different_exit_codes_are_different_causes() {
        let cause = |code| of(&problem(&format!("exit code {code}")), "", "");
        assert_ne!(cause(1), cause(2));
    }

    #[test]
    fn a_cause_is_bounded_and_cut_between_characters() {
        let cause = of(&problem(&"é".repeat(1000)), "", "");
        assert_eq!(cause.chars().count(), CAUSE_CHARS);
    }
}
