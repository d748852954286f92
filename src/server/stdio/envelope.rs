//! What can still be read of a message that is not valid JSON or too long to keep: its id, and whether it is a request.

use rmcp::model::RequestId;

/// The longest key or value at the top of a message that is looked at, in bytes; ids are far shorter.
const MAX_TOKEN_BYTES: usize = 256;

/// Reads the top level of one JSON object leniently, byte by byte, in constant memory.
///
/// Only quotes, escapes and brackets are understood, so that whatever is wrong inside a value (a lone surrogate, invalid
/// UTF-8, endless nesting) does not matter.
#[derive(Debug, Default)]
pub(super) struct Envelope {
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// The bytes of the current key or value at the top level.
    token: Vec<u8>,
    /// Whether the current value is the id's.
    in_id: bool,
    id: Option<RequestId>,
    has_id: bool,
    has_method: bool,
}

impl Envelope {
    /// Returns what can be read of a whole message.
    pub(super) fn of(message: &[u8]) -> Self {
        let mut envelope = Self::default();
        envelope.read(message);
        envelope
    }

    /// Reads the next part of the message.
    pub(super) fn read(&mut self, part: &[u8]) {
        for &byte in part {
            if self.in_text {
                self.keep(byte);
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_text = false,
                    _ => {}
                }
            } else {
                self.structure(byte);
            }
        }
    }

    /// Returns the message's id, where it has one that a request may have.
    pub(super) fn id(&self) -> Option<&RequestId> {
        self.id.as_ref()
    }

    /// Returns whether an answer is expected: a notification has a method without an id, a response an id without a method.
    pub(super) fn expects_answer(&self) -> bool {
        self.has_method == self.has_id
    }

    fn structure(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.in_text = true;
                self.keep(byte);
            }
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                if self.depth == 1 {
                    self.end_of_value();
                }
                self.depth = self.depth.saturating_sub(1);
            }
            b':' if self.depth == 1 => self.end_of_key(),
            b',' if self.depth == 1 => self.end_of_value(),
            _ if byte.is_ascii_whitespace() => {}
            _ => self.keep(byte),
        }
    }

    fn keep(&mut self, byte: u8) {
        if self.depth == 1 && self.token.len() < MAX_TOKEN_BYTES {
            self.token.push(byte);
        }
    }

    fn end_of_key(&mut self) {
        let key = std::mem::take(&mut self.token);
        self.in_id = key == br#""id""#;
        self.has_id |= self.in_id;
        self.has_method |= key == br#""method""#;
    }

    fn end_of_value(&mut self) {
        let value = std::mem::take(&mut self.token);
        if std::mem::take(&mut self.in_id) {
            self.id = serde_json::from_slice(&value).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(id: i64) -> Option<RequestId> {
        Some(RequestId::Number(id))
    }

    #[test]
    fn the_id_is_read_wherever_it_stands() {
        let text = Some(RequestId::String("a\"b".into()));
        for (message, id) in [
            (
                r#"{"id":5,"method":"m","params":{"text":"\ud800"}}"#,
                number(5),
            ),
            (
                r#"{"params":{"id":1,"deep":[[[{"id":2}]]]},"method":"m","id":7}"#,
                number(7),
            ),
            (
                r#"{ "method" : "m", "id" : "a\"b" , "params": "\"id\":9" }"#,
                text,
            ),
            (r#"{"method":"m","id":-3,"params":{"#, number(-3)),
            (r#"{"method":"m","params":{}}"#, None),
            (r#"{"id":1.5,"method":"m"}"#, None),
            (r#"{"id":null,"method":"m"}"#, None),
            (r#"[{"id":5,"method":"m"}]"#, None),
            (r#"{"method":"m","id":5"#, None),
            ("}}]]\"", None),
        ] {
            assert_eq!(
                Envelope::of(message.as_bytes()).id(),
                id.as_ref(),
                "{message}"
            );
        }
    }

    #[test]
    fn only_requests_and_nonsense_are_answered() {
        for (message, answered) in [
            (r#"{"id":5,"method":"m""#, true),
            ("no JSON", true),
            ("{}", true),
            (
                r#"{"method":"notifications/cancelled","params":{"reason":"\ud800"}}"#,
                false,
            ),
            (r#"{"id":5,"result":{"text":"\ud800"}}"#, false),
        ] {
            let envelope = Envelope::of(message.as_bytes());
            assert_eq!(envelope.expects_answer(), answered, "{message}");
        }
    }

    #[test]
    fn parts_read_like_the_whole_and_memory_is_bounded() {
        let message = format!(r#"{{"{}":1,"id":12,"method":"m"}}"#, "x".repeat(100_000));
        let mut envelope = Envelope::default();
        for part in message.as_bytes().chunks(3) {
            envelope.read(part);
            assert!(envelope.token.len() <= MAX_TOKEN_BYTES);
        }
        assert_eq!(envelope.id(), number(12).as_ref());
    }
}
