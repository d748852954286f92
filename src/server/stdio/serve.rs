//! One client, from its greeting to its end.

use super::transport::Transport;
use super::{streams, watchdog};
use crate::api::Tools;
use crate::server::handler::{Connection, McpServer};
use crate::shutdown::Signals;
use rmcp::service::{RunningService, ServerInitializeError};
use rmcp::{RoleServer, ServiceExt};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long calls in flight may go on after the client closed stdin, before they are asked to end.
///
/// rmcp gives up after 5 s, so this leaves 2 s for answers.
const EOF_GRACE: Duration = Duration::from_secs(3);

/// The longest the end takes once calls are asked to end; rmcp flushes answers for at most 2 s of it.
const FLUSH: Duration = Duration::from_millis(2_500);

/// Why serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The client closed stdin.
    Eof,
    /// A signal asked for it.
    Signal,
}

/// Why nothing could be served.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// A standard stream could not be used.
    #[error("use the standard streams")]
    Streams(#[source] io::Error),
    /// A signal handler could not be set.
    #[error("listen for signals")]
    Signals(#[source] io::Error),
    /// The client's greeting could not be answered.
    #[error("greet the client")]
    Greeting(#[source] Box<ServerInitializeError>),
}

/// Serves one client on stdin and stdout until it goes or a signal comes; answers in flight are flushed.
///
/// # Errors
///
/// [`StdioError`] where the streams, the signals or the greeting fail. A client that goes before its greeting is no error.
pub async fn serve(tools: Arc<dyn Tools>) -> Result<Ended, StdioError> {
    let mut signals = Signals::listen().map_err(StdioError::Signals)?;
    let (reader, writer) = streams::open().map_err(StdioError::Streams)?;
    watchdog::start().map_err(StdioError::Streams)?;
    let connection = Connection::default();
    let transport = Transport::new(reader, writer, connection.input_ended.clone());
    let stop = CancellationToken::new();
    let server = McpServer::new(tools, connection.clone());
    let greeting = server.serve_with_ct(transport, stop.clone());
    let service = tokio::select! {
        greeted = greeting => match greeted {
            Ok(service) => service,
            Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(Ended::Eof),
            Err(error) => return Err(StdioError::Greeting(Box::new(error))),
        },
        () = signals.recv() => return Ok(Ended::Signal),
    };
    let ended = wait(service, &mut signals, &connection, &stop).await;
    tracing::info!(?ended, "the client is gone");
    Ok(ended)
}

/// Waits for the end of the service; bounds how long its last calls take.
async fn wait(
    service: RunningService<RoleServer, McpServer>,
    signals: &mut Signals,
    connection: &Connection,
    stop: &CancellationToken,
) -> Ended {
    let mut waiting = std::pin::pin!(service.waiting());
    let ended = tokio::select! {
        _ = &mut waiting => return Ended::Eof,
        () = signals.recv() => Ended::Signal,
        () = async {
            connection.input_ended.cancelled().await;
            tokio::time::sleep(EOF_GRACE).await;
        } => Ended::Eof,
    };
    connection.input_ended.cancel();
    connection.closing.cancel();
    if ended == Ended::Signal {
        stop.cancel();
    }
    tokio::select! {
        _ = tokio::time::timeout(FLUSH, &mut waiting) => {}
        () = signals.recv() => {}
    }
    ended
}
