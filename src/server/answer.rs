//! Encoding: one object as text, never too large for a host.

use crate::error::Problem;
use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::{Value, json};

/// The most bytes of an answer's JSON. Codex cuts what a tool answers to about 12 KB and drops the middle.
pub const MAX_ANSWER_BYTES: usize = 9_000;

/// The most notices of one answer.
const MAX_NOTICES: usize = 5;

/// The most characters of a notice.
const MAX_NOTICE_CHARS: usize = 300;

/// Returns the answer of a call that did its work, whose result is the JSON object `result`.
///
/// Its structured content is left to whoever writes it: it is what the text says.
pub(super) fn success(tool: &str, result: String, notices: Vec<String>) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(fit(tool, result, notices))])
}

/// Returns the answer of a call whose arguments were refused or whose work failed.
pub(super) fn failure(tool: &str, problem: &Problem, notices: Vec<String>) -> CallToolResult {
    let result = text_of(&json!({"error": problem}));
    CallToolResult::error(vec![ContentBlock::text(fit(tool, result, notices))])
}

/// Returns how many notices one answer takes.
pub(super) fn notices_room() -> usize {
    MAX_NOTICES
}

/// Returns `result` with `notices`, cut until it fits.
///
/// The orchestrator pages its answers, so that this is a ceiling for what it did not foresee, such as a path of
/// 4,000 characters: first texts are cut, then rows are dropped, and `truncated` says so.
fn fit(tool: &str, result: String, notices: Vec<String>) -> String {
    if notices.is_empty() && result.len() <= MAX_ANSWER_BYTES {
        return result;
    }
    let mut tree = serde_json::from_str(&result).unwrap_or(Value::Null);
    add_notices(&mut tree, notices);
    let text = text_of(&tree);
    if text.len() <= MAX_ANSWER_BYTES {
        return text;
    }
    tracing::warn!(
        tool,
        bytes = text.len(),
        "an answer is too large and is cut"
    );
    cut_down(tree)
}

fn add_notices(result: &mut Value, notices: Vec<String>) {
    if let (Value::Object(fields), false) = (result, notices.is_empty()) {
        let notices = notices
            .into_iter()
            .map(|text| Value::String(cut(&text, MAX_NOTICE_CHARS)))
            .collect();
        fields.insert("notices".into(), Value::Array(notices));
    }
}

fn cut_down(mut result: Value) -> String {
    const STEPS: [(usize, usize); 7] = [
        (2_000, 200),
        (1_000, 100),
        (500, 50),
        (200, 20),
        (200, 5),
        (100, 1),
        (50, 0),
    ];
    let mut text = String::new();
    for (chars, rows) in STEPS {
        shrink(&mut result, chars, rows);
        if let Value::Object(fields) = &mut result {
            fields.insert("truncated".into(), Value::Bool(true));
        }
        text = text_of(&result);
        if text.len() <= MAX_ANSWER_BYTES {
            break;
        }
    }
    text
}

/// A tree of JSON values serialises without fail.
fn text_of(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn shrink(value: &mut Value, chars: usize, rows: usize) {
    match value {
        Value::String(text) => *text = cut(text, chars),
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

fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        None => text.to_owned(),
        Some(_) => {
            let keep = text
                .char_indices()
                .nth(chars.saturating_sub(1))
                .map_or(0, |(at, _)| at);
            format!("{}…", &text[..keep])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn text(answer: &CallToolResult) -> &str {
        &answer.content[0].as_text().expect("a text block").text
    }

    #[test]
    fn answers_are_bounded_and_say_when_they_are_cut() {
        let row = json!({"repo": "x".repeat(4_000), "n": 1});
        let huge = [
            json!({"status": "ok", "items": vec![row; 500]}),
            json!({"text": "é\"\\\u{1}".repeat(9_000)}),
            json!({"items": vec![json!([1, 2, 3]); 9_000]}),
        ];
        for result in huge {
            let answer = success("t", result.to_string(), vec!["n".repeat(9_000); 3]);
            let text = text(&answer);
            assert!(text.len() <= MAX_ANSWER_BYTES, "{} bytes", text.len());
            let cut: Value = serde_json::from_str(text).expect("JSON");
            assert_eq!(cut["truncated"], true);
        }
    }

    #[test]
    fn what_fits_is_not_touched() {
        let result = r#"{"b":1,"a":[1,2]}"#;
        assert_eq!(text(&success("t", result.into(), vec![])), result);
        let told = success("t", result.into(), vec!["n".into()]);
        assert_eq!(text(&told), r#"{"b":1,"a":[1,2],"notices":["n"]}"#);
    }

    #[test]
    fn failures_say_so() {
        let answer = failure("t", &Problem::new(ErrorKind::Busy, "full"), vec![]);
        assert_eq!(answer.is_error, Some(true));
        let failure: Value = serde_json::from_str(text(&answer)).expect("JSON");
        assert_eq!(failure["error"]["kind"], "busy");
    }
}
