//! A lock for holds of tens of nanoseconds: who finds it taken turns on the spot for a while before it sleeps.

use std::hint::spin_loop;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// A mutex whose waiters back off exponentially.
///
/// A plain mutex puts a waiter to sleep after less than a hold's change of hands, and then every release wakes one, a
/// system call that costs a hundred holds: two threads get half as much done as one. Backing off leaves the lock, and its
/// cache line, with its holder for some more holds (T. Anderson, "The Performance of Spin Lock Alternatives for
/// Shared-Memory Multiprocessors", 1990). A waiter whose holder was put off its core sleeps after some hundred microseconds.
///
/// A panic of a holder poisons nothing: what is guarded must be whole at every step.
#[derive(Debug, Default)]
pub struct BackoffMutex<T>(Mutex<T>);

/// The first and the longest turn on the spot, and all turns together before sleeping, in pauses of the processor.
const FIRST: u32 = 8;
const LONGEST: u32 = 1_024;
const ALL: u32 = 16_384;

impl<T> BackoffMutex<T> {
    /// Returns the value behind the lock.
    pub fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Waits for the lock and takes it. Blocks the thread; never to be held across an await.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let (mut turn, mut turned) = (FIRST, 0);
        while turned < ALL {
            match self.0.try_lock() {
                Ok(guard) => return guard,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
            (0..turn).for_each(|_| spin_loop());
            turned += turn;
            turn = (turn * 2).min(LONGEST);
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn no_change_is_lost_between_threads_and_a_long_hold_is_waited_for() {
        let count = BackoffMutex::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| *count.lock() += 1));
            }
            let held = count.lock();
            // Longer than anybody turns on the spot.
            let (_never, wait) = std::sync::mpsc::channel::<()>();
            let _ = wait.recv_timeout(Duration::from_millis(50));
            drop(held);
        });
        assert_eq!(*count.lock(), 40_000);
    }
}
