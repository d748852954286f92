//! stdin and stdout on the reactor, whatever they are.
//!
//! Pipes are rmcp's (reopened, so that their non-blocking flag is ours alone). Sockets, which Node hosts give, cannot be
//! reopened, and `O_NONBLOCK` belongs to the open file description that other processes may share: each call says
//! `MSG_DONTWAIT` instead, so there is no flag to restore at any end of the process. Everything else (files, terminals)
//! blocks on a thread of its own.

use rmcp::transport::io::{StdioReader, StdioWriter, stdio_pipes};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Returns the readers and writers of the process's streams.
pub(super) fn open() -> io::Result<(Reader, Writer)> {
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let (pipe_reader, pipe_writer) = stdio_pipes();
    let reader = match Socket::of(stdin.as_fd())? {
        Some(socket) => Reader::Socket(socket),
        None => Reader::Other(pipe_reader),
    };
    let writer = match Socket::of(stdout.as_fd())? {
        Some(socket) => Writer::Socket(socket),
        None => Writer::Other(pipe_writer),
    };
    Ok((reader, writer))
}

/// The process's stdin.
#[derive(Debug)]
pub(super) enum Reader {
    Socket(Socket),
    Other(StdioReader),
}

/// The process's stdout.
#[derive(Debug)]
pub(super) enum Writer {
    Socket(Socket),
    Other(StdioWriter),
}

/// A stream socket that was given to us, used without changing its flags.
#[derive(Debug)]
pub(super) struct Socket(AsyncFd<OwnedFd>);

impl Socket {
    #[expect(
        deprecated,
        reason = "the descriptor is owned, so it is the same open one as long as this lives, which is all that the \
                  unsafe successor asks for"
    )]
    fn of(fd: impl AsFd) -> io::Result<Option<Self>> {
        if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::Socket {
            return Ok(None);
        }
        let own = fd.as_fd().try_clone_to_owned()?;
        Ok(Some(Self(AsyncFd::new(own)?)))
    }

    /// Does `operation` until it no longer says that it would have to wait.
    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        direction: Direction,
        mut operation: impl FnMut(&OwnedFd) -> Result<T, Errno>,
    ) -> Poll<io::Result<T>> {
        loop {
            let mut ready = ready!(match direction {
                Direction::Read => self.0.poll_read_ready(cx),
                Direction::Write => self.0.poll_write_ready(cx),
            })?;
            match operation(self.0.get_ref()) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                result => return Poll::Ready(result.map_err(io::Error::from)),
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    Read,
    Write,
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Other(reader) => Pin::new(reader).poll_read(cx, buf),
            Self::Socket(socket) => {
                let got = ready!(socket.poll(cx, Direction::Read, |fd| {
                    let room = buf.initialize_unfilled();
                    recv(fd, room, RecvFlags::DONTWAIT).map(|(got, _)| got)
                }))?;
                buf.advance(got);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Other(writer) => Pin::new(writer).poll_write(cx, bytes),
            Self::Socket(socket) => socket.poll(cx, Direction::Write, |fd| {
                send(fd, bytes, SendFlags::DONTWAIT)
            }),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Other(writer) => Pin::new(writer).poll_flush(cx),
            Self::Socket(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Other(writer) => Pin::new(writer).poll_shutdown(cx),
            Self::Socket(_) => Poll::Ready(Ok(())),
        }
    }
}
