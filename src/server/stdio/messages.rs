//! Lines of input as JSON-RPC messages, or as the error that answers a line which is none.
//!
//! rmcp drops what it cannot parse, and the host waits for its own time-out; here each refused request is answered.

use super::envelope::Envelope;
use rmcp::RoleServer;
use rmcp::model::ErrorData;
use rmcp::service::RxJsonRpcMessage;
use serde_json::error::Category;
use serde_json::json;
use std::io;
use tokio_util::bytes::BytesMut;
use tokio_util::codec::Decoder;

/// The longest message a client may send, in bytes: far more than any sensible call, far less than memory.
const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// What a line of input is.
#[derive(Debug)]
pub(super) enum Line {
    /// A message for rmcp.
    Message(Box<RxJsonRpcMessage<RoleServer>>),
    /// No message that can be read: the line that answers it.
    Refused(Vec<u8>),
}

/// Splits the input into lines, in bounded memory.
#[derive(Debug, Default)]
pub(super) struct MessageDecoder {
    /// How many of the buffered bytes were searched for the end of the line.
    searched: usize,
    /// Within a line that is too long: what was read of it.
    too_long: Option<Envelope>,
}

impl Decoder for MessageDecoder {
    type Item = Line;
    type Error = io::Error;

    fn decode(&mut self, input: &mut BytesMut) -> io::Result<Option<Line>> {
        loop {
            let newline = input[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n');
            let Some(newline) = newline.map(|at| self.searched + at) else {
                self.searched = input.len();
                if self.too_long.is_some() || input.len() > MAX_LINE_BYTES {
                    self.skip(input);
                }
                return Ok(None);
            };
            let mut line = input.split_to(newline + 1);
            self.searched = 0;
            if self.too_long.is_some() || line.len() > MAX_LINE_BYTES {
                self.skip(&mut line);
            }
            let line = match self.too_long.take() {
                Some(envelope) => refusal(&envelope, too_long()),
                None => parse(&line),
            };
            if line.is_some() {
                return Ok(line);
            }
        }
    }

    /// Drops a last line without its end, as it may be cut.
    fn decode_eof(&mut self, input: &mut BytesMut) -> io::Result<Option<Line>> {
        let line = self.decode(input);
        if matches!(line, Ok(None)) {
            input.clear();
        }
        line
    }
}

impl MessageDecoder {
    /// Reads the id out of a part of a line that is too long, and drops the part.
    fn skip(&mut self, part: &mut BytesMut) {
        self.too_long.get_or_insert_default().read(part);
        part.clear();
        self.searched = 0;
    }
}

/// Returns what `line` is; nothing where it is empty, or a notification or a response that cannot be read.
fn parse(line: &[u8]) -> Option<Line> {
    let line = line
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(line)
        .trim_ascii();
    if line.is_empty() {
        return None;
    }
    match serde_json::from_slice(line) {
        Ok(message) => Some(Line::Message(Box::new(message))),
        Err(error) => refusal(&Envelope::of(line), unreadable(&error)),
    }
}

/// Returns the answer to a request that was refused before rmcp saw it.
fn refusal(envelope: &Envelope, error: ErrorData) -> Option<Line> {
    tracing::warn!(id = ?envelope.id(), error = %error.message, "refused a line of input");
    if !envelope.expects_answer() {
        return None;
    }
    // By hand: rmcp leaves out an id that is not known, JSON-RPC 2.0 wants null.
    let answer = json!({"jsonrpc": "2.0", "id": envelope.id(), "error": error});
    Some(Line::Refused(format!("{answer}\n").into_bytes()))
}

fn too_long() -> ErrorData {
    let limit = MAX_LINE_BYTES >> 20;
    ErrorData::parse_error(
        format!(
            "the message is longer than {limit} MiB, the most that one line may have; send less text, or name a file \
             that the worker can read"
        ),
        None,
    )
}

fn unreadable(error: &serde_json::Error) -> ErrorData {
    match error.classify() {
        Category::Data => ErrorData::invalid_request(
            format!(
                "the message is no JSON-RPC request: {error}; send one object with jsonrpc \"2.0\", an id that is a whole \
                 number or a text, a method and an object of params"
            ),
            None,
        ),
        Category::Syntax | Category::Eof | Category::Io => ErrorData::parse_error(
            format!(
                "the message is not valid JSON: {error}; send UTF-8 without halves of surrogate pairs (\\ud800 alone), \
                 nested at most 127 deep, one message a line"
            ),
            None,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Decodes `input` given in parts of `size` bytes; a message is shown as null.
    fn decode(input: &[u8], size: usize) -> Vec<Value> {
        let mut decoder = MessageDecoder::default();
        let mut buffer = BytesMut::new();
        let mut lines = Vec::new();
        for part in input.chunks(size) {
            buffer.extend_from_slice(part);
            while let Some(line) = decoder.decode(&mut buffer).expect("it cannot fail") {
                lines.push(match line {
                    Line::Message(_) => Value::Null,
                    Line::Refused(answer) => serde_json::from_slice(&answer).expect("JSON"),
                });
            }
        }
        assert!(
            decoder
                .decode_eof(&mut buffer)
                .expect("it cannot fail")
                .is_none()
        );
        assert!(buffer.is_empty());
        lines
    }

    #[test]
    fn messages_are_split_at_line_ends_only() {
        let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        let input = format!("\u{feff}{ping}\r\n\n  \n{ping}\n{ping}");
        for size in [1, 7, 1_000] {
            let lines = decode(input.as_bytes(), size);
            assert_eq!(
                lines,
                [Value::Null, Value::Null],
                "the last line has no end"
            );
        }
    }

    #[test]
    fn every_request_that_cannot_be_read_is_answered() {
        let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
        let long = "x".repeat(MAX_LINE_BYTES);
        let mut input = Vec::new();
        for params in [r#""\ud800""#, &deep, &format!("{long:?}"), "{", "1e999"] {
            let line = format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\",\"params\":{params}}}\n"
            );
            input.extend_from_slice(line.as_bytes());
        }
        input.extend_from_slice(b"{\"id\":7,\"method\":\"\xff\"}\n");
        for size in [4_096, usize::MAX] {
            let lines = decode(&input, size);
            assert_eq!(lines.len(), 6, "{lines:#?}");
            for line in lines {
                assert_eq!(line["id"], 7, "{line}");
                assert_eq!(line["error"]["code"], -32700, "{line}");
            }
        }
    }

    #[test]
    fn what_has_no_usable_id_is_answered_with_null() {
        let lines = decode(
            b"no JSON\n[1,2]\n\"text\"\n{\"id\":1.5,\"method\":\"ping\"}\n",
            9,
        );
        let codes: Vec<_> = lines.iter().map(|line| &line["error"]["code"]).collect();
        assert_eq!(codes, [-32700, -32600, -32600, -32600]);
        assert!(
            lines
                .iter()
                .all(|line| line.get("id") == Some(&Value::Null))
        );
    }

    #[test]
    fn unreadable_notifications_and_responses_are_not_answered() {
        let input =
            b"{\"method\":\"x\",\"params\":\"\\ud800\"}\n{\"id\":1,\"result\":\"\\ud800\"}\n";
        assert!(decode(input, 5).is_empty());
    }
}
