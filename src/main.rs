//! The program: flags, config, logging to stderr, run, exit status.

use mahavishnu::cli::{self, Call, Invocation, ServerProgram};
use mahavishnu::config::{Config, Overrides, Sources};
use mahavishnu::error::{Fault, Problem};
use mahavishnu::model::MemoryId;
use mahavishnu::orchestrator::{Orchestrator, Setup};
use mahavishnu::server::stdio;
use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::runtime::{self, Runtime};
use tracing_subscriber::EnvFilter;

/// The exit status where the config or a flag is wrong.
const BAD_INPUT: u8 = 2;

fn main() -> ExitCode {
    // Before anything else of the program: the guardian must have no threads and no runtime.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|arg| arg == "guardian")
    {
        return mahavishnu::process::guardian::main();
    }
    let done = match cli::parse(std::env::args_os()) {
        Err(said) => return print(&said),
        Ok(Invocation::Serve(flags)) => serve(flags),
        Ok(Invocation::Call(flags, call)) => make_call(flags, *call),
        Ok(Invocation::Forget(flags, id)) => forget(flags, id),
        Ok(Invocation::Schemas(dir)) => cli::write_schemas(&dir)
            .map(|()| ExitCode::SUCCESS)
            .map_err(Into::into),
    };
    done.unwrap_or_else(|error| {
        complain(error.as_ref());
        ExitCode::from(match error.downcast_ref::<cli::CliError>() {
            Some(_) => cli::call::no_answer_status(),
            None => BAD_INPUT,
        })
    })
}

/// Serves MCP on stdio until the client goes or a signal comes.
fn serve(flags: Overrides) -> Result<ExitCode, Box<dyn Error>> {
    let sources = sources(flags)?;
    let config = Config::load(&sources).map_err(|error| error.problem())?;
    log_to_stderr(&config.log.filter)?;
    let config_file = config.file.clone().or(sources.default_file);
    let setup = Setup {
        config,
        config_file: config_file.unwrap_or_else(|| "mahavishnu.toml".into()),
        env: std::env::vars_os().collect(),
        start_dir: sources.start_dir,
        home: sources.home,
        guardian_program: own_program()?,
    };
    let core = Runtime::new()?;
    let front = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let orchestrator = {
        let _entered = core.enter();
        Orchestrator::open(setup)?
    };
    let tools = Arc::new(orchestrator.clone());
    let ended = front.block_on(stdio::serve(tools, core.handle().clone()));
    core.block_on(orchestrator.close());
    // Reads of stdin that block (a file, a terminal) would keep the runtimes, and with them the process.
    front.shutdown_background();
    core.shutdown_background();
    ended?;
    Ok(ExitCode::SUCCESS)
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
    let server = ServerProgram {
        program: std::env::current_exe()?,
        args: server_args(flags),
    };
    let runtime = Runtime::new()?;
    let status = runtime.block_on(cli::call::run(&server, call))?;
    Ok(ExitCode::from(status))
}

/// Removes one memory for good.
fn forget(flags: Overrides, id: MemoryId) -> Result<ExitCode, Box<dyn Error>> {
    let config = Config::load(&sources(flags)?).map_err(|error| error.problem())?;
    log_to_stderr(&config.log.filter)?;
    let status = Runtime::new()?.block_on(cli::forget::run(&config.store, id))?;
    Ok(ExitCode::from(status))
}

fn server_args(flags: Overrides) -> Vec<OsString> {
    let mut args = vec![OsString::from("serve")];
    let mut add = |flag: &str, value: OsString| args.extend([flag.into(), value]);
    for (flag, path) in [("--config", flags.file), ("--state-dir", flags.state_dir)] {
        if let Some(path) = path {
            add(flag, path.into());
        }
    }
    for root in flags.roots {
        add("--root", root.into());
    }
    if let Some(filter) = flags.log {
        add("--log", filter.into());
    }
    args
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

/// Prints what clap has to say, help or refusal, and returns its status.
fn print(said: &clap::Error) -> ExitCode {
    let printed = said.print();
    match (printed, u8::try_from(said.exit_code())) {
        (Ok(()), Ok(status)) => ExitCode::from(status),
        _ => ExitCode::FAILURE,
    }
}

/// Says on stderr what went wrong, with its causes, what is allowed and the next step.
fn complain(error: &(dyn Error + 'static)) {
    let mut text = format!("mahavishnu: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    if let Some(problem) = error.downcast_ref::<Problem>() {
        if let Some(allowed) = &problem.allowed {
            text.push_str(&format!("\n  allowed: {allowed}"));
        }
        if let Some(hint) = &problem.hint {
            text.push_str(&format!("\n  {hint}"));
        }
    }
    // Where stderr is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}
