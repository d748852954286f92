//! What only Linux tells of processes. Elsewhere each function gives none, and the caller skips it loudly.

use std::path::Path;
use std::process::{Command, Stdio};

/// Returns a field of a process's status (`VmHWM`: peak, `VmRSS`: now) in bytes, summed over it and its descendants.
///
/// Pages that they share are counted for each of them.
pub(crate) fn memory(pid: u32, field: &str) -> Option<u64> {
    let own = memory_alone(pid, field)?;
    let below = children(pid)
        .into_iter()
        .filter_map(|child| memory(child, field));
    Some(own + below.sum::<u64>())
}

/// Returns the same of the process alone.
pub(crate) fn memory_alone(pid: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
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
