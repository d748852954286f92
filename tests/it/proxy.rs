//! A TCP proxy that does to a connection what no real server can be made to do.

use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What becomes of a connection that is accepted from now on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// It passes.
    None,
    /// The request passes; of the answer only this many bytes do, then the connection closes.
    CutAfter(usize),
    /// The request passes; of the answer only the head and this many bytes of the body do.
    CutBodyAfter(usize),
    /// The request passes; the answer waits this long.
    Delay(Duration),
    /// The request passes; no answer and no end ever comes.
    HalfOpen,
    /// The request passes; the answer comes twice.
    AnswerTwice,
    /// The connection is closed before a byte of the request passes.
    RefuseUnread,
}

/// A running proxy; it ends when this is dropped.
pub(crate) struct Proxy {
    port: u16,
    // std mutex: copied in and out.
    fault: Arc<Mutex<Fault>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy to `127.0.0.1:target`.
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let fault = Arc::new(Mutex::new(Fault::None));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, Arc::clone(&fault)));
        Self {
            port,
            fault,
            _tasks: tasks,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Sets what becomes of connections from now on.
    pub(crate) fn set(&self, fault: Fault) {
        *self.fault.lock().expect("nothing panics with it") = fault;
    }
}

async fn accept(listener: TcpListener, target: u16, fault: Arc<Mutex<Fault>>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let fault = *fault.lock().expect("nothing panics with it");
        connections.spawn(async move {
            // Either side may go away at any time; that is what this is for.
            let _ended = relay(client, target, fault).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn relay(client: TcpStream, target: u16, fault: Fault) -> std::io::Result<()> {
    if fault == Fault::RefuseUnread {
        return Ok(());
    }
    let server = TcpStream::connect(("127.0.0.1", target)).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let request = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let answer = async {
        match fault {
            Fault::None | Fault::RefuseUnread => {
                tokio::io::copy(&mut from_server, &mut to_client).await?;
            }
            Fault::Delay(time) => {
                tokio::time::sleep(time).await;
                tokio::io::copy(&mut from_server, &mut to_client).await?;
            }
            Fault::HalfOpen => {
                tokio::io::copy(&mut from_server, &mut tokio::io::sink()).await?;
                std::future::pending::<()>().await;
            }
            Fault::CutAfter(_) | Fault::CutBodyAfter(_) | Fault::AnswerTwice => {
                let whole = whole_answer(&mut from_server).await?;
                let head = whole.windows(4).position(|part| part == b"\r\n\r\n");
                let head = head.map_or(whole.len(), |at| at + 4);
                let passes = match fault {
                    Fault::CutAfter(bytes) => bytes,
                    Fault::CutBodyAfter(bytes) => head + bytes,
                    _ => whole.len(),
                };
                to_client
                    .write_all(&whole[..passes.min(whole.len())])
                    .await?;
                if fault == Fault::AnswerTwice {
                    to_client.write_all(&whole).await?;
                }
            }
        }
        to_client.shutdown().await
    };
    tokio::select! {
        ended = answer => ended,
        Err(error) = request => Err(error),
    }
}

/// Reads one answer to its end: the last chunk, or the end of the connection.
async fn whole_answer(stream: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let mut whole = Vec::new();
    while stream.read_buf(&mut whole).await? > 0 && !whole.ends_with(b"\r\n0\r\n\r\n") {}
    Ok(whole)
}
