//! Which processes live: found by a marker that they and their children inherit.

use super::HANG;
use std::time::{Duration, Instant};

/// A text in the environment or the arguments of processes that belong to one test.
#[derive(Debug, Clone)]
pub(crate) struct Marker(String);

impl Marker {
    /// The environment variable that carries the marker; a config has to pass it on (`env_pass`).
    pub(crate) const VARIABLE: &str = "MAHAVISHNU_TEST_MARKER";

    /// Returns a marker that no other process has.
    pub(crate) fn new() -> Self {
        Self(format!("marker-{}", ulid::Ulid::generate()))
    }

    /// Returns the marker's text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the processes that carry the marker in their environment or arguments, zombies left out, each with its
    /// command line.
    ///
    /// Reads `/proc`; where there is none, asks `ps`, which shows arguments only.
    pub(crate) fn living(&self) -> Vec<(u32, String)> {
        match std::fs::read_dir("/proc/self") {
            Ok(_) => self.living_in_proc(),
            Err(_) => self.living_by_ps(),
        }
    }

    /// Waits until no process carries the marker.
    ///
    /// # Panics
    ///
    /// When one still lives after [`HANG`]; names it.
    #[track_caller]
    pub(crate) fn assert_none_survives(&self) {
        let gone = wait_until(HANG, || self.living().is_empty());
        assert!(gone, "still alive: {:#?}", self.living());
    }

    fn living_in_proc(&self) -> Vec<(u32, String)> {
        let has = |bytes: &[u8]| {
            bytes
                .windows(self.0.len())
                .any(|window| window == self.0.as_bytes())
        };
        let entries = std::fs::read_dir("/proc").expect("/proc can be listed");
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| *pid != std::process::id())
            .filter_map(|pid| {
                // A process may end while it is looked at, which is as good as gone. A zombie has no command line.
                let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
                let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                let is_ours = !arguments.is_empty() && (has(&arguments) || has(&environment));
                let line = String::from_utf8_lossy(&arguments).replace('\0', " ");
                is_ours.then_some((pid, line))
            })
            .collect()
    }

    fn living_by_ps(&self) -> Vec<(u32, String)> {
        let output = std::process::Command::new("ps")
            .args(["-axww", "-o", "pid=,stat=,command="])
            .output()
            .expect("ps runs");
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|line| line.contains(&self.0))
            .filter_map(|line| {
                let (pid, rest) = line.trim_start().split_once(' ')?;
                let is_zombie = rest.trim_start().starts_with('Z');
                (!is_zombie).then_some((pid.parse().ok()?, rest.to_owned()))
            })
            .collect()
    }
}

/// Asks `condition` again and again until it holds; returns whether it did within `deadline`.
#[expect(
    clippy::disallowed_methods,
    reason = "the tests' own thread waits; there is no runtime on it"
)]
pub(crate) fn wait_until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
