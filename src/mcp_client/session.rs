//! The one session that all clones of a client share: made on demand, replaced when it is lost.

use super::connect::Connection;
use super::endpoint::Endpoint;
use super::error::NotSent;
use super::settings::ClientSettings;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The session with one server.
#[derive(Debug)]
pub(super) struct Session {
    endpoint: Endpoint,
    pub(super) settings: ClientSettings,
    /// Held for looks and swaps only, never across an await.
    slot: Mutex<Slot>,
    losses: AtomicU64,
}

/// A connection attempt that everybody who needs the session waits for.
type Attempt = Shared<BoxFuture<'static, Result<Arc<Connection>, NotSent>>>;

#[derive(Debug)]
enum Slot {
    Idle,
    Connecting(Attempt),
    Up(Arc<Connection>),
    Closed,
}

impl Session {
    pub(super) fn new(endpoint: Endpoint, settings: ClientSettings) -> Self {
        Self {
            endpoint,
            settings,
            slot: Mutex::new(Slot::Idle),
            losses: AtomicU64::new(0),
        }
    }

    /// Returns the connection, making one where there is none; all callers share one attempt.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>, NotSent> {
        let attempt = {
            let mut slot = self.slot.lock();
            match &*slot {
                Slot::Closed => return Err(NotSent::Closed),
                Slot::Up(connection) if !connection.is_closed() => {
                    return Ok(Arc::clone(connection));
                }
                Slot::Connecting(attempt) => attempt.clone(),
                Slot::Up(_) | Slot::Idle => {
                    if matches!(&*slot, Slot::Up(_)) {
                        self.losses.fetch_add(1, Ordering::AcqRel);
                    }
                    let attempt = self.connect();
                    *slot = Slot::Connecting(attempt.clone());
                    attempt
                }
            }
        };
        let result = attempt.clone().await;
        let mut slot = self.slot.lock();
        if matches!(&*slot, Slot::Connecting(current) if current.ptr_eq(&attempt)) {
            *slot = match &result {
                Ok(connection) => Slot::Up(Arc::clone(connection)),
                Err(_) => Slot::Idle,
            };
        }
        result
    }

    fn connect(&self) -> Attempt {
        let (endpoint, settings) = (self.endpoint.clone(), self.settings.clone());
        async move {
            let opening = Connection::open(&endpoint, &settings);
            match tokio::time::timeout(settings.connect_timeout, opening).await {
                Ok(opened) => opened.map(Arc::new),
                Err(_) => Err(NotSent::Connect(
                    "the handshake was not answered in time".into(),
                )),
            }
        }
        .boxed()
        .shared()
    }

    /// Returns the connection where there is one now.
    pub(super) fn current(&self) -> Option<Arc<Connection>> {
        match &*self.slot.lock() {
            Slot::Up(connection) => Some(Arc::clone(connection)),
            _ => None,
        }
    }

    /// Drops a session that the server forgot, unless another caller has replaced it already.
    pub(super) fn lost(&self, lost: &Arc<Connection>) {
        let mut slot = self.slot.lock();
        if matches!(&*slot, Slot::Up(current) if Arc::ptr_eq(current, lost)) {
            *slot = Slot::Idle;
            self.losses.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    pub(super) async fn close(&self, grace: Duration) {
        let slot = std::mem::replace(&mut *self.slot.lock(), Slot::Closed);
        if let Slot::Up(connection) = slot {
            connection.close(grace).await;
        }
    }
}
