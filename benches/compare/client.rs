//! A thin, blocking client of an MCP server on stdio: lines in, lines out, nothing parsed while it is measured.

use crate::peers::{Build, bare_server};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What the server's stdin and stdout are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// Two pipes, as most hosts give.
    Pipes,
    /// Socket pairs, as hosts on Node give.
    Sockets,
}

/// A running server, greeted. Killed when it is dropped, if it does not end by itself.
pub(crate) struct Client {
    child: Child,
    to: Option<File>,
    from: File,
    /// What was read and not taken yet.
    buffer: Vec<u8>,
}

impl Client {
    /// Starts `command` and greets it.
    ///
    /// # Panics
    ///
    /// When it cannot be started or does not answer the greeting.
    pub(crate) fn start(mut command: Command, link: Link) -> Self {
        command.stderr(Stdio::inherit());
        let (child, to, from) = match link {
            Link::Pipes => {
                command.stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut child = command.spawn().expect("the server starts");
                let to = child.stdin.take().expect("it is a pipe");
                let from = child.stdout.take().expect("it is a pipe");
                (child, OwnedFd::from(to), OwnedFd::from(from))
            }
            Link::Sockets => {
                let (to, stdin) = UnixStream::pair().expect("a socket pair");
                let (from, stdout) = UnixStream::pair().expect("a socket pair");
                command
                    .stdin(OwnedFd::from(stdin))
                    .stdout(OwnedFd::from(stdout));
                let child = command.spawn().expect("the server starts");
                (child, OwnedFd::from(to), OwnedFd::from(from))
            }
        };
        // It holds the server's ends of the sockets.
        drop(command);
        let mut client = Self {
            child,
            to: Some(to.into()),
            from: from.into(),
            buffer: Vec::with_capacity(1 << 16),
        };
        let params = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "mahavishnu-bench", "version": "1"},
        });
        client.send(request(0, "initialize", &params).as_bytes());
        let greeting = client.line();
        assert!(
            greeting.windows(8).any(|part| part == b"\"result\""),
            "{}",
            show(&greeting)
        );
        client.send(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n");
        client
    }

    /// Calls a tool and returns its structured content.
    ///
    /// # Panics
    ///
    /// When the call fails.
    #[track_caller]
    pub(crate) fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let answer = self.answer(tool, &arguments);
        let mut result: Value = serde_json::from_slice(&answer).expect("an answer is JSON");
        assert_ne!(result["isError"], true, "{tool}: {result:#}");
        result["structuredContent"].take()
    }

    /// Calls a tool and returns the bytes of its `result`.
    #[track_caller]
    pub(crate) fn answer(&mut self, tool: &str, arguments: &Value) -> Vec<u8> {
        self.send(tool_call(1, tool, arguments).as_bytes());
        let line = self.line();
        let answer: Answer<'_> = serde_json::from_slice(&line)
            .unwrap_or_else(|error| panic!("{tool}: {error}: {}", show(&line)));
        answer.result.get().as_bytes().to_owned()
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let to = self.to.as_mut().expect("not closed yet");
        to.write_all(bytes).expect("the server reads");
    }

    /// Returns the next line.
    pub(crate) fn line(&mut self) -> Vec<u8> {
        let mut looked = 0;
        loop {
            let fresh = &self.buffer[looked..];
            if let Some(end) = fresh.iter().position(|&byte| byte == b'\n') {
                return self.buffer.drain(..=looked + end).collect();
            }
            looked = self.buffer.len();
            self.fill();
        }
    }

    /// Waits for the next lines and returns how many came; the client must have taken all before.
    pub(crate) fn lines(&mut self) -> usize {
        loop {
            let old = self.buffer.len();
            self.fill();
            let fresh = &self.buffer[old..];
            let count = fresh.iter().filter(|&&byte| byte == b'\n').count();
            if let Some(end) = fresh.iter().rposition(|&byte| byte == b'\n') {
                self.buffer.drain(..=old + end);
                return count;
            }
        }
    }

    fn fill(&mut self) {
        let old = self.buffer.len();
        self.buffer.resize(old + (1 << 16), 0);
        let got = self
            .from
            .read(&mut self.buffer[old..])
            .expect("it can be read");
        assert!(got > 0, "the server ended");
        self.buffer.truncate(old + got);
    }

    /// Kills the server. Its guardian ends what it runs.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it is ours");
    }

    /// Returns the server's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // An end of input: the server ends, and what it started with it.
        self.to = None;
        let _status = self.child.wait();
    }
}

#[derive(serde::Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    result: &'a serde_json::value::RawValue,
}

/// Returns the line of a tool call.
pub(crate) fn tool_call(id: usize, tool: &str, arguments: &Value) -> String {
    request(
        id,
        "tools/call",
        &json!({"name": tool, "arguments": arguments}),
    )
}

fn request(id: usize, method: &str, params: &Value) -> String {
    let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    format!("{request}\n")
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder with a config, a state folder and repositories for one mahavishnu.
pub(crate) struct World {
    dir: tempfile::TempDir,
}

impl World {
    /// Makes the world with `config`, whose root is the folder of the repositories.
    pub(crate) fn new(config: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("mahavishnu-bench-")
            .tempdir();
        let world = Self {
            dir: dir.expect("the temporary folder can be written"),
        };
        std::fs::create_dir(world.repos()).expect("it is empty");
        let config = format!("roots = [{:?}]\n{config}", world.repos());
        std::fs::write(world.path().join("config.toml"), config).expect("it is empty");
        world
    }

    /// Returns its folder.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the folder of its repositories.
    pub(crate) fn repos(&self) -> std::path::PathBuf {
        self.path().join("repos")
    }

    /// Makes repositories `r0`, `r1`, ...: just enough for git to accept them.
    pub(crate) fn make_repos(&self, count: usize) {
        for number in 0..count {
            let git = self.repos().join(format!("r{number}/.git"));
            for folder in ["objects", "refs/heads"] {
                std::fs::create_dir_all(git.join(folder)).expect("it is new");
            }
            std::fs::write(git.join("HEAD"), "ref: refs/heads/main\n").expect("it is new");
            let commit = format!("{number:040x}\n");
            std::fs::write(git.join("refs/heads/main"), commit).expect("it is new");
        }
    }

    /// Adds to the end of the config.
    pub(crate) fn add_config(&self, config: &str) {
        let file = self.path().join("config.toml");
        let old = std::fs::read_to_string(&file).expect("it is there");
        std::fs::write(file, format!("{old}{config}")).expect("it can be written");
    }

    /// Returns the command of a mahavishnu in this world. Each build has a state folder of its own.
    pub(crate) fn server(&self, build: &Build) -> Command {
        let state = self.path().join(format!("state-{}", build.name));
        self.server_with_state(build, &state)
    }

    /// Returns the command of a mahavishnu with this state folder.
    pub(crate) fn server_with_state(&self, build: &Build, state: &Path) -> Command {
        let mut command = Command::new(&build.program);
        command
            .arg("--config")
            .arg(self.path().join("config.toml"))
            .arg("--state-dir")
            .arg(state)
            .env("HOME", self.path())
            .current_dir(self.repos());
        command
    }
}

/// Returns the config of one pool whose tasks are calls of another server's tool that take `task_ms` each, all at once.
pub(crate) fn remote_pool(slots: usize, task_ms: usize) -> String {
    let program = bare_server();
    format!(
        "[[pools]]\nname = \"remote\"\nworker = \"remote\"\nmax_workers = {slots}\n\
         [workers.remote]\nkind = \"mcp\"\ntool = \"answer\"\narguments = {{ text = \"{{task}}\" }}\n\
         server.command = [{program:?}, \"--delay-ms\", \"{task_ms}\", \"--at-once\", \"{slots}\"]\n\
         [limits]\nmax_items = 100000\n"
    )
}
