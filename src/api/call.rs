//! The caller: who it is, how long it waits, its progress, and its interrupt.

use crate::error::Problem;
use std::time::Duration;
use tokio::sync::watch;

/// Why a call should end before its work does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interrupt {
    /// The host took the call back, for the reason it gave. Nobody will read the answer.
    Cancelled(Option<String>),
    /// The server ends, or its host is gone. An answer that comes at once may still be read.
    Closing,
}

/// How far a call's work is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub done: u64,
    /// Steps in all, where that is known.
    pub total: Option<u64>,
    /// A line for people.
    pub message: Option<String>,
}

/// Takes a call's progress; only the latest value counts, so that reporting never waits.
#[derive(Debug, Clone, Default)]
pub struct ProgressSink(watch::Sender<Progress>);

impl ProgressSink {
    /// Reports how far the work is.
    pub fn report(&self, progress: Progress) {
        self.0.send_replace(progress);
    }

    /// Returns whether anybody receives progress now.
    pub fn is_heard(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Returns a receiver of the latest progress.
    pub fn subscribe(&self) -> watch::Receiver<Progress> {
        self.0.subscribe()
    }
}

/// How long a call waits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wait {
    /// How long.
    pub duration: Duration,
    /// The cap in seconds, where more was asked for.
    pub capped_s: Option<f64>,
}

/// The caller of one call.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The host program's name, as the host gave it.
    pub client: Option<String>,
    /// The longest the host is known to wait for an answer.
    pub host_wait_cap: Duration,
    /// Takes the call's progress.
    pub progress: ProgressSink,
    interrupt: watch::Sender<Option<Interrupt>>,
}

impl Caller {
    /// The longest any host waits unless it is known better: the cap of Claude Desktop, less a margin.
    pub const DEFAULT_WAIT_CAP: Duration = Duration::from_secs(45);

    /// How long a call waits without `wait_s`.
    pub const DEFAULT_WAIT: Duration = Duration::from_secs(20);

    /// The longest `wait_s` that is accepted, a day.
    const MAX_WAIT_S: f64 = 86_400.0;

    /// Returns the caller that is the host program `client`, which waits for an answer up to `host_wait_cap`.
    pub fn new(client: Option<String>, host_wait_cap: Duration) -> Self {
        Self {
            client,
            host_wait_cap,
            progress: ProgressSink::default(),
            interrupt: watch::Sender::default(),
        }
    }

    /// Interrupts the call; the first reason stays.
    pub fn interrupt(&self, why: Interrupt) {
        self.interrupt.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(why);
            is_first
        });
    }

    /// Returns why the call was interrupted, where it was.
    pub fn interrupt_now(&self) -> Option<Interrupt> {
        self.interrupt.borrow().clone()
    }

    /// Waits until the call is interrupted and returns why.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn interrupted(&self) -> Interrupt {
        let mut interrupt = self.interrupt.subscribe();
        let why = interrupt.wait_for(Option::is_some).await;
        // The sender lives as long as `self`, so there is a value.
        why.map_or(None, |why| why.clone())
            .unwrap_or(Interrupt::Closing)
    }

    /// Returns how long to wait for argument `wait_s`: `asked` or else `default`, at most the host's cap.
    ///
    /// # Errors
    ///
    /// A refusal of `wait_s` where it is negative, not a number or above a day.
    pub fn wait(&self, asked: Option<f64>, default: Duration) -> Result<Wait, Problem> {
        let Some(seconds) = asked else {
            return Ok(Wait {
                duration: default.min(self.host_wait_cap),
                capped_s: None,
            });
        };
        if !(0.0..=Self::MAX_WAIT_S).contains(&seconds) {
            return Err(Problem::argument(
                "wait_s",
                format!("wait_s is {seconds}"),
                format!(
                    "0 to {} seconds; more than {} is capped for this host",
                    Self::MAX_WAIT_S,
                    self.host_wait_cap.as_secs()
                ),
            ));
        }
        let duration = Duration::from_secs_f64(seconds);
        let capped = duration > self.host_wait_cap;
        Ok(Wait {
            duration: duration.min(self.host_wait_cap),
            capped_s: capped.then_some(self.host_wait_cap.as_secs_f64()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_interrupt_is_the_one_that_is_seen() {
        let caller = Caller::new(None, Caller::DEFAULT_WAIT_CAP);
        assert_eq!(caller.interrupt_now(), None);
        let waiter = caller.clone();
        let (seen, ()) = tokio::join!(waiter.interrupted(), async {
            caller.interrupt(Interrupt::Cancelled(Some("user".into())));
            caller.interrupt(Interrupt::Closing);
        });
        assert_eq!(seen, Interrupt::Cancelled(Some("user".into())));
    }

    #[test]
    fn waits_are_capped_and_nonsense_is_refused() {
        let caller = Caller::new(None, Duration::from_secs(45));
        let wait = |asked| caller.wait(asked, Caller::DEFAULT_WAIT);
        assert_eq!(wait(None).expect("ok").duration, Duration::from_secs(20));
        assert_eq!(wait(Some(0.5)).expect("ok").capped_s, None);
        let capped = wait(Some(600.0)).expect("ok");
        assert_eq!(
            (capped.duration, capped.capped_s),
            (Duration::from_secs(45), Some(45.0))
        );
        for wrong in [-1.0, f64::NAN, f64::INFINITY, 1e30] {
            let problem = wait(Some(wrong)).expect_err("refused");
            assert_eq!(problem.field.as_deref(), Some("wait_s"));
        }
    }
}
