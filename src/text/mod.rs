//! Cutting texts to a size, always between characters, and durations as text.
//!
//! Sizes in bytes are for what is stored, sizes in characters for what people read. Not responsible for secrets: cut after
//! redacting, or a cut through a secret hides it from the rules (`redact::Redacted::part` does both).

mod screen;

pub use screen::on_screen;

use std::borrow::Cow;
use std::time::Duration;

/// The mark of a cut within a line.
const MARK: char = '…';

/// Returns the beginning of `text`: at most `bytes` bytes.
pub fn head(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// Returns the end of `text`: at most `bytes` bytes.
pub fn tail(text: &str, bytes: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(bytes))..]
}

/// Returns `text` with at most `chars` characters; of a longer one the beginning, its last character a `…`.
///
/// With no room at all the result is empty.
pub fn cut(text: &str, chars: usize) -> Cow<'_, str> {
    if text.char_indices().nth(chars).is_none() {
        return Cow::Borrowed(text);
    }
    let Some(kept) = chars.checked_sub(1) else {
        return Cow::Borrowed("");
    };
    let end = text.char_indices().nth(kept).map_or(0, |(at, _)| at);
    Cow::Owned(format!("{}{MARK}", &text[..end]))
}

/// Returns `text` as one line, blanks and line breaks folded into single spaces, cut as [`cut`] does.
pub fn one_line(text: &str, chars: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    cut(&line, chars).into_owned()
}

/// Returns the end of `text`, at most `bytes` bytes of it, below a line with the number of bytes before it; a text that
/// fits is returned as it is.
pub fn tail_with_count(text: &str, bytes: usize) -> Cow<'_, str> {
    let kept = tail(text, bytes);
    match text.len() - kept.len() {
        0 => Cow::Borrowed(text),
        left_out => Cow::Owned(format!("{}{kept}", left_out_line(left_out as u64))),
    }
}

/// Returns the line that stands before the end of a text of which `bytes` bytes are missing.
pub fn left_out_line(bytes: u64) -> String {
    format!("[{bytes} earlier bytes left out]\n")
}

/// Returns a duration in its largest whole unit, as a config file writes it: `90days`, `36h`, `250ms`.
pub fn duration(duration: Duration) -> String {
    const UNITS: [(&str, u128); 6] = [
        // As humantime reads them: a year has 365.25 days.
        ("year", 31_557_600_000),
        ("day", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let ms = duration.as_millis();
    let whole = |(_, unit): &&(&str, u128)| ms >= *unit && ms.is_multiple_of(*unit);
    let Some((name, unit)) = UNITS.iter().find(whole) else {
        return "0s".to_owned();
    };
    let count = ms / unit;
    let plural = if count > 1 && name.len() > 2 { "s" } else { "" };
    format!("{count}{name}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_shown_in_its_largest_whole_unit() {
        for text in [
            "90days", "1day", "10years", "36h", "90m", "1500ms", "5s", "0s",
        ] {
            let parsed = humantime::parse_duration(text).expect("a duration");
            assert_eq!(duration(parsed), text);
        }
        assert_eq!(duration(Duration::from_secs(3_600)), "1h");
    }

    #[test]
    fn cuts_fall_between_characters() {
        assert_eq!(
            (head("aéé", 2), head("aéé", 3), head("aéé", 9)),
            ("a", "aé", "aéé")
        );
        assert_eq!(
            (tail("aéé", 3), tail("aéé", 2), tail("aéé", 9)),
            ("é", "é", "aéé")
        );
        assert_eq!((head("é", 0), tail("é", 0), tail("", 5)), ("", "", ""));
    }

    #[test]
    fn a_cut_text_has_the_wanted_length_with_its_mark() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("éééé", 2), "é…");
        assert_eq!((cut("ab", 1), cut("ab", 0)), ("…".into(), "".into()));
    }

    #[test]
    fn one_line_folds_blanks() {
        assert_eq!(one_line(" a\n\t b \r\nc ", 9), "a b c");
        assert_eq!(one_line("a\nb c", 3), "a …");
    }

    #[test]
    fn a_tail_counts_what_is_missing() {
        assert_eq!(tail_with_count("short", 5), "short");
        assert_eq!(tail_with_count("aéé", 3), "[3 earlier bytes left out]\né");
    }
}
