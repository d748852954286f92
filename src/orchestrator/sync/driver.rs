//! The sender: keeps as many calls in flight as the pace allows and tells the outbox how each went.

use super::pace::Pace;
use super::parts::{DeliverySettings, Link, Outbox, Peer, Undelivered};
use super::send::{Done, Sent, send};
use super::verdict::Judge;
use crate::error::{Fault, Problem};
use crate::model::{At, MemoryId, OutboxEntry, SenderState};
use crate::resilience::{Backoff, Breaker, BreakerState};
use crate::session_buddy::PeerError;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// One sender to one peer.
pub struct Delivery<O, P> {
    outbox: O,
    peer: P,
    settings: DeliverySettings,
    link: Link,
    pace: Pace,
    breaker: Breaker,
    judge: Judge,
    calls: JoinSet<Done>,
    /// Leased and not yet sent.
    leased: VecDeque<OutboxEntry>,
    /// Whether the outbox had no more when it was last asked.
    drained: bool,
    acknowledged: Vec<MemoryId>,
    restarts: u64,
}

impl<O: Outbox, P: Peer> Delivery<O, P> {
    /// Returns a sender that is not running yet; `known` is how an earlier one stood.
    pub fn new(
        outbox: O,
        peer: P,
        settings: DeliverySettings,
        link: Link,
        known: &SenderState,
    ) -> Self {
        let (first, longest) = settings.probe_pause;
        let probes = Backoff::new(first, longest, settings.seed);
        Self {
            restarts: peer.restarts(),
            judge: Judge::new(&settings, known.slowest),
            outbox,
            peer,
            link,
            pace: Pace::new(settings.in_flight, known.pace()),
            breaker: Breaker::new(settings.breaker_threshold, probes),
            calls: JoinSet::new(),
            leased: VecDeque::new(),
            drained: false,
            acknowledged: Vec::new(),
            settings,
        }
    }

    /// Sends until it is stopped, then lets the calls in flight end within the drain time.
    ///
    /// # Errors
    ///
    /// When the outbox itself fails; what was leased then is reclaimed by the next sender.
    ///
    /// # Cancel safety
    ///
    /// When dropped, calls in flight are abandoned; their entries stay leased until the next sender reclaims them.
    pub async fn run(mut self) -> Result<(), Problem> {
        let stop = self.link.stop.clone();
        let ended = loop {
            if let Err(error) = self.step(&stop).await {
                break Err(error);
            }
            if stop.is_cancelled() {
                break Ok(());
            }
        };
        let drained = self.drain().await;
        ended.and(drained)
    }

    /// Starts what may be started, then waits for something to happen and deals with it.
    async fn step(&mut self, stop: &CancellationToken) -> Result<(), Problem> {
        if !self.is_to_be_met() {
            self.start_calls();
        }
        self.tell_acknowledged().await?;
        self.notice_restart().await?;
        self.refill().await?;
        self.publish();
        if !self.meet(stop).await? {
            return Ok(());
        }
        self.start_calls();
        self.publish();
        if self.calls.is_empty() {
            return self.rest(stop).await;
        }
        let enqueued = Arc::clone(&self.link.enqueued);
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = enqueued.notified() => return Ok(()),
            Some(done) = self.calls.join_next() => self.settle_joined(done).await?,
        }
        while let Some(done) = self.calls.try_join_next() {
            self.settle_joined(done).await?;
        }
        Ok(())
    }

    /// Waits while there is nothing to send or nobody to send to.
    async fn rest(&mut self, stop: &CancellationToken) -> Result<(), Problem> {
        let pause = match self.breaker.state(now()) {
            BreakerState::Open(until) => Some(until.saturating_duration_since(now())),
            // A moment at least: what is due and not given would make this a busy loop.
            _ => self
                .outbox
                .next_due()
                .await?
                .map(|due| due.max(Duration::from_millis(10))),
        };
        let open = self.is_open();
        let enqueued = Arc::clone(&self.link.enqueued);
        // What another process of the same store enqueues is not told here, so it is looked for now and then.
        const LOOK: Duration = Duration::from_secs(1);
        tokio::select! {
            () = stop.cancelled() => {}
            () = enqueued.notified(), if !open => {}
            () = tokio::time::sleep(pause.unwrap_or(LOOK).min(if open { Duration::MAX } else { LOOK })) => {}
        }
        Ok(())
    }

    /// Returns whether nothing is known of the peer, so that no call is started before it is connected to. One that was down
    /// shows that it is back by taking a memory.
    fn is_to_be_met(&self) -> bool {
        let closed = self.breaker.state(now()) == BreakerState::Closed;
        closed && self.calls.is_empty() && self.pace.is_new()
    }

    /// Connects to a peer about which nothing is known before anything is sent to it, so that no call's time is that of
    /// the connection; returns whether calls may be started.
    async fn meet(&mut self, stop: &CancellationToken) -> Result<bool, Problem> {
        if self.leased.is_empty() || !self.is_to_be_met() {
            return Ok(true);
        }
        let Ok(permit) = self.breaker.admit(now()) else {
            return Ok(true);
        };
        let met = self.peer.meet(now() + self.settings.call_timeout);
        let met = tokio::select! {
            met = met => met,
            () = stop.cancelled() => {
                self.breaker.abandoned(permit, now());
                return Ok(false);
            }
        };
        match met {
            Ok(()) => {
                self.breaker.abandoned(permit, now());
                self.pace.connected();
                Ok(true)
            }
            Err(error) => {
                self.breaker.failed(permit, now());
                self.note_trouble(&error);
                self.give_back_while_open().await?;
                Ok(false)
            }
        }
    }

    /// Leases enough to keep the pace; one entry for a probe, none while the breaker is open.
    async fn refill(&mut self) -> Result<(), Problem> {
        const FEWEST: usize = 4;
        let wanted = match self.breaker.state(now()) {
            BreakerState::Open(_) => 0,
            BreakerState::HalfOpen if self.calls.is_empty() => 1,
            BreakerState::HalfOpen => 0,
            BreakerState::Closed => self.pace.limit().max(FEWEST),
        };
        if self.leased.len() >= wanted {
            return Ok(());
        }
        let missing = wanted - self.leased.len();
        let limit = u32::try_from(missing).unwrap_or(u32::MAX);
        let taken = self.outbox.take(limit).await?;
        self.drained = taken.len() < missing;
        self.leased.extend(taken);
        Ok(())
    }

    fn start_calls(&mut self) {
        while self.calls.len() < self.pace.limit() && !self.leased.is_empty() {
            let now = now();
            let Ok(permit) = self.breaker.admit(now) else {
                return;
            };
            let Some(entry) = self.leased.pop_front() else {
                return;
            };
            let ticket = self.pace.started(now);
            let call = send(
                self.peer.clone(),
                entry,
                permit,
                ticket,
                self.settings.call_timeout,
            );
            self.calls.spawn(call);
        }
    }

    async fn settle_joined(
        &mut self,
        done: Result<Done, tokio::task::JoinError>,
    ) -> Result<(), Problem> {
        match done {
            Ok(done) => self.settle(done).await,
            // A call catches its own panics, so nothing but the runtime's end is left, after which nothing is sent.
            Err(error) => {
                tracing::error!(%error, "a delivery was cut off");
                Ok(())
            }
        }
    }

    async fn settle(&mut self, done: Done) -> Result<(), Problem> {
        let id = done.entry.memory.id;
        let busy = !self.leased.is_empty() || !self.drained;
        let error = match done.result {
            Ok(sent) => {
                self.breaker.succeeded(done.permit);
                self.acknowledged.push(id);
                self.note_success(&sent);
                match sent {
                    Sent::Stored => {
                        self.judge.stored(id, done.took);
                        self.pace.finished(done.ticket, done.ended, busy);
                    }
                    Sent::WasThere => {
                        self.judge.was_there(id);
                        self.pace.abandoned(done.ticket);
                    }
                }
                return Ok(());
            }
            Err(error) => error,
        };
        let why = self.judge.judge(id, &error, done.took);
        if matches!(error, PeerError::Permanent(_)) {
            // It answered: the fault is the entry's.
            self.breaker.succeeded(done.permit);
            self.pace.abandoned(done.ticket);
        } else {
            self.breaker.failed(done.permit, now());
            self.pace.failed(done.ticket);
        }
        self.note_failure(&error, &why);
        self.outbox.fail(id, why).await?;
        self.give_back_while_open().await
    }

    /// Gives back what is leased once the peer is known to be down: until then it may be forgotten or changed.
    async fn give_back_while_open(&mut self) -> Result<(), Problem> {
        if !self.is_open() {
            return Ok(());
        }
        self.pace.reset();
        self.give_back().await
    }

    async fn give_back(&mut self) -> Result<(), Problem> {
        if self.leased.is_empty() {
            return Ok(());
        }
        let ids = self.leased.drain(..).map(|entry| entry.memory.id).collect();
        self.outbox.give_back(ids).await
    }

    fn is_open(&self) -> bool {
        matches!(self.breaker.state(now()), BreakerState::Open(_))
    }

    async fn tell_acknowledged(&mut self) -> Result<(), Problem> {
        if self.acknowledged.is_empty() {
            return Ok(());
        }
        let ids = std::mem::take(&mut self.acknowledged);
        self.outbox.ack(ids).await
    }

    /// Ends all rests when the peer restarted: what was under way to it cannot arrive any more.
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
        self.tell_acknowledged().await?;
        while let Ok(Some(done)) = tokio::time::timeout_at(deadline, self.calls.join_next()).await {
            self.settle_joined(done).await?;
            self.tell_acknowledged().await?;
        }
        // What is still in flight stays leased: the next sender reclaims it and asks the peer for it.
        self.calls.abort_all();
        self.publish();
        Ok(())
    }

    fn note_success(&self, sent: &Sent) {
        self.link.status.send_modify(|status| {
            match sent {
                Sent::Stored => status.delivered += 1,
                Sent::WasThere => status.already_there += 1,
            }
            status.down_since = None;
            status.error = None;
        });
    }

    fn note_failure(&self, error: &PeerError, why: &Undelivered) {
        if matches!(why, Undelivered::Dead(_)) {
            self.link.status.send_modify(|status| status.dead += 1);
        }
        if !matches!(error, PeerError::Permanent(_)) {
            self.note_trouble(error);
        }
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

/// Returns the monotonic clock, the paused one in tests.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
