//! What is known of a peer that memories are forwarded to.

use super::{At, MemoryId};
use crate::error::RedactedProblem;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How sending to a peer stands, as its one sender sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SenderState {
    /// Since when the peer takes nothing; absent while it does.
    pub down_since: Option<At>,
    /// What went wrong last, while something is wrong.
    pub error: Option<RedactedProblem>,
    /// How many calls in flight the peer was found to be worth; 0 while that is looked for.
    pub limit: u32,
    /// How long the slowest of the latest stores took, those without an answer included.
    pub slowest: Duration,
}

impl SenderState {
    /// Returns how many calls in flight the peer was found to be worth, where it was up and there was anything to find.
    pub fn pace(&self) -> Option<usize> {
        let limit = usize::try_from(self.limit).ok()?;
        (limit > 1 && self.down_since.is_none()).then_some(limit)
    }
}

/// What all servers of one state directory know of a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerState {
    /// What the sender last said; the default where nobody ever sent.
    pub sender: SenderState,
    /// What the last comparison with the peer found.
    pub reconciled: Option<Reconciled>,
    /// Why the last try to compare found nothing out; absent once one did.
    pub reconcile_error: Option<RedactedProblem>,
}

/// What a comparison of what the peer acknowledged with what it has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    /// When it was made.
    pub at: At,
    /// How many acknowledged memories were looked for.
    pub checked: u64,
    /// How many of them the peer did not have; they are on their way again.
    pub lost: u64,
    /// How many of them the peer has more than once.
    pub duplicates: u64,
    /// Those that it has more than once, with their number; the first [`Self::MAX_TWICE`].
    pub twice: Vec<(MemoryId, u64)>,
}

impl Reconciled {
    /// The most duplicates that are named.
    pub const MAX_TWICE: usize = 100;

    /// Returns whether the peer has each memory exactly once.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicates == 0
    }
}
