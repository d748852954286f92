//! What an attempt leaves behind to be found again.

use crate::model::{CheckStatus, ItemRecord, MemoryKind, NewMemory, Work, WorkflowId};
use crate::redact::{CONTEXT_BYTES, Redacted, Scan, redact};

/// The most bytes of what was asked; a prompt can be a whole document, and its beginning says what it is about.
const ASKED_BYTES: usize = 2_000;

/// The most bytes of a tag.
const TAG_BYTES: usize = 80;

/// Returns the memory of an attempt that has ended; none where it never had a pool.
///
/// Its text says what was asked, how it ended and the end of what was written, with secrets redacted.
pub(in crate::orchestrator) fn outcome(
    workflow: WorkflowId,
    record: &ItemRecord,
    work: &Work,
    worker: Option<String>,
) -> Option<NewMemory> {
    let text = redact(&text_of(record, work));
    let mut memory = NewMemory::new(MemoryKind::Outcome, text, record.pool.clone()?, "worker");
    memory.repo = Some(record.repo.clone());
    memory.workflow = Some(workflow);
    memory.item = Some(record.item);
    memory.attempt = Some(record.attempt);
    memory.worker = worker;
    memory.commit = record.commit.clone().or_else(|| record.base_commit.clone());
    memory.tags = tags_of(record);
    Some(memory)
}

fn text_of(record: &ItemRecord, work: &Work) -> String {
    let asked = match work {
        Work::Task(text) => text.clone(),
        Work::Command(argv) => argv.join(" "),
    };
    let mut text = beginning(asked.trim(), ASKED_BYTES);
    text.push('\n');
    text.push_str(&ending(record));
    if let Some(cause) = &record.cause {
        text.push_str(": ");
        text.push_str(cause);
    }
    let verify = record.verify.as_ref();
    let failed = verify.filter(|verify| verify.status == CheckStatus::Failed);
    let tails = [
        (
            "verify wrote",
            failed.and_then(|verify| verify.output_tail.as_ref()),
        ),
        ("output", record.output_tail.as_ref()),
    ];
    for (name, tail) in tails {
        if let Some(tail) = tail.filter(|tail| !tail.trim().is_empty()) {
            text.push_str(&format!("\n\n{name}:\n{}", tail.trim_end()));
        }
    }
    text
}

/// Returns how the attempt ended, in words that a search finds.
fn ending(record: &ItemRecord) -> String {
    let mut ending = record.status.as_str().to_owned();
    if let Some(stage) = record.stage {
        ending.push_str(&format!(" in {}", stage.as_str()));
    }
    if let Some(code) = record.exit_code {
        ending.push_str(&format!(" with exit code {code}"));
    }
    if let Some(ms) = record.duration_ms {
        ending.push_str(&format!(" after {}.{} s", ms / 1_000, ms % 1_000 / 100));
    }
    if record.changed == Some(true) {
        ending.push_str(", changed files");
    }
    ending
}

fn tags_of(record: &ItemRecord) -> Vec<Redacted> {
    let mut tags = vec![Redacted::from(record.status.as_str())];
    tags.extend(record.stage.map(|stage| stage.as_str().into()));
    if let Some(mut cause) = record.cause.clone() {
        cause.truncate(TAG_BYTES);
        tags.push(cause);
    }
    tags
}

/// Returns the first bytes of `text` without secrets, not even one that the end parts.
fn beginning(text: &str, max_bytes: usize) -> String {
    let end = text.floor_char_boundary(max_bytes);
    let seen = &text[..text.floor_char_boundary(end + CONTEXT_BYTES)];
    let kept = Scan::of(seen).part(0..end).into_string();
    let mark = if end < text.len() { "…" } else { "" };
    format!("{kept}{mark}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ItemState, Stage, VerifyResult};

    fn record() -> ItemRecord {
        ItemRecord {
            pool: Some("local".parse().expect("a name")),
            attempt: 2,
            exit_code: Some(1),
            duration_ms: Some(12_340),
            stage: Some(Stage::Verify),
            cause: Some("2 tests failed".into()),
            base_commit: Some("c0ffee".into()),
            verify: Some(VerifyResult {
                status: CheckStatus::Failed,
                exit_code: Some(101),
                output_tail: Some("assertion failed\n".into()),
            }),
            output_tail: Some("done\nPASSWORD=hunter2\n".into()),
            ..ItemRecord::unstarted(3, "/r/a", ItemState::Failed)
        }
    }

    #[test]
    fn an_outcome_says_what_was_asked_how_it_ended_and_what_was_written() {
        let id = WorkflowId::new();
        let work = Work::Task("fix the tests with api_key=abcDEF123456ghi\n".into());
        let memory = outcome(id, &record(), &work, Some("claude".into())).expect("it had a pool");
        assert_eq!(
            memory.text,
            "fix the tests with api_key=[REDACTED-ASSIGNED-SECRET]\n\
             failed in verify with exit code 1 after 12.3 s: 2 tests failed\n\n\
             verify wrote:\nassertion failed\n\n\
             output:\ndone\nPASSWORD=[REDACTED-ASSIGNED-PASSWORD]"
        );
        assert_eq!(memory.kind, MemoryKind::Outcome);
        assert_eq!(memory.tags, ["failed", "verify", "2 tests failed"]);
        assert_eq!(
            (memory.workflow, memory.item, memory.attempt),
            (Some(id), Some(3), Some(2))
        );
        assert_eq!(memory.commit.as_deref(), Some("c0ffee"));
        assert!(!memory.aggregated, "the next collection takes it");
    }

    #[test]
    fn a_long_prompt_is_cut_and_an_item_without_a_pool_leaves_nothing() {
        let work = Work::Task("é".repeat(100_000));
        let memory = outcome(WorkflowId::new(), &record(), &work, None);
        assert!(memory.expect("it had a pool").text.len() < 3_000);
        let unstarted = ItemRecord::unstarted(0, "/r", ItemState::Cancelled);
        assert_eq!(outcome(WorkflowId::new(), &unstarted, &work, None), None);
    }

    #[test]
    fn a_secret_at_the_end_of_what_is_kept_of_a_prompt_leaves_no_half() {
        let token = format!("ghp_{}", "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYz");
        for inside in 0..=token.len() {
            let prompt = format!("{} {token} end", "x".repeat(ASKED_BYTES - 1 - inside));
            let work = Work::Task(prompt);
            let memory = outcome(WorkflowId::new(), &record(), &work, None);
            let text = memory.expect("it had a pool").text;
            assert!(
                !text.contains("ghp_") && !text.contains("aB3"),
                "{inside}: {text}"
            );
        }
    }
}
