//! A peer and an outbox in memory.

use crate::error::Problem;
use crate::mcp_client::{ClientError, NotSent, Unclear};
use crate::model::{At, Memory, MemoryId, MemoryKind, OutboxEntry};
use crate::orchestrator::sync::outbox::{Outbox, Undelivered};
use crate::orchestrator::sync::peer::Peer;
use crate::resilience::{Backoff, Breaker};
use crate::session_buddy::{Marker, Outgoing, PeerError};
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::Instant as TokioInstant;

#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) entry: OutboxEntry,
    pub(crate) due: TokioInstant,
    pub(crate) resting: bool,
    pub(crate) leased: bool,
}

#[derive(Default)]
pub(crate) struct Book {
    pub(crate) rows: BTreeMap<MemoryId, Row>,
    pub(crate) acked: Vec<MemoryId>,
    pub(crate) dead: Vec<(MemoryId, String)>,
    pub(crate) rests: Vec<Duration>,
    /// How many each call gave back.
    pub(crate) given_back: Vec<usize>,
}

#[derive(Clone, Default)]
pub(crate) struct MemoryOutbox(pub(crate) Arc<Mutex<Book>>);

impl MemoryOutbox {
    pub(crate) fn with(count: usize) -> Self {
        let outbox = Self::default();
        for n in 0..count {
            outbox.add(n, false);
        }
        outbox
    }

    pub(crate) fn add(&self, n: usize, ask_first: bool) -> MemoryId {
        let memory = Memory {
            id: MemoryId::new(),
            kind: MemoryKind::Note,
            text: crate::redact::redact(&format!("memory {n}")),
            pool: "p".parse().expect("a pool name"),
            repo: None,
            workflow: None,
            item: None,
            attempt: None,
            worker: None,
            commit: None,
            source: "remember".to_owned(),
            tags: Vec::new(),
            created_at: At::now(),
            aggregated: true,
        };
        let id = memory.id;
        let entry = OutboxEntry {
            memory,
            ask_first,
            attempts: 0,
        };
        let row = Row {
            entry,
            due: TokioInstant::now(),
            resting: false,
            leased: false,
        };
        self.book().rows.insert(id, row);
        id
    }

    pub(crate) fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.0.lock().expect("no test panics with the lock")
    }
}

impl Outbox for MemoryOutbox {
    async fn take(&self, limit: u32) -> Result<Vec<OutboxEntry>, Problem> {
        let now = TokioInstant::now();
        let mut book = self.book();
        let free = book.rows.values_mut().filter(|row| !row.leased);
        let mut due: Vec<_> = free.filter(|row| row.due <= now).collect();
        // As the store does.
        due.sort_by_key(|row| row.due);
        Ok(due
            .into_iter()
            .take(limit as usize)
            .map(|row| {
                row.leased = true;
                row.entry.clone()
            })
            .collect())
    }

    async fn next_due(&self) -> Result<Option<Duration>, Problem> {
        let now = TokioInstant::now();
        let book = self.book();
        let open = book.rows.values().filter(|row| !row.leased);
        Ok(open.map(|row| row.due.saturating_duration_since(now)).min())
    }

    async fn ack(&self, ids: Vec<MemoryId>) -> Result<(), Problem> {
        let mut book = self.book();
        for id in ids {
            assert!(book.rows.remove(&id).is_some_and(|row| row.leased));
            book.acked.push(id);
        }
        Ok(())
    }

    async fn fail(&self, id: MemoryId, why: Undelivered) -> Result<(), Problem> {
        let mut book = self.book();
        if let Undelivered::Rest(rest, _) = &why {
            book.rests.push(*rest);
        }
        let row = book.rows.get_mut(&id).expect("the entry was leased");
        assert!(row.leased);
        row.leased = false;
        match why {
            Undelivered::Rest(rest, _) => {
                row.due = TokioInstant::now() + rest;
                row.resting = true;
                row.entry.ask_first = true;
            }
            Undelivered::Retry(wait, _) => row.due = TokioInstant::now() + wait,
            Undelivered::Dead(error) => {
                book.rows.remove(&id);
                book.dead.push((id, error));
            }
        }
        Ok(())
    }

    async fn give_back(&self, ids: Vec<MemoryId>) -> Result<(), Problem> {
        let now = TokioInstant::now();
        let mut book = self.book();
        book.given_back.push(ids.len());
        for id in ids {
            let row = book.rows.get_mut(&id).expect("the entry was leased");
            assert!(row.leased);
            row.leased = false;
            row.due = now;
        }
        Ok(())
    }

    async fn wake(&self) -> Result<(), Problem> {
        let now = TokioInstant::now();
        for row in self.book().rows.values_mut().filter(|row| row.resting) {
            row.due = now;
        }
        Ok(())
    }
}

/// What the peer does with a store.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Act {
    Store,
    StoreSilently,
    LoseUnstored,
    Refuse,
    RefuseForGood,
    Down,
    Locked,
    NotABuddy,
    Hang,
    Panic,
}

pub(crate) type Plan = Arc<dyn Fn(u64, &str) -> Act + Send + Sync>;

#[derive(Clone)]
pub(crate) struct FakePeer {
    pub(crate) breaker: Breaker<PeerError>,
    pub(crate) plan: Plan,
    pub(crate) room: Arc<Semaphore>,
    pub(crate) work: Duration,
    pub(crate) has: Arc<Mutex<Vec<MemoryId>>>,
    pub(crate) stores: Arc<AtomicU64>,
    pub(crate) questions: Arc<AtomicU64>,
    /// How many connections to it fail at first.
    pub(crate) refused_connections: Arc<AtomicU64>,
    /// Whether a connection to it takes for ever.
    pub(crate) never_connects: bool,
    /// How many stores at once it takes in before it refuses more.
    pub(crate) most_taken_in: usize,
    /// How many questions it does not understand at first.
    pub(crate) refused_questions: u64,
    pub(crate) restarts: Arc<AtomicU64>,
    pub(crate) most: Arc<AtomicUsize>,
    pub(crate) now_in: Arc<AtomicUsize>,
}

impl FakePeer {
    pub(crate) fn new(
        capacity: usize,
        plan: impl Fn(u64, &str) -> Act + Send + Sync + 'static,
    ) -> Self {
        let pauses = Backoff::new(Duration::from_millis(500), Duration::from_secs(30), 1);
        Self {
            breaker: Breaker::new(3, pauses),
            plan: Arc::new(plan),
            room: Arc::new(Semaphore::new(capacity)),
            work: Duration::from_millis(100),
            has: Arc::default(),
            stores: Arc::default(),
            questions: Arc::default(),
            refused_connections: Arc::default(),
            never_connects: false,
            most_taken_in: usize::MAX,
            refused_questions: 0,
            restarts: Arc::default(),
            most: Arc::default(),
            now_in: Arc::default(),
        }
    }

    pub(crate) fn has(&self) -> Vec<MemoryId> {
        self.has
            .lock()
            .expect("no test panics with the lock")
            .clone()
    }

    pub(crate) fn assert_holds_each_once(&self, count: usize) {
        let has = self.has();
        let distinct: HashSet<_> = has.iter().collect();
        assert_eq!((has.len(), distinct.len()), (count, count));
    }

    pub(crate) async fn work(&self, item: &Outgoing) -> Result<(), PeerError> {
        let call = self.stores.fetch_add(1, Ordering::SeqCst);
        let act = (self.plan)(call, &item.text);
        if act == Act::Down {
            return Err(down());
        }
        let _room = self.room.acquire().await.expect("never closed");
        tokio::time::sleep(self.work).await;
        if matches!(act, Act::Store | Act::StoreSilently) {
            self.has.lock().expect("no panic").push(item.marker.id);
        }
        match act {
            Act::Store => Ok(()),
            Act::StoreSilently | Act::LoseUnstored => Err(unclear()),
            Act::Refuse => Err(PeerError::Retry("not now".into())),
            Act::RefuseForGood => Err(PeerError::Permanent("never".into())),
            Act::Locked => Err(PeerError::Locked("held".into())),
            Act::NotABuddy => Err(PeerError::NotSessionBuddy("other tools".into())),
            Act::Hang => std::future::pending().await,
            Act::Panic => panic!("a defect"),
            Act::Down => Err(down()),
        }
    }
}

pub(crate) fn down() -> PeerError {
    PeerError::Down(ClientError::NotSent {
        peer: "fake".into(),
        cause: NotSent::Connect("refused".into()),
    })
}

pub(crate) fn unclear() -> PeerError {
    PeerError::Unclear(ClientError::Unclear {
        peer: "fake".into(),
        what: "store".into(),
        cause: Unclear::Broken("cut".into()),
    })
}

impl Peer for FakePeer {
    fn breaker(&self) -> &Breaker<PeerError> {
        &self.breaker
    }

    async fn connect(&self, _: Instant) -> Result<(), PeerError> {
        if self.never_connects {
            std::future::pending::<()>().await;
        }
        let left = |left: u64| left.checked_sub(1);
        let refused = &self.refused_connections;
        match refused.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left) {
            Ok(_) => Err(down()),
            Err(_) => Ok(()),
        }
    }

    async fn store(&self, item: Outgoing, _: Instant) -> Result<(), PeerError> {
        let inside = self.now_in.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        let result = if inside > self.most_taken_in {
            Err(PeerError::Retry("too many".into()))
        } else {
            self.work(&item).await
        };
        self.now_in.fetch_sub(1, Ordering::SeqCst);
        result
    }

    async fn is_there(&self, marker: Marker, _: Instant) -> Result<bool, PeerError> {
        if self.questions.fetch_add(1, Ordering::SeqCst) < self.refused_questions {
            return Err(PeerError::Permanent("unknown argument".into()));
        }
        Ok(self.has().contains(&marker.id))
    }

    fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::SeqCst)
    }
}
