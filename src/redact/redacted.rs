//! The type of a text whose secrets have been removed.

use crate::text;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Deref;

/// A text without secrets.
///
/// Made by [`super::redact`] and `Scan`, or of a constant; cutting one keeps it a redacted text, editing it in any other way takes it out of
/// the type ([`Self::into_string`]). Deserialising trusts its input, because only what the store wrote is read back
/// into this type: arguments of calls are plain strings.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Redacted(pub(super) String);

impl Redacted {
    /// Returns a text that was redacted before it was stored.
    pub(crate) fn from_store(text: String) -> Self {
        Self(text)
    }

    /// Returns the text as a slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the text as a plain string.
    pub fn into_string(self) -> String {
        self.0
    }

    /// Returns the beginning of the text, as [`text::cut`] does.
    pub fn cut(&self, chars: usize) -> Self {
        Self(text::cut(&self.0, chars).into_owned())
    }

    /// Shortens the text to at most `max_bytes`, at a character's edge.
    pub fn truncate(&mut self, max_bytes: usize) {
        self.0.truncate(self.0.floor_char_boundary(max_bytes));
    }
}

/// A text of the program itself, which has no secrets.
impl From<&'static str> for Redacted {
    fn from(text: &'static str) -> Self {
        Self(text.to_owned())
    }
}

impl Deref for Redacted {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Redacted {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Redacted> for String {
    fn from(text: Redacted) -> Self {
        text.0
    }
}

impl PartialEq<str> for Redacted {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Redacted {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}
