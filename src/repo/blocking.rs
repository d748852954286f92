//! File system work on threads where it may block.

use super::RepoError;
use crate::panic::propagate;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Asks blocking work to stop because its result is no longer wanted.
#[derive(Debug, Clone)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Returns one that never stops.
    pub(super) fn never() -> Self {
        Self(Arc::default())
    }

    /// Returns [`RepoError::Abandoned`] once the work is to stop.
    pub(super) fn check(&self) -> Result<(), RepoError> {
        if self.0.load(Ordering::Relaxed) {
            return Err(RepoError::Abandoned);
        }
        Ok(())
    }
}

/// Runs `work` on a thread where it may block.
///
/// # Cancel safety
///
/// Dropping the future asks the work to stop; how soon it does is up to the work.
pub(super) async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce(&Stop) -> Result<T, RepoError> + Send + 'static,
) -> Result<T, RepoError> {
    struct StopOnDrop(Stop);
    impl Drop for StopOnDrop {
        fn drop(&mut self) {
            self.0.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = Stop::never();
    let _stops = StopOnDrop(stop.clone());
    let joined = tokio::task::spawn_blocking(move || work(&stop)).await;
    propagate(joined).unwrap_or(Err(RepoError::Abandoned))
}
