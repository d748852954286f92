//! A transport that stops reading while the client does not read.

use rmcp::RoleServer;
use rmcp::model::JsonRpcMessage;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How many messages may wait to be written before nothing more is read.
const MAX_WAITING: usize = 64;

/// The longest closing waits for a write that may never end.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

/// Bounds what rmcp would do without bound: reading on, and starting calls, while no answer can be written; and closing
/// while a write is stuck.
///
/// It also drops what is no request before the first request, which rmcp takes for a reason to end the process.
pub struct Gate<T> {
    inner: T,
    waiting: Arc<Waiting>,
    input_ended: CancellationToken,
    begun: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    writes: AtomicUsize,
    fewer: Notify,
}

/// One write that waits; counted until it is dropped, whether it ended or not.
struct Write(Arc<Waiting>);

impl Write {
    fn begin(waiting: &Arc<Waiting>) -> Self {
        waiting.writes.fetch_add(1, Ordering::AcqRel);
        Self(waiting.clone())
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        self.0.writes.fetch_sub(1, Ordering::AcqRel);
        self.0.fewer.notify_one();
    }
}

impl<T> Gate<T> {
    /// Returns the gate before `inner`; it fires `input_ended` at the end of the input.
    pub fn new(inner: T, input_ended: CancellationToken) -> Self {
        Self {
            inner,
            waiting: Arc::default(),
            input_ended,
            begun: false,
        }
    }
}

impl<T: Transport<RoleServer>> Transport<RoleServer> for Gate<T> {
    type Error = T::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        let write = Write::begin(&self.waiting);
        let sent = self.inner.send(item);
        async move {
            let result = sent.await;
            drop(write);
            result
        }
    }

    /// # Cancel safety
    ///
    /// As safe as the inner transport's: nothing is taken before the inner call.
    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            // `notify_one` keeps a permit, so a write that ends between the look and the wait is not missed.
            while self.waiting.writes.load(Ordering::Acquire) >= MAX_WAITING {
                self.waiting.fewer.notified().await;
            }
            let Some(message) = self.inner.receive().await else {
                self.input_ended.cancel();
                return None;
            };
            self.begun |= matches!(message, JsonRpcMessage::Request(_));
            if self.begun {
                return Some(message);
            }
            tracing::debug!("dropped a message that came before the first request");
        }
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        match tokio::time::timeout(CLOSE_WITHIN, self.inner.close()).await {
            Ok(closed) => closed,
            Err(_) => {
                tracing::warn!("stdout was not read; what waited to be written is lost");
                Ok(())
            }
        }
    }
}
