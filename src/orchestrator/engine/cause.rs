//! Why items failed: causes made equal where only names, numbers and places differ, and the groups they form.

use crate::api::Failure;
use crate::error::Problem;
use crate::model::{ItemRecord, ItemState, Stage};
use std::borrow::Borrow;
use std::collections::BTreeMap;

/// The longest cause, in characters.
const CAUSE_CHARS: usize = 160;

/// How many indexes a group names.
const INDEXES: usize = 20;

/// The longest example, in characters.
const EXAMPLE_CHARS: usize = 400;

/// Returns the normalised cause of a failure: what the problem says and the telling line of what was written.
pub(crate) fn of(problem: &Problem, repo: &str, output: Option<&str>) -> String {
    let mut cause = normalise(&problem.message, repo);
    if let Some(line) = output.and_then(telling_line) {
        let line = normalise(line, repo);
        if !cause.contains(&line) {
            cause = format!("{cause}: {line}");
        }
    }
    cut(&cause, CAUSE_CHARS)
}

/// Returns the line that most likely says why: the last one that names an error, else the last one with text.
fn telling_line(output: &str) -> Option<&str> {
    const WORDS: [&str; 6] = ["error", "fail", "panic", "fatal", "exception", "not found"];
    let lines = || {
        output
            .lines()
            .map(str::trim)
            .filter(|line| line.chars().any(char::is_alphanumeric))
    };
    let names_it = |line: &&str| {
        let lower = line.to_lowercase();
        WORDS.iter().any(|word| lower.contains(word))
    };
    lines().rfind(names_it).or_else(|| lines().next_back())
}

/// Replaces what differs between repositories and runs: the repository's path and name, paths, numbers, hex ids.
fn normalise(text: &str, repo: &str) -> String {
    let name = repo.rsplit('/').next().unwrap_or(repo);
    let mut text = strip_ansi(text);
    if !repo.is_empty() {
        text = text.replace(repo, "REPO");
    }
    let words = text.split_whitespace().map(|word| {
        if word.trim_matches(|c: char| !c.is_alphanumeric()) == name {
            word.replace(name, "REPO")
        } else {
            normalise_word(word)
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn normalise_word(word: &str) -> String {
    let core = word.trim_matches(|c: char| !c.is_alphanumeric() && c != '/');
    let is_path = (core.starts_with('/') && core.len() > 1) || core.starts_with("REPO/");
    let is_id = core.len() >= 7
        && core
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        && core.bytes().any(|byte| byte.is_ascii_digit());
    if is_path {
        return word.replace(core, "PATH");
    }
    if is_id {
        return word.replace(core, "ID");
    }
    // An exit code, a signal or an HTTP status is the cause itself, so short numbers that stand alone are kept.
    if core.len() <= 3 && core.bytes().all(|byte| byte.is_ascii_digit()) {
        return word.to_owned();
    }
    let mut out = String::with_capacity(word.len());
    let mut in_number = false;
    for c in word.chars() {
        if c.is_ascii_digit() {
            if !in_number {
                out.push('N');
            }
            in_number = true;
        } else {
            in_number = false;
            out.push(c);
        }
    }
    out
}

/// Removes terminal control sequences (ECMA-48 CSI), which programs write even where they should not.
fn strip_ansi(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'[').is_some() {
            while chars.next_if(|c| !('@'..='~').contains(c)).is_some() {}
            chars.next();
        }
    }
    out
}

fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Returns the failed items grouped by cause and stage, the largest group first.
pub(crate) fn groups<R: Borrow<ItemRecord>>(items: &[R]) -> Vec<Failure> {
    let mut groups: BTreeMap<(&str, Stage), Vec<&ItemRecord>> = BTreeMap::new();
    for item in items.iter().map(Borrow::borrow) {
        let failed = matches!(item.status, ItemState::Failed | ItemState::TimedOut);
        if let (true, Some(cause)) = (failed, &item.cause) {
            let stage = item.stage.unwrap_or(Stage::Run);
            groups
                .entry((cause.as_str(), stage))
                .or_default()
                .push(item);
        }
    }
    let mut failures: Vec<Failure> = groups
        .into_iter()
        .map(|((cause, stage), items)| group(cause, stage, &items))
        .collect();
    failures.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.items.cmp(&b.items)));
    failures
}

fn group(cause: &str, stage: Stage, items: &[&ItemRecord]) -> Failure {
    let first = items.first();
    let error = first.and_then(|item| item.error.as_ref());
    let said = first
        .and_then(|item| item.output_tail.as_deref())
        .and_then(telling_line)
        .or_else(|| error.map(|error| error.message.as_str()))
        .unwrap_or(cause);
    let retryable = error.is_some_and(|error| error.retryable);
    let hint = error.and_then(|error| error.hint.clone());
    Failure {
        cause: cause.to_owned(),
        stage,
        count: items.len() as u64,
        items: items.iter().take(INDEXES).map(|item| item.item).collect(),
        example: cut(&strip_ansi(said), EXAMPLE_CHARS),
        retryable,
        next_step: hint.unwrap_or_else(|| next_step(stage, retryable)),
    }
}

fn next_step(stage: Stage, retryable: bool) -> String {
    let text = match (stage, retryable) {
        (_, true) => "resume_workflow runs these again; the cause may have passed",
        (Stage::Start, _) => "mend what the cause names, then resume_workflow",
        (Stage::Setup, _) => "read_output with stream setup tells more; then resume_workflow",
        (Stage::Verify, _) => {
            "read_output with stream verify tells more; then resume_workflow with a hint"
        }
        (Stage::Run, _) => "read_output tells more; then resume_workflow with a hint",
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn failed(item: u32, repo: &str, output: &str) -> ItemRecord {
        let problem = Problem::new(ErrorKind::Failed, "exit code 1");
        let mut record = ItemRecord::unstarted(item, repo, ItemState::Failed);
        record.stage = Some(Stage::Run);
        record.cause = Some(of(&problem, repo, Some(output)));
        record.error = Some(problem);
        record.output_tail = Some(output.to_owned());
        record
    }

    #[test]
    fn causes_that_differ_in_names_and_numbers_only_are_one_group() {
        let items = [
            failed(
                0,
                "/src/api",
                "compiling\nerror: missing file /src/api/x.rs at line 1234\n",
            ),
            failed(
                1,
                "/src/web",
                "\u{1b}[31merror: missing file /src/web/y.rs at line 99876\u{1b}[0m\n",
            ),
            failed(2, "/src/cli", "permission denied\n"),
        ];
        let groups = groups(&items);
        assert_eq!(groups.len(), 2, "{groups:?}");
        assert_eq!(
            (groups[0].count, groups[0].items.as_slice()),
            (2, &[0, 1][..])
        );
        assert!(
            groups[0]
                .cause
                .starts_with("exit code 1: error: missing file")
        );
        assert_eq!(groups[1].cause, "exit code 1: permission denied");
    }

    #[test]
    fn different_exit_codes_are_different_causes() {
        let cause = |code| {
            of(
                &Problem::new(ErrorKind::Failed, format!("exit code {code}")),
                "/r",
                None,
            )
        };
        assert_ne!(cause(1), cause(2));
    }

    #[test]
    fn a_cause_is_bounded_and_cut_between_characters() {
        let cause = of(
            &Problem::new(ErrorKind::Failed, "é".repeat(1000)),
            "/r",
            None,
        );
        assert_eq!(cause.chars().count(), CAUSE_CHARS + 1);
    }
}
