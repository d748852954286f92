//! The program, or what it prints where it cannot run.

#[cfg(unix)]
mod program;

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    program::main()
}

#[cfg(not(unix))]
fn main() -> std::process::ExitCode {
    eprintln!("mahavishnu: Linux and macOS are supported; on Windows run it in WSL");
    std::process::ExitCode::FAILURE
}
