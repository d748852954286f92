//! The real server and a thin JSON-RPC client for it, which hides nothing of the protocol.

use super::processes::{Marker, wait_until};
use super::repos::GitRepo;
use super::{HANG, binary};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A folder that is one test's whole world: HOME, state, config and repositories.
pub(crate) struct Home {
    dir: TempDir,
}

impl Home {
    /// Makes an empty home, without a config file.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("mahavishnu-test-")
            .tempdir()
            .expect("the temporary folder can be written");
        for folder in ["home", "repos"] {
            std::fs::create_dir(dir.path().join(folder)).expect("it is empty");
        }
        Self { dir }
    }

    /// Makes a home with this config file; `roots` is set to its repositories' folder where the text does not set it.
    pub(crate) fn with_config(text: &str) -> Self {
        let home = Self::new();
        home.configure(text);
        home
    }

    /// Writes the config file anew, for the next server.
    pub(crate) fn configure(&self, text: &str) {
        let roots = if text.lines().any(|line| line.starts_with("roots")) {
            String::new()
        } else {
            format!("roots = [{:?}]\n", self.repos())
        };
        std::fs::write(self.config(), format!("{roots}{text}")).expect("it can be written");
    }

    /// Returns the config file's path; the file may be missing.
    pub(crate) fn config(&self) -> PathBuf {
        self.path().join("config.toml")
    }

    /// Returns the state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// Returns the folder that repositories are made in, the default root.
    pub(crate) fn repos(&self) -> PathBuf {
        self.path().join("repos")
    }

    /// Makes a repository.
    pub(crate) fn repo(&self, name: &str) -> GitRepo {
        GitRepo::new(&self.repos(), name)
    }

    /// Makes `count` repositories `r0`, `r1`, ...
    pub(crate) fn many_repos(&self, count: usize) -> Vec<GitRepo> {
        GitRepo::many(&self.repos(), "r", count)
    }

    /// Returns the home's folder.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the server's command, in the repositories' folder, with this home's environment and nothing else but PATH.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(binary());
        self.dress(&mut command);
        command
    }

    /// Gives `command` this home's environment and no other, and lets it start in the repositories' folder.
    pub(crate) fn dress(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path().join("home"))
            .env("MAHAVISHNU_STATE_DIR", self.state())
            .current_dir(self.repos());
        if self.config().exists() {
            command.env("MAHAVISHNU_CONFIG", self.config());
        }
    }
}

/// What the server's stdin and stdout are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// Two pipes, as most hosts give.
    Pipes,
    /// Socket pairs, as hosts on Node give.
    Sockets,
}

/// Which generation of the protocol is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    /// 2025-11-25, with `initialize`.
    Initialize,
    /// 2026-07-28, stateless.
    Stateless,
}

/// A finished `tools/call`.
#[derive(Debug, Clone)]
#[must_use]
pub(crate) struct Answer {
    /// The JSON-RPC result.
    pub(crate) result: Value,
    /// The progress notifications that came before it.
    pub(crate) progress: Vec<Value>,
}

impl Answer {
    /// Returns the structured content of a call that went well.
    ///
    /// # Panics
    ///
    /// When it is an error, or its text is another JSON than the structure.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_ne!(self.result["isError"], true, "{:#}", self.result);
        self.structured()
    }

    /// Returns the `error` of a call that was refused or failed.
    #[track_caller]
    pub(crate) fn error(self) -> Value {
        assert_eq!(self.result["isError"], true, "{:#}", self.result);
        let error = self.structured()["error"].clone();
        assert!(error.is_object(), "{:#}", self.result);
        error
    }

    #[track_caller]
    fn structured(&self) -> Value {
        let structured = &self.result["structuredContent"];
        let text = self.result["content"][0]["text"].as_str();
        let text = text.unwrap_or_else(|| panic!("no text: {:#}", self.result));
        let text: Value = serde_json::from_str(text).expect("the text is JSON");
        assert_eq!(&text, structured, "the text says what the structure says");
        structured.clone()
    }
}

/// The host's name unless a test says otherwise.
const CLIENT: &str = "mahavishnu-tests";

/// A running server with its client side. Killed with all it started when it is dropped.
pub(crate) struct Server {
    child: Child,
    /// Carried by the server, its guardian, and the workers that the config passes [`Marker::VARIABLE`] on to.
    pub(crate) marker: Marker,
    era: Era,
    client: String,
    stdin: Option<Box<dyn Write + Send>>,
    lines: Receiver<Value>,
    stderr: Option<JoinHandle<String>>,
    next_id: i64,
    early: HashMap<i64, Value>,
    notifications: Vec<Value>,
}

impl Server {
    /// Starts the server over pipes and greets it with `initialize`.
    pub(crate) fn start(home: &Home) -> Self {
        Self::start_as(home, Link::Pipes, Era::Initialize)
    }

    /// Starts the server over `link` and greets it as `era` does.
    pub(crate) fn start_as(home: &Home, link: Link, era: Era) -> Self {
        Self::start_from(home, link, era, CLIENT)
    }

    /// The same, from a host whose `clientInfo.name` is `client`.
    pub(crate) fn start_from(home: &Home, link: Link, era: Era, client: &str) -> Self {
        let mut server = Self::raw(home.command(), link, era);
        server.client = client.to_owned();
        server.greet();
        server
    }

    /// Starts `command`, a server's, over pipes and greets it with `initialize`.
    pub(crate) fn start_command(command: Command) -> Self {
        let mut server = Self::raw(command, Link::Pipes, Era::Initialize);
        server.greet();
        server
    }

    /// Starts `command`, which speaks MCP on stdio, and says nothing to it yet.
    pub(crate) fn raw(mut command: Command, link: Link, era: Era) -> Self {
        let marker = Marker::new();
        command.env(Marker::VARIABLE, marker.as_str());
        let (mut input, mut output) = (None, None);
        match link {
            Link::Pipes => command.stdin(Stdio::piped()).stdout(Stdio::piped()),
            Link::Sockets => {
                let (ours, theirs) = UnixStream::pair().expect("a socket pair");
                command.stdin(OwnedFd::from(theirs));
                input = Some(ours);
                let (ours, theirs) = UnixStream::pair().expect("a socket pair");
                output = Some(ours);
                command.stdout(OwnedFd::from(theirs))
            }
        };
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        // The command holds the server's ends of the sockets; an end of file would never come through them.
        drop(command);
        let stdin: Box<dyn Write + Send> = match (input, child.stdin.take()) {
            (Some(socket), _) => Box::new(socket),
            (None, pipe) => Box::new(pipe.expect("stdin is a pipe")),
        };
        let stdout: Box<dyn Read + Send> = match (output, child.stdout.take()) {
            (Some(socket), _) => Box::new(socket),
            (None, pipe) => Box::new(pipe.expect("stdout is a pipe")),
        };
        let mut stderr = child.stderr.take().expect("stderr is a pipe");
        let (send, lines) = channel();
        std::thread::spawn(move || read_lines(stdout, &send));
        let stderr = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // A read error ends the text early, which a test that looks for a line in it will tell.
            let _end = stderr.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Self {
            child,
            marker,
            era,
            client: CLIENT.to_owned(),
            stdin: Some(stdin),
            lines,
            stderr: Some(stderr),
            next_id: 0,
            early: HashMap::new(),
            notifications: Vec::new(),
        }
    }

    /// Greets a server that [`Server::raw`] started, as its era does.
    pub(crate) fn greet(&mut self) {
        match self.era {
            Era::Initialize => {
                let params = json!({
                    "protocolVersion": "2025-11-25",
                    "capabilities": {},
                    "clientInfo": {"name": self.client, "version": "1"},
                });
                let greeting = self.request("initialize", params);
                assert!(greeting["result"].is_object(), "{greeting:#}");
                self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
            }
            Era::Stateless => {
                let greeting = self.request("server/discover", json!({}));
                assert!(greeting["result"].is_object(), "{greeting:#}");
            }
        }
    }

    /// Calls a tool and waits for its answer, whatever it is.
    ///
    /// # Panics
    ///
    /// When the answer is a JSON-RPC error or does not come within [`HANG`].
    #[track_caller]
    pub(crate) fn call(&mut self, tool: &str, arguments: Value) -> Answer {
        let id = self.begin(tool, arguments);
        self.finish(id)
    }

    /// Sends a tool call and returns its id at once; its progress token is the id.
    pub(crate) fn begin(&mut self, tool: &str, arguments: Value) -> i64 {
        let mut params = json!({"name": tool, "arguments": arguments});
        params["_meta"] = json!({"progressToken": self.next_id + 1});
        self.send_request("tools/call", params)
    }

    /// Waits for the answer to the call `id`.
    #[track_caller]
    pub(crate) fn finish(&mut self, id: i64) -> Answer {
        let answer = self.response(id);
        assert!(answer["error"].is_null(), "{answer:#}");
        let is_ours = |note: &Value| note["params"]["progressToken"] == id;
        let (progress, rest) = std::mem::take(&mut self.notifications)
            .into_iter()
            .partition(is_ours);
        self.notifications = rest;
        Answer {
            result: answer["result"].clone(),
            progress,
        }
    }

    /// Sends `notifications/cancelled` for the call `id`.
    pub(crate) fn cancel(&mut self, id: i64, reason: Option<&str>) {
        let mut params = json!({"requestId": id});
        if let Some(reason) = reason {
            params["reason"] = json!(reason);
        }
        self.send(
            &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}),
        );
    }

    /// Sends a request and waits for the whole response, result or error.
    #[track_caller]
    pub(crate) fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.send_request(method, params);
        self.response(id)
    }

    fn send_request(&mut self, method: &str, mut params: Value) -> i64 {
        self.next_id += 1;
        let id = self.next_id;
        if self.era == Era::Stateless {
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
            params["_meta"]["io.modelcontextprotocol/clientInfo"] =
                json!({"name": self.client, "version": "1"});
        }
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    /// Sends one message as it is.
    #[track_caller]
    pub(crate) fn send(&mut self, message: &Value) {
        self.send_bytes(format!("{message}\n").as_bytes());
    }

    /// Sends bytes as they are, for what is not JSON.
    #[track_caller]
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("stdin was not closed");
        let sent = stdin.write_all(bytes).and_then(|()| stdin.flush());
        sent.expect("the server reads its stdin");
    }

    /// Waits for the response to `id`; keeps what comes before it.
    #[track_caller]
    pub(crate) fn response(&mut self, id: i64) -> Value {
        if let Some(response) = self.early.remove(&id) {
            return response;
        }
        let end = Instant::now() + HANG;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let message = match self.lines.recv_timeout(left) {
                Ok(message) => message,
                Err(why) => self.gone(&format!("no answer to request {id}"), why),
            };
            match message["id"].as_i64() {
                Some(other) if other == id => return message,
                Some(other) => {
                    self.early.insert(other, message);
                }
                None => self.notifications.push(message),
            }
        }
    }

    /// Returns the answer to `id` of a server that has ended, where it gave one.
    pub(crate) fn answered(&mut self, id: i64) -> Option<Value> {
        // The lines end with the server, and the reader of them soon after.
        while let Ok(message) = self.lines.recv_timeout(HANG) {
            match message["id"].as_i64() {
                Some(id) => {
                    self.early.insert(id, message);
                }
                None => self.notifications.push(message),
            }
        }
        self.early.remove(&id)
    }

    /// Returns the notifications that came so far and belong to no finished call.
    pub(crate) fn notifications(&mut self) -> &[Value] {
        while let Ok(message) = self.lines.try_recv() {
            match message["id"].as_i64() {
                Some(id) => {
                    self.early.insert(id, message);
                }
                None => self.notifications.push(message),
            }
        }
        &self.notifications
    }

    /// Polls `get_workflow` until the workflow has a final status, and returns its last answer.
    #[track_caller]
    pub(crate) fn wait_done(&mut self, workflow: &Value) -> Value {
        let end = Instant::now() + HANG;
        loop {
            let arguments = json!({"workflow_id": workflow, "wait_for": "done", "wait_s": 20});
            let state = self.call("get_workflow", arguments).ok();
            if !matches!(state["status"].as_str(), Some("running" | "planned")) {
                return state;
            }
            assert!(Instant::now() < end, "does not end: {state:#}");
        }
    }

    /// Returns the server's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends the server a signal by its name (`INT`, `TERM`, `KILL`).
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([format!("-{name}"), self.pid().to_string()])
            .status();
        assert!(sent.expect("kill runs").success(), "kill -{name}");
    }

    /// Closes the server's stdin.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits for the server to end, and returns how it did and what it wrote to stderr.
    #[track_caller]
    pub(crate) fn wait_end(&mut self) -> (ExitStatus, String) {
        let mut status = None;
        wait_until(HANG, || {
            status = self.child.try_wait().expect("the child is ours");
            status.is_some()
        });
        let status = status.expect("the server ends");
        (status, self.take_stderr())
    }

    fn take_stderr(&mut self) -> String {
        match self.stderr.take() {
            Some(reader) => reader.join().expect("the reader does not panic"),
            None => String::new(),
        }
    }

    #[track_caller]
    fn gone(&mut self, what: &str, why: RecvTimeoutError) -> ! {
        let status = self.child.try_wait().ok().flatten();
        let killed = self.child.kill();
        let stderr = match killed {
            Ok(()) => self.take_stderr(),
            Err(error) => format!("(cannot be killed: {error})"),
        };
        panic!("{what}: {why}; server: {status:?}; stderr:\n{stderr}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The guardian, which outlives the server, must find its pipe closed; what it misses is killed by its marker.
        let _dead = self.child.kill();
        let _reaped = self.child.wait();
        let clean = wait_until(Duration::from_secs(10), || self.marker.living().is_empty());
        if !clean {
            for (pid, _) in self.marker.living() {
                let _sent = Command::new("kill")
                    .args(["-KILL", &pid.to_string()])
                    .status();
            }
        }
    }
}

fn read_lines(stdout: Box<dyn Read + Send>, send: &Sender<Value>) {
    for line in BufReader::new(stdout).lines() {
        let Ok(line) = line else { return };
        let message = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("not JSON on stdout ({error}): {line}"));
        if send.send(message).is_err() {
            return;
        }
    }
}
