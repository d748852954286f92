//! The two front doors behind one interface: how each is asked, and what its answers mean.

use super::content::Marker;
use super::default_door::{self, Freshness};
use super::full_door;
use super::preview::Preview;
use crate::mcp_client::CallReply;
use serde_json::{Map, Value};

/// Which of the two servers that Session-Buddy installs is answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// What `session-buddy start` gives: reflections.
    Default,
    /// The full tool profile: conversations.
    Full,
}

/// Who answers, and what it offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// The front door.
    pub door: Door,
    /// How many tools it has.
    pub tools: usize,
    /// The version it gives in the handshake; observed to be that of its framework, not Session-Buddy's own.
    pub version: Option<String>,
}

impl Door {
    /// Returns the front door that has these tools; none where they store no memories.
    pub(super) fn of(has: impl Fn(&str) -> bool) -> Option<Self> {
        if has(full_door::SEARCH) && has(full_door::STORE) {
            Some(Self::Full)
        } else if has(default_door::SEARCH) && has(default_door::STORE) {
            Some(Self::Default)
        } else {
            None
        }
    }

    /// Returns the tool call that stores one memory.
    pub(super) fn store(
        self,
        content: &str,
        marker: &Marker,
        tags: &[String],
    ) -> (&'static str, Map<String, Value>) {
        match self {
            Self::Default => (
                default_door::STORE,
                default_door::store_arguments(content, marker, tags),
            ),
            Self::Full => (
                full_door::STORE,
                full_door::store_arguments(content, marker, tags),
            ),
        }
    }

    /// Returns whether the reply to a store is a success.
    pub(super) fn is_stored(self, reply: &CallReply) -> bool {
        let prefix = match self {
            Self::Default => default_door::STORED,
            Self::Full => full_door::STORED,
        };
        !reply.is_error && reply.text.starts_with(prefix)
    }

    /// Returns the tool call that searches for one text and gives at most about `limit` items.
    pub(super) fn search(
        self,
        text: &str,
        limit: usize,
        fresh: &Freshness,
    ) -> (&'static str, Map<String, Value>) {
        match self {
            Self::Default => (default_door::SEARCH, fresh.arguments(text, limit)),
            Self::Full => (full_door::SEARCH, full_door::search_arguments(text, limit)),
        }
    }

    /// Returns the items of a search's answer; none where it is not such an answer.
    pub(super) fn previews(self, reply: &CallReply) -> Option<Vec<Preview>> {
        match self {
            Self::Default => default_door::previews(reply),
            Self::Full => full_door::previews(reply),
        }
    }

    /// Returns the most items that one search is asked for.
    pub(super) fn most(self) -> usize {
        match self {
            Self::Default => default_door::MANY,
            Self::Full => full_door::MAX_LIMIT,
        }
    }

    /// Returns the texts to search for so that together they find what a person means by `query`.
    pub(super) fn patterns(self, query: &str) -> Vec<String> {
        match self {
            Self::Default => default_door::patterns(query),
            Self::Full if query.is_empty() => Vec::new(),
            Self::Full => vec![query.to_owned()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_stored(door: Door, text: &str, is_error: bool) -> bool {
        door.is_stored(&CallReply {
            is_error,
            text: text.to_owned(),
            structured: None,
        })
    }

    #[test]
    fn only_its_own_prefix_is_success() {
        let reflection =
            "💾 Reflection stored successfully!\n📝 Content: Alpha\n📅 Stored: 2026-11-23 22:45:39";
        let conversation = "✅ Conversation stored successfully!\n\n📝 Conversation ID: e21970401dbe9d4b58cd415a2adc2430";
        for (door, stored) in [(Door::Default, reflection), (Door::Full, conversation)] {
            assert!(is_stored(door, stored, false));
            assert!(!is_stored(door, stored, true));
            for other in [
                "❌ Validation error: Store reflection - content cannot be empty",
                "Error storing reflection: IO Error: Could not set lock on file \"x\"",
                "❌ Content too short (minimum 10 characters)",
                "",
                "ok 💾 Reflection stored successfully!",
            ] {
                assert!(!is_stored(door, other, false), "{other}");
            }
        }
        assert!(!is_stored(Door::Default, conversation, false));
        assert!(!is_stored(Door::Full, reflection, false));
    }
}
