//! rmcp's transport over the process's streams: one JSON-RPC message a line.

use super::messages::{Line, MessageDecoder};
use futures_util::StreamExt;
use rmcp::RoleServer;
use rmcp::model::JsonRpcMessage;
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::codec::FramedRead;
use tokio_util::sync::CancellationToken;

/// How many messages may wait to be written before nothing more is read.
const MAX_WAITING: usize = 64;

/// The longest that closing waits for a write that may never end.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

/// The client's streams, with backpressure: a client that does not read its answers is not read from either, so that a
/// flood of requests cannot fill the memory.
pub(super) struct Transport<R> {
    input: FramedRead<R, MessageDecoder>,
    /// Encoded messages; where it is full, senders wait and nothing is read. None once it is closed.
    output: Option<mpsc::Sender<Vec<u8>>>,
    /// The one task that writes.
    writing: JoinSet<()>,
    input_ended: CancellationToken,
    begun: bool,
}

impl<R: AsyncRead + Unpin + Send> Transport<R> {
    /// Returns the transport over both streams; it fires `input_ended` at the end of the input. Must be called within a
    /// tokio runtime.
    pub(super) fn new(
        reader: R,
        writer: impl AsyncWrite + Unpin + Send + 'static,
        input_ended: CancellationToken,
    ) -> Self {
        let (output, messages) = mpsc::channel(MAX_WAITING);
        let mut writing = JoinSet::new();
        writing.spawn(async move {
            if let Err(error) = write(messages, writer).await {
                tracing::info!(%error, "stdout is closed");
            }
        });
        Self {
            input: FramedRead::new(reader, MessageDecoder::default()),
            output: Some(output),
            writing,
            input_ended,
            begun: false,
        }
    }

    /// Returns the next message, once there is room for an answer; none at the end of the input or of the output.
    async fn next(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        let output = self.output.as_ref()?;
        loop {
            let room = output.reserve().await.ok()?;
            match self.input.next().await?.inspect_err(log).ok()? {
                Line::Message(message) => return Some(*message),
                Line::Refused(answer) => room.send(answer),
            }
        }
    }
}

/// Writes messages in order, those that came together at once, until the channel is closed.
async fn write(
    mut messages: mpsc::Receiver<Vec<u8>>,
    mut writer: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut batch = Vec::new();
    while messages.recv_many(&mut batch, MAX_WAITING).await > 0 {
        writer.write_all(&batch.concat()).await?;
        writer.flush().await?;
        batch.clear();
    }
    Ok(())
}

fn log(error: &io::Error) {
    tracing::warn!(%error, "stdin cannot be read");
}

fn encode(message: &TxJsonRpcMessage<RoleServer>) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

impl<R: AsyncRead + Unpin + Send> rmcp::transport::Transport<RoleServer> for Transport<R> {
    type Error = io::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let line = encode(&message);
        let output = self.output.clone();
        async move {
            let output = output.ok_or(io::ErrorKind::NotConnected)?;
            let sent = output.send(line?).await;
            sent.map_err(|_closed| io::ErrorKind::BrokenPipe.into())
        }
    }

    /// # Cancel safety
    ///
    /// Nothing is lost: a part of a line stays buffered.
    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        while let Some(message) = self.next().await {
            // Anything else as the first message would make rmcp end the process.
            self.begun |= matches!(message, JsonRpcMessage::Request(_));
            if self.begun {
                return Some(message);
            }
            tracing::debug!("dropped a message that came before the first request");
        }
        self.input_ended.cancel();
        None
    }

    async fn close(&mut self) -> io::Result<()> {
        self.output = None;
        let written = tokio::time::timeout(CLOSE_WITHIN, self.writing.join_next());
        if written.await.is_err() {
            tracing::warn!("stdout was not read; answers that waited to be written are lost");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmcp::model::{NumberOrString, ServerResult};
    use rmcp::transport::Transport as _;
    use tokio::io::{AsyncReadExt, duplex};

    fn answer(id: i64) -> TxJsonRpcMessage<RoleServer> {
        JsonRpcMessage::response(ServerResult::empty(()), NumberOrString::Number(id))
    }

    #[tokio::test]
    async fn answers_are_written_in_order_before_the_end() {
        let (_stdin, reader) = duplex(64);
        let (mut client, writer) = duplex(64);
        let mut transport = Transport::new(reader, writer, CancellationToken::new());
        let sending = async {
            for id in 0..100 {
                transport.send(answer(id)).await.expect("it is read");
            }
            transport.close().await.expect("it cannot fail");
        };
        let mut text = String::new();
        let (read, ()) = tokio::join!(client.read_to_string(&mut text), sending);
        read.expect("UTF-8");
        let ids: Vec<_> = text
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).expect("JSON")["id"].clone()
            })
            .collect();
        assert_eq!(ids, (0..100).collect::<Vec<_>>());
        assert!(transport.send(answer(0)).await.is_err(), "it is closed");
    }

    #[tokio::test]
    async fn an_unread_client_is_not_read_from() {
        let (mut stdin, reader) = duplex(1 << 20);
        let (_client, writer) = duplex(64);
        let mut transport = Transport::new(reader, writer, CancellationToken::new());
        let ping = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n";
        let mut sends = JoinSet::new();
        let mut read = 0;
        loop {
            stdin.write_all(ping).await.expect("there is room");
            let receive = tokio::time::timeout(Duration::from_millis(200), transport.receive());
            let Ok(message) = receive.await else { break };
            assert!(message.is_some());
            sends.spawn(transport.send(answer(read)));
            tokio::task::yield_now().await;
            read += 1;
            assert!(read < 1_000, "it reads without bound");
        }
        assert!(read >= MAX_WAITING as i64, "{read}");
        transport
            .close()
            .await
            .expect("a stuck write does not hold it");
    }

    #[tokio::test]
    async fn a_client_that_closed_stdout_is_gone() {
        let (mut stdin, reader) = duplex(1 << 10);
        let (client, writer) = duplex(64);
        let input_ended = CancellationToken::new();
        let mut transport = Transport::new(reader, writer, input_ended.clone());
        drop(client);
        transport
            .send(answer(1))
            .await
            .expect("it is not known yet");
        transport.writing.join_next().await;
        stdin.write_all(b"{}\n").await.expect("there is room");
        assert!(transport.receive().await.is_none());
        assert!(input_ended.is_cancelled());
        let refused = transport
            .send(answer(2))
            .await
            .expect_err("it is known now");
        assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
    }
}
