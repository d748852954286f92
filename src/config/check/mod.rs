//! From the file as it is written to the settings as they are used: every value is checked here, once.

mod key;
mod peer;
mod pool;
mod sections;
mod worker;

use super::document::Document;
use super::file::ConfigFile;
use super::{Config, Sources, defaults};
use key::{Checked, Key};
use std::collections::BTreeMap;
use std::path::Path;

/// Reads and checks `text`, the content of `file`.
pub(super) fn config(file: &Path, text: &str, sources: &Sources) -> Checked<Config> {
    let document = Document::parse(file, text)?;
    let settings: ConfigFile = document.settings()?;
    let top = Key::top(&document, sources);
    let mut workers = BTreeMap::new();
    for (name, entry) in settings.workers {
        let worker = worker::worker(&top.key("workers").key(&name), &name, entry)?;
        workers.insert(name, worker);
    }
    let pools = match settings.pools.is_empty() {
        true => defaults::pools(sources, &mut workers),
        false => pool::pools(&top.key("pools"), settings.pools, &mut workers)?,
    };
    let session_buddy = settings
        .session_buddy
        .map(|entry| peer::peer(&top.key("session_buddy"), entry))
        .transpose()?;
    worker::session_buddies_have_a_server(&top, &workers, session_buddy.is_some())?;
    Ok(Config {
        file: Some(file.to_owned()),
        roots: sections::roots(&top.key("roots"), &settings.roots)?,
        pools,
        workers,
        session_buddy,
        limits: sections::limits(&top.key("limits"), &settings.limits)?,
        cache: sections::cache(&top.key("cache"), &settings.cache)?,
        store: sections::store(&top.key("store"), &settings.store)?,
        log: sections::log(&top.key("log").key("filter"), settings.log)?,
    })
}
