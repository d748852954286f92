//! Runs programs so that none outlives the server.
//!
//! A leaf: it knows argv, folders, environments, pipes and signals, and nothing of workers, items or the journal. Not
//! responsible for what may run (`allow`), nor for redaction: it hands out the raw bytes.
//!
//! ```text
//! server ── socket ──► guardian: keeper (subreaper) ──► spawner (subreaper) ──► program, in a group of its own
//!        ◄────────────────────────── stdout, stderr ──────────────────────────────┘
//! ```
//!
//! The server never forks and never signals a pid. It sends a program's argv and its pipes' ends over one socket to
//! the **spawner**, which is the parent of every program, so that no pid can be reused under a signal. When the socket
//! closes, however the server ended, the spawner kills every group and then everything that was reparented to it, and
//! only then exits. The **keeper** is the spawner's parent and does nothing but the same for the spawner's own end.
//! There are up to two guardians, because a spawner waits while its program's `execve` goes on. [`Processes`] is the
//! server's handle; [`guardian`] is the other side.

mod capture;
mod error;
mod grace;
pub mod guardian;
mod job;
mod link;
mod open_files;
mod program;
mod run;
mod talk;
mod wire;

pub use error::SpawnError;
pub use grace::Grace;
pub use job::{Captured, Ended, Exit, Job, StopReason, Stream};
pub use link::{Options, Processes};
pub use open_files::raise_open_files;
pub use program::{Environment, Program, base_env, find_program};
pub use talk::{Pipes, Talking};

/// Says whether programs that leave their process group die with the server too, and if not, why.
///
/// # Errors
///
/// The reason, for `check_health`: such programs are caught by Linux's child subreaper and `/proc` alone.
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
