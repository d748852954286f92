//! `mahavishnu call`: a host of one call.

use super::CliError;
use super::bar::Bar;
use super::exit::Outcome;
use crate::shutdown::Signals;
use rmcp::model::{CallToolRequestParams, CallToolResult, JsonObject};
use rmcp::service::{RoleClient, RunningService};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::{ServiceError, ServiceExt};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// How long one `get_workflow` waits while a run is followed; the server caps it as it does for any host.
const FOLLOW_WAIT_S: u32 = 600;

/// How long the server may take to end once its stdin is closed: its drain and its workers' grace.
const SERVER_ENDS_WITHIN: Duration = Duration::from_secs(15);

/// How long it may take after SIGTERM, before SIGKILL.
const SERVER_STOPS_WITHIN: Duration = Duration::from_secs(5);

/// How far to follow what a call started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Until its workflow is done.
    ToTheEnd,
    /// Not beyond the first answer.
    FirstAnswer,
}

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The tool.
    pub tool: &'static str,
    /// Its arguments.
    pub arguments: JsonObject,
    /// How far to follow what it starts.
    pub follow: Follow,
}

/// The server to start.
#[derive(Debug, Clone)]
pub struct ServerProgram {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
}

/// Makes the call with a server of its own and prints the answer to stdout. Returns the exit status.
///
/// # Errors
///
/// [`CliError`] where no answer could be had or printed.
pub async fn run(server: &ServerProgram, call: Call) -> Result<u8, CliError> {
    let mut signals = Signals::listen()
        .map_err(|source| CliError::Start(server.program.display().to_string(), source))?;
    let mut child = start(server)?;
    let bar = Bar::of(call.tool);
    let talked = tokio::select! {
        talked = talk(&mut child, bar.clone(), call) => talked.map(Some),
        () = signals.recv() => Ok(None),
    };
    bar.clear();
    let outcome = match talked {
        Ok(Some(answer)) => {
            end(child, Ending::Gently).await;
            print(&answer).map_err(CliError::Write)?;
            Outcome::of(&answer)
        }
        Ok(None) => {
            end(child, Ending::BySignal).await;
            Outcome::Interrupted
        }
        Err(error) => {
            end(child, Ending::Gently).await;
            return Err(error);
        }
    };
    Ok(outcome.status())
}

/// Returns the exit status of a call that had no answer.
pub fn no_answer_status() -> u8 {
    Outcome::Broken.status()
}

fn start(server: &ServerProgram) -> Result<Child, CliError> {
    Command::new(&server.program)
        .args(&server.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // A Ctrl-C on the terminal is for this program alone, which then asks the server once.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| CliError::Start(server.program.display().to_string(), source))
}

/// Greets the server, calls the tool and follows what it started.
async fn talk(child: &mut Child, bar: Bar, call: Call) -> Result<Value, CliError> {
    let stdin = child.stdin.take().expect("stdin is piped");
    let stdout = child.stdout.take().expect("stdout is piped");
    let client = bar
        .serve(AsyncRwTransport::new_client(stdout, stdin))
        .await
        .map_err(|error| CliError::Greet(Box::new(error)))?;
    let answer = follow(&client, call).await;
    // Closes the server's stdin, which asks it to end; how the connection closed says nothing more.
    let _ = client.cancel().await;
    answer
}

async fn follow(client: &RunningService<RoleClient, Bar>, call: Call) -> Result<Value, CliError> {
    let mut answer = ask(client, call.tool, call.arguments).await?;
    while call.follow == Follow::ToTheEnd && answer["status"] == "running" {
        let Some(id) = answer.get("workflow_id").cloned() else {
            break;
        };
        let arguments = json!({"workflow_id": id, "wait_for": "done", "wait_s": FOLLOW_WAIT_S});
        let Value::Object(arguments) = arguments else {
            break;
        };
        answer = ask(client, "get_workflow", arguments).await?;
    }
    Ok(answer)
}

async fn ask(
    client: &RunningService<RoleClient, Bar>,
    tool: &'static str,
    arguments: JsonObject,
) -> Result<Value, CliError> {
    let params = CallToolRequestParams::new(tool).with_arguments(arguments);
    let result = client
        .call_tool(params)
        .await
        .map_err(|error: ServiceError| CliError::Call(tool.into(), Box::new(error)))?;
    Ok(structure(result))
}

fn structure(result: CallToolResult) -> Value {
    let text = || {
        let texts = result.content.iter().filter_map(|block| block.as_text());
        Value::String(texts.map(|text| text.text.as_str()).collect())
    };
    result.structured_content.clone().unwrap_or_else(text)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Its stdin is closed, which is all it needs.
    Gently,
    /// It is asked by a signal.
    BySignal,
}

/// Waits for the server's end: asked, then told, then killed.
async fn end(mut child: Child, how: Ending) {
    drop(child.stdin.take());
    if how == Ending::BySignal {
        terminate(&child);
    }
    if ended(&mut child, SERVER_ENDS_WITHIN).await {
        return;
    }
    terminate(&child);
    if !ended(&mut child, SERVER_STOPS_WITHIN).await {
        // Dropping it kills it; its workers die with it by their guardian.
        tracing::warn!("the server did not end and is killed");
    }
}

async fn ended(child: &mut Child, within: Duration) -> bool {
    tokio::time::timeout(within, child.wait()).await.is_ok()
}

fn terminate(child: &Child) {
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It is not reaped yet, so the id is its own; that it has ended already is no fault.
        let _ = kill_process(pid, Signal::TERM);
    }
}

fn print(answer: &Value) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    if stdout.is_terminal() {
        serde_json::to_writer_pretty(&mut stdout, answer)?;
    } else {
        serde_json::to_writer(&mut stdout, answer)?;
    }
    stdout.write_all(b"\n")?;
    stdout.flush()
}
