//! Answers: one JSON object, as structure and as text, never too large for a host.

use crate::error::Problem;
use crate::text;
use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::{Value, json};

/// The most bytes of an answer's JSON. Codex cuts what a tool answers to about 12 KB and drops the middle.
pub const MAX_ANSWER_BYTES: usize = 9_000;

/// The most notices of one answer.
pub(super) const MAX_NOTICES: usize = 5;

/// The most characters of a notice.
const MAX_NOTICE_CHARS: usize = 300;

/// The limits of texts, in characters, and of lists, in rows, that are tried in turn on an answer that is too large.
const CUTS: [(usize, usize); 7] = [
    (2_000, 200),
    (1_000, 100),
    (500, 50),
    (200, 20),
    (200, 5),
    (100, 1),
    (50, 0),
];

/// Returns the answer of a call that did its work, whose result is the JSON object `result`.
pub(super) fn success(tool: &str, result: Value, notices: Vec<String>) -> CallToolResult {
    answer(CallToolResult::success, fit(tool, result, notices))
}

/// Returns the answer of a call whose arguments were refused or whose work failed.
pub(super) fn failure(tool: &str, problem: &Problem, notices: Vec<String>) -> CallToolResult {
    let result = fit(tool, json!({"error": problem}), notices);
    answer(CallToolResult::error, result)
}

/// Returns the answer with a result as its structure and, encoded once, as its text.
fn answer(
    of: fn(Vec<ContentBlock>) -> CallToolResult,
    (result, text): (Value, String),
) -> CallToolResult {
    let mut answer = of(vec![ContentBlock::text(text)]);
    answer.structured_content = Some(result);
    answer
}

/// Returns `result` with `notices`, cut until it fits, and its JSON.
///
/// The orchestrator pages its answers, so that this is a ceiling for what it did not foresee, such as a path of
/// 4,000 characters: texts and lists are cut ever shorter, and `truncated` is set.
fn fit(tool: &str, mut result: Value, notices: Vec<String>) -> (Value, String) {
    add_notices(&mut result, notices);
    let mut text = result.to_string();
    if text.len() <= MAX_ANSWER_BYTES {
        return (result, text);
    }
    tracing::warn!(
        tool,
        bytes = text.len(),
        "an answer is too large and is cut"
    );
    if let Value::Object(fields) = &mut result {
        fields.insert("truncated".into(), Value::Bool(true));
    }
    for (chars, rows) in CUTS {
        shrink(&mut result, chars, rows);
        text = result.to_string();
        if text.len() <= MAX_ANSWER_BYTES {
            break;
        }
    }
    (result, text)
}

fn add_notices(result: &mut Value, notices: Vec<String>) {
    if let (Value::Object(fields), false) = (result, notices.is_empty()) {
        let notices = notices
            .into_iter()
            .map(|notice| text::cut(&notice, MAX_NOTICE_CHARS).into())
            .collect();
        fields.insert("notices".into(), Value::Array(notices));
    }
}

fn shrink(value: &mut Value, chars: usize, rows: usize) {
    match value {
        Value::String(long) => *long = text::cut(long, chars).into_owned(),
        Value::Array(items) => {
            items.truncate(rows);
            items.iter_mut().for_each(|item| shrink(item, chars, rows));
        }
        Value::Object(fields) => fields
            .values_mut()
            .for_each(|field| shrink(field, chars, rows)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// Returns the structure of an answer, whose text must be the same.
    fn structure(answer: CallToolResult) -> Value {
        let structure = answer.structured_content.expect("a structure");
        let text = &answer.content[0].as_text().expect("a text block").text;
        assert_eq!(*text, structure.to_string());
        structure
    }

    #[test]
    fn large_answers_are_cut_and_marked() {
        let row = json!({"repo": "x".repeat(4_000), "n": 1});
        let huge = [
            json!({"status": "ok", "items": vec![row; 500]}),
            json!({"text": "é\"\\\u{1}".repeat(9_000)}),
            json!({"items": vec![json!([1, 2, 3]); 9_000]}),
        ];
        for result in huge {
            let answer = structure(success("t", result, vec!["n".repeat(9_000); 3]));
            let bytes = answer.to_string().len();
            assert!(bytes <= MAX_ANSWER_BYTES, "{bytes} bytes");
            assert_eq!(answer["truncated"], true);
        }
    }

    #[test]
    fn an_answer_that_fits_is_not_changed() {
        let result = json!({"b": 1, "a": [1, 2]});
        assert_eq!(structure(success("t", result.clone(), vec![])), result);
        let noticed = structure(success("t", result, vec!["n".into()]));
        assert_eq!(noticed.to_string(), r#"{"b":1,"a":[1,2],"notices":["n"]}"#);
    }

    #[test]
    fn failures_are_errors_with_their_kind() {
        let answer = failure("t", &Problem::new(ErrorKind::Busy, "full"), vec![]);
        assert_eq!(answer.is_error, Some(true));
        assert_eq!(structure(answer)["error"]["kind"], "busy");
    }
}
