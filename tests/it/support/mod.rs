//! What the integration tests share: real repositories, a real server over a real pipe, and an eye on processes.
//!
//! Everything is hermetic: each [`Home`] is a folder of its own that serves as HOME, state and roots, and programs see no
//! git configuration but what the tests give. Waits have deadlines that only a hang can reach.

pub(crate) mod processes;
pub(crate) mod repos;
pub(crate) mod server;

use mahavishnu::mcp_client::Launcher;
use mahavishnu::process::{Options, Processes, SearchPath};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// The longest that anything may take before it counts as hung, on a slow machine under load.
pub(crate) const HANG: Duration = Duration::from_secs(120);

/// Returns the built server.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_mahavishnu"))
}

/// Returns the scripted worker program, which `cargo test` builds as an example.
pub(crate) fn fake_worker() -> PathBuf {
    let binary = binary();
    let profile = binary.parent().expect("a binary lies in a folder");
    let worker = profile.join("examples").join("fake_worker");
    assert!(
        worker.is_file(),
        "{} is missing: run `cargo test`, which builds it, or `cargo build --examples`",
        worker.display()
    );
    worker
}

/// Prints a line that is seen although its test passes: what `eprintln!` prints the test runner keeps to itself.
///
/// `SKIPPED: ` and `MEASURED: ` at its beginning are what `.ci/run` shows of a run.
pub(crate) fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("stderr can be written");
}

/// Returns the search path of these tests' own PATH.
pub(crate) fn search() -> SearchPath {
    SearchPath::new(&std::env::var_os("PATH").unwrap_or_default(), None)
}

/// Returns what starts servers that are child processes: a guardian of the built program.
pub(crate) fn launcher() -> Launcher {
    Launcher {
        processes: Processes::new(Options {
            guardian_program: binary(),
            hold: None,
        }),
        cwd: "/".into(),
        search: search(),
    }
}
