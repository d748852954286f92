//! The reasons of `notifications/cancelled`, for the calls that they take back.
//!
//! rmcp cancels the request's token without the reason and hands the notification to `on_cancelled` in a task of its
//! own: either may come first.

use parking_lot::Mutex;
use rmcp::model::RequestId;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::Notify;

/// How long after the token fired the reason may come.
const REASON_WITHIN: Duration = Duration::from_secs(1);

/// How many reasons are kept: some hosts also cancel calls that were answered, which nobody collects.
const MAX_KEPT: usize = 64;

/// The latest reasons, by request id.
#[derive(Debug, Default)]
pub(super) struct CancelReasons {
    // Held for a look at a few entries, never across an await.
    kept: Mutex<VecDeque<(RequestId, Option<String>)>>,
    added: Notify,
}

impl CancelReasons {
    /// Keeps the reason for which call `id` was taken back; the oldest one goes where there are too many.
    pub(super) fn add(&self, id: RequestId, reason: Option<String>) {
        let mut kept = self.kept.lock();
        if kept.len() == MAX_KEPT {
            kept.pop_front();
        }
        kept.push_back((id, reason));
        self.added.notify_waiters();
    }

    /// Takes the reason for which call `id` was taken back; none where the host gave none, or it does not come in time.
    pub(super) async fn of(&self, id: &RequestId) -> Option<String> {
        let reason = async {
            loop {
                // Made before the look, so that a reason added after it wakes this.
                let added = self.added.notified();
                if let Some(reason) = self.take(id) {
                    return reason;
                }
                added.await;
            }
        };
        tokio::time::timeout(REASON_WITHIN, reason).await.ok()?
    }

    fn take(&self, id: &RequestId) -> Option<Option<String>> {
        let mut kept = self.kept.lock();
        let at = kept.iter().rposition(|(of, _)| of == id)?;
        kept.remove(at).map(|(_, reason)| reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RequestId = RequestId::Number(7);

    #[tokio::test(start_paused = true)]
    async fn the_reason_is_found_whether_early_or_late() {
        let reasons = CancelReasons::default();
        reasons.add(ID, Some("early".to_owned()));
        assert_eq!(reasons.of(&ID).await.as_deref(), Some("early"));
        let (late, ()) = tokio::join!(reasons.of(&ID), async {
            tokio::time::sleep(REASON_WITHIN / 2).await;
            reasons.add(RequestId::Number(8), Some("another's".to_owned()));
            reasons.add(ID, Some("late".to_owned()));
        });
        assert_eq!(late.as_deref(), Some("late"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_reason_is_none() {
        let reasons = CancelReasons::default();
        reasons.add(ID, None);
        assert_eq!(reasons.of(&ID).await, None);
        assert_eq!(reasons.of(&ID).await, None, "after the wait");
    }

    #[test]
    fn kept_reasons_are_bounded() {
        let reasons = CancelReasons::default();
        for number in 0..10_000 {
            reasons.add(RequestId::Number(number), None);
        }
        assert_eq!(reasons.kept.lock().len(), MAX_KEPT);
        assert!(reasons.take(&RequestId::Number(9_999)).is_some());
    }
}
