//! The guardian: the processes between the server and its programs (`mahavishnu guardian MARK CGROUP`).
//!
//! Two processes. The **keeper** starts the **spawner** and waits for its end; the spawner starts the programs. Both hold
//! the server's socket (their stdin) and the server's ownership lock (their stdout) to their end, so that the lock is free
//! only when every program is dead. Both have one thread, lead their own session and do not react to INT, TERM, HUP and
//! QUIT; programs do, because `execve` resets handlers.
//!
//! What ends the programs, whichever process is killed or stopped:
//!
//! - the server ends: its socket closes, and the spawner kills every group and everything that was reparented to it;
//! - the spawner is killed: the kernel kills every program (`PR_SET_PDEATHSIG`), and what those had started is reparented
//!   to the keeper, a child subreaper, which kills it;
//! - the keeper is killed: a pipe that only it holds closes, and the spawner ends everything;
//! - both are killed: the kernel kills the programs; the server, or the next one, kills what those had started: the
//!   control group around them, where there is one, else what carries their mark;
//! - the spawner is stopped (SIGSTOP): the keeper continues it, and kills it where it does not end in time. A stopped
//!   keeper, or a stopped spawner without one, is continued by the kernel when its parent dies.
//!
//! (The server itself is no subreaper: it could not tell what it adopts from the children of its own libraries.) Other
//! systems than Linux have no keeper.

mod children;
mod end;
#[cfg(target_os = "linux")]
mod keeper;
mod session;
mod signals;
mod spawner;
mod start;

use super::cgroup::Cgroup;
pub(super) use session::SUBCOMMAND;
use session::{Inherited, stand_apart};
use signals::Signals;
use spawner::Spawner;
use std::io;
use std::process::ExitCode;

/// Runs the guardian to its end. To be called before anything else of the program: before threads and the runtime.
///
/// Success means that no program is left. Any other end is taken by the server as "the guardian is lost".
pub fn main() -> ExitCode {
    let mut args = std::env::args().skip(2);
    let mark = args.next().unwrap_or_default();
    let cgroup = args.next().and_then(|folder| Cgroup::at(&folder));
    let ended = match args.next().as_deref() {
        #[cfg(target_os = "linux")]
        None => keeper::keep(&mark, cgroup),
        _ => spawn_for_the_server(mark, cgroup),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn spawn_for_the_server(mark: String, cgroup: Option<Cgroup>) -> io::Result<()> {
    if let Some(cgroup) = cgroup {
        cgroup.enter();
    }
    let signals = Signals::new()?;
    let inherited = Inherited::take()?;
    stand_apart()?;
    let mut spawner = Spawner::new(inherited, signals, mark);
    let served = spawner.serve();
    spawner.end_all().and(served)
}
