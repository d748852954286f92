//! Events that callers could not be told of when they happened; they are reported in the next answer.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// The most pending notices; the oldest are dropped, since the newest describe the present state.
const KEPT: usize = 20;

/// Notices pending for the next answer; cloning shares them.
#[derive(Clone, Default)]
// The lock is held to push or take a few texts.
pub(crate) struct Notices(Arc<Mutex<VecDeque<String>>>);

impl Notices {
    /// Adds one.
    pub(crate) fn add(&self, text: String) {
        let mut waiting = self.0.lock();
        if waiting.len() == KEPT {
            waiting.pop_front();
        }
        waiting.push_back(text);
    }

    /// Takes all, the oldest first.
    pub(crate) fn take(&self) -> Vec<String> {
        let mut waiting = self.0.lock();
        waiting.drain(..).collect()
    }
}
