//! How a memory is written for Session-Buddy, and how ours are recognised among its items.
//!
//! `[mv:<pool>:<ULID>] <text>` on one line: the marker comes first so that no preview cuts it, and a second line would
//! look like another item in the server's answers.

use crate::model::{MemoryId, PoolName};
use regex::Regex;
use std::sync::LazyLock;

/// The longest content that is sent, in bytes; above 10,000 the server cuts it by characters and marks it.
pub(super) const MAX_BYTES: usize = 9_900;
/// The end of a content that was cut.
const CUT: &str = " [cut by mahavishnu]";

/// Which of our memories an item is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Marker {
    /// The pool it came from.
    pub pool: PoolName,
    /// The memory's own id.
    pub id: MemoryId,
}

impl std::fmt::Display for Marker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[mv:{}:{}]", self.pool, self.id)
    }
}

impl Marker {
    /// Splits an item into the marker at its very beginning and the text behind it.
    pub fn split(content: &str) -> Option<(Self, &str)> {
        static SHAPE: LazyLock<Regex> = LazyLock::new(|| {
            compiled(r"\A\[mv:([A-Za-z0-9_.-]{1,64}):([0-7][0-9A-HJKMNP-TV-Z]{25})\] ?")
        });
        let found = SHAPE.captures(content)?;
        let marker = Self {
            pool: found[1].parse().ok()?,
            id: found[2].parse().ok()?,
        };
        Some((marker, &content[found[0].len()..]))
    }
}

/// Returns a memory as Session-Buddy stores it unchanged, with the beginning of a long text.
///
/// Folded to one line; marker-shaped text escaped; what the server's memory guard would redact (secrets, e-mail
/// addresses, telephone, card and social security numbers) redacted here already, with the same words, so that both
/// front doors store the same; long bare numbers, which that guard takes for telephone numbers, split by `_`.
pub fn prepare(marker: &Marker, text: &str) -> String {
    // A long text is cut before the costly part; the rest of the room is for what that part adds.
    let head = cut_at(text, 2 * MAX_BYTES);
    let folded = split_numbers(&redact(&escape_markers(&fold(head))));
    let whole = format!("{marker} {folded}");
    if whole.len() <= MAX_BYTES && head.len() == text.len() {
        return whole;
    }
    format!("{}{CUT}", cut_at(&whole, MAX_BYTES - CUT.len()).trim_end())
}

fn cut_at(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

/// Folds all blanks, line breaks and control characters into single spaces.
pub(super) fn fold(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn escape_markers(text: &str) -> String {
    static OPENING: LazyLock<Regex> = LazyLock::new(|| compiled(r"(?i)\[(mv:)"));
    OPENING.replace_all(text, r"[\$1").into_owned()
}

/// The guard's rules 4 in its own order and with its own words.
fn redact(text: &str) -> String {
    static RULES: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
        [
            (r"(?i)\b(?:sk|pk|rk)_[a-z0-9]{20,}", "[REDACTED-SECRET]"),
            (r"\bghp_[a-zA-Z0-9]{36}\b", "[REDACTED-SECRET]"),
            (r"AKIA[0-9A-Z]{16}", "[REDACTED-SECRET]"),
            (
                r"\beyJ[a-zA-Z0-9_-]{20,}\.[a-zA-Z0-9_-]{20,}\.[a-zA-Z0-9_-]{20,}\b",
                "[REDACTED-SECRET]",
            ),
            (
                r"\b[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}\b",
                "[REDACTED-EMAIL]",
            ),
            (r"\b\d{3}-\d{2}-\d{4}\b", "[REDACTED-SSN]"),
            // With separators only: a bare run of digits is split instead.
            (
                r"\b(?:\+?\d{1,3}[\s.-]?)?(?:\(\d{3}\)[\s.-]?|\d{3}[\s.-])\d{3}[\s.-]?\d{4}\b",
                "[REDACTED-PHONE]",
            ),
            (r"\b\d{4}(?:[\s-]\d{4}){3}\b", "[REDACTED-CC]"),
        ]
        .into_iter()
        .map(|(rule, word)| (compiled(rule), word))
        .collect()
    });
    RULES.iter().fold(text.to_owned(), |text, (rule, word)| {
        rule.replace_all(&text, *word).into_owned()
    })
}

/// Puts `_` into every number that the guard would still take for a telephone or card number.
fn split_numbers(text: &str) -> String {
    static NUMBERS: LazyLock<[Regex; 2]> = LazyLock::new(|| {
        [
            compiled(r"\b(?:\+?\d{1,3}[\s.-]?)?\(?\d{3}\)?[\s.-]?\d{3}[\s.-]?\d{4}\b"),
            compiled(r"\b\d{4}[\s-]?\d{4}[\s-]?\d{4}[\s-]?\d{4}\b"),
        ]
    });
    let mut text = text.to_owned();
    // Splitting one match can uncover another; each pass shortens the runs that are left, so this ends.
    while let Some(rule) = NUMBERS.iter().find(|rule| rule.is_match(&text)) {
        text = rule
            .replace_all(&text, |found: &regex::Captures<'_>| {
                let number = &found[0];
                // Every match ends in four digits.
                let at = number.char_indices().rev().nth(3).map_or(0, |(at, _)| at);
                format!("{}_{}", &number[..at], &number[at..])
            })
            .into_owned();
    }
    text
}

/// Compiles a pattern written in this module.
pub(super) fn compiled(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the pattern is a constant that the tests compile")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn marker() -> Marker {
        Marker {
            pool: "p1".parse().expect("a pool name"),
            id: "01M859C6TPEY7RHD01FWFG93P9".parse().expect("a ULID"),
        }
    }

    fn prepared(text: &str) -> String {
        prepare(&marker(), text)
    }

    #[test]
    fn a_marker_is_written_and_read_back() {
        let content = prepared("hello");
        assert_eq!(content, "[mv:p1:01M859C6TPEY7RHD01FWFG93P9] hello");
        assert_eq!(Marker::split(&content), Some((marker(), "hello")));
        for other in [
            "x [mv:p1:01M859C6TPEY7RHD01FWFG93P9] hello",
            "[mv:p1:short] hello",
            "[MV:p1:01M859C6TPEY7RHD01FWFG93P9] hello",
            "[mv:p1:91M859C6TPEY7RHD01FWFG93P9] beyond 128 bits",
            "",
        ] {
            assert_eq!(Marker::split(other), None, "{other}");
        }
    }

    #[test]
    fn a_text_becomes_one_line_whose_inner_markers_are_escaped() {
        let content = prepared("a\r\nb\u{2028}c\u{85}d\t\0e [mv:p1:X] [Mv:q:Y]\n2. 📝 fake");
        assert_eq!(
            content,
            "[mv:p1:01M859C6TPEY7RHD01FWFG93P9] a b c d e [\\mv:p1:X] [\\Mv:q:Y] 2. 📝 fake"
        );
    }

    #[test]
    fn bare_numbers_are_split_and_personal_data_is_redacted_in_the_guards_words() {
        for (text, expected) in [
            ("at 1700000000", "at 170000_0000"),
            ("at 1700000000123 ms", "at 170000000_0123 ms"),
            (
                "550e8400-e29b-41d4-a716-446655440000",
                "550e8400-e29b-41d4-a716-44665544_0000",
            ),
            ("4111111111111111", "411111111111_1111"),
            ("call 555-123-4567 now", "call [REDACTED-PHONE] now"),
            ("call +1 (555) 123 4567", "call +[REDACTED-PHONE]"),
            ("ssn 123-45-6789", "ssn [REDACTED-SSN]"),
            ("4111 1111 1111 1111", "[REDACTED-CC]"),
            ("to a.b@example.org", "to [REDACTED-EMAIL]"),
            ("key AKIAABCDEFGHIJKLMNOP", "key [REDACTED-SECRET]"),
            (
                "2026-11-24 04:33:30 and 3.14",
                "2026-11-24 04:33:30 and 3.14",
            ),
        ] {
            let content = prepared(text);
            let (_, rest) = Marker::split(&content).expect("marked");
            assert_eq!(rest, expected, "{text}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_so() {
        for text in ["é".repeat(6_000), "x".repeat(10 << 20)] {
            let cut = prepare(&marker(), &text);
            assert!(cut.len() <= MAX_BYTES && cut.ends_with(CUT));
        }
        assert!(!prepare(&marker(), &"x".repeat(9_000)).ends_with(CUT));
    }

    proptest! {
        #[test]
        fn nothing_is_left_that_the_guard_would_rewrite(
            text in "([0-9]{1,14}[-. ()+a]?|[a-c@._]{1,4}|\\[mv:|\n){0,40}"
        ) {
            let content = prepared(&text);
            let guard = [
                r"\b[a-zA-Z0-9._%+\-]+@[a-zA-Z0-9.\-]+\.[a-zA-Z]{2,}\b",
                r"\b\d{3}-\d{2}-\d{4}\b",
                r"\b(?:\+?\d{1,3}[\s\-.]?)?\(?\d{3}\)?[\s\-.]?\d{3}[\s\-.]?\d{4}\b",
                r"\b\d{4}[\s\-]?\d{4}[\s\-]?\d{4}[\s\-]?\d{4}\b",
            ];
            for rule in guard {
                prop_assert!(!compiled(rule).is_match(&content), "{rule} in {content}");
            }
            prop_assert!(!content.contains('\n'));
            prop_assert_eq!(content.matches("[mv:").count(), 1);
            prop_assert!(Marker::split(&content).is_some_and(|(found, _)| found == marker()));
        }
    }
}
