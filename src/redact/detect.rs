//! Which matches of a rule are secrets, and which are words, placeholders or code.

use super::rules::{Check, Rule, TABLE};
use regex::{Captures, Regex, RegexSet};
use std::ops::Range;
use std::sync::LazyLock;

/// The beginning of every replacement.
pub(super) const MARK: &str = "[REDACTED-";

/// Why a rule's pattern always compiles.
const COMPILES: &str = "the rules are constants that the tests compile";

/// The compiled rules.
struct Rules {
    /// Finds in one pass over a text which rules can match at all.
    set: RegexSet,
    single: Vec<Regex>,
}

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let patterns = || TABLE.iter().map(|rule| rule.pattern);
    let single = patterns().map(|pattern| Regex::new(pattern).expect(COMPILES));
    Rules {
        set: RegexSet::new(patterns()).expect(COMPILES),
        single: single.collect(),
    }
});

/// Returns the rules that may find something in `text`, in the table's order.
pub(super) fn candidates(
    text: &str,
) -> impl Iterator<Item = (&'static Rule, &'static Regex)> + use<> {
    let matches = RULES.set.matches(text);
    matches
        .into_iter()
        .map(|index| (&TABLE[index], &RULES.single[index]))
}

/// Returns the places of the secrets that `rule` finds in `text`, ascending.
pub(super) fn secrets(rule: &Rule, regex: &Regex, text: &str) -> Vec<Range<usize>> {
    let mut secrets = Vec::new();
    let mut at = 0;
    while let Some(found) = regex.captures_at(text, at) {
        let (whole, secret) = spans(&found);
        if rule
            .check
            .is_secret(&text[secret.clone()], &text[secret.end..])
        {
            at = secret.end.max(whole.start + 1);
            secrets.push(secret);
        } else {
            // The value is no secret, but it may be the name of the next one.
            at = secret.start.max(whole.start + 1);
        }
        while !text.is_char_boundary(at) {
            at += 1;
        }
        if at >= text.len() {
            break;
        }
    }
    secrets
}

/// Returns the places of the whole match and of the secret in it: the first group that took part, else the whole match.
fn spans(found: &Captures<'_>) -> (Range<usize>, Range<usize>) {
    let mut groups = found.iter().flatten().map(|group| group.range());
    let whole = groups.next().unwrap_or(0..0);
    let secret = groups.next().unwrap_or_else(|| whole.clone());
    (whole, secret)
}

impl Check {
    /// Returns whether `value`, followed by `after`, is a secret rather than a word, a placeholder or code.
    fn is_secret(self, value: &str, after: &str) -> bool {
        match self {
            Self::Shape => true,
            Self::Random => has_digit(value) && entropy(value) >= 3.0,
            Self::NoPlaceholder => !is_placeholder(value),
            Self::AssignedSecret => {
                !is_placeholder(value)
                    && !after.starts_with('(')
                    && has_digit(value)
                    && value.bytes().any(|b| b.is_ascii_alphabetic())
                    && value.chars().count() >= 10
                    && entropy(value) >= 3.0
                    && !is_path(value)
            }
            Self::AssignedPassword => {
                let strong = value.bytes().any(|b| b"!@#$^*%".contains(&b)) && value.len() >= 8;
                !is_placeholder(value)
                    && !after.starts_with('(')
                    && (has_digit(value) || strong)
                    && value.chars().any(|c| c.is_alphabetic())
                    && entropy(value) >= 2.2
                    && !is_path(value)
            }
        }
    }
}

fn has_digit(value: &str) -> bool {
    value.bytes().any(|b| b.is_ascii_digit())
}

/// Returns whether `value` is a stand-in for a secret: a variable, a template, a mask, or a replacement.
fn is_placeholder(value: &str) -> bool {
    let starts = [
        "$",
        "%",
        "{",
        "<",
        MARK,
        "***",
        "...",
        "xxx",
        "XXX",
        "process.env",
        "os.environ",
        "env.",
    ];
    let first = value.chars().next();
    starts.iter().any(|start| value.starts_with(start)) || value.chars().all(|c| Some(c) == first)
}

/// Returns whether `value` is a file path or a source path, which is often named after its content.
fn is_path(value: &str) -> bool {
    let rooted = ["/", "./", "../", "~/"]
        .iter()
        .any(|start| value.starts_with(start));
    // Base64 has slashes too, but no dots; a path of sources has a file name with an extension.
    rooted || (value.contains('/') && value.contains('.')) || value.contains("::")
}

/// Returns the Shannon entropy of `value` in bits per byte, 0 to 8.
fn entropy(value: &str) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in value.bytes() {
        counts[usize::from(byte)] += 1;
    }
    let total = value.len() as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f64::from(*count) / total;
            -share * share.log2()
        })
        .sum()
}
