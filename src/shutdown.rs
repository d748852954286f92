//! The end of the process: the signals that ask for it, and the tasks whose end it waits for.
//!
//! Three steps: stop taking new work, drain up to a budget, leave the rest to the guardian. This is the only place that
//! tracks background tasks; a task whose result somebody wants lives in a `JoinSet` there.

use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The signals that ask the process to end: INT, TERM and HUP.
#[derive(Debug)]
pub struct Signals([Signal; 3]);

impl Signals {
    /// Takes the signals over from their default action.
    ///
    /// # Errors
    ///
    /// The system's, where a handler cannot be set.
    pub fn listen() -> io::Result<Self> {
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    /// Waits for the next signal.
    ///
    /// # Cancel safety
    ///
    /// A signal that is not waited for is given to the next call.
    pub async fn recv(&mut self) {
        let [int, term, hup] = &mut self.0;
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hup.recv() => {}
        }
    }
}

/// The process's root of cancellation and its background tasks.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every task ended.
    All,
    /// So many had not when the budget was spent.
    Left(usize),
}

impl Shutdown {
    /// Returns a root without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the token that fires when the process is to end.
    pub fn token(&self) -> &CancellationToken {
        &self.stop
    }

    /// Starts a background task, whose end [`Self::drain`] waits for. The task must watch [`Self::token`].
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    /// Asks every task to end and waits for them, at most `budget`.
    pub async fn drain(&self, budget: Duration) -> Drained {
        self.stop.cancel();
        self.tasks.close();
        match tokio::time::timeout(budget, self.tasks.wait()).await {
            Ok(()) => Drained::All,
            Err(_) => Drained::Left(self.tasks.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_what_ends_and_not_for_what_does_not() {
        let shutdown = Shutdown::new();
        let stop = shutdown.token().clone();
        shutdown.spawn(async move { stop.cancelled().await });
        assert_eq!(shutdown.drain(Duration::from_secs(1)).await, Drained::All);

        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending());
        assert_eq!(
            shutdown.drain(Duration::from_secs(1)).await,
            Drained::Left(1)
        );
    }
}
