//! The pools.

use super::key::{Checked, Key};
use crate::config::file::PoolEntry;
use crate::config::limits::DEFAULT_QUEUE;
use crate::config::{AGENT_PRESETS, MAX_WORKERS, PoolConfig, QUEUE, WorkerConfig, defaults};
use crate::error::nearest;
use crate::model::{BadPoolName, PoolName};
use std::collections::{BTreeMap, HashMap};

type Workers = BTreeMap<String, WorkerConfig>;

/// Checks the pools, and defines the workers that need no table.
pub(super) fn pools(
    at: &Key<'_>,
    entries: Vec<PoolEntry>,
    workers: &mut Workers,
) -> Checked<Vec<PoolConfig>> {
    let mut places: HashMap<PoolName, usize> = HashMap::with_capacity(entries.len());
    let mut pools = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate() {
        let at = at.index(index);
        let pool = pool(&at, entry, workers)?;
        if let Some(first) = places.insert(pool.name.clone(), index) {
            let message = format!("is {} again, the name of pools[{first}]", pool.name);
            return Err(at
                .key("name")
                .refuse(message, "a name that no other pool has"));
        }
        pools.push(pool);
    }
    Ok(pools)
}

fn pool(at: &Key<'_>, entry: PoolEntry, workers: &mut Workers) -> Checked<PoolConfig> {
    let name = entry.name.parse().map_err(|bad: BadPoolName| {
        let message = format!("is {:?}, not a pool name", bad.0);
        at.key("name").refuse(message, BadPoolName::ALLOWED)
    })?;
    define(&at.key("worker"), &entry.worker, workers)?;
    Ok(PoolConfig {
        name,
        worker: entry.worker,
        max_workers: at
            .key("max_workers")
            .count(entry.max_workers, 1, &MAX_WORKERS)?,
        labels: labels(&at.key("labels"), entry.labels)?,
        queue: at.key("queue").count(entry.queue, DEFAULT_QUEUE, &QUEUE)?,
    })
}

/// Defines a pool's worker where it has no table and needs none.
fn define(at: &Key<'_>, name: &str, workers: &mut Workers) -> Checked<()> {
    if workers.contains_key(name) {
        return Ok(());
    }
    if let Some(worker) = defaults::worker(name) {
        workers.insert(name.to_owned(), worker);
        return Ok(());
    }
    let known = workers.keys().map(String::as_str);
    let ready = ["command", "session-buddy"].into_iter();
    let known = known.chain(ready.chain(AGENT_PRESETS.iter().map(|preset| preset.name)));
    let message = match nearest(name, known.clone()) {
        Some(meant) => format!("is {name:?}, which is not defined; did you mean {meant:?}?"),
        None => format!("is {name:?}, which is not defined; add a [workers.{name}] table"),
    };
    Err(at.refuse(message, known.collect::<Vec<_>>().join(", ")))
}

fn labels(at: &Key<'_>, labels: Vec<String>) -> Checked<Vec<String>> {
    const MAX_CHARS: usize = 64;
    let mut kept: Vec<String> = Vec::with_capacity(labels.len());
    for (index, label) in labels.into_iter().enumerate() {
        let odd = |c: char| c.is_whitespace() || c.is_control();
        if label.is_empty() || label.contains(odd) || label.chars().count() > MAX_CHARS {
            let message = format!("is {label:?}, not a label");
            return Err(at
                .index(index)
                .refuse(message, "1 to 64 characters without blanks"));
        }
        if !kept.contains(&label) {
            kept.push(label);
        }
    }
    Ok(kept)
}
