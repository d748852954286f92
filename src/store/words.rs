//! Turns any text into what is to be looked for.
//!
//! FTS5 has a grammar, and people's searches do not: here nothing is an operator and nothing is a syntax error.

/// Longer queries are cut; a question has never needed as much.
const MAX_BYTES: usize = 4_096;
/// More words than this are not looked for.
const MAX_TERMS: usize = 64;

/// A word or a phrase as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    /// Whether it is only the beginning of one.
    pub(super) prefix: bool,
}

/// The words of a query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) words: Vec<Word>,
    /// Whether only its beginning was taken.
    pub(super) cut: bool,
}

impl Words {
    /// Reads words, `"phrases"` and `prefixes*`; everything else in `text` separates them.
    pub(super) fn parse(text: &str) -> Self {
        let kept = &text[..text.floor_char_boundary(MAX_BYTES)];
        let mut words = Self {
            words: Vec::new(),
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
        // What has no letter and no digit is no word.
        if !text.contains(char::is_alphanumeric) {
            return;
        }
        if self.words.len() == MAX_TERMS {
            self.cut = true;
            return;
        }
        let text = text.replace(char::is_control, " ");
        self.words.push(Word { text, prefix });
    }

    /// Drops the operators that people type, unless they are all there is.
    fn drop_operators(&mut self) {
        let operator = |word: &Word| {
            !word.prefix && matches!(word.text.as_str(), "AND" | "OR" | "NOT" | "NEAR")
        };
        if !self.words.iter().all(operator) {
            self.words.retain(|word| !operator(word));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(text: &str) -> Vec<String> {
        let words = Words::parse(text).words.into_iter();
        words
            .map(|word| word.text + if word.prefix { "*" } else { "" })
            .collect()
    }

    #[test]
    fn words_phrases_and_prefixes() {
        assert_eq!(all("borrow  checker"), ["borrow", "checker"]);
        assert_eq!(all(r#"say "two words" end"#), ["say", "two words", "end"]);
        assert_eq!(all("carg* x"), ["carg*", "x"]);
        assert_eq!(all(r#"an open "quote here"#), ["an", "open", "quote here"]);
        assert_eq!(all("rust AND cargo"), ["rust", "cargo"]);
        assert_eq!(all("AND"), ["AND"]);
        for nothing in ["", " ", "* - ( ) ^ : +", "\"\"", "\"", "\0"] {
            assert!(all(nothing).is_empty(), "{nothing:?}");
        }
    }

    #[test]
    fn long_queries_are_cut_and_say_so() {
        let long = Words::parse(&"é".repeat(1 << 20));
        assert!(long.cut);
        assert_eq!(long.words.len(), 1);
        let many = Words::parse(&"a ".repeat(100));
        assert!(many.cut);
        assert_eq!(many.words.len(), MAX_TERMS);
        assert!(!Words::parse("short").cut);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in any::<String>()) {
            let words = Words::parse(&text);
            prop_assert!(words.words.iter().all(|word| text.contains(&word.text) || text.contains(char::is_control)));
        }
    }
}
