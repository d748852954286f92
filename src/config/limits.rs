//! The plain settings: bounds of runs, the cache, the log, and their defaults.

use std::ops::RangeInclusive;
use std::time::Duration;

/// How many slots a pool may have.
pub const MAX_WORKERS: RangeInclusive<u32> = 1..=10_000;

/// How many routed tasks may wait in a pool.
pub const QUEUE: RangeInclusive<u32> = 0..=100_000;

/// How many routed tasks may wait in a pool that sets no limit.
pub(super) const DEFAULT_QUEUE: u32 = 1_000;

/// Bounds of runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most items one workflow may have, repeats included.
    pub max_items: u32,
    /// The most bytes of one stream of one attempt that are kept on disk; what comes after is read and dropped.
    pub log_cap: u64,
    /// The most bytes of a stream's end that an item's record keeps.
    pub output_tail: usize,
    /// How long a program may take to end after SIGTERM, before SIGKILL.
    pub grace: Duration,
    /// How long a collection over all pools may take.
    pub collect_deadline: Duration,
    /// How many bytes all worktrees together may take before no further one is made; none: any number.
    pub worktrees_max_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_items: 5_000,
            log_cap: 64_000_000,
            output_tail: 2_048,
            grace: Duration::from_secs(5),
            collect_deadline: Duration::from_secs(5),
            worktrees_max_bytes: None,
        }
    }
}

impl Limits {
    pub(super) const MAX_ITEMS: RangeInclusive<u32> = 1..=100_000;
    pub(super) const LOG_CAP: RangeInclusive<u64> = 4_096..=10_000_000_000;
    pub(super) const OUTPUT_TAIL: RangeInclusive<u64> = 256..=8_192;
    pub(super) const GRACE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);
    pub(super) const COLLECT_DEADLINE: RangeInclusive<Duration> =
        Duration::from_millis(10)..=Duration::from_secs(40);
    pub(super) const WORKTREES_MAX_BYTES: RangeInclusive<u64> = 1_000_000..=1_000_000_000_000_000;
}

/// The search cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheConfig {
    /// How long a remote answer is used again.
    pub ttl: Duration,
    /// The most bytes it may hold.
    pub max_bytes: u64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(5 * 60),
            max_bytes: 32_000_000,
        }
    }
}

impl CacheConfig {
    pub(super) const TTL: RangeInclusive<Duration> =
        Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
    pub(super) const MAX_BYTES: RangeInclusive<u64> = 0..=4_000_000_000;
}

/// What a finished write to the store has survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A loss of power: every commit is synced (SQLite `synchronous=FULL`).
    #[default]
    Full,
    /// The end of the process, however it comes; a loss of power may take the last commits (`synchronous=NORMAL`).
    Normal,
}

/// The log, written to stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A filter as `tracing-subscriber` reads it: `warn`, `info,mahavishnu=debug`.
    pub filter: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            filter: "warn".to_owned(),
        }
    }
}
