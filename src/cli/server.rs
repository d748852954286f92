//! The server as a child process of `mahavishnu call`.

use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long the server may take to end once its stdin is closed: its drain and its workers' grace.
const ENDS_WITHIN: Duration = Duration::from_secs(15);

/// How long it may take after SIGTERM, before SIGKILL.
const STOPS_WITHIN: Duration = Duration::from_secs(5);

/// The server to start.
#[derive(Debug, Clone)]
pub struct ServerProgram {
    /// The program.
    pub program: PathBuf,
    /// The flags that a person gave, without the subcommand.
    pub flags: Vec<OsString>,
}

impl ServerProgram {
    /// Returns the program with its flags as a shell takes them.
    pub(super) fn command_line(&self) -> String {
        let flags = self.flags.iter().map(|flag| flag.to_string_lossy());
        let words = std::iter::once(env!("CARGO_PKG_NAME").into()).chain(flags);
        shell_words::join(words.collect::<Vec<_>>())
    }
}

/// A started server.
#[derive(Debug)]
pub(super) struct RunningServer(Child);

impl RunningServer {
    /// Starts the server; returns it with the ends of its stdout and stdin.
    pub(super) fn start(server: &ServerProgram) -> io::Result<(Self, (ChildStdout, ChildStdin))> {
        let mut child = Command::new(&server.program)
            .args(&server.flags)
            .arg("serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A Ctrl-C on the terminal is for this program alone, which then asks the server once.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let stdin = child.stdin.take().expect("stdin is piped");
        Ok((Self(child), (stdout, stdin)))
    }

    /// Asks the server to end by SIGTERM.
    pub(super) fn terminate(&self) {
        let id = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = id.and_then(Pid::from_raw) {
            // Not reaped yet, so the id is its own; that it has ended already is no fault.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits for the end of the server, whose stdin is closed; then SIGTERM, then SIGKILL. Returns how it ended.
    pub(super) async fn end(&mut self) -> String {
        if let Some(status) = self.ended(ENDS_WITHIN).await {
            return status;
        }
        self.terminate();
        if let Some(status) = self.ended(STOPS_WITHIN).await {
            return status;
        }
        // Dropping it kills it; its workers die with it by their guardian.
        tracing::warn!("the server did not end and is killed");
        "killed".to_owned()
    }

    async fn ended(&mut self, within: Duration) -> Option<String> {
        let status = tokio::time::timeout(within, self.0.wait()).await.ok()?;
        Some(status.map_or_else(|error| error.to_string(), |status| status.to_string()))
    }
}
