//! Failures with the same cause, together.

use crate::api::Failure;
use crate::model::{ItemIndex, ItemRecord, ItemState, Stage};
use crate::text::cut;
use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

/// How many items a group names.
const ITEMS: usize = 20;

/// The longest example, in characters.
const EXAMPLE_CHARS: usize = 400;

/// Returns the failed items grouped by cause and stage, the largest group first. Causes are compared without what differs
/// between repositories and runs; each group shows the cause of its first item as it is.
pub(in crate::orchestrator) fn groups<R: Borrow<ItemRecord>>(items: &[R]) -> Vec<Failure> {
    let mut groups: BTreeMap<(String, Stage), Vec<&ItemRecord>> = BTreeMap::new();
    for item in items.iter().map(Borrow::borrow) {
        let failed = matches!(item.status, ItemState::Failed | ItemState::TimedOut);
        if let (true, Some(cause)) = (failed, &item.cause) {
            let stage = item.stage.unwrap_or(Stage::Run);
            let key = (normalise(cause, &item.repo), stage);
            groups.entry(key).or_default().push(item);
        }
    }
    let mut failures: Vec<Failure> = groups
        .into_iter()
        .map(|((_, stage), items)| group(stage, &items))
        .collect();
    failures.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.items.cmp(&b.items)));
    failures
}

/// Returns the items whose cause is in a group with one of `causes`, each of which is the cause of an item as it is shown.
pub(in crate::orchestrator) fn with_causes(
    items: &[ItemRecord],
    causes: &[String],
) -> BTreeSet<ItemIndex> {
    let key = |item: &ItemRecord| Some(normalise(item.cause.as_ref()?, &item.repo));
    let named = |item: &&ItemRecord| {
        item.cause
            .as_ref()
            .is_some_and(|own| causes.iter().any(|cause| own == cause.as_str()))
    };
    let keys: BTreeSet<String> = items.iter().filter(named).filter_map(key).collect();
    let is_meant = |item: &&ItemRecord| key(item).is_some_and(|key| keys.contains(&key));
    items
        .iter()
        .filter(is_meant)
        .map(|item| item.item)
        .collect()
}

fn group(stage: Stage, items: &[&ItemRecord]) -> Failure {
    let first = items.first();
    let cause = first
        .and_then(|item| item.cause.clone())
        .unwrap_or_default();
    let error = first.and_then(|item| item.error.as_ref());
    let example = first
        .and_then(|item| super::line::telling_line("", item.output_tail.as_deref()?))
        .or_else(|| error.map(|error| error.message.clone()))
        .unwrap_or_else(|| cause.to_string());
    let retryable = error.is_some_and(|error| error.retryable);
    let hint = error.and_then(|error| error.hint.clone());
    Failure {
        cause: cause.into(),
        stage,
        count: items.len() as u64,
        items: items.iter().take(ITEMS).map(|item| item.item).collect(),
        example: cut(&example, EXAMPLE_CHARS).into_owned(),
        retryable,
        next_step: hint.unwrap_or_else(|| next_step(stage, retryable)),
    }
}

fn next_step(stage: Stage, retryable: bool) -> String {
    let text = match (stage, retryable) {
        (_, true) => "resume_workflow runs these again; the cause may have passed",
        (Stage::Start, _) => "mend what the cause names, then resume_workflow",
        (Stage::Setup, _) => "read_output with stream setup shows more; then resume_workflow",
        (Stage::Verify, _) => {
            "read_output with stream verify shows more; then resume_workflow with a hint"
        }
        (Stage::Run, _) => "read_output shows more; then resume_workflow with a hint",
    };
    text.to_owned()
}

/// Replaces what differs between repositories and runs: the repository's path and name, other paths, numbers, hex ids.
fn normalise(text: &str, repo: &str) -> String {
    let name = repo.rsplit('/').next().unwrap_or(repo);
    let mut text = text.to_owned();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, Problem};
    use crate::redact::redact;

    fn failed(item: u32, repo: &str, output: &str) -> ItemRecord {
        let problem = Problem::new(ErrorKind::Failed, "exit code 1");
        let mut record = ItemRecord::unstarted(item, repo, ItemState::Failed);
        record.stage = Some(Stage::Run);
        record.cause = Some(redact(&super::super::of(&problem, "", output)));
        record.error = Some(problem.into());
        record.output_tail = Some(redact(output));
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
        assert_eq!(
            groups[0].cause,
            "exit code 1: error: missing file /src/api/x.rs at line 1234"
        );
        assert_eq!(groups[1].cause, "exit code 1: permission denied");
        let shown = groups[0].cause.clone();
        assert_eq!(with_causes(&items, &[shown]), BTreeSet::from([0, 1]));
        assert!(with_causes(&items, &["exit code 9".to_owned()]).is_empty());
    }
}
