//! The tables that are not about pools, workers or peers.

use super::key::{Checked, Key};
use crate::config::file::{CacheEntry, LimitsEntry, LogEntry, StoreEntry};
use crate::config::{
    CacheConfig, Durability, Limits, LogConfig, NamedBy, RootsConfig, StoreConfig, defaults,
};
use std::time::Duration;

pub(super) fn roots(at: &Key<'_>, roots: &[String]) -> Checked<RootsConfig> {
    if roots.is_empty() {
        return Ok(defaults::roots(at.sources));
    }
    let roots = roots.iter().enumerate();
    let given = roots.map(|(index, root)| at.index(index).folder(root));
    let given = given.collect::<Checked<_>>()?;
    Ok(RootsConfig::Given(given, NamedBy::File))
}

pub(super) fn limits(at: &Key<'_>, entry: &LimitsEntry) -> Checked<Limits> {
    let default = Limits::default();
    let size = |key: &str, text: &Option<String>, default, range| {
        at.key(key).size(text.as_deref(), default, range)
    };
    let duration = |key: &str, text: &Option<String>, default: Duration, range| {
        let duration = at.key(key).duration(text.as_deref(), range)?;
        Ok(duration.unwrap_or(default))
    };
    let max_items = at.key("max_items");
    let tail = default.output_tail as u64;
    let tail = size(
        "output_tail",
        &entry.output_tail,
        tail,
        &Limits::OUTPUT_TAIL,
    )?;
    Ok(Limits {
        max_items: max_items.count(entry.max_items, default.max_items, &Limits::MAX_ITEMS)?,
        log_cap: size("log_cap", &entry.log_cap, default.log_cap, &Limits::LOG_CAP)?,
        output_tail: tail as usize,
        worktrees_max_bytes: match &entry.worktrees_max_bytes {
            Some(_) => {
                let bytes = &entry.worktrees_max_bytes;
                Some(size(
                    "worktrees_max_bytes",
                    bytes,
                    0,
                    &Limits::WORKTREES_MAX_BYTES,
                )?)
            }
            None => default.worktrees_max_bytes,
        },
        grace: duration("grace", &entry.grace, default.grace, &Limits::GRACE)?,
        collect_deadline: duration(
            "collect_deadline",
            &entry.collect_deadline,
            default.collect_deadline,
            &Limits::COLLECT_DEADLINE,
        )?,
    })
}

pub(super) fn cache(at: &Key<'_>, entry: &CacheEntry) -> Checked<CacheConfig> {
    let default = CacheConfig::default();
    let (ttl, max_bytes) = (entry.ttl.as_deref(), entry.max_bytes.as_deref());
    let ttl = at.key("ttl").duration(ttl, &CacheConfig::TTL)?;
    let size = at.key("max_bytes");
    Ok(CacheConfig {
        ttl: ttl.unwrap_or(default.ttl),
        max_bytes: size.size(max_bytes, default.max_bytes, &CacheConfig::MAX_BYTES)?,
    })
}

pub(super) fn store(at: &Key<'_>, entry: &StoreEntry) -> Checked<StoreConfig> {
    let at_least = Duration::from_secs(60 * 60)..=Duration::MAX;
    let age = |key: &str, text: &Option<String>| at.key(key).duration(text.as_deref(), &at_least);
    let durability = match entry.durability.as_deref() {
        None => Durability::default(),
        Some("full") => Durability::Full,
        Some("normal") => Durability::Normal,
        Some(other) => {
            let allowed = "\"full\" or \"normal\"";
            return Err(at
                .key("durability")
                .refuse(format!("is {other:?}"), allowed));
        }
    };
    Ok(StoreConfig {
        dir: match &entry.dir {
            Some(dir) => at.key("dir").folder(dir)?,
            None => at.sources.default_state_dir.clone(),
        },
        durability,
        retention: age("retention", &entry.retention)?,
        retention_outcomes: age("retention_outcomes", &entry.retention_outcomes)?,
        retention_notes: age("retention_notes", &entry.retention_notes)?,
    })
}

pub(super) fn log(at: &Key<'_>, entry: LogEntry) -> Checked<LogConfig> {
    let Some(filter) = entry.filter else {
        return Ok(LogConfig::default());
    };
    match filter.parse::<tracing_subscriber::EnvFilter>() {
        Ok(_) => Ok(LogConfig { filter }),
        Err(error) => Err(at.refuse(
            format!("is {filter:?}: {error}"),
            "error, warn, info, debug or trace, or a list such as warn,mahavishnu=debug",
        )),
    }
}
