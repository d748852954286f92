//! Removes secrets from texts before anything is stored, logged or forwarded.
//!
//! A leaf: pure text in, pure text out. It knows secrets by their shape (the rules, modelled on the published rule ids
//! of gitleaks, <https://github.com/gitleaks/gitleaks>), not by where they came from; what has no shape of its own is
//! known by the name it is assigned to and by how random it looks. The rules are compiled at the first text.

mod redacted;
mod rules;

use regex::{Captures, Regex, RegexSet};
use rules::{Rule, Sort, TABLE};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

pub use redacted::{CONTEXT_BYTES, Redacted};
pub use rules::RULES;

/// No rule matches a shorter text.
const SHORTEST_BYTES: usize = 12;

/// A replacement can lay bare another secret; so often at most a text is gone over.
const PASSES: usize = 16;

/// What a value begins with that was redacted before.
const MARK: &str = "[REDACTED-";

/// The compiled rules; `set` finds in one pass over the text which of them can match at all.
struct Compiled {
    set: RegexSet,
    single: Vec<Regex>,
}

static COMPILED: LazyLock<Compiled> = LazyLock::new(|| {
    let patterns = || TABLE.iter().map(|rule| rule.pattern);
    Compiled {
        set: RegexSet::new(patterns()).expect("the rules are constants that the tests compile"),
        single: patterns()
            .map(|pattern| {
                Regex::new(pattern).expect("the rules are constants that the tests compile")
            })
            .collect(),
    }
});

/// Returns `text` with each secret replaced by `[REDACTED-RULE]`, where `RULE` names the rule in capitals.
///
/// A text without secrets is returned as it is. Redacting twice changes nothing more.
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
pub fn redact(text: &str) -> Cow<'_, str> {
    Redacted::of(text).whole()
}

/// Returns where in `text` the secrets are that `rule` finds, ascending.
fn apply(rule: &Rule, regex: &Regex, text: &str) -> Vec<Range<usize>> {
    let mut secrets = Vec::new();
    let mut at = 0;
    while let Some(found) = regex.captures_at(text, at) {
        let (whole, secret) = spans(&found);
        if rule
            .sort
            .is_secret(&text[secret.clone()], &text[secret.end..])
        {
            at = secret.end.max(whole.start + 1);
            secrets.push(secret);
        } else {
            // What follows the name is no secret, but may be the name of one.
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

/// Returns where the whole match and where the secret in it is: the first group that took part, else the whole.
fn spans(found: &Captures<'_>) -> (Range<usize>, Range<usize>) {
    let mut groups = found.iter().flatten().map(|group| group.range());
    let whole = groups.next().unwrap_or(0..0);
    let secret = groups.next().unwrap_or_else(|| whole.clone());
    (whole, secret)
}

impl Sort {
    /// Returns whether `value`, which `after` follows, is a secret rather than a word, a placeholder or code.
    fn is_secret(self, value: &str, after: &str) -> bool {
        match self {
            Self::Certain => true,
            Self::Random => has_digit(value) && entropy(value) >= 3.0,
            Self::Password => !is_placeholder(value),
            Self::Assigned => {
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

/// Returns whether `value` stands for a secret: a variable, a template, a mask, or what was redacted before.
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

/// Returns whether `value` is a place in a file system or source, which is often named after what it holds.
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

#[cfg(test)]
mod tests;
