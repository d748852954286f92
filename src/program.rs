//! The program on Linux and macOS: flags, config, logging to stderr, run, exit status.

use mahavishnu::api::Unavailable;
use mahavishnu::cli::{self, Call, Invocation, ServerProgram};
use mahavishnu::config::{Config, Overrides, Sources};
use mahavishnu::error::{ErrorKind, Problem};
use mahavishnu::model::MemoryId;
use mahavishnu::orchestrator::{Orchestrator, Setup};
use mahavishnu::server::stdio;
use std::error::Error;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

/// The exit status where the config or a flag is wrong.
const BAD_INPUT: u8 = 2;

/// Runs the program.
pub(crate) fn main() -> ExitCode {
    // Before anything else of the program: the guardian must have no threads and no runtime.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|arg| arg == "guardian")
    {
        return mahavishnu::process::guardian::main();
    }
    let done = match cli::parse(std::env::args_os()) {
        Err(refusal) if is_of_a_host(&refusal) => serve(Err(bad_flags(&refusal))),
        Err(text) => return print(&text),
        Ok(Invocation::Serve(flags)) => serve(Ok(flags)),
        Ok(Invocation::Call(flags, call)) => make_call(flags, *call),
        Ok(Invocation::Forget(flags, id)) => forget(flags, id),
        Ok(Invocation::Schemas(dir)) => cli::write_schemas(&dir)
            .map(|()| ExitCode::SUCCESS)
            .map_err(Into::into),
    };
    done.unwrap_or_else(|error| {
        cli::complain(&Problem::of(error.as_ref()));
        ExitCode::from(BAD_INPUT)
    })
}

/// Serves MCP on stdio until the client goes or a signal comes.
///
/// Hosts report a server that does not start as "failed to connect" and hide its stderr: so where a host started it, it
/// serves in spite of bad flags or a broken config, and every call is answered with what is wrong.
fn serve(flags: Result<Overrides, Problem>) -> Result<ExitCode, Box<dyn Error>> {
    let runtime = Runtime::new()?;
    let served = match runtime.block_on(async { open(flags?) }) {
        Ok(orchestrator) => {
            let served = runtime.block_on(stdio::serve(Arc::new(orchestrator.clone())));
            runtime.block_on(orchestrator.close());
            served.map(|_| ExitCode::SUCCESS)
        }
        Err(error) if std::io::stdin().is_terminal() => return Err(error),
        Err(error) => {
            let problem = Problem::of(error.as_ref());
            cli::complain(&problem);
            let tools = Arc::new(Unavailable::until_restart(problem));
            let served = runtime.block_on(stdio::serve(tools));
            served.map(|_| ExitCode::from(BAD_INPUT))
        }
    };
    // A blocked read of stdin (a file, a terminal) would keep the runtime, and with it the process.
    runtime.shutdown_background();
    Ok(served?)
}

/// Returns whether a host, not a person, gave arguments that clap refused; a host starts nothing but the server.
fn is_of_a_host(refusal: &clap::Error) -> bool {
    let other_command = |arg: OsString| {
        ["call", "forget", "schemas"]
            .iter()
            .any(|name| arg == *name)
    };
    refusal.use_stderr()
        && refusal.kind() != clap::error::ErrorKind::InvalidSubcommand
        && !std::env::args_os().any(other_command)
        && !std::io::stdin().is_terminal()
}

/// Returns clap's refusal without its usage.
fn bad_flags(refusal: &clap::Error) -> Problem {
    let text = refusal.to_string();
    let reason = text.split("Usage:").next().unwrap_or_default();
    let reason = reason.trim_start_matches("error:").split_whitespace();
    let message = reason.collect::<Vec<_>>().join(" ");
    Problem::new(ErrorKind::InvalidArgument, message)
        .with_hint("correct the arguments of this server in the host's configuration")
}

/// Reads the config and opens the core; must be called within the runtime that the core is to run on.
fn open(flags: Overrides) -> Result<Orchestrator, Box<dyn Error>> {
    let sources = sources(flags)?;
    let config = Config::load(&sources).map_err(Problem::from)?;
    log_to_stderr(&config.log.filter)?;
    let config_file = config.file.clone().or(sources.default_file);
    Ok(Orchestrator::open(Setup {
        config,
        config_file: config_file.unwrap_or_else(|| "mahavishnu.toml".into()),
        env: std::env::vars_os().collect(),
        start_dir: sources.start_dir,
        home: sources.home,
        guardian_program: own_program()?,
    })?)
}

/// Returns the path of this very program, also where an update has replaced its file meanwhile.
fn own_program() -> std::io::Result<PathBuf> {
    let own = PathBuf::from("/proc/self/exe");
    if own.exists() {
        return Ok(own);
    }
    std::env::current_exe()
}

/// Makes one call with this same program as the server.
fn make_call(flags: Overrides, call: Call) -> Result<ExitCode, Box<dyn Error>> {
    // Here a broken config is reported once, without a server.
    Config::load(&sources(flags.clone())?).map_err(Problem::from)?;
    let server = ServerProgram {
        program: std::env::current_exe()?,
        flags: server_flags(flags),
    };
    let called = Runtime::new()?.block_on(cli::call::run(&server, call));
    let status = called.unwrap_or_else(|error| {
        cli::complain(&Problem::of(&error));
        cli::call::no_answer_status()
    });
    Ok(ExitCode::from(status))
}

/// Removes one memory for good.
fn forget(flags: Overrides, id: MemoryId) -> Result<ExitCode, Box<dyn Error>> {
    let config = Config::load(&sources(flags)?).map_err(Problem::from)?;
    log_to_stderr(&config.log.filter)?;
    let status = Runtime::new()?.block_on(cli::forget::run(&config.store, id))?;
    Ok(ExitCode::from(status))
}

fn server_flags(flags: Overrides) -> Vec<OsString> {
    let paths = [("--config", flags.file), ("--state-dir", flags.state_dir)];
    let paths = paths
        .into_iter()
        .filter_map(|(flag, path)| Some((flag, path?.into())));
    let roots = flags.roots.into_iter().map(|root| ("--root", root.into()));
    let log = flags.log.map(|filter| ("--log", filter.into()));
    let all = paths.chain(roots).chain(log);
    all.flat_map(|(flag, value): (&str, OsString)| [flag.into(), value])
        .collect()
}

/// Collects everything that the config is made from; nothing below `main` reads the environment.
fn sources(flags: Overrides) -> Result<Sources, Box<dyn Error>> {
    use etcetera::BaseStrategy;
    let platform = etcetera::choose_base_strategy()?;
    let name = env!("CARGO_PKG_NAME");
    Ok(Sources {
        env: Overrides::from_env(|name| std::env::var_os(name)),
        flags,
        default_file: Some(platform.config_dir().join(name).join("config.toml")),
        default_state_dir: platform
            .state_dir()
            .unwrap_or_else(|| platform.data_dir())
            .join(name),
        start_dir: std::env::current_dir()?,
        home: Some(platform.home_dir().to_owned()),
        cores: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        path: std::env::var_os("PATH").unwrap_or_default(),
    })
}

/// stdout carries the protocol only.
fn log_to_stderr(filter: &str) -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(EnvFilter::try_new(filter)?)
        .try_init()
        .map_err(|error| error as Box<dyn Error>)
}

/// Prints clap's help or refusal and returns its status.
fn print(text: &clap::Error) -> ExitCode {
    // A closed stream leaves nowhere to print to.
    let _ = text.print();
    u8::try_from(text.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}
