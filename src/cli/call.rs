//! `mahavishnu call`: a host of one call.

use super::CliError;
use super::bar::Bar;
use super::client::{self, Call, NoAnswer, OwnRun};
use super::exit::Outcome;
use super::server::{RunningServer, ServerProgram};
use crate::shutdown::Signals;
use serde_json::Value;
use std::io::{ErrorKind, IsTerminal, Write};
use std::pin::pin;
use std::time::Duration;

/// How long after an interrupt the answer of the call in flight may take; the server flushes answers for 2.5 s.
const ANSWERS_WITHIN: Duration = Duration::from_secs(4);

/// Makes the call with a server of its own and prints the answer to stdout. Returns the exit status.
///
/// A signal stops what the call started; how to resume it goes to stderr.
///
/// # Errors
///
/// [`CliError`] where no answer could be had or printed.
pub async fn run(program: &ServerProgram, call: Call) -> Result<u8, CliError> {
    let cannot_start = |source| CliError::Start(program.program.display().to_string(), source);
    let mut signals = Signals::listen().map_err(cannot_start)?;
    let (mut server, streams) = RunningServer::start(program).map_err(cannot_start)?;
    let bar = Bar::of(call.tool);
    let own_run = OwnRun::default();
    let answer = {
        let mut answer = pin!(client::call(streams, bar.clone(), call, &own_run));
        tokio::select! {
            answer = &mut answer => Some(answer),
            () = signals.recv() => {
                server.terminate();
                // The answer of the call in flight names the workflow; a second signal does not wait for it.
                tokio::select! {
                    _ = tokio::time::timeout(ANSWERS_WITHIN, answer) => {}
                    () = signals.recv() => {}
                }
                None
            }
        }
    };
    bar.clear();
    let status = tokio::select! {
        status = server.end() => status,
        // Dropping the server kills it; its workers die with it by their guardian.
        () = signals.recv() => "killed".to_owned(),
    };
    match answer {
        Some(Ok(answer)) => {
            print(&answer).map_err(CliError::Write)?;
            Ok(Outcome::of(&answer).status())
        }
        Some(Err(NoAnswer::Closed)) => Err(CliError::Ended(status)),
        Some(Err(NoAnswer::Refused(why))) => Err(CliError::Refused(why)),
        None => {
            report_interrupt(own_run.id(), program);
            Ok(Outcome::Interrupted.status())
        }
    }
}

/// Returns the exit status of a call that had no answer.
pub fn no_answer_status() -> u8 {
    Outcome::Broken.status()
}

/// Prints the answer; a reader that has closed the pipe (`| head`) has what it wanted.
fn print(answer: &Value) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let text = match stdout.is_terminal() {
        true => format!("{answer:#}\n"),
        false => format!("{answer}\n"),
    };
    let printed = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match printed {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed,
    }
}

/// Prints to stderr which workflow was stopped and how to go on with it.
fn report_interrupt(workflow: Option<String>, program: &ServerProgram) {
    let text = match workflow {
        Some(id) => format!(
            "mahavishnu: interrupted; workflow {id} was stopped and keeps what is done\n  go on with: {} call \
             resume_workflow --workflow-id {id}",
            program.command_line()
        ),
        None => "mahavishnu: interrupted".to_owned(),
    };
    // A closed stderr leaves nowhere to report to.
    let _ = writeln!(std::io::stderr(), "{text}");
}
