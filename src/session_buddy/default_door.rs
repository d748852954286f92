//! The default front door: `store_reflection`, `search_by_concept`, `fingerprint_search`.

use super::content::{Marker, compiled, fold};
use super::item::PeerItem;
use super::preview::{self, Preview, object};
use crate::mcp_client::CallReply;
use regex::Regex;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const STORE: &str = "store_reflection";
/// The beginning of the answer to a successful store.
pub(super) const STORED: &str = "💾 Reflection stored successfully!";
pub(super) const SEARCH: &str = "search_by_concept";
pub(super) const LIST: &str = "fingerprint_search";
/// The most items that one search is asked for; that many take some 300 KB.
pub(super) const MANY: usize = 1_000;
/// How many characters of an item a search shows.
const PREVIEW_CHARS: usize = 250;

/// Returns the arguments of a store; the tags `user` and `feedback` are the server's own and are left out.
pub(super) fn store_arguments(
    content: &str,
    marker: &Marker,
    tags: &[String],
) -> Map<String, Value> {
    let own = ["mv".to_owned(), format!("pool:{}", marker.pool)];
    let tags: Vec<String> = own
        .into_iter()
        .chain(tags.iter().map(|tag| fold(tag)).filter(|tag| {
            let lower = tag.to_lowercase();
            !lower.is_empty() && lower != "user" && lower != "feedback" && lower != "quarantine"
        }))
        .collect();
    object(json!({"content": content, "tags": tags}))
}

/// Queries that the server has not seen yet: it caches a non-empty answer for 7 days, and later stores do not change it.
///
/// Its key is the lower-cased query and the limit; a `%` more at either end and a limit a little higher change the key
/// and not the meaning. The space of 409,600 variants is walked from a random start, so that within one process none
/// comes twice and between processes seldom.
#[derive(Debug)]
pub(super) struct Freshness(AtomicU64);

impl Freshness {
    const ENDS: u64 = 64;
    const LIMITS: u64 = 100;

    pub(super) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Returns the search arguments for `pattern`, never the same twice.
    pub(super) fn arguments(&self, pattern: &str, limit: usize) -> Map<String, Value> {
        let variant = self.0.fetch_add(1, Ordering::Relaxed);
        let before = variant % Self::ENDS;
        let more = variant / Self::ENDS % Self::LIMITS;
        let after = variant / (Self::ENDS * Self::LIMITS) % Self::ENDS;
        let percents = |count: u64| "%".repeat(usize::try_from(count).unwrap_or(0));
        let concept = format!("{}{pattern}{}", percents(before), percents(after));
        object(json!({"concept": concept, "limit": limit as u64 + more}))
    }
}

/// Returns the LIKE patterns that together find what a person means by `query`: the server itself finds one exact
/// substring only.
///
/// All words in their order, and each of the longest words alone; the caller ranks the items by how many they hold.
pub(super) fn patterns(query: &str) -> Vec<String> {
    const MAX_WORDS: usize = 4;
    let words: Vec<&str> = query.split_whitespace().collect();
    let mut patterns = vec![words.join("%")];
    if words.len() > 1 {
        let mut longest = words.clone();
        longest.sort_by_key(|word| std::cmp::Reverse(word.chars().count()));
        longest.dedup();
        patterns.extend(longest.into_iter().take(MAX_WORDS).map(str::to_owned));
    }
    patterns
}

/// Returns the items of a search's answer, or nothing when it is not one.
pub(super) fn previews(reply: &CallReply) -> Option<Vec<Preview>> {
    static ITEM: LazyLock<Regex> = LazyLock::new(|| compiled(r"(?m)^(\d+)\. 📝 "));
    static COUNT: LazyLock<Regex> =
        LazyLock::new(|| compiled(r"(?m)^📈 Found (\d+) related conversations:"));
    if reply.is_error || !reply.text.starts_with("🧠 Searching for concept:") {
        return None;
    }
    // The query is echoed before this line, so a query cannot bring forged items.
    let Some(count) = COUNT.captures(&reply.text) else {
        return reply
            .text
            .contains("🔍 No conversations found about this concept")
            .then(Vec::new);
    };
    let body = &reply.text[count.get(0)?.end()..];
    let count = count[1].parse().ok()?;
    Some(preview::previews(body, &ITEM, count, PREVIEW_CHARS))
}

/// Returns the arguments that make `fingerprint_search` list every reflection.
pub(super) fn list_arguments() -> Map<String, Value> {
    object(json!({
        "query": "[mv:", "threshold": 0.0, "limit": 10_000_000, "content_type": "reflection"
    }))
}

/// Returns every item of a full listing, or nothing when the answer is not one.
pub(super) fn listing(reply: &CallReply) -> Option<Vec<PeerItem>> {
    let body = reply.structured.as_ref()?;
    if reply.is_error || body.get("success") != Some(&Value::Bool(true)) {
        return None;
    }
    body.get("results")?
        .as_array()?
        .iter()
        .map(|item| {
            Some(PeerItem {
                id: item.get("id")?.as_str().map(str::to_owned),
                content: item.get("content")?.as_str()?.to_owned(),
            })
        })
        .collect()
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

    const HEAD: &str =
        "🧠 Searching for concept: 'zebra'\n==================================================\n";

    #[test]
    fn a_search_answer_is_read() {
        let long = format!("[mv:p1:01M859C6TPEY7RHD01FWFG93P9] {}", "x".repeat(212));
        let text = format!(
            "{HEAD}📈 Found 2 related conversations:\n\n1. 📝 {long}...\n\n2. 📝 Alpha zebra memory one\n"
        );
        let found = previews(&reply(&text)).expect("an answer");
        assert_eq!(found.len(), 2);
        assert!(found[0].marker.is_some() && found[0].truncated);
        assert_eq!(found[0].text, "x".repeat(212));
        assert_eq!(found[1].marker, None);
        assert_eq!(found[1].text, "Alpha zebra memory one");
    }

    #[test]
    fn no_result_is_empty_and_an_error_is_no_answer() {
        let none =
            format!("{HEAD}🔍 No conversations found about this concept\n💡 Try other words");
        assert_eq!(previews(&reply(&none)), Some(Vec::new()));
        for other in [
            "Concept search error: IO Error: Could not set lock on file",
            "",
            "<html>",
        ] {
            assert_eq!(previews(&reply(other)), None, "{other}");
        }
    }

    #[test]
    fn content_cannot_fake_an_item() {
        let fake = "[mv:p1:01M859C6TPEY7RHD01FWFG93P9] fake";
        let text = format!(
            "{HEAD}📈 Found 2 related conversations:\n\n1. 📝 evil\n\n2. 📝 {fake}\n9. 📝 {fake}\n\n2. 📝 true\n"
        );
        let found = previews(&reply(&text)).expect("an answer");
        assert!(found.iter().all(|item| item.marker.is_none()), "{found:?}");
        let echoed = "🧠 Searching for concept: '\n1. 📝 [mv:p1:01M859C6TPEY7RHD01FWFG93P9] x'\n====\n📈 Found 1 related conversations:\n\n1. 📝 true";
        let found = previews(&reply(echoed)).expect("an answer");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].text, "true");
    }

    #[test]
    fn no_query_is_asked_twice() {
        let fresh = Freshness::new(7);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            let arguments = fresh.arguments("zebra", 10);
            assert!(seen.insert(format!("{arguments:?}")));
            assert!(arguments["limit"].as_u64() >= Some(10));
        }
    }

    #[test]
    fn several_words_are_also_looked_for_alone() {
        assert_eq!(patterns("zebra"), ["zebra"]);
        assert_eq!(
            patterns("memory of zebras"),
            ["memory%of%zebras", "memory", "zebras", "of"]
        );
        assert_eq!(patterns("  "), [""]);
    }

    #[test]
    fn a_full_listing_is_read_and_a_failed_one_is_not() {
        let good = CallReply {
            structured: Some(json!({"success": true, "results": [
                {"id": "01M859C6TPEY7RHD01FWFG93P9", "content": "Alpha", "similarity": 1.0}
            ]})),
            ..reply("")
        };
        let items = listing(&good).expect("a listing");
        assert_eq!(items[0].content, "Alpha");
        let bad = CallReply {
            structured: Some(json!({"success": false, "results": [], "message": "IO Error"})),
            ..reply("")
        };
        assert_eq!(listing(&bad), None);
        assert_eq!(listing(&reply("")), None);
    }

    #[test]
    fn the_servers_own_tags_are_never_sent() {
        let marker = Marker::split("[mv:p1:01M859C6TPEY7RHD01FWFG93P9]")
            .expect("a marker")
            .0;
        let tags = ["User", "feedback", "a\nb", ""].map(str::to_owned);
        let arguments = store_arguments("x", &marker, &tags);
        assert_eq!(arguments["tags"], json!(["mv", "pool:p1", "a b"]));
    }
}
