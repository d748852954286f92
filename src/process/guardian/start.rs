//! Starting a program: fork, prepare the child, execute.
//!
//! The guardian has one thread, so its child after a fork is a whole process in which any code may run. What
//! `std::process::Command` cannot do safely is done there: the program gets SIGKILL from the kernel when the spawner dies
//! (`PR_SET_PDEATHSIG`, which survives `execve`; not for set-uid programs), and it is executed with `execve`, which, unlike
//! `execvp`, never hands a file without a `#!` line to a shell.

use crate::process::wire::Spawn;
use fork::Fork;
use rustix::io::Errno;
use rustix::process::{Pid, chdir, getpid, setpgid};
use std::convert::Infallible;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::OwnedFd;

/// A child that executes its program, or has.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) pid: Pid,
    /// Closed by `execve`; before that it may bring the error number of what failed.
    exec: PipeReader,
}

impl Started {
    /// Returns the error number where the program was not executed; waits until it was, or failed.
    pub(super) fn failure(&mut self) -> Option<i32> {
        let mut code = [0; size_of::<i32>()];
        match self.exec.read_exact(&mut code) {
            Ok(()) => Some(i32::from_ne_bytes(code)),
            Err(_) => None,
        }
    }

    /// Waits until the program is executed, at most for a second: until then SIGTERM would find the guardian's own handler.
    pub(super) fn await_exec(&self) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        const LIMIT: Timespec = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        let _ = poll(&mut [PollFd::new(&self.exec, PollFlags::IN)], Some(&LIMIT));
    }
}

/// Starts a program as the leader of a process group of its own. `variable`, a `NAME=VALUE`, replaces the variable of its
/// name.
///
/// # Errors
///
/// No process could be made. What fails in the new process is told by [`Started::failure`].
pub(super) fn start(
    spawn: &Spawn,
    variable: &CStr,
    stdin: Option<OwnedFd>,
    outputs: [OwnedFd; 2],
) -> io::Result<Started> {
    let (exec, mut failure) = io::pipe()?;
    let spawner = getpid();
    match fork::fork()? {
        Fork::Parent(pid) => {
            let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
            // The child does the same; the first of the two makes the group, so that it exists before any signal.
            let _ = setpgid(Some(pid), Some(pid));
            Ok(Started { pid, exec })
        }
        Fork::Child => {
            let Err(errno) = become_program(spawn, variable, stdin, outputs, spawner);
            let _ = failure.write_all(&errno.raw_os_error().to_ne_bytes());
            std::process::exit(127)
        }
    }
}

fn become_program(
    spawn: &Spawn,
    variable: &CStr,
    stdin: Option<OwnedFd>,
    [stdout, stderr]: [OwnedFd; 2],
    spawner: Pid,
) -> Result<Infallible, Errno> {
    setpgid(None, None)?;
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if rustix::process::getppid() != Some(spawner) {
        // It died before the kernel was asked to tell.
        return Err(Errno::SRCH);
    }
    let stdin = match stdin {
        Some(stdin) => stdin,
        None => File::open("/dev/null").map_err(errno_of)?.into(),
    };
    rustix::stdio::dup2_stdin(&stdin)?;
    rustix::stdio::dup2_stdout(&stdout)?;
    rustix::stdio::dup2_stderr(&stderr)?;
    chdir(spawn.cwd.as_c_str())?;
    let program = spawn.argv.first().ok_or(Errno::INVAL)?;
    let kept = spawn.env.iter().map(AsRef::as_ref);
    let kept = kept.filter(|pair| name_of(pair) != name_of(variable));
    let env: Vec<&CStr> = kept.chain([variable]).collect();
    nix::unistd::execve(program, &spawn.argv, &env)
        .map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

fn errno_of(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::INVAL)
}

/// Returns the name of a `NAME=VALUE`.
fn name_of(pair: &CStr) -> &[u8] {
    let pair = pair.to_bytes();
    let end = pair.iter().position(|byte| *byte == b'=');
    &pair[..end.unwrap_or(pair.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_variable_ends_at_the_first_equals_sign() {
        let names = [c"M=1", c"MM=", c"X=M=1", c"=", c"M"].map(name_of);
        assert_eq!(names, [b"M".as_slice(), b"MM", b"X", b"", b"M"]);
    }
}
