//! An HTTP server that answers as a test says.

use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// One request that came in.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) session: Option<String>,
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

/// A running server; it ends when this is dropped.
pub(crate) struct Scripted {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
    _tasks: JoinSet<()>,
}

impl Scripted {
    /// Starts a server that answers every request by `script`.
    pub(crate) async fn start(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::new(script), Arc::clone(&seen)));
        Self {
            port,
            seen,
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

    pub(crate) fn seen(&self, method: &str) -> Vec<Request> {
        let seen = self.seen.lock().expect("nothing panics with it");
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

async fn accept(listener: TcpListener, script: Script, seen: Arc<Mutex<Vec<Request>>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
        connections.spawn(async move {
            // The client may go away at any time.
            let _ended = serve(stream, script, seen).await;
        });
    }
}

async fn serve(
    mut stream: TcpStream,
    script: Script,
    seen: Arc<Mutex<Vec<Request>>>,
) -> std::io::Result<()> {
    let Some(request) = read(&mut stream).await? else {
        return Ok(());
    };
    seen.lock()
        .expect("nothing panics with it")
        .push(request.clone());
    let Some((status, headers, body)) = script(&request) else {
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
