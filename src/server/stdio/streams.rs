//! stdin and stdout without a blocked thread, whatever they are.

use rmcp::transport::io::stdio_pipes;
use rustix::fs::{FileType, fstat};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as Socket;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

/// The process's stdin.
pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// The process's stdout.
pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Opens both streams.
///
/// rmcp reads and writes pipes; hosts on Node give sockets, which it would read on a blocked thread, six times slower.
///
/// # Errors
///
/// The system's, where a stream is closed.
pub(super) fn open() -> io::Result<(Reader, Writer)> {
    let (reader, writer) = stdio_pipes();
    let stdin: Reader = match socket(io::stdin())? {
        Some(socket) => Box::new(socket),
        None => Box::new(reader),
    };
    let stdout: Writer = match socket(io::stdout())? {
        Some(socket) => Box::new(socket),
        None => Box::new(writer),
    };
    Ok((stdin, stdout))
}

/// Returns the socket that `stream` is, if it is one.
fn socket(stream: impl AsFd) -> io::Result<Option<UnixStream>> {
    if FileType::from_raw_mode(fstat(&stream)?.st_mode) != FileType::Socket {
        return Ok(None);
    }
    let socket = Socket::from(stream.as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket).map(Some)
}
