//! A text with its secrets found, which can be shown whole or in part.

use super::{COMPILED, MARK, PASSES, SHORTEST_BYTES, TABLE, apply};
use std::borrow::Cow;
use std::ops::Range;

/// How much of a long text to give to [`Redacted::of`] on either side of the part that is to be shown, in bytes: the
/// longest secrets that people keep are private key blocks of several thousand bytes.
pub const CONTEXT_BYTES: usize = 16 << 10;

/// A text whose secrets are known by their places in the original.
///
/// A secret has a shape only as a whole. Whoever cuts first and redacts then stores the half that no rule knows any more;
/// so a cut is made here, after the secrets were found.
#[derive(Debug, Clone)]
pub struct Redacted<'a> {
    original: &'a str,
    shown: Option<String>,
    marks: Vec<Mark>,
}

/// Where a mark stands in the shown text, and what of the original it stands for.
#[derive(Debug, Clone)]
struct Mark {
    shown: Range<usize>,
    original: Range<usize>,
}

impl<'a> Redacted<'a> {
    /// Finds the secrets of `text`.
    pub fn of(text: &'a str) -> Self {
        let mut redacted = Self {
            original: text,
            shown: None,
            marks: Vec::new(),
        };
        // A replacement can lay bare another secret.
        for _ in 0..PASSES {
            if !redacted.pass() {
                break;
            }
        }
        redacted
    }

    /// Returns the whole text with its secrets replaced.
    pub fn whole(self) -> Cow<'a, str> {
        match self.shown {
            Some(shown) => Cow::Owned(shown),
            None => Cow::Borrowed(self.original),
        }
    }

    /// Returns the bytes `part` of the original with its secrets replaced. A secret that lies partly outside is shown as
    /// replaced where it begins, and not at all where it goes on, so that adjoining parts join to the whole.
    ///
    /// # Panics
    ///
    /// Where `part` is out of the original or cuts a character.
    pub fn part(&self, part: Range<usize>) -> String {
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
        out
    }

    fn text(&self) -> &str {
        self.shown.as_deref().unwrap_or(self.original)
    }

    /// Applies each rule once; returns whether anything was replaced.
    fn pass(&mut self) -> bool {
        if self.text().len() < SHORTEST_BYTES {
            return false;
        }
        let compiled = &*COMPILED;
        let mut replaced = false;
        for index in &compiled.set.matches(self.text()) {
            let rule = &TABLE[index];
            let found = apply(rule, &compiled.single[index], self.text());
            replaced |= !found.is_empty();
            if !found.is_empty() {
                self.replace(found, rule.name);
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

    /// Returns the range with every mark whole that it touches.
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

    /// Returns the place in the original of a place in the shown text that is not within a mark.
    fn original_at(&self, shown: usize) -> usize {
        let before = self.marks.iter().rfind(|mark| mark.shown.end <= shown);
        before.map_or(shown, |mark| mark.original.end + shown - mark.shown.end)
    }
}
