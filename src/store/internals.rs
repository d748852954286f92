//! What the instruction counts reach and nothing else may.

use super::words::Words;

/// Returns the words of a query.
pub fn words(query: &str) -> impl Sized + use<> {
    Words::parse(query)
}
