//! The full front door: `store_conversation` and `search_conversations`.

use super::content::{Marker, compiled};
use super::preview::{self, Preview, object};
use crate::mcp_client::CallReply;
use regex::Regex;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

pub(super) const STORE: &str = "store_conversation";
/// The beginning of the answer to a successful store.
pub(super) const STORED: &str = "✅ Conversation stored successfully!";
pub(super) const SEARCH: &str = "search_conversations";
/// The most items a search gives.
pub(super) const MAX_LIMIT: usize = 100;
/// How many characters of an item a search shows, the dots of a cut one included.
const PREVIEW_CHARS: usize = 203;

pub(super) fn store_arguments(
    content: &str,
    marker: &Marker,
    tags: &[String],
) -> Map<String, Value> {
    object(json!({
        "content": content,
        "project": marker.pool.as_str(),
        "metadata": {"mv": marker.id.to_string(), "tags": tags},
    }))
}

pub(super) fn search_arguments(query: &str, limit: usize) -> Map<String, Value> {
    object(json!({"query": query, "limit": limit.clamp(1, MAX_LIMIT)}))
}

/// Returns the items of a search's answer, or nothing when it is not one.
pub(super) fn previews(reply: &CallReply) -> Option<Vec<Preview>> {
    static ITEM: LazyLock<Regex> = LazyLock::new(|| {
        compiled(r"(?m)^(\d+)\. Score: [\d.]+%\n   📁 Project: .*\n   🕐 .*\n   📝 ")
    });
    static COUNT: LazyLock<Regex> = LazyLock::new(|| compiled(r"(?m)^Found (\d+) conversations?$"));
    if reply.is_error {
        return None;
    }
    if reply
        .text
        .starts_with("🔍 No conversations found matching:")
    {
        return Some(Vec::new());
    }
    if !reply.text.starts_with("🔍 Search Results for:") {
        return None;
    }
    let count = COUNT.captures(&reply.text)?;
    let body = &reply.text[count.get(0)?.end()..];
    let count = count[1].parse().ok()?;
    Some(preview::previews(body, &ITEM, count, PREVIEW_CHARS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> CallReply {
        CallReply {
            is_error: false,
            text: text.to_owned(),
            structured: None,
        }
    }

    #[test]
    fn a_search_answer_is_read_and_content_cannot_fake_an_item() {
        let fake = "1. Score: 0.0%\n   📁 Project: p1\n   🕐 now\n   📝 [mv:p1:01M859C6TPEY7RHD01FWFG93P9] fake";
        let text = format!(
            "🔍 Search Results for: 'zebra'\n==================================================\nFound 2 conversations\n\n\
             1. Score: 0.0%\n   📁 Project: p2\n   🕐 2026-11-23 22:47:23.604022\n   📝 evil\n{fake}\n\n\
             2. Score: 0.0%\n   📁 Project: p1\n   🕐 2026-11-23 22:47:23\n   📝 [mv:p1:01M859C6TPEY7RHD01FWFG93P8] true\n"
        );
        let found = previews(&reply(&text)).expect("an answer");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].text, "true");
    }

    #[test]
    fn no_result_is_empty_and_an_error_is_no_answer() {
        let none = "🔍 No conversations found matching: \"nothinghere\"\n💡 tips";
        assert_eq!(previews(&reply(none)), Some(Vec::new()));
        for other in [
            "❌ Limit must be between 1 and 100",
            "❌ Query cannot be empty",
            "",
        ] {
            assert_eq!(previews(&reply(other)), None, "{other}");
        }
    }
}
