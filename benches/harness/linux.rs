//! What only Linux tells of processes. Elsewhere each function gives none, and the caller skips it loudly.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// Returns a field of a process's status (`VmHWM`: peak, `VmRSS`: now) in bytes.
pub(crate) fn memory(pid: u32, field: &str) -> Option<u64> {
    bytes(&format!("/proc/{pid}/status"), field)
}

/// Returns the resident memory of a process and its descendants in bytes: a page that `n` processes have mapped counts
/// as 1/n of it for each (`Pss` in proc(5)), so that a program's text is not counted once per process.
fn together(pid: u32) -> Option<u64> {
    let own = bytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")?;
    let below = children(pid).into_iter().filter_map(together);
    Some(own + below.sum::<u64>())
}

/// Does `work` and returns the most that [`together`] told meanwhile, asked 20 times a second and at the end.
pub(crate) fn peak_together(pid: u32, work: impl FnOnce()) -> Option<u64> {
    const PAUSE: Duration = Duration::from_millis(50);
    let (end, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let peak = scope.spawn(move || {
            let mut peak = together(pid);
            while ended.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                peak = peak.max(together(pid));
            }
            peak.max(together(pid))
        });
        work();
        drop(end);
        peak.join().expect("it only reads")
    })
}

/// Returns the figure of a line `FIELD: 123 kB`.
fn bytes(file: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let number = line.trim_matches([':', ' ', '\t']).strip_suffix(" kB")?;
    Some(number.parse::<u64>().ok()? * 1_024)
}

fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"));
    let files = threads.into_iter().flatten().flatten();
    files
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| {
            let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<u32>>()
        })
        .collect()
}

/// Keeps this thread, and what it starts from now on, on `cores` (`0`, `0-7`); returns whether it could.
pub(crate) fn pin(cores: &str) -> bool {
    Command::new("taskset")
        .args(["-p", "-c", cores, &std::process::id().to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
