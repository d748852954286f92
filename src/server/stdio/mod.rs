//! The stdio front: stdin, stdout, their end, and the signals that end the process.
//!
//! Everything here is about one client over the process's own streams; the core knows none of it, so that another front
//! can share it.

mod gate;
mod outbox;
mod streams;
mod watchdog;

use super::{Connection, McpServer};
use crate::api::Tools;
use crate::shutdown::Signals;
use gate::Gate;
use rmcp::service::ServerInitializeError;
use rmcp::{ServiceExt, service::RunningService};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// The longest message a client may send, in bytes: far more than any sensible call, far less than memory.
const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// How long calls in flight may go on after the client closed stdin, before they are told to end.
///
/// rmcp gives up after 5 s, so this leaves 2 s for answers.
const EOF_GRACE: Duration = Duration::from_secs(3);

/// The longest the end takes once calls are told to end; rmcp flushes answers for at most 2 s of it.
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
    Streams(#[source] std::io::Error),
    /// A signal handler could not be set.
    #[error("listen for signals")]
    Signals(#[source] std::io::Error),
    /// The client's greeting could not be answered.
    #[error("greet the client")]
    Greeting(#[source] Box<ServerInitializeError>),
}

/// Serves one client on stdin and stdout until it goes or a signal comes; answers in flight are flushed.
///
/// Belongs on a runtime of one thread, which spares every call the wake-ups between threads; what the tools spawn runs on
/// `runtime`.
///
/// # Errors
///
/// [`StdioError`] where the streams, the signals or the greeting fail. A client that goes before its greeting is no error.
pub async fn serve(tools: Arc<dyn Tools>, runtime: Handle) -> Result<Ended, StdioError> {
    let mut signals = Signals::listen().map_err(StdioError::Signals)?;
    let (reader, writer) = streams::open().map_err(StdioError::Streams)?;
    watchdog::start().map_err(StdioError::Streams)?;
    let connection = Connection::default();
    let gate = Gate::new(reader, writer, connection.mute.clone());
    let stop = CancellationToken::new();
    let server = McpServer::new(tools, runtime, connection.clone());
    let greeting = server.serve_with_ct(gate, stop.clone());
    let service = tokio::select! {
        greeted = greeting => match greeted {
            Ok(service) => service,
            Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(Ended::Eof),
            Err(error) => return Err(StdioError::Greeting(Box::new(error))),
        },
        () = signals.recv() => return Ok(Ended::Signal),
    };
    let ended = attend(service, &mut signals, &connection, &stop).await;
    tracing::info!(?ended, "the client is gone");
    Ok(ended)
}

/// Waits for the end of the service and makes it come in time.
async fn attend(
    service: RunningService<rmcp::RoleServer, McpServer>,
    signals: &mut Signals,
    connection: &Connection,
    stop: &CancellationToken,
) -> Ended {
    let mut waiting = std::pin::pin!(service.waiting());
    let by_signal = tokio::select! {
        _ = &mut waiting => return Ended::Eof,
        () = signals.recv() => true,
        () = async {
            connection.mute.cancelled().await;
            tokio::time::sleep(EOF_GRACE).await;
        } => false,
    };
    connection.mute.cancel();
    connection.closing.cancel();
    if by_signal {
        stop.cancel();
    }
    tokio::select! {
        _ = tokio::time::timeout(FLUSH, &mut waiting) => {}
        () = signals.recv() => {}
    }
    if by_signal { Ended::Signal } else { Ended::Eof }
}
