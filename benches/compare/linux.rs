//! What only Linux offers. Elsewhere the functions return nothing, and the caller prints what it skips.

use std::process::{Command, Stdio};

/// Returns the resident memory of a process in bytes.
pub(crate) fn memory(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1_024.0)
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
