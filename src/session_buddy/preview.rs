//! Items as a search's answer shows them.

use super::content::{Marker, fold};
use super::item::PeerItem;
use regex::Regex;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// An item as a search shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Preview {
    pub(super) marker: Option<Marker>,
    pub(super) text: String,
    pub(super) truncated: bool,
}

impl Preview {
    /// Reads what a search shows of one item: at most `longest` characters, the last three of them dots where it was cut.
    fn of(shown: &str, longest: usize) -> Self {
        let truncated = shown.ends_with("...") && shown.chars().count() >= longest;
        let (marker, text) = match Marker::split(shown) {
            Some((marker, text)) => (Some(marker), text),
            None => (None, shown),
        };
        let text = if truncated {
            text.trim_end_matches("...")
        } else {
            text
        };
        Self {
            marker,
            text: fold(text),
            truncated,
        }
    }
    /// Returns one of ours as an item of a listing; none for another writer's.
    pub(super) fn into_item(self) -> Option<PeerItem> {
        Some(PeerItem {
            id: None,
            content: format!("{} {}", self.marker?, self.text),
        })
    }
}

/// Reads the numbered items of an answer with `count` items, each beginning with `shape` and showing at most `longest`
/// characters.
pub(super) fn previews(body: &str, shape: &Regex, count: usize, longest: usize) -> Vec<Preview> {
    let shown = items(body, shape, count).into_iter();
    shown.map(|item| Preview::of(item, longest)).collect()
}

/// Returns the texts of the numbered items.
///
/// An item may hold line breaks and lines that look like items. Each true item has its own number up to `count`, so where
/// a number occurs twice at least one is forged: none of them is taken.
fn items<'a>(body: &'a str, shape: &Regex, count: usize) -> Vec<&'a str> {
    let heads: Vec<(usize, usize, usize)> = shape
        .captures_iter(body)
        .filter_map(|found| {
            let whole = found.get(0)?;
            let number = found[1].parse().ok()?;
            (1..=count)
                .contains(&number)
                .then_some((number, whole.start(), whole.end()))
        })
        .collect();
    let mut seen: HashMap<usize, usize> = HashMap::new();
    for (number, ..) in &heads {
        *seen.entry(*number).or_default() += 1;
    }
    let ends = heads.iter().skip(1).map(|head| head.1).chain([body.len()]);
    heads
        .iter()
        .zip(ends)
        .filter(|((number, ..), _)| seen.get(number) == Some(&1))
        .map(|((_, _, start), end)| body[*start..end].trim_end())
        .collect()
}

/// Returns the members of a JSON object literal.
pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
