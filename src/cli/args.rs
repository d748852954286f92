//! The arguments of the program.

use super::client::Call;
use super::{exit, flags};
use crate::config::Overrides;
use crate::model::MemoryId;
use crate::server::tools;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::ffi::OsString;
use std::path::PathBuf;

/// What the program is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Invocation {
    /// Speak MCP on stdio.
    Serve(Overrides),
    /// Call one tool and show its answer.
    Call(Overrides, Box<Call>),
    /// Remove one memory for good.
    Forget(Overrides, MemoryId),
    /// Write the generated files below this folder.
    Schemas(PathBuf),
}

/// Reads the program's arguments, the program's own name first.
///
/// # Errors
///
/// clap's refusal with its exit status, or the help that was asked for.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, clap::Error> {
    let matches = command().try_get_matches_from(args)?;
    let overrides = overrides(&matches);
    match matches.subcommand() {
        Some(("call", matches)) => {
            let (tool, matches) = matches
                .subcommand()
                .expect("clap requires a tool after `call`");
            let spec = tools::find(tool).expect("clap takes known tools only");
            let call = flags::call(spec, matches)?;
            Ok(Invocation::Call(overrides, Box::new(call)))
        }
        Some(("forget", matches)) => {
            let id = matches.get_one::<MemoryId>("id");
            Ok(Invocation::Forget(
                overrides,
                *id.expect("clap requires an id"),
            ))
        }
        Some(("schemas", matches)) => Ok(Invocation::Schemas(
            path(matches, "dir").unwrap_or_else(|| PathBuf::from(".")),
        )),
        _ => Ok(Invocation::Serve(overrides)),
    }
}

fn overrides(matches: &ArgMatches) -> Overrides {
    Overrides {
        file: path(matches, "config"),
        state_dir: path(matches, "state-dir"),
        roots: matches
            .get_many::<PathBuf>("root")
            .map(|roots| roots.cloned().collect())
            .unwrap_or_default(),
        log: matches.get_one::<String>("log").cloned(),
    }
}

fn path(matches: &ArgMatches, id: &str) -> Option<PathBuf> {
    matches.get_one::<PathBuf>(id).cloned()
}

fn command() -> Command {
    Command::new("mahavishnu")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .after_help("Without a command it serves MCP on stdin and stdout, as an agent host expects.")
        .arg(
            global("config", "FILE", "The config file [env: MAHAVISHNU_CONFIG]")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            global("state-dir", "DIR", "The state folder [env: MAHAVISHNU_STATE_DIR]")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            global(
                "root",
                "DIR",
                "A folder to work under, in place of the config's; may be given several times [env: MAHAVISHNU_ROOTS]",
            )
            .action(ArgAction::Append)
            .value_parser(value_parser!(PathBuf)),
        )
        .arg(global(
            "log",
            "FILTER",
            "What to log to stderr, such as info or mahavishnu=debug [env: MAHAVISHNU_LOG]",
        ))
        .subcommand(Command::new("serve").about("Serve MCP on stdin and stdout (the default)"))
        .subcommand(call_command())
        .subcommand(forget_command())
        .subcommand(
            Command::new("schemas")
                .about("Write schemas/ and the README's table of tools")
                .hide(true)
                .arg(
                    Arg::new("dir")
                        .value_name("DIR")
                        .help("The repository [default: .]")
                        .value_parser(value_parser!(PathBuf)),
                ),
        )
}

fn global(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name(value)
        .help(help)
        .global(true)
}

fn forget_command() -> Command {
    Command::new("forget")
        .about("Remove one memory for good")
        .long_about(
            "Removes one memory for good: from searches, from the store's file and its log, and with what a worker did \
             also the attempt's logs and what the journal keeps of its output. What was sent to Session-Buddy already \
             stays there; searches do not show it any more.",
        )
        .arg(
            Arg::new("id")
                .value_name("ID")
                .help("The memory's id, as cross_pool_search gives it")
                .required(true)
                .value_parser(|text: &str| {
                    text.parse::<MemoryId>()
                        .map_err(|_| "a memory's id has 26 letters and digits, as cross_pool_search gives it")
                }),
        )
}

fn call_command() -> Command {
    Command::new("call")
        .about("Call one tool and print its answer")
        .long_about(
            "Starts the server as an agent host would, calls one tool and prints its answer: laid out on a terminal, one \
             line of JSON in a pipe. A workflow is followed to its end, since it ends with this program.",
        )
        .after_help(exit::HELP)
        .subcommand_required(true)
        .subcommand_value_name("TOOL")
        .subcommand_help_heading("Tools")
        .disable_help_subcommand(true)
        // A server's start does not pay for the schemas that the flags are made from.
        .defer(|call| call.subcommands(tools::all().iter().map(flags::command)))
}
