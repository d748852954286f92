//! The sender: keeps as many calls in flight as the pace allows and tells the outbox how each went.

use super::pace::{Pace, Ticket};
use crate::error::Problem;
use crate::model::{At, MemoryId, OutboxEntry, Reconciled};
use crate::resilience::{Backoff, Breaker, BreakerState, Permit};
use crate::session_buddy::{Marker, Outgoing, PeerError, Stored};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The durable queue of one peer. Whatever is taken is leased until it is acknowledged or failed.
pub trait Outbox: Send + Sync + 'static {
    /// Leases at most `limit` entries that are due, oldest first.
    fn take(&self, limit: u32) -> impl Future<Output = Result<Vec<OutboxEntry>, Problem>> + Send;
    /// Returns how long until an entry is due; nothing where none waits.
    fn next_due(&self) -> impl Future<Output = Result<Option<Duration>, Problem>> + Send;
    /// Notes that the peer has these.
    fn ack(&self, ids: Vec<MemoryId>) -> impl Future<Output = Result<(), Problem>> + Send;
    /// Notes that the peer did not acknowledge this one.
    fn fail(
        &self,
        id: MemoryId,
        why: Undelivered,
    ) -> impl Future<Output = Result<(), Problem>> + Send;
    /// Ends all rests, because the peer restarted.
    fn wake(&self) -> impl Future<Output = Result<(), Problem>> + Send;
}

/// What becomes of an entry that was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undelivered {
    /// Nobody knows whether the peer has it: it rests this long, then the peer is asked.
    Rest(Duration, String),
    /// The peer does not have it: it is due again after this long.
    Retry(Duration, String),
    /// The peer will never take it.
    Dead(String),
}

/// What delivery needs of a peer.
pub trait Peer: Clone + Send + Sync + 'static {
    /// Stores one memory.
    fn store(
        &self,
        item: Outgoing,
        deadline: Instant,
    ) -> impl Future<Output = Result<Stored, PeerError>> + Send;
    /// Returns whether the peer has the memory.
    fn is_there(
        &self,
        marker: Marker,
        deadline: Instant,
    ) -> impl Future<Output = Result<bool, PeerError>> + Send;
    /// Returns how often the peer was found restarted.
    fn losses(&self) -> u64;
}

/// How delivery behaves.
#[derive(Debug, Clone)]
pub struct DeliverySettings {
    /// The least and the most calls in flight.
    pub in_flight: (usize, usize),
    /// How long a store and a question may take; a busy Session-Buddy needs tens of seconds.
    pub call_timeout: Duration,
    /// The shortest rest of an entry whose outcome is unclear; twice the slowest store seen where that is longer.
    pub unclear_rest: Duration,
    /// How many failures in a row stop the sending.
    pub breaker_threshold: u32,
    /// The first and the longest pause between probes of a peer that is down.
    pub probe_pause: (Duration, Duration),
    /// The first and the longest wait before an entry that the peer did not take is sent again.
    pub retry_wait: (Duration, Duration),
    /// How often the peer may refuse an entry for now before that counts as for good.
    pub max_refusals: u32,
    /// How long the calls in flight may go on once delivery is asked to stop.
    pub drain: Duration,
    /// The seed of the jitter.
    pub seed: u64,
}

impl Default for DeliverySettings {
    fn default() -> Self {
        Self {
            in_flight: (1, 512),
            call_timeout: Duration::from_secs(60),
            unclear_rest: Duration::from_secs(30),
            breaker_threshold: 3,
            probe_pause: (Duration::from_millis(500), Duration::from_secs(30)),
            retry_wait: (Duration::from_secs(1), Duration::from_secs(300)),
            max_refusals: 12,
            drain: Duration::from_secs(2),
            seed: u64::from(std::process::id()),
        }
    }
}

/// How delivery stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeliveryStatus {
    /// Whether this process sends; one does for all that share the store.
    pub sending: bool,
    /// Calls in flight.
    pub in_flight: usize,
    /// How many calls may be in flight.
    pub limit: usize,
    /// How many the peer took since the start.
    pub delivered: u64,
    /// How many the peer turned out to have already.
    pub already_there: u64,
    /// How many became dead letters.
    pub dead: u64,
    /// Since when the peer does not answer.
    pub down_since: Option<At>,
    /// What went wrong last, while something is wrong.
    pub error: Option<Problem>,
    /// What the last comparison with the peer by this process found.
    pub reconciled: Option<Reconciled>,
}

/// What connects delivery with the rest of the process.
#[derive(Debug, Clone)]
pub struct Link {
    /// Told whenever something was put into the outbox.
    pub enqueued: Arc<Notify>,
    /// Cancelled when delivery is to stop.
    pub stop: CancellationToken,
    /// Where the status is published.
    pub status: Arc<watch::Sender<DeliveryStatus>>,
}

/// One sender to one peer.
pub struct Delivery<O, P> {
    outbox: O,
    peer: P,
    settings: DeliverySettings,
    link: Link,
    pace: Pace,
    breaker: Breaker,
    retry: Backoff,
    calls: JoinSet<Done>,
    /// Leased and not yet sent.
    leased: VecDeque<OutboxEntry>,
    /// Whether the outbox had no more when it was last asked.
    drained: bool,
    acknowledged: Vec<MemoryId>,
    refusals: HashMap<MemoryId, u32>,
    slowest: Duration,
    losses: u64,
}

/// A call that ended.
struct Done {
    entry: OutboxEntry,
    permit: Permit,
    ticket: Ticket,
    result: Result<Sent, PeerError>,
    took: Duration,
}

enum Sent {
    Stored,
    WasThere,
}

impl<O: Outbox, P: Peer> Delivery<O, P> {
    /// Returns a sender that is not running yet.
    pub fn new(outbox: O, peer: P, settings: DeliverySettings, link: Link) -> Self {
        let (first, longest) = settings.probe_pause;
        let probes = Backoff::new(first, longest, settings.seed);
        let (soon, late) = settings.retry_wait;
        Self {
            losses: peer.losses(),
            outbox,
            peer,
            link,
            pace: Pace::new(settings.in_flight),
            breaker: Breaker::new(settings.breaker_threshold, probes),
            retry: Backoff::new(soon, late, settings.seed.wrapping_add(1)),
            calls: JoinSet::new(),
            leased: VecDeque::new(),
            drained: false,
            acknowledged: Vec::new(),
            refusals: HashMap::new(),
            slowest: Duration::ZERO,
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
        self.start_calls();
        self.tell_acknowledged().await?;
        self.notice_restart().await?;
        self.refill().await?;
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
        let open = matches!(self.breaker.state(now()), BreakerState::Open(_));
        let enqueued = Arc::clone(&self.link.enqueued);
        // What another process of the same store enqueues is not told here, so it is looked for now and then.
        const LOOK: Duration = Duration::from_secs(5);
        tokio::select! {
            () = stop.cancelled() => {}
            () = enqueued.notified(), if !open => {}
            () = tokio::time::sleep(pause.unwrap_or(LOOK).min(if open { Duration::MAX } else { LOOK })) => {}
        }
        Ok(())
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
            Err(error) => {
                // A defect; its entry stays leased and is asked for by the next sender.
                tracing::error!(%error, "a delivery task panicked");
                self.pace.abandoned();
                Ok(())
            }
        }
    }

    async fn settle(&mut self, done: Done) -> Result<(), Problem> {
        let id = done.entry.memory.id;
        let busy = !self.leased.is_empty() || !self.drained;
        match done.result {
            Ok(sent) => {
                self.breaker.succeeded(done.permit);
                self.acknowledged.push(id);
                self.refusals.remove(&id);
                self.note_success(&sent);
                match sent {
                    Sent::Stored => {
                        self.slowest = self.slowest.max(done.took);
                        self.pace.finished(done.ticket, now(), busy);
                    }
                    Sent::WasThere => self.pace.abandoned(),
                }
                Ok(())
            }
            Err(error) => {
                self.note_failure(&error);
                let why = self.verdict(id, &error);
                if matches!(why, Undelivered::Dead(_)) {
                    // It answered: the fault is the entry's.
                    self.breaker.succeeded(done.permit);
                    self.pace.abandoned();
                } else {
                    self.breaker.failed(done.permit, now());
                    self.pace.failed(done.ticket);
                }
                self.outbox.fail(id, why).await?;
                self.give_back_while_open().await
            }
        }
    }

    /// Decides what becomes of an entry that the peer did not acknowledge.
    fn verdict(&mut self, id: MemoryId, error: &PeerError) -> Undelivered {
        let text = crate::error::Fault::problem(error).message;
        match error {
            PeerError::Permanent(_) => {
                self.refusals.remove(&id);
                Undelivered::Dead(text)
            }
            PeerError::Unclear(_) => {
                let rest = self.settings.unclear_rest.max(self.slowest * 2);
                Undelivered::Rest(rest, text)
            }
            // The peer's trouble, not the entry's: the breaker decides when it is tried again.
            PeerError::Down(_) | PeerError::Locked(_) => Undelivered::Retry(Duration::ZERO, text),
            PeerError::Retry(_) => {
                let refusals = self.refusals.entry(id).or_default();
                *refusals += 1;
                if *refusals >= self.settings.max_refusals {
                    self.refusals.remove(&id);
                    Undelivered::Dead(text)
                } else {
                    Undelivered::Retry(self.retry.delay_of(*refusals), text)
                }
            }
        }
    }

    /// Gives back what is leased once the peer is known to be down: until then it may be forgotten or changed.
    async fn give_back_while_open(&mut self) -> Result<(), Problem> {
        if !matches!(self.breaker.state(now()), BreakerState::Open(_)) {
            return Ok(());
        }
        self.pace.reset();
        self.give_back("the peer is down").await
    }

    async fn give_back(&mut self, why: &str) -> Result<(), Problem> {
        while let Some(entry) = self.leased.pop_front() {
            let retry = Undelivered::Retry(Duration::ZERO, why.to_owned());
            self.outbox.fail(entry.memory.id, retry).await?;
        }
        Ok(())
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
        let losses = self.peer.losses();
        if losses != self.losses {
            self.losses = losses;
            self.outbox.wake().await?;
        }
        Ok(())
    }

    async fn drain(&mut self) -> Result<(), Problem> {
        let deadline = tokio::time::Instant::now() + self.settings.drain;
        while let Ok(Some(done)) = tokio::time::timeout_at(deadline, self.calls.join_next()).await {
            self.settle_joined(done).await?;
        }
        // What is still in flight stays leased: the next sender reclaims it and asks the peer for it.
        self.calls.abort_all();
        self.give_back("the sender ended").await?;
        self.tell_acknowledged().await?;
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

    fn note_failure(&self, error: &PeerError) {
        self.link.status.send_modify(|status| {
            if matches!(error, PeerError::Permanent(_)) {
                status.dead += 1;
                return;
            }
            if error.is_about_the_peer() {
                status.down_since.get_or_insert_with(At::now);
            }
            status.error = Some(crate::error::Fault::problem(error));
        });
    }

    fn publish(&self) {
        self.link.status.send_modify(|status| {
            status.in_flight = self.calls.len();
            status.limit = self.pace.limit();
        });
    }
}

/// Sends one entry; asks for it before where the peer may have it already.
async fn send<P: Peer>(
    peer: P,
    entry: OutboxEntry,
    permit: Permit,
    ticket: Ticket,
    timeout: Duration,
) -> Done {
    let began = now();
    let result = ask_and_store(&peer, &entry, began + timeout).await;
    Done {
        entry,
        permit,
        ticket,
        result,
        took: now() - began,
    }
}

async fn ask_and_store<P: Peer>(
    peer: &P,
    entry: &OutboxEntry,
    deadline: Instant,
) -> Result<Sent, PeerError> {
    let memory = &entry.memory;
    let marker = Marker {
        pool: memory.pool.clone(),
        id: memory.id,
    };
    if entry.ask_first {
        match peer.is_there(marker.clone(), deadline).await {
            Ok(true) => return Ok(Sent::WasThere),
            Ok(false) => {}
            // A question changes nothing, so the entry is as it was before.
            Err(PeerError::Unclear(error)) => return Err(PeerError::Down(error)),
            Err(other) => return Err(other),
        }
    }
    let item = Outgoing {
        marker,
        text: memory.text.clone(),
        tags: memory.tags.clone(),
    };
    peer.store(item, deadline).await.map(|_| Sent::Stored)
}

/// Returns the monotonic clock, the paused one in tests.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
