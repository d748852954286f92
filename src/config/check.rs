//! From the file as written to the settings as they are used: every value is checked here, once.

mod value;
mod worker;

use super::document::{Document, KeyPath};
use super::error::ConfigError;
use super::file::{ConfigFile, PoolEntry, StoreEntry};
use super::limits::DEFAULT_QUEUE;
use super::{
    AGENT_PRESETS, CacheConfig, Config, Durability, Limits, LogConfig, MAX_WORKERS, PoolConfig,
    QUEUE, RootsConfig, Sources, StoreConfig, WorkerConfig, defaults, preset,
};
use crate::error::nearest;
use crate::model::{BadPoolName, PoolName};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

/// Reads and checks `text`, the content of `file`.
pub(super) fn config(file: &Path, text: &str, sources: &Sources) -> Result<Config, ConfigError> {
    let document = Document::parse(file, text)?;
    let settings = document.settings()?;
    Check {
        document: &document,
        sources,
    }
    .config(file, settings)
}

struct Check<'a> {
    document: &'a Document<'a>,
    sources: &'a Sources,
}

type Checked<T> = Result<T, ConfigError>;

impl Check<'_> {
    fn config(&self, file: &Path, settings: ConfigFile) -> Checked<Config> {
        let top = KeyPath::default();
        let mut workers = BTreeMap::new();
        for (name, entry) in settings.workers {
            let path = top.key("workers").key(&name);
            workers.insert(name.clone(), self.worker(&path, &name, entry)?);
        }
        let pools = if settings.pools.is_empty() {
            defaults::pools(self.sources, &mut workers)
        } else {
            self.pools(settings.pools, &mut workers)?
        };
        let session_buddy = settings
            .session_buddy
            .map(|entry| self.peer(&top.key("session_buddy"), entry))
            .transpose()?;
        self.session_buddy_workers_have_a_server(&workers, session_buddy.is_some())?;
        let limits = &settings.limits;
        let limits_at = top.key("limits");
        let cache_at = top.key("cache");
        let (limit_defaults, cache_defaults) = (Limits::default(), CacheConfig::default());
        Ok(Config {
            file: Some(file.to_owned()),
            roots: self.roots(&top.key("roots"), &settings.roots)?,
            pools,
            workers,
            session_buddy,
            limits: Limits {
                max_items: self.count(
                    &limits_at.key("max_items"),
                    limits.max_items,
                    limit_defaults.max_items,
                    &Limits::MAX_ITEMS,
                )?,
                log_cap: self.size(
                    &limits_at.key("log_cap"),
                    limits.log_cap.as_deref(),
                    limit_defaults.log_cap,
                    &Limits::LOG_CAP,
                )?,
                output_tail: self.size(
                    &limits_at.key("output_tail"),
                    limits.output_tail.as_deref(),
                    limit_defaults.output_tail as u64,
                    &Limits::OUTPUT_TAIL,
                )? as usize,
                grace: self.duration(
                    &limits_at.key("grace"),
                    limits.grace.as_deref(),
                    limit_defaults.grace,
                    &Limits::GRACE,
                )?,
                collect_deadline: self.duration(
                    &limits_at.key("collect_deadline"),
                    limits.collect_deadline.as_deref(),
                    limit_defaults.collect_deadline,
                    &Limits::COLLECT_DEADLINE,
                )?,
                worktrees_max_bytes: match limits.worktrees_max_bytes.as_deref() {
                    None => limit_defaults.worktrees_max_bytes,
                    given => Some(self.size(
                        &limits_at.key("worktrees_max_bytes"),
                        given,
                        0,
                        &Limits::WORKTREES_MAX_BYTES,
                    )?),
                },
            },
            cache: CacheConfig {
                ttl: self.duration(
                    &cache_at.key("ttl"),
                    settings.cache.ttl.as_deref(),
                    cache_defaults.ttl,
                    &CacheConfig::TTL,
                )?,
                max_bytes: self.size(
                    &cache_at.key("max_bytes"),
                    settings.cache.max_bytes.as_deref(),
                    cache_defaults.max_bytes,
                    &CacheConfig::MAX_BYTES,
                )?,
            },
            store: self.store(&top.key("store"), &settings.store)?,
            log: self.log(&top.key("log").key("filter"), settings.log.filter)?,
        })
    }

    fn roots(&self, path: &KeyPath, roots: &[String]) -> Checked<RootsConfig> {
        if roots.is_empty() {
            return Ok(defaults::roots(self.sources));
        }
        let given = roots
            .iter()
            .enumerate()
            .map(|(index, root)| self.folder(&path.index(index), root));
        given.collect::<Checked<_>>().map(RootsConfig::Given)
    }

    fn pools(
        &self,
        entries: Vec<PoolEntry>,
        workers: &mut BTreeMap<String, WorkerConfig>,
    ) -> Checked<Vec<PoolConfig>> {
        let mut places: HashMap<PoolName, usize> = HashMap::with_capacity(entries.len());
        let mut pools = Vec::with_capacity(entries.len());
        for (index, entry) in entries.into_iter().enumerate() {
            let path = KeyPath::default().key("pools").index(index);
            let pool = self.pool(&path, entry, workers)?;
            if let Some(first) = places.insert(pool.name.clone(), index) {
                let message = format!("is {} again, the name of pools[{first}]", pool.name);
                let allowed = "a name that no other pool has";
                return Err(self.document.refuse(&path.key("name"), message, allowed));
            }
            pools.push(pool);
        }
        Ok(pools)
    }

    fn pool(
        &self,
        path: &KeyPath,
        entry: PoolEntry,
        workers: &mut BTreeMap<String, WorkerConfig>,
    ) -> Checked<PoolConfig> {
        let name = entry.name.parse().map_err(|bad: BadPoolName| {
            let message = format!("is {:?}, not a pool name", bad.0);
            self.document
                .refuse(&path.key("name"), message, BadPoolName::ALLOWED)
        })?;
        self.define(&path.key("worker"), &entry.worker, workers)?;
        let max_workers = path.key("max_workers");
        let queue = path.key("queue");
        Ok(PoolConfig {
            name,
            worker: entry.worker,
            max_workers: self.count(&max_workers, entry.max_workers, 1, &MAX_WORKERS)?,
            labels: self.labels(&path.key("labels"), entry.labels)?,
            queue: self.count(&queue, entry.queue, DEFAULT_QUEUE, &QUEUE)?,
        })
    }

    /// Sees to it that a pool's worker is defined; an agent program's preset defines itself.
    fn define(
        &self,
        path: &KeyPath,
        name: &str,
        workers: &mut BTreeMap<String, WorkerConfig>,
    ) -> Checked<()> {
        if workers.contains_key(name) {
            return Ok(());
        }
        if let Some(preset) = preset(name) {
            workers.insert(name.to_owned(), defaults::agent(preset));
            return Ok(());
        }
        let known = workers.keys().map(String::as_str);
        let message = match nearest(name, known.clone()) {
            Some(meant) => format!("is {name:?}, which is not defined; did you mean {meant:?}?"),
            None => format!("is {name:?}, which is not defined; add a [workers.{name}] table"),
        };
        let presets = AGENT_PRESETS.iter().map(|preset| preset.name);
        let allowed: Vec<&str> = known.chain(presets).collect();
        Err(self.document.refuse(path, message, allowed.join(", ")))
    }

    fn labels(&self, path: &KeyPath, labels: Vec<String>) -> Checked<Vec<String>> {
        const MAX_CHARS: usize = 64;
        let mut kept: Vec<String> = Vec::with_capacity(labels.len());
        for (index, label) in labels.into_iter().enumerate() {
            let odd = |c: char| c.is_whitespace() || c.is_control();
            if label.is_empty() || label.contains(odd) || label.chars().count() > MAX_CHARS {
                let message = format!("is {label:?}, not a label");
                let allowed = "1 to 64 characters without blanks";
                return Err(self.document.refuse(&path.index(index), message, allowed));
            }
            if !kept.contains(&label) {
                kept.push(label);
            }
        }
        Ok(kept)
    }

    fn store(&self, path: &KeyPath, entry: &StoreEntry) -> Checked<StoreConfig> {
        let at_least = Duration::from_secs(60 * 60)..=Duration::MAX;
        let durability_at = path.key("durability");
        let age = |key: &str, text: &Option<String>| {
            let read = |text: &String| {
                self.duration(&path.key(key), Some(text), Duration::ZERO, &at_least)
            };
            text.as_ref().map(read).transpose()
        };
        Ok(StoreConfig {
            dir: match &entry.dir {
                Some(dir) => self.folder(&path.key("dir"), dir)?,
                None => self.sources.default_state_dir.clone(),
            },
            durability: match entry.durability.as_deref() {
                None => Durability::default(),
                Some("full") => Durability::Full,
                Some("normal") => Durability::Normal,
                Some(other) => {
                    let message = format!("is {other:?}");
                    let allowed = "\"full\" or \"normal\"";
                    return Err(self.document.refuse(&durability_at, message, allowed));
                }
            },
            retention: age("retention", &entry.retention)?,
            retention_outcomes: age("retention_outcomes", &entry.retention_outcomes)?,
            retention_notes: age("retention_notes", &entry.retention_notes)?,
        })
    }

    fn log(&self, path: &KeyPath, filter: Option<String>) -> Checked<LogConfig> {
        let Some(filter) = filter else {
            return Ok(LogConfig::default());
        };
        match filter.parse::<tracing_subscriber::EnvFilter>() {
            Ok(_) => Ok(LogConfig { filter }),
            Err(error) => Err(self.document.refuse(
                path,
                format!("is {filter:?}: {error}"),
                "error, warn, info, debug or trace, or a list such as warn,mahavishnu=debug",
            )),
        }
    }
}
