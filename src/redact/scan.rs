//! A text whose secrets have been located, to be shown whole or in part.

use super::detect::{MARK, candidates, secrets};
use super::redacted::Redacted;
use std::ops::Range;

/// How many bytes of a long text to give to [`Scan::of`] on either side of the part that is to be shown: the longest
/// secrets that people keep are private key blocks of several thousand bytes.
pub(crate) const CONTEXT_BYTES: usize = 16 << 10;

/// No rule matches a shorter text, in bytes.
const SHORTEST_BYTES: usize = 12;

/// The most passes over one text: a replacement can complete the shape of another secret.
const PASSES: usize = 16;

/// A text with the places of its secrets.
///
/// A secret has a recognisable shape only as a whole: half of one, left by a cut, matches no rule. So parts are cut out
/// here, after the secrets were located.
#[derive(Debug, Clone)]
pub(crate) struct Scan<'a> {
    original: &'a str,
    /// The text with its secrets replaced; none where there are none.
    shown: Option<String>,
    marks: Vec<Mark>,
}

/// Returns `text` with each secret replaced by `[REDACTED-RULE]`, where `RULE` is the rule's name in capitals.
///
/// A text without secrets is returned unchanged. Redacting a second time changes nothing.
///
/// # Examples
///
/// ```
/// let text = "git clone https://me:hunter2@example.org/x.git";
/// assert_eq!(
///     mahavishnu::redact::redact(text),
///     "git clone https://me:[REDACTED-URL-CREDENTIALS]@example.org/x.git"
/// );
/// ```
pub fn redact(text: &str) -> Redacted {
    Scan::of(text).whole()
}

/// A replacement's place in the shown text, and the place in the original that it replaces.
#[derive(Debug, Clone)]
struct Mark {
    shown: Range<usize>,
    original: Range<usize>,
}

impl<'a> Scan<'a> {
    /// Locates the secrets of `text`.
    pub(crate) fn of(text: &'a str) -> Self {
        let mut scan = Self {
            original: text,
            shown: None,
            marks: Vec::new(),
        };
        for _ in 0..PASSES {
            if !scan.pass() {
                break;
            }
        }
        scan
    }

    /// Returns the whole text with its secrets replaced.
    pub(crate) fn whole(self) -> Redacted {
        let shown = self.shown.unwrap_or_else(|| self.original.to_owned());
        Redacted(shown)
    }

    /// Returns the bytes `part` of the original with the secrets replaced. A secret that lies partly outside is replaced
    /// in the part where it begins and left out of the part where it goes on, so that adjoining parts join to the whole.
    ///
    /// # Panics
    ///
    /// If `part` is outside of the original or cuts a character.
    pub(crate) fn part(&self, part: Range<usize>) -> Redacted {
        let mut out = String::with_capacity(part.len());
        let mut at = part.start;
        for mark in &self.marks {
            if mark.original.end <= part.start || mark.original.start >= part.end {
                continue;
            }
            if mark.original.start >= part.start {
                out.push_str(&self.original[at..mark.original.start]);
                out.push_str(&self.text()[mark.shown.clone()]);
            }
            at = mark.original.end;
        }
        if at < part.end {
            out.push_str(&self.original[at..part.end]);
        }
        Redacted(out)
    }

    fn text(&self) -> &str {
        self.shown.as_deref().unwrap_or(self.original)
    }

    /// Applies each rule once; returns whether anything was replaced.
    fn pass(&mut self) -> bool {
        if self.text().len() < SHORTEST_BYTES {
            return false;
        }
        let mut replaced = false;
        for (rule, regex) in candidates(self.text()) {
            let found = secrets(rule, regex, self.text());
            if !found.is_empty() {
                self.replace(found, rule.name);
                replaced = true;
            }
        }
        replaced
    }

    /// Replaces `found`, ascending ranges of the shown text, by the rule's mark.
    fn replace(&mut self, found: Vec<Range<usize>>, name: &str) {
        let mark = format!("{MARK}{}]", name.to_ascii_uppercase());
        let mut text = String::with_capacity(self.text().len());
        let mut marks = Vec::with_capacity(self.marks.len() + found.len());
        let mut copied = 0;
        for range in found {
            let range = self.widened(range);
            if range.start < copied {
                continue;
            }
            self.copy(copied..range.start, &mut text, &mut marks);
            let start = text.len();
            text.push_str(&mark);
            marks.push(Mark {
                shown: start..text.len(),
                original: self.original_at(range.start)..self.original_at(range.end),
            });
            copied = range.end;
        }
        self.copy(copied..self.text().len(), &mut text, &mut marks);
        (self.shown, self.marks) = (Some(text), marks);
    }

    /// Returns the range, extended over every mark that it touches.
    fn widened(&self, mut range: Range<usize>) -> Range<usize> {
        for mark in &self.marks {
            if mark.shown.start < range.end && range.start < mark.shown.end {
                range = range.start.min(mark.shown.start)..range.end.max(mark.shown.end);
            }
        }
        range
    }

    /// Appends a range of the shown text that cuts no mark.
    fn copy(&self, range: Range<usize>, text: &mut String, marks: &mut Vec<Mark>) {
        for mark in &self.marks {
            if range.start <= mark.shown.start && mark.shown.end <= range.end {
                let start = text.len() + mark.shown.start - range.start;
                marks.push(Mark {
                    shown: start..start + mark.shown.len(),
                    original: mark.original.clone(),
                });
            }
        }
        text.push_str(&self.text()[range]);
    }

    /// Returns the original's position of a position in the shown text that is not within a mark.
    fn original_at(&self, shown: usize) -> usize {
        let before = self.marks.iter().rfind(|mark| mark.shown.end <= shown);
        before.map_or(shown, |mark| mark.original.end + shown - mark.shown.end)
    }
}
