//! The loop that sends: take entries, send them, acknowledge what arrived.

use super::outbox::{Outbox, Undelivered};
use super::pace::Pace;
use super::peer::Peer;
use super::send::{Done, Sent, now, send};
use super::settings::DeliverySettings;
use super::status::Link;
use super::verdict::Judge;
use crate::error::{Fault, Problem};
use crate::model::{At, MemoryId, OutboxEntry, SenderState};
use crate::resilience::{BreakerState, Pass};
use crate::session_buddy::PeerError;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinSet};

/// One sender to one peer.
pub(super) struct Sender<O, P> {
    outbox: O,
    peer: P,
    settings: DeliverySettings,
    link: Link,
    pace: Pace,
    judge: Judge,
    calls: JoinSet<Done>,
    /// Leased and not yet sent.
    leased: VecDeque<OutboxEntry>,
    /// Whether the outbox had no more when it was last asked.
    drained: bool,
    acknowledged: Vec<MemoryId>,
    /// Whether a call need not pay for a connection, so that its time is that of the peer's work.
    connected: bool,
    restarts: u64,
}

impl<O: Outbox, P: Peer> Sender<O, P> {
    /// Returns a sender that is not running yet; `known` is the last state of an earlier one.
    pub(super) fn new(
        outbox: O,
        peer: P,
        settings: DeliverySettings,
        link: Link,
        known: &SenderState,
    ) -> Self {
        Self {
            restarts: peer.restarts(),
            judge: Judge::new(&settings, known.slowest),
            outbox,
            peer,
            link,
            pace: Pace::new(settings.in_flight, known.pace()),
            calls: JoinSet::new(),
            leased: VecDeque::new(),
            drained: false,
            acknowledged: Vec::new(),
            connected: false,
            settings,
        }
    }

    /// Sends until it is stopped, then lets the calls in flight end within the drain time.
    ///
    /// # Errors
    ///
    /// When the outbox itself fails; the entries leased then are reclaimed by the next sender.
    ///
    /// # Cancel safety
    ///
    /// When dropped, calls in flight are abandoned; their entries stay leased until the next sender reclaims them.
    pub(super) async fn run(mut self) -> Result<(), Problem> {
        let stop = self.link.stop.clone();
        let ended = loop {
            if stop.is_cancelled() {
                break Ok(());
            }
            if let Err(error) = self.step().await {
                break Err(error);
            }
        };
        let drained = self.drain().await;
        ended.and(drained)
    }

    /// Does once what the loop repeats. What is leased already is sent before the outbox is written, which takes longer
    /// than the peer should have to wait for the next call.
    async fn step(&mut self) -> Result<(), Problem> {
        self.start_calls();
        self.acknowledge().await?;
        self.notice_restart().await?;
        self.take().await?;
        self.connect().await?;
        self.start_calls();
        self.publish();
        self.wait().await
    }

    /// Leases enough to keep the pace, one entry for a probe, and none while the breaker is open.
    async fn take(&mut self) -> Result<(), Problem> {
        const FEWEST: usize = 4;
        let wanted = match self.breaker() {
            BreakerState::Open(_) => {
                self.connected = false;
                self.pace.reset();
                return self.give_back().await;
            }
            BreakerState::HalfOpen => usize::from(self.calls.is_empty()),
            BreakerState::Closed => self.pace.limit().max(FEWEST),
        };
        let missing = wanted.saturating_sub(self.leased.len());
        if missing > 0 {
            let limit = u32::try_from(missing).unwrap_or(u32::MAX);
            let taken = self.outbox.take(limit).await?;
            self.drained = taken.len() < missing;
            self.leased.extend(taken);
        }
        Ok(())
    }

    /// Connects before the first call, so that its time is the peer's own. A peer that was down is not connected to: it
    /// shows that it is back by taking a memory.
    async fn connect(&mut self) -> Result<(), Problem> {
        if self.connected || self.leased.is_empty() || self.breaker() != BreakerState::Closed {
            return Ok(());
        }
        let Ok(pass) = self.peer.breaker().admit() else {
            return Ok(());
        };
        let connected = self.peer.connect(now() + self.settings.call_timeout);
        let connected = tokio::select! {
            connected = connected => connected,
            () = self.link.stop.cancelled() => return Ok(()),
        };
        match connected {
            Ok(()) => self.connected = true,
            Err(error) => {
                pass.failed(error.clone());
                self.note_trouble(&error);
            }
        }
        Ok(())
    }

    fn start_calls(&mut self) {
        // Half-open, one call goes without a connection.
        let may_start = self.connected || self.breaker() == BreakerState::HalfOpen;
        while may_start && !self.leased.is_empty() && self.calls.len() < self.pace.limit() {
            let Ok(pass) = self.peer.breaker().admit() else {
                return;
            };
            if let Some(entry) = self.leased.pop_front() {
                self.start(entry, pass);
            }
        }
    }

    fn start(&mut self, entry: OutboxEntry, pass: Pass<PeerError>) {
        let ticket = self.pace.started(now());
        let timeout = self.settings.call_timeout;
        self.calls
            .spawn(send(self.peer.clone(), entry, pass, ticket, timeout));
    }

    /// Waits until a call ends, something is put into the outbox, or something is due.
    async fn wait(&mut self) -> Result<(), Problem> {
        /// How often the outbox is read for entries of other processes, and the breaker for another caller's probe.
        const LOOK: Duration = Duration::from_secs(1);
        let idle = self.calls.is_empty();
        let pause = match self.breaker() {
            BreakerState::Open(until) => until.saturating_duration_since(now()),
            BreakerState::HalfOpen => LOOK,
            BreakerState::Closed if !idle => LOOK,
            BreakerState::Closed => {
                let due = self.outbox.next_due().await?;
                // A moment at least: an entry that is due and not given would make this a busy loop.
                due.map_or(LOOK, |due| due.clamp(Duration::from_millis(10), LOOK))
            }
        };
        let is_open = self.is_open();
        let enqueued = Arc::clone(&self.link.enqueued);
        tokio::select! {
            biased;
            () = self.link.stop.cancelled() => return Ok(()),
            () = enqueued.notified(), if !is_open => return Ok(()),
            Some(done) = self.calls.join_next() => self.settle(done).await?,
            () = tokio::time::sleep(pause), if idle => {}
        }
        while let Some(done) = self.calls.try_join_next() {
            self.settle(done).await?;
        }
        Ok(())
    }

    /// Notes how a call ended: for the breaker, the pace, the entry and the status.
    async fn settle(&mut self, done: Result<Done, JoinError>) -> Result<(), Problem> {
        let done = match done {
            Ok(done) => done,
            // A call catches its own panics, so only the end of the runtime is left, after which nothing is sent.
            Err(error) => {
                tracing::error!(%error, "a call to the peer was cut off");
                return Ok(());
            }
        };
        let id = done.entry.memory.id;
        let probe = done.pass.is_probe();
        match done.result {
            Ok(sent) => {
                done.pass.succeeded();
                self.connected = true;
                self.acknowledged.push(id);
                self.note_success(sent);
                self.judge
                    .taken(id, (sent == Sent::Stored).then_some(done.took));
                let busy = !self.leased.is_empty() || !self.drained;
                match sent {
                    Sent::Stored if !probe => self.pace.finished(done.ticket, done.ended, busy),
                    // Its time is not that of a store alone.
                    _ => self.pace.abandoned(),
                }
                Ok(())
            }
            Err(error) => {
                let why = self.judge.judge(id, &error, done.took);
                if matches!(why, Undelivered::Dead(_)) {
                    self.link.status.send_modify(|status| status.dead += 1);
                }
                if matches!(error, PeerError::Permanent(_)) {
                    // The peer answered: the fault is the entry's.
                    done.pass.succeeded();
                    self.pace.abandoned();
                } else {
                    done.pass.failed(error.clone());
                    self.pace.failed(done.ticket);
                    self.note_trouble(&error);
                }
                self.outbox.fail(id, why).await
            }
        }
    }

    /// Gives back what is leased and not sent: until it is sent, it may be changed or forgotten.
    async fn give_back(&mut self) -> Result<(), Problem> {
        if self.leased.is_empty() {
            return Ok(());
        }
        let ids = self.leased.drain(..).map(|entry| entry.memory.id).collect();
        self.outbox.give_back(ids).await
    }

    async fn acknowledge(&mut self) -> Result<(), Problem> {
        if self.acknowledged.is_empty() {
            return Ok(());
        }
        let ids = std::mem::take(&mut self.acknowledged);
        self.outbox.ack(ids).await
    }

    /// Ends all rests when the peer restarted: a store that was in progress cannot complete any more.
    async fn notice_restart(&mut self) -> Result<(), Problem> {
        let restarts = self.peer.restarts();
        if restarts != self.restarts {
            self.restarts = restarts;
            self.outbox.wake().await?;
        }
        Ok(())
    }

    /// Gives back what was not sent, then notes each call that still ends in time.
    async fn drain(&mut self) -> Result<(), Problem> {
        let deadline = tokio::time::Instant::now() + self.settings.drain;
        self.give_back().await?;
        self.acknowledge().await?;
        while let Ok(Some(done)) = tokio::time::timeout_at(deadline, self.calls.join_next()).await {
            self.settle(done).await?;
            self.acknowledge().await?;
        }
        // The entries of calls that are still in flight stay leased: the next sender reclaims them and asks the peer.
        self.calls.abort_all();
        self.publish();
        Ok(())
    }

    fn breaker(&self) -> BreakerState {
        self.peer.breaker().state()
    }

    fn is_open(&self) -> bool {
        matches!(self.breaker(), BreakerState::Open(_))
    }

    fn note_success(&self, sent: Sent) {
        self.link.status.send_modify(|status| {
            match sent {
                Sent::Stored => status.delivered += 1,
                Sent::WasThere => status.already_there += 1,
            }
            status.down_since = None;
            status.error = None;
        });
    }

    fn note_trouble(&self, error: &PeerError) {
        let down = error.is_about_the_peer() || self.is_open();
        self.link.status.send_modify(|status| {
            if down {
                status.down_since.get_or_insert_with(At::now);
            }
            status.error = Some(error.problem());
        });
    }

    fn publish(&self) {
        self.link.status.send_modify(|status| {
            status.in_flight = self.calls.len();
            status.limit = self.pace.limit();
            status.found = self.pace.found();
            status.slowest = self.judge.slowest();
        });
    }
}

#[cfg(test)]
#[path = "tests/sender.rs"]
mod tests;
