//! A page of a stream: no character split, no secret shown in part, no more JSON than an answer has room for.

use super::arguments;
use crate::error::Problem;
use crate::redact::{CONTEXT_BYTES, Scan};

/// The most bytes of a stream that one page has.
const MAX_BYTES: u32 = 7_000;

/// The most bytes of JSON that the text takes, so that the answer stays within its size.
const JSON_BYTES: usize = 8_200;

/// The longest UTF-8 sequence less one: how far a cut may have to move so that no character is split.
const CHAR_TAIL: usize = 3;

/// The part of a stream that a call asks for.
pub(super) struct Place {
    offset: Option<u64>,
    tail: bool,
    max: usize,
}

/// A part of a stream, without secrets.
pub(super) struct TextPage {
    pub(super) text: String,
    /// Where it begins in the stream, in raw bytes.
    pub(super) start: u64,
    /// Where it ends in the stream, in raw bytes.
    pub(super) end: u64,
}

impl Place {
    /// Reads the arguments `offset`, `max_bytes` and `tail`.
    pub(super) fn new(
        offset: Option<i64>,
        max_bytes: Option<i64>,
        tail: bool,
    ) -> Result<Self, Problem> {
        let refuse =
            |offset| Problem::argument("offset", format!("offset is {offset}"), "0 or more bytes");
        let read = |offset| u64::try_from(offset).map_err(|_| refuse(offset));
        let max = arguments::count("max_bytes", max_bytes, 1..=MAX_BYTES)?;
        Ok(Self {
            offset: offset.map(read).transpose()?,
            tail,
            max: max.unwrap_or(MAX_BYTES) as usize,
        })
    }

    /// Reads the page of a stream of `total` bytes by `read`, which is given an offset and how many bytes.
    ///
    /// The bytes around the page are read too, since half a secret at its edge is not recognised as one.
    pub(super) fn page(
        &self,
        total: u64,
        finished: bool,
        read: impl FnOnce(u64, usize) -> std::io::Result<Vec<u8>>,
    ) -> std::io::Result<TextPage> {
        let start = match (self.offset, self.tail) {
            (Some(offset), _) => offset.min(total),
            (None, true) => total.saturating_sub(self.max as u64),
            (None, false) => 0,
        };
        let before = usize::try_from(start).map_or(CONTEXT_BYTES, |start| start.min(CONTEXT_BYTES));
        let bytes = read(start - before as u64, before + self.max + CONTEXT_BYTES)?;
        let window = Window {
            from: before.min(bytes.len()),
            to: (before + self.max).min(bytes.len()),
            start,
            total,
            finished,
            bytes,
        };
        Ok(window.page(self.offset.is_none() && self.tail))
    }
}

/// Bytes of a stream of which `from..to` may be shown; `from` lies at `start` in the stream.
struct Window {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
    start: u64,
    total: u64,
    finished: bool,
}

impl Window {
    /// Returns as much as fits as JSON, its end where `tail`; no character is split.
    fn page(&self, tail: bool) -> TextPage {
        let bytes = &self.bytes;
        let mut from = self.from;
        if self.start > 0 {
            from = next_char(bytes, from).min(self.to);
        }
        let mut to = self.to;
        let at_end = self.start + (to - self.from) as u64 >= self.total;
        if !at_end {
            to = whole_chars(&bytes[..to]);
        } else if !self.finished {
            to -= unfinished_word(&bytes[from..to]);
        }
        to = to.max(from);
        loop {
            let text = self.text(from, to);
            let needs = serde_json::to_string(&text).map_or(usize::MAX, |json| json.len());
            if needs <= JSON_BYTES || to - from <= 1 {
                let at = |place: usize| self.start + (place - self.from) as u64;
                return TextPage {
                    text,
                    start: at(from),
                    end: at(to),
                };
            }
            let half = (to - from) / 2;
            if tail {
                from = next_char(bytes, to - half);
            } else {
                to = from + whole_chars(&bytes[from..from + half]).max(1);
            }
        }
    }

    /// Returns the text of `from..to`, without secrets.
    fn text(&self, from: usize, to: usize) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes[..from]).into_owned();
        let begin = text.len();
        text.push_str(&String::from_utf8_lossy(&self.bytes[from..to]));
        let end = text.len();
        text.push_str(&String::from_utf8_lossy(&self.bytes[to..]));
        Scan::of(&text).part(begin..end).into_string()
    }
}

/// Returns the length of the word at the end, where it may be the beginning of a token that is being written just now. A
/// longer word is no token, and a shorter one gives nothing away.
fn unfinished_word(bytes: &[u8]) -> usize {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./+=".contains(byte);
    let length = bytes.iter().rev().take_while(|byte| is_token(byte)).count();
    if (8..=256).contains(&length) {
        length
    } else {
        0
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

fn next_char(bytes: &[u8], at: usize) -> usize {
    let skip = bytes[at..]
        .iter()
        .take(CHAR_TAIL)
        .take_while(|byte| is_continuation(**byte))
        .count();
    at + skip
}

/// Returns the length without a character that is cut at the end.
fn whole_chars(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(CHAR_TAIL + 1) {
        let at = bytes.len() - back;
        let byte = bytes[at];
        if is_continuation(byte) {
            continue;
        }
        let needs = match byte {
            0b1111_0000.. => 4,
            0b1110_0000.. => 3,
            0b1100_0000.. => 2,
            _ => 1,
        };
        return if needs > back { at } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_at(bytes: &[u8], place: &Place, finished: bool) -> TextPage {
        let read = |start: u64, max: usize| {
            let start = start as usize;
            Ok(bytes[start..bytes.len().min(start + max)].to_vec())
        };
        let page = place.page(bytes.len() as u64, finished, read);
        page.expect("it is in memory")
    }

    /// Reads a whole stream in pages of `max` bytes.
    fn read_all(bytes: &[u8], max: usize) -> String {
        let mut text = String::new();
        let (mut at, total) = (0, bytes.len() as u64);
        while at < total {
            let place = Place {
                offset: Some(at),
                tail: false,
                max,
            };
            let page = page_at(bytes, &place, true);
            assert_eq!(page.start, at, "a gap");
            assert!(page.end > at, "no progress at {at}");
            text.push_str(&page.text);
            at = page.end;
        }
        text
    }

    #[test]
    fn pages_join_to_the_whole_without_a_split_character() {
        let text = "aé€😀\u{1}".repeat(500);
        for max in [4, 5, 7, 100, 7_000] {
            assert_eq!(read_all(text.as_bytes(), max), text, "{max}");
        }
        assert_eq!(read_all(b"\xff\xfe\x80 x", 7_000).chars().last(), Some('x'));
    }

    #[test]
    fn pages_join_to_the_redacted_whole_wherever_their_edges_fall() {
        let token = format!("ghp_{}", "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYz");
        let text = format!("é with {token}, again:\nAPI_KEY=\"{}\" end", &token[4..]);
        let whole = crate::redact::redact(&text).into_string();
        assert_eq!(whole.matches("[REDACTED-").count(), 2);
        for max in 4..=text.len() {
            assert_eq!(read_all(text.as_bytes(), max), whole, "{max}");
        }
        for (start, _) in text.char_indices() {
            let place = Place {
                offset: Some(start as u64),
                tail: false,
                max: 9,
            };
            let page = page_at(text.as_bytes(), &place, true).text;
            let half = (0..token.len() - 3).find(|&at| page.contains(&token[at..at + 3]));
            assert_eq!(half, None, "{start}: {page}");
        }
    }

    #[test]
    fn a_token_being_written_is_held_back_until_it_is_whole() {
        let place = Place {
            offset: Some(0),
            tail: false,
            max: 100,
        };
        let half = b"log in with ghp_aB3dE5fG7h";
        let page = page_at(half, &place, false);
        assert_eq!((page.text.as_str(), page.end), ("log in with ", 12));
        assert_eq!(page_at(half, &place, true).end, half.len() as u64);
        assert_eq!(page_at(b"go on? [y/N]", &place, false).text, "go on? [y/N]");
    }

    #[test]
    fn a_page_of_control_characters_stays_within_its_bytes() {
        let bytes = vec![1_u8; 7_000];
        for tail in [false, true] {
            let place = Place {
                offset: None,
                tail,
                max: 7_000,
            };
            let page = page_at(&bytes, &place, true);
            assert!(serde_json::to_string(&page.text).expect("json").len() <= JSON_BYTES);
            let edge = if tail { page.end } else { page.start };
            assert_eq!(edge, if tail { 7_000 } else { 0 });
        }
    }
}
