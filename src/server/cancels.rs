//! Brings the reason of a `notifications/cancelled` to the call it takes back.
//!
//! rmcp cancels the request's token without the reason and hands the notification to `on_cancelled`, in a task of its
//! own: either may come first.

use crate::api::Interrupt;
use rmcp::model::RequestId;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long after the token fired the reason may come.
const REASON_WITHIN: Duration = Duration::from_secs(1);

/// How many reasons are kept for calls that are not known yet.
const MAX_EARLY: usize = 16;

/// A reason that arrived; absent where the host gave none.
type Reason = Option<String>;

/// The calls in flight, by request id.
#[derive(Debug, Clone, Default)]
pub(super) struct Cancels(Arc<Mutex<State>>);

// A std mutex: it is held for a map operation and never across an await.
#[derive(Debug, Default)]
struct State {
    calls: HashMap<RequestId, watch::Sender<Option<Reason>>>,
    early: VecDeque<(RequestId, Reason)>,
}

impl Cancels {
    /// Enters a call; it is forgotten when the result is dropped.
    pub(super) fn register(&self, id: RequestId) -> Registered {
        let mut state = self.lock();
        let early = state
            .early
            .iter()
            .position(|(early, _)| *early == id)
            .and_then(|at| state.early.remove(at));
        let sender = watch::Sender::new(early.map(|(_, reason)| reason));
        let reason = sender.subscribe();
        state.calls.insert(id.clone(), sender);
        Registered {
            cancels: self.clone(),
            id,
            reason,
        }
    }

    /// Takes the notification that call `id` is taken back.
    pub(super) fn cancelled(&self, id: RequestId, reason: Reason) {
        let mut state = self.lock();
        match state.calls.get(&id) {
            Some(call) => {
                call.send_replace(Some(reason));
            }
            None => {
                if state.early.len() == MAX_EARLY {
                    state.early.pop_front();
                }
                state.early.push_back((id, reason));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call in flight.
#[derive(Debug)]
pub(super) struct Registered {
    cancels: Cancels,
    id: RequestId,
    reason: watch::Receiver<Option<Reason>>,
}

impl Registered {
    /// Waits until the call is taken back (`request`) or the connection closes (`closing`).
    pub(super) async fn interrupted(
        &self,
        request: &CancellationToken,
        closing: &CancellationToken,
    ) -> Interrupt {
        tokio::select! {
            biased;
            () = closing.cancelled() => return Interrupt::Closing,
            () = request.cancelled() => {}
        }
        // A closing server cancels every request: then no reason will come.
        let mut reason = self.reason.clone();
        let told = tokio::select! {
            biased;
            told = tokio::time::timeout(REASON_WITHIN, reason.wait_for(Option::is_some)) => told,
            () = closing.cancelled() => return Interrupt::Closing,
        };
        match told {
            Ok(Ok(reason)) => Interrupt::Cancelled(reason.clone().flatten()),
            _ => Interrupt::Cancelled(None),
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut state = self.cancels.lock();
        // Another call may have taken the same id in the meantime: leave it.
        let ours = state
            .calls
            .get(&self.id)
            .is_some_and(|call| call.subscribe().same_channel(&self.reason));
        if ours {
            state.calls.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> RequestId {
        RequestId::Number(7)
    }

    #[tokio::test(start_paused = true)]
    async fn the_reason_is_found_whichever_comes_first() {
        let closing = CancellationToken::new();
        let reason = || Some("user".to_owned());

        let cancels = Cancels::default();
        let call = cancels.register(id());
        let token = CancellationToken::new();
        token.cancel();
        let (seen, ()) = tokio::join!(call.interrupted(&token, &closing), async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            cancels.cancelled(id(), reason());
        });
        assert_eq!(seen, Interrupt::Cancelled(reason()));
        drop(call);

        cancels.cancelled(id(), reason());
        let call = cancels.register(id());
        assert_eq!(
            call.interrupted(&token, &closing).await,
            Interrupt::Cancelled(reason())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn no_reason_and_closing_are_told_apart() {
        let cancels = Cancels::default();
        let call = cancels.register(id());
        let (token, closing) = (CancellationToken::new(), CancellationToken::new());
        token.cancel();
        assert_eq!(
            call.interrupted(&token, &closing).await,
            Interrupt::Cancelled(None)
        );
        closing.cancel();
        assert_eq!(call.interrupted(&token, &closing).await, Interrupt::Closing);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let cancels = Cancels::default();
        for number in 0..10_000 {
            drop(cancels.register(RequestId::Number(number)));
            cancels.cancelled(RequestId::Number(number), None);
        }
        let state = cancels.lock();
        assert_eq!((state.calls.len(), state.early.len()), (0, MAX_EARLY));
    }
}
