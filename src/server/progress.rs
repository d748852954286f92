//! Progress notifications: at once when something changes, and every few seconds while nothing does.

use crate::api::{Caller, Progress};
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::{Peer, RoleServer};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The longest time between two notifications: 5 s is promised, the rest is margin.
const HEARTBEAT: Duration = Duration::from_millis(4_500);

/// The shortest time between two notifications.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// Sends `caller`'s progress to `peer` until `done` or `input_ended` fires.
///
/// A notification under way is sent to its end, so that none comes after the answer. But once rmcp drains a connection,
/// at the end of the input, it takes answers only, and a notification would wait for ever.
pub(super) async fn relay(
    peer: &Peer<RoleServer>,
    token: ProgressToken,
    caller: &Caller,
    done: &CancellationToken,
    input_ended: &CancellationToken,
) {
    let mut latest = caller.progress.subscribe();
    let mut rising = Rising::default();
    loop {
        tokio::select! {
            biased;
            () = done.cancelled() => return,
            () = input_ended.cancelled() => return,
            _ = caller.interrupted() => return,
            changed = latest.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(HEARTBEAT) => {}
        }
        let progress = latest.borrow_and_update().clone();
        let Some(value) = rising.next(&progress) else {
            continue;
        };
        let param = notification(token.clone(), value, progress);
        tokio::select! {
            biased;
            () = input_ended.cancelled() => return,
            sent = peer.notify_progress(param) => if sent.is_err() { return },
        }
        tokio::select! {
            biased;
            () = done.cancelled() => return,
            () = tokio::time::sleep(MIN_INTERVAL) => {}
        }
    }
}

fn notification(token: ProgressToken, value: f64, progress: Progress) -> ProgressNotificationParam {
    let mut param = ProgressNotificationParam::new(token, value);
    if let Some(total) = progress.total {
        param = param.with_total(total as f64);
    }
    match progress.message {
        Some(message) => param.with_message(message),
        None => param,
    }
}

/// Makes values that rise with every notification, as the protocol requires, and never pass the total.
///
/// While no further step is done, each value goes a quarter of the way to the next step.
#[derive(Debug, Default)]
struct Rising {
    last: f64,
    begun: bool,
}

impl Rising {
    fn next(&mut self, progress: &Progress) -> Option<f64> {
        let done = progress.done as f64;
        let total = progress.total.map_or(f64::INFINITY, |total| total as f64);
        let next_step = (self.last.floor() + 1.0).min(total);
        let value = if !self.begun || done > self.last {
            done.min(total)
        } else {
            self.last + (next_step - self.last) / 4.0
        };
        let rises = !self.begun || value > self.last;
        self.begun = true;
        self.last = self.last.max(value);
        rises.then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(done: u64, total: Option<u64>) -> Progress {
        Progress {
            done,
            total,
            message: None,
        }
    }

    #[test]
    fn values_rise_and_never_pass_the_total() {
        let mut rising = Rising::default();
        let mut last = -1.0;
        for (done, beats) in [(0, 20), (1, 20), (1, 0), (3, 5), (2, 5), (4, 0)] {
            for _ in 0..=beats {
                if let Some(value) = rising.next(&at(done, Some(4))) {
                    assert!(value > last && value <= 4.0, "{value} after {last}");
                    last = value;
                }
            }
        }
        assert_eq!(last, 4.0);
        assert_eq!(rising.next(&at(4, Some(4))), None);
    }

    #[test]
    fn without_a_total_a_heartbeat_still_rises() {
        let mut rising = Rising::default();
        let first = rising.next(&at(0, None)).expect("a value");
        let second = rising.next(&at(0, None)).expect("a value");
        assert!(second > first && second < 1.0);
    }
}
