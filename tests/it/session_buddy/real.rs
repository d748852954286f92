//! The real Session-Buddy: installed once for all test runs, started for this one.

use crate::support::{launcher, say};
use mahavishnu::mcp_client::{ClientSettings, Endpoint, McpClient};
use mahavishnu::model::MemoryId;
use mahavishnu::session_buddy::{Marker, Outgoing, SessionBuddy};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The variable that makes a missing Session-Buddy a failure.
const REQUIRED: &str = "MAHAVISHNU_REQUIRE_SESSION_BUDDY";
/// How long a server may take to answer: three starting together took 39 s on a loaded machine.
const START: Duration = Duration::from_secs(180);

/// Which front door a server has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Profile {
    Default,
    Full,
}

impl Profile {
    pub(crate) const BOTH: [Self; 2] = [Self::Default, Self::Full];

    fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Full => "full",
        }
    }
}

/// Returns the virtual environment with Session-Buddy, installing it where that was not done before.
///
/// Nothing where it cannot be had; says so, and panics instead where it is required.
pub(crate) fn venv() -> Option<&'static Path> {
    static VENV: OnceLock<Option<PathBuf>> = OnceLock::new();
    VENV.get_or_init(|| match install() {
        Ok(path) => Some(path),
        Err(why) => {
            assert!(
                std::env::var(REQUIRED).as_deref() != Ok("1"),
                "{REQUIRED}=1, and there is no Session-Buddy: {why}"
            );
            None
        }
    })
    .as_deref()
}

/// Says that a test did nothing.
pub(crate) fn skipped(test: &str) {
    say(&format!(
        "SKIPPED: {test}: no real Session-Buddy (needs Python 3.13 or newer and the package index once)"
    ));
}

fn tests_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/session-buddy")
}

fn install() -> Result<PathBuf, String> {
    // The script holds a lock, so that test processes wait for each other.
    let output = Command::new("bash")
        .arg(tests_folder().join("install.sh"))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("install.sh: {error}"))?;
    let path = String::from_utf8_lossy(&output.stdout);
    match path.lines().last() {
        Some(path) if output.status.success() => Ok(PathBuf::from(path)),
        _ => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// A running server with a HOME of its own; it ends with this process at the latest.
pub(crate) struct Server {
    profile: Profile,
    port: u16,
    home: PathBuf,
    child: Option<Child>,
}

impl Server {
    /// Starts a server whose data survive a kill and waits until it answers.
    pub(crate) fn start(profile: Profile, home: &Path) -> Self {
        let mut server = Self {
            profile,
            port: free_port(),
            home: home.to_owned(),
            child: None,
        };
        server.run(&["--prewarm"]);
        server
    }

    /// Starts a second server on the data of a running one.
    pub(crate) fn start_beside(other: &Self) -> Self {
        let mut server = Self {
            profile: other.profile,
            port: free_port(),
            home: other.home.clone(),
            child: None,
        };
        server.run(&[]);
        server
    }

    /// Starts it again, on the same port and data.
    pub(crate) fn restart(&mut self) {
        self.run(&["--prewarm"]);
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is a child of this process");
            child.wait().expect("it was killed");
        }
    }

    /// Removes all its data, so that it restarts empty.
    pub(super) fn wipe(&self) {
        assert!(self.child.is_none(), "it has its data open");
        std::fs::remove_dir_all(self.home.join(".claude")).expect("it has data");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    fn run(&mut self, more: &[&str]) {
        let venv = venv().expect("the caller looked");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.home.join("server.log"))
            .expect("the home can be written");
        let child = command(venv, self.profile, &self.home)
            .args(["--port", &self.port.to_string(), "--until-eof"])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a descriptor is free"))
            .stderr(log)
            .spawn()
            .expect("Python starts");
        self.child = Some(child);
        let deadline = Instant::now() + START;
        while !self.is_ready() {
            assert!(Instant::now() < deadline, "no answer: {}", self.log());
            let child = self.child.as_mut().expect("just started");
            let ended = child.try_wait().expect("it is a child of this process");
            assert!(ended.is_none(), "it ended ({ended:?}): {}", self.log());
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    /// Returns what it and those before it on the same data wrote.
    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("server.log")).unwrap_or_default()
    }

    fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return false;
        };
        let ask = b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n";
        let mut answer = String::new();
        stream.write_all(ask).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.contains(" 200 ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

fn command(venv: &Path, profile: Profile, home: &Path) -> Command {
    let mut command = Command::new(venv.join("bin/python"));
    command
        .arg(tests_folder().join("start.py"))
        .args(["--profile", profile.name(), "--data-dir"])
        .arg(home)
        .arg("--venv")
        .arg(venv);
    command
}

/// Returns a client of a server that it starts as a child process.
pub(crate) fn stdio(profile: Profile, home: &Path) -> McpClient {
    let settings = ClientSettings {
        launcher: Some(launcher()),
        ..ClientSettings::new("session-buddy")
    };
    McpClient::new(stdio_endpoint(profile, home), settings)
}

fn stdio_endpoint(profile: Profile, home: &Path) -> Endpoint {
    let venv = venv().expect("the caller looked");
    let mut whole = command(venv, profile, home);
    whole.args(["--transport", "stdio", "--prewarm"]);
    let text = |part: &std::ffi::OsStr| part.to_str().expect("paths are UTF-8").to_owned();
    Endpoint::Stdio {
        command: std::iter::once(whole.get_program())
            .chain(whole.get_args())
            .map(text)
            .collect(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
    }
}

/// Returns the server that all tests of one front door share; nothing where there is no Session-Buddy.
pub(crate) fn shared(profile: Profile) -> Option<&'static Server> {
    static SERVERS: [OnceLock<Option<(Server, TempDir)>>; 2] = [OnceLock::new(), OnceLock::new()];
    let slot = &SERVERS[profile as usize];
    slot.get_or_init(|| {
        venv()?;
        let home = TempDir::new().expect("a temporary folder");
        Some((Server::start(profile, home.path()), home))
    })
    .as_ref()
    .map(|(server, _)| server)
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

/// Returns an MCP client of the server on `port`.
pub(crate) fn client(port: u16) -> McpClient {
    let endpoint = Endpoint::Http {
        url: format!("http://127.0.0.1:{port}/mcp"),
        headers: Vec::new(),
    };
    McpClient::new(endpoint, ClientSettings::new("session-buddy"))
}

/// Returns the adapter for the server on `port`.
pub(crate) fn buddy(port: u16) -> SessionBuddy {
    let (first, longest) = (Duration::from_millis(50), Duration::from_millis(500));
    SessionBuddy::with_rest(client(port), rand_seed(), first, longest)
}

/// The peer remembers queries beyond one process, so each client begins elsewhere.
fn rand_seed() -> u64 {
    u64::from(std::process::id()) << 16 ^ Instant::now().elapsed().subsec_nanos() as u64
}

/// A memory of pool `it`.
pub(crate) fn outgoing(text: &str) -> Outgoing {
    Outgoing {
        marker: Marker {
            pool: "it".parse().expect("a pool name"),
            id: MemoryId::new(),
        },
        text: text.to_owned(),
        tags: vec!["test".to_owned()],
    }
}

/// The deadline of a call: one that only a hang reaches.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(120)
}
