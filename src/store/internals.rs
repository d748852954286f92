//! What the instruction counts reach and nothing else may.

use super::words::{Match, Words};

/// Returns the full-text expression of a query.
pub fn full_text(query: &str) -> String {
    Words::parse(query).expression(Match::All)
}
