//! Which children this process has, adopted ones included, and whose they were.

use rustix::process::Pid;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The environment variable that names the program which an adopted process comes from.
pub(super) const MARK: &str = "MAHAVISHNU_SPAWN";

/// The list of this process's children.
///
/// Linux only; elsewhere it is always empty. The kernel's list may miss one while others exit, so every use of it must
/// be repeated when a child ends.
#[derive(Debug)]
pub(super) struct Children {
    /// `/proc/thread-self/children`, kept open; absent where the kernel is built without it.
    list: Option<File>,
    buffer: Vec<u8>,
}

impl Children {
    pub(super) fn new() -> Self {
        Self {
            list: File::open("/proc/thread-self/children").ok(),
            buffer: vec![0; 4096],
        }
    }

    /// Returns the pids of all children that are not reaped yet.
    pub(super) fn list(&mut self) -> Vec<Pid> {
        match &self.list {
            Some(file) => {
                let mut length = 0;
                while let Ok(count) = file.read_at(&mut self.buffer[length..], length as u64) {
                    length += count;
                    if length < self.buffer.len() {
                        break;
                    }
                    self.buffer.resize(2 * length, 0);
                }
                parse_pids(&self.buffer[..length])
            }
            None => scan_proc(),
        }
    }
}

fn parse_pids(list: &[u8]) -> Vec<Pid> {
    String::from_utf8_lossy(list)
        .split_ascii_whitespace()
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        .collect()
}

/// Returns the children as every process's own record names its parent.
fn scan_proc() -> Vec<Pid> {
    let me = rustix::process::getpid().as_raw_nonzero().to_string();
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name in parentheses may hold anything; after it come the state and the parent (proc_pid_stat(5)).
            let parent = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?;
            (parent == me).then(|| Pid::from_raw(pid))?
        })
        .collect()
}

/// The processes that left their program and came to this one.
#[derive(Debug, Default)]
pub(super) struct Strays {
    known: HashMap<Pid, Stray>,
}

#[derive(Debug)]
struct Stray {
    /// The program it comes from, where its environment still has the mark.
    from: Option<u64>,
    /// The newest program when it was first seen; it cannot come from a later one.
    not_after: u64,
    killed: bool,
}

impl Strays {
    /// Returns those of `adopted` (all children that lead no program) that are to be killed now and were not yet.
    ///
    /// `live` returns whether a program runs, `oldest_live` is the first that does, `newest` the last that was started.
    /// Where a process took its mark off, it is killed as soon as every program that it can come from has ended.
    pub(super) fn doomed(
        &mut self,
        adopted: &[Pid],
        mark: &str,
        live: impl Fn(u64) -> bool,
        oldest_live: Option<u64>,
        newest: u64,
    ) -> Vec<Pid> {
        self.known.retain(|pid, _| adopted.contains(pid));
        let mut doomed = Vec::new();
        for &pid in adopted {
            let stray = self.known.entry(pid).or_insert_with(|| Stray {
                from: marked(pid, mark),
                not_after: newest,
                killed: false,
            });
            let ended = match stray.from {
                Some(program) => !live(program),
                None => oldest_live.is_none_or(|oldest| oldest > stray.not_after),
            };
            if ended && !stray.killed {
                stray.killed = true;
                doomed.push(pid);
            }
        }
        doomed
    }
}

/// Returns the program whose mark process `pid` carries.
fn marked(pid: Pid, mark: &str) -> Option<u64> {
    let environ = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).ok()?;
    environ
        .split(|byte| *byte == 0)
        .filter_map(|variable| std::str::from_utf8(variable).ok())
        .find_map(|variable| {
            let value = variable.strip_prefix(MARK)?.strip_prefix('=')?;
            value.strip_prefix(mark)?.strip_prefix(':')?.parse().ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(raw: i32) -> Pid {
        Pid::from_raw(raw).expect("not zero")
    }

    #[test]
    fn a_stray_without_a_mark_lives_as_long_as_a_program_it_can_come_from() {
        // A pid above the kernel's highest has no environment to read.
        let stray = pid(i32::MAX);
        let mut strays = Strays::default();
        let mut doomed = |oldest, newest| strays.doomed(&[stray], "t", |_| true, oldest, newest);
        assert!(doomed(Some(3), 5).is_empty(), "3 to 5 may be its own");
        assert!(doomed(Some(5), 9).is_empty(), "5 may be");
        assert_eq!(doomed(Some(6), 9), [stray], "6 came after it");
        assert!(doomed(None, 9).is_empty(), "it is killed once");
    }

    #[test]
    fn pids_are_read_from_the_kernels_list() {
        assert_eq!(parse_pids(b"12 345 \n6 "), [pid(12), pid(345), pid(6)]);
        assert!(parse_pids(b"").is_empty());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn both_lists_of_children_tell_the_same() {
        let mut child = std::process::Command::new("/bin/sleep")
            .arg("60")
            .spawn()
            .expect("spawns");
        let id = pid(child.id().cast_signed());
        let listed = Children::new().list();
        let scanned = scan_proc();
        child.kill().expect("kills");
        child.wait().expect("reaped");
        assert!(
            listed.contains(&id) && scanned.contains(&id),
            "{listed:?} {scanned:?}"
        );
    }
}
