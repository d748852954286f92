//! Memories as they go to the peer and come from it.

use super::content::Marker;

/// A memory to be sent; its text is redacted already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Which memory it is.
    pub marker: Marker,
    /// Its text, of any length; the peer gets the beginning of a long one.
    pub text: String,
    /// Its tags.
    pub tags: Vec<String>,
}

/// A memory that a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerHit {
    /// Which of our memories it is; absent for the peer's own.
    pub marker: Option<Marker>,
    /// Its text, as much of it as the peer shows, on one line.
    pub text: String,
    /// The share of the query's words that the shown text holds, 0 to 1; the peer gives no score of its own.
    pub score: Option<f64>,
    /// Whether the text is longer than what is shown.
    pub truncated: bool,
}

/// One item of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerItem {
    /// The peer's id, where the listing has one.
    pub id: Option<String>,
    /// Its content, marker included; on the full front door the beginning of it.
    pub content: String,
}

/// Which of the memories asked for the peer lacks or has more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presence {
    /// Those it does not have.
    pub missing: Vec<Marker>,
    /// Those it has more than once, with their number.
    pub duplicates: Vec<(Marker, usize)>,
}
