//! How many files and sockets this process may have open, and how many attempts at once that allows.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What the server itself needs: its store, locks, sockets, the children that are servers.
const RESERVE: u64 = 64;
/// What one attempt on this machine may hold open: the three pipes of a program and, while it is started, the program's
/// ends of them; two logs, two lock files. git calls come before and after, with no more.
const PER_ATTEMPT: u64 = 10;

/// Raises this process's limit of open files towards `wanted`, as far as the system lets it, and returns the limit.
///
/// Programs that it starts from then on inherit the limit.
fn raise(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // No number means no limit.
    let (Some(now), most) = (limit.current, limit.maximum) else {
        return u64::MAX;
    };
    let raised = most.map_or(wanted, |most| most.min(wanted));
    if raised <= now {
        return now;
    }
    let limit = Rlimit {
        current: Some(raised),
        maximum: most,
    };
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => raised,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files could not be raised");
            now
        }
    }
}

/// How many attempts on this machine the limit of open files allows at once; cloning shares it.
#[derive(Debug, Clone)]
pub struct Room {
    permits: Arc<Semaphore>,
    limit: u64,
}

impl Room {
    /// Raises the limit of open files as far as `local` slots of programs and `remote` slots of calls need it, `most` files
    /// at most, and returns the room that there is then.
    pub fn make(local: u64, remote: u64, most: u64) -> Self {
        let wanted = RESERVE
            .saturating_add(local.saturating_mul(PER_ATTEMPT))
            .saturating_add(remote.saturating_mul(2));
        Self::of(raise(wanted.min(most)))
    }

    fn of(limit: u64) -> Self {
        let attempts = limit.saturating_sub(RESERVE) / PER_ATTEMPT;
        let attempts = usize::try_from(attempts).unwrap_or(usize::MAX);
        Self {
            permits: Arc::new(Semaphore::new(attempts.clamp(1, Semaphore::MAX_PERMITS))),
            limit,
        }
    }

    /// Waits for room for one attempt, which has it until the permit is dropped. First come, first served.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the queue.
    pub async fn enter(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    /// Returns whether the next attempt has to wait.
    pub fn is_full(&self) -> bool {
        self.permits.available_permits() == 0
    }

    /// Returns the limit of open files, and how many attempts it allows at once.
    pub fn limits(&self) -> (u64, u64) {
        let attempts = self.limit.saturating_sub(RESERVE) / PER_ATTEMPT;
        (self.limit, attempts.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn attempts_beyond_the_limit_wait() {
        let room = Room::of(RESERVE + 2 * PER_ATTEMPT + 1);
        assert_eq!(room.limits().1, 2);
        let (first, _second) = (room.enter().await, room.enter().await);
        let third = tokio::time::timeout(std::time::Duration::from_millis(20), room.enter());
        assert!(third.await.is_err());
        drop(first);
        assert!(room.enter().await.is_some());
        assert_eq!(Room::of(10).limits().1, 1, "one at a time goes always");
        assert_eq!(Room::of(u64::MAX).limits().0, u64::MAX);
    }
}
