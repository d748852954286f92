//! How a message is written: as rmcp would, except that a tool's answer is encoded once.
//!
//! An answer's structured content is what its text says (the handler leaves it out), so that its bytes are taken over as
//! they are instead of being built as a tree and encoded again.

use rmcp::RoleServer;
use rmcp::model::{JsonRpcMessage, ServerResult};
use rmcp::service::TxJsonRpcMessage;

/// Appends `message` and the end of its line.
///
/// # Errors
///
/// What serde_json says; what was appended by then is no message.
pub(super) fn append(
    message: &TxJsonRpcMessage<RoleServer>,
    line: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    serde_json::to_writer(&mut *line, message)?;
    if let Some(text) = answer_of(message) {
        // The result is the message's last field, and what is added the result's.
        line.truncate(line.len() - "}}".len());
        line.extend_from_slice(b",\"structuredContent\":");
        line.extend_from_slice(text.as_bytes());
        line.extend_from_slice(b"}}");
    }
    line.push(b'\n');
    Ok(())
}

/// Returns the text of a tool's answer whose structured content is left to it.
fn answer_of(message: &TxJsonRpcMessage<RoleServer>) -> Option<&str> {
    let JsonRpcMessage::Response(response) = message else {
        return None;
    };
    match &response.result {
        ServerResult::CallToolResult(answer) if answer.structured_content.is_none() => {
            let text = answer.content.first()?.as_text()?;
            Some(&text.text)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, Problem};
    use crate::server::answer;
    use rmcp::model::{CallToolResult, NumberOrString};
    use serde_json::{Value, json};

    fn written(answer: CallToolResult) -> Vec<u8> {
        let message = JsonRpcMessage::response(answer.into(), NumberOrString::Number(7));
        let mut line = b"before\n".to_vec();
        append(&message, &mut line).expect("it is JSON");
        line.drain(..b"before\n".len());
        line
    }

    #[test]
    fn an_answer_reads_as_if_rmcp_had_written_its_structured_content() {
        let text = json!({"a": "q\"\\\u{1}é\u{2028}", "n": 1.5}).to_string();
        let failure = Problem::new(ErrorKind::Busy, "full");
        let answers = [
            answer::success("t", text, Vec::new()),
            answer::failure("t", &failure, vec!["a notice".into()]),
        ];
        for answer in answers {
            let line = written(answer.clone());
            let text = &answer.content[0].as_text().expect("a text").text;
            let mut whole = answer.clone();
            whole.structured_content = serde_json::from_str(text).ok();
            assert!(whole.structured_content.is_some());
            let read: Value = serde_json::from_slice(&line).expect("one message");
            let usual: Value = serde_json::from_slice(&written(whole)).expect("one message");
            assert_eq!(read, usual);
            assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        }
    }
}
