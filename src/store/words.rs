//! Turns any text into a full-text query.
//!
//! FTS5 has a grammar, and people's searches do not: everything here becomes quoted strings, so that nothing is an
//! operator and nothing is a syntax error. Grammar: <https://sqlite.org/fts5.html>, section 3.

/// Longer queries are cut; a question has never needed as much.
const MAX_BYTES: usize = 4_096;
/// More words than this are not looked for.
const MAX_TERMS: usize = 64;

/// The words of a query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Words {
    terms: Vec<String>,
    /// Whether only its beginning was taken.
    pub(super) cut: bool,
}

/// How many of the words a memory must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    All,
    Any,
}

impl Words {
    /// Reads words, `"phrases"` and `prefixes*`; everything else in `text` separates them.
    pub(super) fn parse(text: &str) -> Self {
        let kept = &text[..text.floor_char_boundary(MAX_BYTES)];
        let mut words = Self {
            terms: Vec::new(),
            cut: kept.len() < text.len(),
        };
        for (at, part) in kept.split('"').enumerate() {
            if at % 2 == 1 {
                words.add(part, false);
            } else {
                for word in part.split(|c: char| c.is_whitespace() || c.is_control()) {
                    words.add(word.trim_end_matches('*'), word.ends_with('*'));
                }
            }
        }
        words.drop_operators();
        words
    }

    fn add(&mut self, text: &str, prefix: bool) {
        // What has no letter and no digit has no token, and a phrase without tokens matches nothing.
        if !text.contains(char::is_alphanumeric) {
            return;
        }
        if self.terms.len() == MAX_TERMS {
            self.cut = true;
            return;
        }
        let text = text.replace(char::is_control, " ");
        let star = if prefix { " *" } else { "" };
        self.terms.push(format!("\"{text}\"{star}"));
    }

    /// Drops the operators that people type, unless they are all there is.
    fn drop_operators(&mut self) {
        let operator =
            |term: &String| matches!(term.as_str(), "\"AND\"" | "\"OR\"" | "\"NOT\"" | "\"NEAR\"");
        if !self.terms.iter().all(operator) {
            self.terms.retain(|term| !operator(term));
        }
    }

    pub(super) fn count(&self) -> usize {
        self.terms.len()
    }

    /// Returns the FTS5 expression.
    pub(super) fn expression(&self, which: Match) -> String {
        self.terms.join(match which {
            Match::All => " AND ",
            Match::Any => " OR ",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rusqlite::Connection;

    fn all(text: &str) -> String {
        Words::parse(text).expression(Match::All)
    }

    #[test]
    fn words_phrases_and_prefixes() {
        assert_eq!(all("borrow  checker"), r#""borrow" AND "checker""#);
        assert_eq!(
            all(r#"say "two words" end"#),
            r#""say" AND "two words" AND "end""#
        );
        assert_eq!(all("carg* x"), r#""carg" * AND "x""#);
        assert_eq!(
            all(r#"an open "quote here"#),
            r#""an" AND "open" AND "quote here""#
        );
        assert_eq!(all("rust AND cargo"), r#""rust" AND "cargo""#);
        assert_eq!(all("AND"), r#""AND""#);
        for nothing in ["", " ", "* - ( ) ^ : +", "\"\"", "\"", "\0"] {
            assert_eq!(Words::parse(nothing).count(), 0, "{nothing:?}");
        }
    }

    #[test]
    fn long_queries_are_cut_and_say_so() {
        let long = Words::parse(&"é".repeat(1 << 20));
        assert!(long.cut);
        assert_eq!(long.count(), 1);
        let many = Words::parse(&"a ".repeat(100));
        assert!(many.cut);
        assert_eq!(many.count(), MAX_TERMS);
        assert!(!Words::parse("short").cut);
    }

    proptest! {
        #[test]
        fn any_text_is_a_search(text in any::<String>(), syntax in r#"[a-z"*():^+{}\-. ANDORNEAR]{0,60}"#) {
            let db = Connection::open_in_memory().expect("opened");
            db.execute_batch("CREATE VIRTUAL TABLE f USING fts5(t, tokenize = 'unicode61 remove_diacritics 2')")
                .expect("made");
            for text in [text, syntax] {
                let words = Words::parse(&text);
                for which in [Match::All, Match::Any] {
                    if words.count() > 0 {
                        let found = db.query_row("SELECT count(*) FROM f WHERE f MATCH ?1",
                            [words.expression(which)], |row| row.get::<_, i64>(0));
                        prop_assert!(found.is_ok(), "{text:?}: {found:?}");
                    }
                }
            }
        }
    }
}
