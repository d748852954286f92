//! The arguments of the program.

use super::call::Call;
use super::{exit, flags};
use crate::config::Overrides;
use crate::server::tools;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::ffi::OsString;
use std::path::PathBuf;

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Invocation {
    /// Speak MCP on stdio.
    Serve(Overrides),
    /// Call one tool and show its answer.
    Call(Overrides, Box<Call>),
    /// Write the generated files below this folder.
    Schemas(PathBuf),
}

/// Reads the program's arguments, the program's own name first.
///
/// # Errors
///
/// What clap has to say: a refusal with its exit status, or the help that was asked for.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, clap::Error> {
    let matches = command().try_get_matches_from(args)?;
    let overrides = overrides(&matches);
    match matches.subcommand() {
        Some(("call", matches)) => {
            let (tool, matches) = matches
                .subcommand()
                .expect("clap demands a tool after `call`");
            let spec = tools::find(tool).expect("clap takes known tools only");
            let call = flags::call(spec, matches)?;
            Ok(Invocation::Call(overrides, Box::new(call)))
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
        .after_help("Without a command it serves MCP on stdin and stdout, as an agent host wants it.")
        .arg(
            global("config", "FILE", "The config file [env: MAHAVISHNU_CONFIG]")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            global("state-dir", "DIR", "Where the state lives [env: MAHAVISHNU_STATE_DIR]")
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
        .subcommands(tools::all().iter().map(flags::command))
}
