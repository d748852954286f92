//! The transport: rmcp reads, one outbox writes, and nothing more is read while the client does not.

use super::MAX_LINE_BYTES;
use super::outbox::Outbox;
use crate::server::line;
use rmcp::RoleServer;
use rmcp::model::JsonRpcMessage;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::async_rw::AsyncRwTransport;
use std::future::{Ready, ready};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How many messages may wait to be written before nothing more is read.
const MAX_WAITING: usize = 64;

/// The longest closing waits for a write that may never end.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

/// Bounds what rmcp would do without bound: reading on, and starting calls, while no answer can be written; and closing
/// while a write is stuck.
///
/// It also drops what is no request before the first request, which rmcp takes for a reason to end the process.
pub(super) struct Gate<R: AsyncRead> {
    incoming: AsyncRwTransport<RoleServer, R, Outbox>,
    outbox: Outbox,
    input_ended: CancellationToken,
    /// Fires when nothing can be written any more: the client is gone.
    deaf: CancellationToken,
    _writing: JoinSet<()>,
    begun: bool,
}

impl<R: AsyncRead + Unpin + Send> Gate<R> {
    /// Returns the transport over both streams; it fires `input_ended` at the end of the input. Needs a tokio runtime, which
    /// the writing goes on in.
    pub(super) fn new(
        reader: R,
        mut writer: impl AsyncWrite + Unpin + Send + 'static,
        input_ended: CancellationToken,
    ) -> Self {
        let outbox = Outbox::new();
        let deaf = CancellationToken::new();
        let (emptied, gone) = (outbox.clone(), deaf.clone());
        let mut writing = JoinSet::new();
        writing.spawn(async move {
            if let Err(error) = emptied.empty_into(&mut writer).await {
                tracing::info!(%error, "stdout is closed");
            }
            gone.cancel();
        });
        Self {
            incoming: AsyncRwTransport::new_server(reader, outbox.clone())
                .with_max_line_length(MAX_LINE_BYTES),
            outbox,
            input_ended,
            deaf,
            _writing: writing,
            begun: false,
        }
    }

    /// Returns the next message, once there is room for an answer.
    async fn next(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        self.outbox.fewer_than(MAX_WAITING).await;
        self.incoming.receive().await
    }
}

impl<R: AsyncRead + Unpin + Send> Transport<RoleServer> for Gate<R> {
    type Error = io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        self.encode(&item)
    }

    /// # Cancel safety
    ///
    /// As safe as rmcp's: nothing is taken before its call.
    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        let deaf = self.deaf.clone();
        loop {
            let message = deaf.run_until_cancelled(self.next()).await.flatten();
            let Some(message) = message else {
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
        let written = tokio::time::timeout(CLOSE_WITHIN, self.outbox.fewer_than(1));
        if !matches!(self.deaf.run_until_cancelled(written).await, Some(Ok(()))) {
            tracing::warn!("stdout was not read; what waited to be written is lost");
        }
        Ok(())
    }
}

impl<R: AsyncRead> Gate<R> {
    fn encode(&self, item: &TxJsonRpcMessage<RoleServer>) -> Ready<io::Result<()>> {
        if self.deaf.is_cancelled() {
            return ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let added = self.outbox.add(|waiting| line::append(item, waiting));
        ready(added.map_err(io::Error::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmcp::model::{JsonRpcMessage, NumberOrString, ServerResult};
    use tokio::io::{AsyncReadExt, duplex};

    fn answer() -> TxJsonRpcMessage<RoleServer> {
        JsonRpcMessage::response(ServerResult::empty(()), NumberOrString::Number(1))
    }

    #[tokio::test]
    async fn a_client_that_reads_no_more_is_gone_though_it_could_still_write() {
        let (_stdin_stays_open, reader) = duplex(64);
        let (mut client, writer) = duplex(64);
        let input_ended = CancellationToken::new();
        let mut gate = Gate::new(reader, writer, input_ended.clone());
        gate.send(answer()).await.expect("it is read");
        assert_ne!(client.read_u8().await.expect("an answer"), 0);
        drop(client);
        gate.send(answer()).await.expect("nobody knows yet");
        let next = tokio::time::timeout(Duration::from_secs(60), gate.receive()).await;
        assert!(matches!(next, Ok(None)), "nothing more is taken");
        assert!(input_ended.is_cancelled());
        let refused = gate.send(answer()).await.expect_err("it is known now");
        assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
    }
}
