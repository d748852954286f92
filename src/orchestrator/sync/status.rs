//! The state of sending, and what connects the sender with the rest of the process.

use crate::error::{Problem, RedactedProblem};
use crate::model::{At, Reconciled, SenderState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// The state of sending.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeliveryStatus {
    /// Whether this process sends; one does for all that share the store.
    pub sending: bool,
    /// Calls in flight.
    pub in_flight: usize,
    /// How many calls may be in flight.
    pub limit: usize,
    /// The limit once it has settled; none while it still grows fast.
    pub found: Option<usize>,
    /// How many the peer took since the start.
    pub delivered: u64,
    /// How many the peer turned out to have already.
    pub already_there: u64,
    /// How many became dead letters.
    pub dead: u64,
    /// Since when the peer takes nothing.
    pub down_since: Option<At>,
    /// What went wrong last, while something is wrong.
    pub error: Option<Problem>,
    /// How long the slowest of the latest stores took.
    pub slowest: Duration,
    /// What the last comparison with the peer by this process found.
    pub reconciled: Option<Reconciled>,
}

impl DeliveryStatus {
    /// Returns the part that other servers of this store use.
    pub(super) fn for_others(&self) -> SenderState {
        SenderState {
            down_since: self.down_since,
            error: self.error.clone().map(RedactedProblem::from),
            limit: u32::try_from(self.found.unwrap_or(0)).unwrap_or(u32::MAX),
            slowest: self.slowest,
        }
    }
}

/// What connects the sender with the rest of the process.
#[derive(Debug, Clone)]
pub struct Link {
    /// Notified whenever something was put into the outbox.
    pub enqueued: Arc<Notify>,
    /// Cancelled when sending is to stop.
    pub stop: CancellationToken,
    /// Where the status is published.
    pub status: Arc<watch::Sender<DeliveryStatus>>,
}
