//! The times of a running program and the steps that end it: SIGTERM, the grace, SIGKILL, and a limit to that too.

use super::child::Child;
use super::stop::{Grace, StopReason};
use std::time::Duration;
use tokio::time::Instant;

/// How long a program may take to end after SIGKILL; longer takes only what hangs in the kernel or runs as another user.
pub(super) const KILL_LIMIT: Duration = Duration::from_secs(10);

/// How often the times are looked at. A longer gap is time in which this process was stopped, and likely the program too.
const BEAT: Duration = Duration::from_secs(1);
/// What such a gap is longer than; shorter ones come from a busy machine.
const GAP: Duration = Duration::from_secs(2);

/// The times of one program and the step that it is at.
#[derive(Debug)]
pub(super) struct Ladder {
    deadline: Option<Instant>,
    stall: Option<Duration>,
    grace: Grace,
    last_output: Instant,
    /// When the times were looked at last.
    seen: Instant,
    stopped_by: Option<StopReason>,
    step: Step,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Running,
    Asked { at: Instant },
    Killed { give_up_at: Instant },
}

impl Ladder {
    pub(super) fn new(
        deadline: Option<std::time::Instant>,
        stall: Option<Duration>,
        grace: Grace,
    ) -> Self {
        Self {
            deadline: deadline.map(Instant::from_std),
            stall,
            grace,
            last_output: Instant::now(),
            seen: Instant::now(),
            stopped_by: None,
            step: Step::Running,
        }
    }

    /// Notes that there was output.
    pub(super) fn output(&mut self) {
        if self.stall.is_some() {
            self.last_output = Instant::now();
        }
    }

    fn stalled_at(&self) -> Option<Instant> {
        self.last_output.checked_add(self.stall?)
    }

    /// Notes that this process runs, and returns when [`tick`](Self::tick) is to be called next.
    pub(super) fn next(&mut self) -> Option<Instant> {
        self.look(Instant::now());
        let due = match self.step {
            Step::Running => [self.deadline, self.stalled_at()]
                .into_iter()
                .flatten()
                .min(),
            Step::Asked { at } => Some(self.kill_at(at)),
            Step::Killed { give_up_at } => Some(give_up_at),
        };
        due.map(|due| due.min(self.seen + BEAT))
    }

    /// Leaves time in which this process was stopped out of all times.
    fn look(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.seen);
        self.seen = now;
        if gap < GAP {
            return;
        }
        self.last_output += gap;
        self.deadline = self.deadline.map(|deadline| deadline + gap);
        match &mut self.step {
            Step::Running => {}
            Step::Asked { at } => *at += gap,
            Step::Killed { give_up_at } => *give_up_at += gap,
        }
    }

    /// Asks the program to end; one that was asked already is not given more time.
    pub(super) fn stop(&mut self, reason: StopReason, child: &Child) {
        self.stopped_by = self.stopped_by.max(Some(reason));
        if matches!(self.step, Step::Running) {
            if self.grace.get().is_zero() {
                return self.kill(child);
            }
            child.ask_to_end();
            self.step = Step::Asked { at: Instant::now() };
        }
    }

    fn kill_at(&self, asked: Instant) -> Instant {
        asked.checked_add(self.grace.get()).unwrap_or(asked)
    }

    fn kill(&mut self, child: &Child) {
        child.kill();
        self.step = Step::Killed {
            give_up_at: Instant::now() + KILL_LIMIT,
        };
    }

    pub(super) fn grace(&self) -> &Grace {
        &self.grace
    }

    /// Returns why the program was asked to stop, where it was.
    pub(super) fn stopped_by(&self) -> Option<StopReason> {
        self.stopped_by
    }

    /// Takes the step that is due at `now`; returns whether the program is to be given up, as it cannot be killed.
    pub(super) fn tick(&mut self, now: Instant, child: &Child) -> bool {
        self.look(now);
        let passed = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match self.step {
            Step::Running if passed(self.deadline) => self.stop(StopReason::Deadline, child),
            Step::Running if passed(self.stalled_at()) => self.stop(StopReason::Stall, child),
            Step::Asked { at } if self.kill_at(at) <= now => self.kill(child),
            Step::Killed { give_up_at } => return give_up_at <= now,
            _ => {}
        }
        false
    }
}
