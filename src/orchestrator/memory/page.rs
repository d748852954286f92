//! Pages of a search: the cursor, and the cutting of hits to what an answer can hold.

use crate::api::Hit;
use crate::error::Problem;
use crate::model::At;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The most bytes that the hits of one answer may take; the rest of the 9,000 is for sources, cursor and notices.
pub(super) const HITS_BYTES: usize = 7_000;

/// What a hit takes beside its text, roughly, in bytes.
const HIT_OVERHEAD_BYTES: usize = 420;

/// Where a page begins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Which search it belongs to.
    pub(super) of: String,
    /// When the first page was made: later memories do not move the pages behind it.
    pub(super) at_ms: i64,
    /// The store's own cursor; absent in the first part, where remote hits are fused in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) store: Option<String>,
    /// How many hits of that part, or how many ids, were given already.
    pub(super) skip: usize,
    /// How many bytes of the text at `skip` were given already.
    #[serde(default)]
    pub(super) offset: usize,
    /// By what the hits are known that a peer brought into the first part and that the store has further down: behind it
    /// they would come again. Written after the rest, as each is 8 digits long.
    #[serde(skip)]
    pub(super) shown: Vec<u32>,
}

impl Position {
    /// Returns the beginning of the search `of`.
    pub(super) fn start(of: String, now: At) -> Self {
        Self {
            of,
            at_ms: now.unix_ms(),
            ..Self::default()
        }
    }

    /// Reads a cursor of the search `of`.
    ///
    /// # Errors
    ///
    /// A refusal of `cursor` where it is none, or of another search.
    pub(super) fn read(cursor: &str, of: &str) -> Result<Self, Problem> {
        let refuse = |message: &str| {
            Problem::argument(
                "cursor",
                message,
                "the `cursor` of the answer before, with the same other arguments",
            )
        };
        let no_cursor = || refuse("this cursor is not of a search");
        let (json, shown) = cursor.split_once('.').unwrap_or((cursor, ""));
        let json = unhex(json).ok_or_else(no_cursor)?;
        let mut read: Self = serde_json::from_slice(&json).map_err(|_| no_cursor())?;
        let shown = unhex(shown).ok_or_else(no_cursor)?;
        let (shown, rest) = shown.as_chunks();
        if !rest.is_empty() {
            return Err(no_cursor());
        }
        read.shown = shown
            .iter()
            .map(|bytes| u32::from_be_bytes(*bytes))
            .collect();
        if read.of == of {
            Ok(read)
        } else {
            Err(refuse("this cursor is of another search"))
        }
    }

    /// Writes the cursor.
    pub(super) fn write(&self) -> String {
        let json = serde_json::to_vec(self).expect("numbers and texts can be written as JSON");
        let mut cursor: String = json.iter().map(|byte| format!("{byte:02x}")).collect();
        if !self.shown.is_empty() {
            cursor.push('.');
            cursor.extend(self.shown.iter().map(|key| format!("{key:08x}")));
        }
        cursor
    }
}

/// Returns a short stand-in for what a hit is known by.
pub(super) fn short(key: &str) -> u32 {
    let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// Returns what tells one search from another, for its cursors.
pub(super) fn search_id(arguments: &impl Serialize) -> String {
    let json = serde_json::to_vec(arguments).expect("arguments came as JSON");
    let hash: [u8; 32] = Sha256::digest(&json).into();
    hash[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    const LONGEST: usize = 2_000;
    if !text.len().is_multiple_of(2) || text.len() > LONGEST || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

/// Returns how many bytes of text each of `hits` hits may show.
pub(super) fn text_bytes(hits: usize) -> usize {
    const LEAST: usize = 160;
    const MOST: usize = 1_500;
    let share = HITS_BYTES / hits.max(1);
    share.saturating_sub(HIT_OVERHEAD_BYTES).clamp(LEAST, MOST)
}

/// Cuts `text` to about `bytes`, around the first of `words` where that is not at the beginning; says whether it did.
pub(super) fn snippet(text: &str, words: &[String], bytes: usize) -> (String, bool) {
    const LEAD_BYTES: usize = 60;
    if text.len() <= bytes {
        return (text.to_owned(), false);
    }
    let lower = text.to_ascii_lowercase();
    let first = words
        .iter()
        .filter_map(|word| lower.find(word.as_str()))
        .min();
    let begin = match first {
        Some(at) if at + LEAD_BYTES > bytes => {
            text.floor_char_boundary(at.saturating_sub(LEAD_BYTES))
        }
        _ => 0,
    };
    let end = text.floor_char_boundary((begin + bytes).min(text.len()));
    let (before, after) = (
        if begin > 0 { "…" } else { "" },
        if end < text.len() { "…" } else { "" },
    );
    (format!("{before}{}{after}", &text[begin..end]), true)
}

/// Returns the words of a query, in lower case, for [`snippet`].
pub(super) fn words(query: &str) -> Vec<String> {
    query
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .take(64)
        .map(str::to_ascii_lowercase)
        .collect()
}

/// Keeps as many hits as fit into an answer, the first always; returns how many.
pub(super) fn fit(hits: &mut Vec<Hit>) -> usize {
    let mut bytes = 0;
    let fitting = hits.iter().take_while(|hit| {
        bytes += serde_json::to_string(hit).map_or(0, |text| text.len() + 1);
        bytes <= HITS_BYTES
    });
    let kept = fitting.count().max(1).min(hits.len());
    hits.truncate(kept);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cursor_is_read_back_by_its_own_search_only() {
        let position = Position {
            store: Some("1f-a".to_owned()),
            skip: 3,
            offset: 9,
            shown: vec![0, 7, u32::MAX],
            ..Position::start("a1".to_owned(), At::from_unix_ms(7))
        };
        assert_eq!(
            Position::read(&position.write(), "a1"),
            Ok(position.clone())
        );
        for (cursor, of) in [
            (position.write(), "b2"),
            ("zz".to_owned(), "a1"),
            ("é".to_owned(), "a1"),
            (format!("{}0", position.write()), "a1"),
        ] {
            let problem = Position::read(&cursor, of).expect_err("another search's, or none");
            assert_eq!(problem.field.as_deref(), Some("cursor"));
        }
    }

    #[test]
    fn a_snippet_shows_the_word_that_was_found() {
        let text = format!("{} needle {}", "hay ".repeat(500), "straw ".repeat(500));
        let (shown, cut) = snippet(&text, &words("NEEDLE!"), 300);
        assert!(
            cut && shown.contains("needle") && shown.len() < 320,
            "{shown}"
        );
        assert_eq!(snippet("short", &[], 300), ("short".to_owned(), false));
    }

    proptest! {
        #[test]
        fn no_text_and_no_cursor_panics(text in any::<String>(), query in any::<String>(), bytes in 0..40_usize) {
            let (shown, cut) = snippet(&text, &words(&query), bytes);
            prop_assert!(shown.len() <= bytes + 6 || !cut);
            let _ = Position::read(&text, &query);
        }
    }
}
