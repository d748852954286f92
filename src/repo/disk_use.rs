//! The disk space that worktrees take, and its limit.

use parking_lot::Mutex;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a measured size is used again: measuring reads every folder of every worktree.
const FRESH: Duration = Duration::from_secs(5);

/// The limit on the disk space of all worktrees, with the last measured size.
#[derive(Debug)]
pub(super) struct DiskUse {
    max_bytes: Option<u64>,
    // Held while the size is measured, so that many items that start at once measure it once; never across an await.
    measured: Mutex<Option<(Instant, u64)>>,
}

impl DiskUse {
    /// Returns a limit; none: there is no limit.
    pub(super) fn new(max_bytes: Option<u64>) -> Self {
        Self {
            max_bytes,
            measured: Mutex::default(),
        }
    }

    /// Returns the limit.
    pub(super) fn max_bytes(&self) -> Option<u64> {
        self.max_bytes
    }

    /// Returns size and limit where the files below `worktrees` have reached it. Blocks while it measures.
    pub(super) fn exceeded(&self, worktrees: &Path) -> Option<(u64, u64)> {
        let max = self.max_bytes?;
        let mut measured = self.measured.lock();
        let bytes = match *measured {
            Some((at, bytes)) if at.elapsed() < FRESH => bytes,
            _ => {
                let bytes = size(worktrees);
                *measured = Some((Instant::now(), bytes));
                bytes
            }
        };
        (bytes >= max).then_some((bytes, max))
    }

    /// Has the size measured again, after worktrees were removed.
    pub(super) fn forget(&self) {
        *self.measured.lock() = None;
    }
}

/// Returns the size of all files below `dir` in bytes, links not followed.
pub(super) fn size(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
