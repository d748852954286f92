//! Ending programs without their guardian, for the cases where both guardian processes were killed.
//!
//! The kernel kills the programs themselves then (`PR_SET_PDEATHSIG`); this ends what they had started, and sees that all
//! are dead: by the control group around them, where there is one, else by the mark that they and what they start carry
//! in their environment. A process that cleared its environment is found by the group alone; on other systems than Linux
//! none is.

use super::cgroup::Cgroup;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The environment variable that holds the mark.
pub(super) const VARIABLE: &str = "MAHAVISHNU_SPAWN";
/// How long the killing goes on; longer only for what hangs in the kernel or belongs to another user.
const LIMIT: Duration = Duration::from_secs(10);
/// How often what is left is looked for again while it dies.
const PAUSE: Duration = Duration::from_millis(5);

/// Returns what the marks of the programs begin with whose server holds the lock file `path`.
pub(super) fn mark_of(path: &Path) -> String {
    path.display().to_string()
}

/// Notes in a server's lock file the folder of the control group around its programs; an empty path where there is none.
pub(super) fn note_cgroup(lock: &OwnedFd, folder: &Path) -> io::Result<()> {
    // By the descriptor: where the file was removed, none without a lock must take its place.
    rustix::fs::ftruncate(lock, 0)?;
    rustix::io::pwrite(lock, folder.as_os_str().as_encoded_bytes(), 0)?;
    Ok(())
}

/// Kills what a guardian that has ended left of its programs, and returns whether all are seen dead. `left_none`: the
/// guardian has seen that itself. On other systems than Linux nothing else can tell.
pub(super) async fn end_of_guardian(mark: String, cgroup: Option<Cgroup>, left_none: bool) -> bool {
    let end = move || {
        let emptied = cgroup.is_some_and(|cgroup| cgroup.end());
        emptied || left_none || (cfg!(target_os = "linux") && end_all(&[mark]))
    };
    tokio::task::spawn_blocking(end).await.unwrap_or(false)
}

/// Ends the programs that dead servers left behind, each named by its lock file, and returns how many processes carried
/// their mark. To be called before the items of such servers are called interrupted. Blocks.
pub fn end_leftovers(dead_servers: &[PathBuf]) -> usize {
    if dead_servers.is_empty() {
        return 0;
    }
    let marks: Vec<String> = dead_servers.iter().map(|path| mark_of(path)).collect();
    let found = linux::marked(&marks).len();
    for lock in dead_servers {
        let noted = std::fs::read_to_string(lock).unwrap_or_default();
        // One that is gone was ended by its own server or guardian.
        if let Some(cgroup) = Cgroup::at(&noted) {
            cgroup.end();
        }
    }
    if found > 0 && !end_all(&marks) {
        tracing::warn!("some programs of a server that died could not be killed");
    }
    found
}

#[expect(
    clippy::disallowed_methods,
    reason = "a blocking thread, or before the runtime"
)]
fn end_all(marks: &[String]) -> bool {
    let give_up = std::time::Instant::now() + LIMIT;
    loop {
        let left = linux::marked(marks);
        if left.is_empty() {
            return true;
        }
        if std::time::Instant::now() >= give_up {
            return false;
        }
        for pid in left {
            linux::kill_marked(pid, marks);
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use super::VARIABLE;
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

    /// Returns the living processes that carry one of the marks.
    pub(super) fn marked(marks: &[String]) -> Vec<Pid> {
        let Ok(processes) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let pids = pids.filter_map(Pid::from_raw);
        pids.filter(|pid| is_marked(*pid, marks)).collect()
    }

    /// Kills the process if it is still the one that carries a mark.
    pub(super) fn kill_marked(pid: Pid, marks: &[String]) {
        // The descriptor names the process, whatever becomes of its number.
        if let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
            && is_marked(pid, marks)
        {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
    }

    /// A zombie has no environment, nor has a process that is gone.
    fn is_marked(pid: Pid, marks: &[String]) -> bool {
        let path = format!("/proc/{}/environ", pid.as_raw_nonzero());
        let environ = std::fs::read(path).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|variable| {
            let value = variable
                .strip_prefix(VARIABLE.as_bytes())
                .and_then(|rest| rest.strip_prefix(b"="));
            value.is_some_and(|value| marks.iter().any(|mark| begins(value, mark.as_bytes())))
        })
    }

    fn begins(value: &[u8], mark: &[u8]) -> bool {
        value
            .strip_prefix(mark)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b":"))
    }
}

#[cfg(not(target_os = "linux"))]
mod linux {
    use rustix::process::Pid;

    pub(super) fn marked(_: &[String]) -> Vec<Pid> {
        Vec::new()
    }

    pub(super) fn kill_marked(_: Pid, _: &[String]) {}
}
