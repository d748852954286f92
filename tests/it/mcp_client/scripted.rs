//! An HTTP server that answers as a test says.

use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// One request that came in.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) session: Option<String>,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Value,
}

impl Request {
    pub(crate) fn method(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }
}

/// What the server writes: a status line, headers, a body. Nothing: it never answers.
pub(crate) type Answer = Option<(u16, String, String)>;

type Script = Arc<dyn Fn(&Request) -> Answer + Send + Sync>;

/// What a server's connections share.
struct Shared {
    script: Script,
    /// How long it thinks about a tool call.
    pause: Duration,
    seen: Mutex<Vec<Request>>,
    thinking: AtomicUsize,
    peak: AtomicUsize,
}

/// A running server; it ends when this is dropped.
pub(crate) struct Scripted {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Scripted {
    /// Starts a server that answers every request by `script`.
    pub(crate) async fn start(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_on(0, Duration::ZERO, script).await
    }

    /// Starts a server on `port` (0: a free one) that thinks for `pause` about each tool call.
    pub(crate) async fn start_on(
        port: u16,
        pause: Duration,
        script: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .expect("the port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared {
            script: Arc::new(script),
            pause,
            seen: Mutex::default(),
            thinking: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Self {
            port,
            shared,
            _tasks: tasks,
        }
    }

    /// Starts an MCP server whose tool calls are answered by `call`.
    pub(crate) async fn mcp(call: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::start(move |request| match request.method() {
            "tools/call" => call(request),
            _ => handshake(request),
        })
        .await
    }

    /// Starts an MCP server whose tools, their list included, are answered by `answer`.
    pub(crate) async fn mcp_with(
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |request| match request.method() {
            "tools/call" | "tools/list" => answer(request),
            _ => handshake(request),
        })
        .await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/mcp", self.port)
    }

    /// Returns how many tool calls it thought about at once, at most.
    pub(crate) fn peak(&self) -> usize {
        self.shared.peak.load(Ordering::SeqCst)
    }

    pub(crate) fn seen(&self, method: &str) -> Vec<Request> {
        let seen = self.shared.seen.lock().expect("nothing panics with it");
        seen.iter()
            .filter(|request| request.method() == method)
            .cloned()
            .collect()
    }
}

/// Answers what comes before the first call as a server should.
pub(crate) fn handshake(request: &Request) -> Answer {
    match request.method() {
        "initialize" => {
            let result = json!({
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "scripted", "version": "1"}
            });
            let body = json!({"jsonrpc": "2.0", "id": request.body["id"], "result": result});
            Some((
                200,
                "content-type: application/json\r\nmcp-session-id: s1\r\n".to_owned(),
                body.to_string(),
            ))
        }
        _ => Some((202, String::new(), String::new())),
    }
}

pub(crate) fn json_answer(status: u16, body: &Value) -> Answer {
    let headers = "content-type: application/json\r\n".to_owned();
    Some((status, headers, body.to_string()))
}

/// A tool's success.
pub(crate) fn done(request: &Request) -> Answer {
    let result = json!({"content": [{"type": "text", "text": "done"}]});
    json_answer(
        200,
        &json!({"jsonrpc": "2.0", "id": request.body["id"], "result": result}),
    )
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // The client may go away at any time.
            let _ended = serve(stream, &shared).await;
        });
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let Some(request) = read(&mut stream).await? else {
        return Ok(());
    };
    shared
        .seen
        .lock()
        .expect("nothing panics with it")
        .push(request.clone());
    if request.method() == "tools/call" && !shared.pause.is_zero() {
        let now = shared.thinking.fetch_add(1, Ordering::SeqCst) + 1;
        shared.peak.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(shared.pause).await;
        shared.thinking.fetch_sub(1, Ordering::SeqCst);
    }
    let Some((status, headers, body)) = (shared.script)(&request) else {
        return std::future::pending().await;
    };
    let answer = format!(
        "HTTP/1.1 {status} Status\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let header = |name: &str| {
                head.lines().find_map(|line| {
                    let (key, value) = line.split_once(": ")?;
                    key.eq_ignore_ascii_case(name).then(|| value.to_owned())
                })
            };
            let length = header("content-length").and_then(|length| length.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Ok(Some(Request {
                    path: head.split(' ').nth(1).unwrap_or_default().to_owned(),
                    session: header("mcp-session-id"),
                    authorization: header("authorization"),
                    body: serde_json::from_str(body).unwrap_or(Value::Null),
                }));
            }
        }
        const TLS_HANDSHAKE: u8 = 0x16;
        if bytes.first() == Some(&TLS_HANDSHAKE) {
            // What every HTTP server says to somebody who speaks TLS to it.
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await?;
            return Ok(None);
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
}
