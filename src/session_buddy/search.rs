//! Searching the peer's memories.

use super::client::SessionBuddy;
use super::content::fold;
use super::door::Door;
use super::error::PeerError;
use super::item::PeerHit;
use super::preview::Preview;
use futures_util::future::try_join_all;
use std::collections::HashSet;
use std::time::Instant;

/// The longest query that is sent, in bytes; the peer would search for a megabyte of text and echo it.
const MAX_QUERY: usize = 500;

impl SessionBuddy {
    /// Searches the peer's memories, ours and its own, and returns the best `limit`.
    ///
    /// The default front door finds one exact substring in the given letter case; it is asked for all words in their
    /// order and for each of the longest ones.
    ///
    /// # Errors
    ///
    /// [`PeerError`]; nothing is changed by a search.
    pub async fn search(
        &self,
        query: &str,
        limit: usize,
        deadline: Instant,
    ) -> Result<Vec<PeerHit>, PeerError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let folded = fold(query);
        let query = &folded[..folded.floor_char_boundary(MAX_QUERY)];
        let door = self.door(deadline).await?;
        // The full front door returns its newest matches, not its best.
        let asked = match door {
            Door::Default => limit,
            Door::Full => door.most(),
        };
        let patterns = door.patterns(query);
        let answers = patterns
            .iter()
            .map(|pattern| self.ask(door, pattern, asked, deadline));
        let found = try_join_all(answers).await?.concat();
        Ok(ranked(query, found, limit))
    }
}

/// Merges the answers to several patterns: the best match first, among equals the peer's own order (newest first).
fn ranked(query: &str, found: Vec<Preview>, limit: usize) -> Vec<PeerHit> {
    let words: Vec<String> = query.split_whitespace().map(str::to_lowercase).collect();
    let mut seen = HashSet::new();
    let mut hits: Vec<PeerHit> = found
        .into_iter()
        .filter(|item| seen.insert((item.marker.clone(), item.text.clone())))
        .map(|item| PeerHit {
            score: share(&words, &item.text),
            marker: item.marker,
            text: item.text,
            truncated: item.truncated,
        })
        .collect();
    hits.sort_by(|a, b| b.score.unwrap_or(0.0).total_cmp(&a.score.unwrap_or(0.0)));
    hits.truncate(limit);
    hits
}

/// Returns the share of `words`, in lower case, that `text` holds; none without words.
fn share(words: &[String], text: &str) -> Option<f64> {
    if words.is_empty() {
        return None;
    }
    let text = text.to_lowercase();
    let held = words.iter().filter(|word| text.contains(*word)).count();
    Some(held as f64 / words.len() as f64)
}
