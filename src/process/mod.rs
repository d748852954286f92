//! Runs programs so that none outlives the server.
//!
//! A leaf: it knows argv, folders, environments, pipes and signals, and nothing of workers, items or the journal. Not
//! responsible for what may run (`allow`), nor for redaction: it returns the raw bytes.
//!
//! ```text
//! server ── socket ──► guardian: keeper (subreaper) ──► spawner (subreaper) ──► program, in a group of its own
//!        ◄────────────────────────── stdout, stderr ──────────────────────────────┘
//! ```
//!
//! The server never forks and never signals a pid. It sends a program's argv and its pipes' ends over one socket to
//! the **spawner**, which is the parent of every program, so that no pid can be reused under a signal. When the socket
//! closes, however the server ended, the spawner kills every group and then everything that was reparented to it, and
//! only then exits. The **keeper** is the spawner's parent and does the same for the spawner's own end. [`Processes`] is
//! the server's handle; [`guardian`] is the other side and lists what happens when which process is killed or stopped.
//!
//! Three ways to use it: [`Processes::run`] for programs whose output is logged and watched, `Processes::output` for
//! short calls whose output is an answer, [`Processes::talk`] for programs that are servers.

mod capture;
mod cgroup;
mod channel;
mod child;
mod environment;
mod error;
pub mod guardian;
mod job;
mod ladder;
mod leftovers;
mod open_files;
mod output;
mod processes;
mod program;
mod run;
mod search_path;
mod stop;
mod wire;

pub use child::{Child, Pipes};
pub use environment::{ProgramEnv, Reach, base_env};
pub use error::SpawnError;
pub use job::{Captured, Ended, Exit, Job, Stream};
pub use leftovers::end_leftovers;
pub use open_files::Room;
pub(crate) use output::Call;
pub use processes::{Hold, Options, Processes};
pub use program::{Environment, Program, find_program};
pub use search_path::{Origin, SearchPath};
pub use stop::{Grace, StopReason};

/// Returns whether programs that leave their process group die with the server too.
///
/// # Errors
///
/// Why not, for `check_health`: only Linux has what catches them, a child subreaper and `/proc`.
pub fn catches_strays() -> Result<(), &'static str> {
    if !cfg!(target_os = "linux") {
        return Err(
            "this platform has no child subreaper; a program that leaves its process group can outlive the server",
        );
    }
    if !std::path::Path::new("/proc/self/stat").exists() {
        return Err(
            "/proc is not mounted; a program that leaves its process group can outlive the server",
        );
    }
    Ok(())
}
