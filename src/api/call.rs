//! Who calls, how long they bear to wait, how they hear of progress, and how they take their call back.

use crate::error::Problem;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

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

/// Takes a call's progress; the latest value is what counts, and nobody waits for anybody.
// Most calls are over at once: the channel is made by the first who uses it.
#[derive(Debug, Clone, Default)]
pub struct ProgressSink(Arc<OnceLock<watch::Sender<Progress>>>);

impl ProgressSink {
    /// Tells how far the work is.
    pub fn report(&self, progress: Progress) {
        self.sender().send_replace(progress);
    }

    /// Returns whether anybody listens now.
    pub fn is_heard(&self) -> bool {
        self.0
            .get()
            .is_some_and(|sender| sender.receiver_count() > 0)
    }

    /// Returns a receiver of the latest progress.
    pub fn subscribe(&self) -> watch::Receiver<Progress> {
        self.sender().subscribe()
    }

    fn sender(&self) -> &watch::Sender<Progress> {
        self.0.get_or_init(watch::Sender::default)
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

/// One call's way back to its caller.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The host program's name, as it told it.
    pub client: Option<String>,
    /// The longest the host is known to wait for an answer.
    pub host_wait_cap: Duration,
    /// Takes the call's progress.
    pub progress: ProgressSink,
    interrupt: Arc<Interrupted>,
}

#[derive(Debug, Default)]
struct Interrupted {
    // Set before the token fires, so that whoever sees the token sees the reason.
    why: OnceLock<Interrupt>,
    // Made by the first who waits for it or fires it.
    token: OnceLock<CancellationToken>,
}

impl Interrupted {
    fn token(&self) -> &CancellationToken {
        self.token.get_or_init(CancellationToken::new)
    }
}

impl Caller {
    /// The longest any host waits unless it is known better: the cap of Claude Desktop, less a margin.
    pub const DEFAULT_WAIT_CAP: Duration = Duration::from_secs(45);

    /// How long a call waits that does not say.
    pub const DEFAULT_WAIT: Duration = Duration::from_secs(20);

    /// The longest `wait_s` that is no mistake.
    const MAX_WAIT_S: f64 = 86_400.0;

    /// Returns the caller that `client` is, who bears to wait for `host_wait_cap`.
    pub fn new(client: Option<String>, host_wait_cap: Duration) -> Self {
        Self {
            client,
            host_wait_cap,
            progress: ProgressSink::default(),
            interrupt: Arc::default(),
        }
    }

    /// Interrupts the call; the first reason stays.
    pub fn interrupt(&self, why: Interrupt) {
        // A second interrupt has nothing to add: the first one ends the call.
        let _ = self.interrupt.why.set(why);
        self.interrupt.token().cancel();
    }

    /// Returns why the call was interrupted, where it was.
    pub fn interrupt_now(&self) -> Option<Interrupt> {
        self.interrupt.why.get().cloned()
    }

    /// Waits until the call is interrupted and returns why.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub async fn interrupted(&self) -> Interrupt {
        self.interrupt.token().cancelled().await;
        self.interrupt_now().unwrap_or(Interrupt::Closing)
    }

    /// Returns how long to wait for argument `wait_s`: `asked` or else `default`, at most what the host bears.
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
    async fn the_reason_is_there_when_the_interrupt_is_seen() {
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
    fn waits_are_capped_and_told_and_nonsense_is_refused() {
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
