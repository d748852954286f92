//! What becomes of an entry that the peer did not acknowledge.

use super::outbox::Undelivered;
use super::settings::DeliverySettings;
use crate::error::Fault;
use crate::model::MemoryId;
use crate::resilience::Backoff;
use crate::session_buddy::PeerError;
use std::collections::HashMap;
use std::time::Duration;

/// Decides by the peer's answer, how often it gave it, and whether it took other entries meanwhile.
///
/// A refusal for now counts against an entry only where the peer took another one since the entry's last refusal: a peer
/// that refuses everything is in trouble, and no entry is given up for that. Pure: no clock, no task.
#[derive(Debug)]
pub(super) struct Judge {
    unclear_rest: Duration,
    max_refusals: u32,
    retry: Backoff,
    refusals: HashMap<MemoryId, Refusals>,
    /// How many entries the peer took so far.
    taken: u64,
    slowest: Duration,
}

/// How often an entry was refused, and how many entries the peer had taken at the last refusal.
#[derive(Debug, Clone, Copy)]
struct Refusals {
    count: u32,
    taken: u64,
}

impl Judge {
    pub(super) fn new(settings: &DeliverySettings, slowest: Duration) -> Self {
        let (soon, late) = settings.retry_wait;
        Self {
            unclear_rest: settings.unclear_rest,
            max_refusals: settings.max_refusals,
            retry: Backoff::new(soon, late, settings.seed.wrapping_add(1)),
            refusals: HashMap::new(),
            taken: 0,
            slowest,
        }
    }

    /// Returns how long the slowest of the latest stores took; an old one fades within some hundred stores.
    pub(super) fn slowest(&self) -> Duration {
        self.slowest
    }

    /// Notes that the peer has an entry; `took`: how long it took to store it, where it did that now.
    pub(super) fn taken(&mut self, id: MemoryId, took: Option<Duration>) {
        const FADE: u32 = 64;
        if let Some(took) = took {
            self.slowest = took.max(self.slowest - self.slowest / FADE);
            self.taken += 1;
        }
        self.refusals.remove(&id);
    }

    pub(super) fn judge(&mut self, id: MemoryId, error: &PeerError, took: Duration) -> Undelivered {
        let text = error.problem().message;
        match error {
            PeerError::Permanent(_) => {
                self.refusals.remove(&id);
                Undelivered::Dead(text)
            }
            PeerError::Unclear(_) => {
                // It has been in progress for that long already, and may go on.
                self.slowest = self.slowest.max(took);
                Undelivered::Rest(self.unclear_rest.max(self.slowest * 2), text)
            }
            // The peer's trouble, not the entry's: the breaker decides when it is tried again.
            PeerError::Down(_)
            | PeerError::Locked(_)
            | PeerError::NotSessionBuddy(_)
            | PeerError::Resting { .. } => Undelivered::Retry(Duration::ZERO, text),
            PeerError::Retry(_) => self.refused(id, text),
        }
    }

    fn refused(&mut self, id: MemoryId, text: String) -> Undelivered {
        let taken = self.taken;
        let refusals = self
            .refusals
            .entry(id)
            .and_modify(|refusals| {
                if taken > refusals.taken {
                    *refusals = Refusals {
                        count: refusals.count + 1,
                        taken,
                    };
                }
            })
            .or_insert(Refusals { count: 1, taken });
        if refusals.count >= self.max_refusals {
            self.refusals.remove(&id);
            return Undelivered::Dead(text);
        }
        Undelivered::Retry(self.retry.delay_of(refusals.count), text)
    }
}
