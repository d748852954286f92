//! Reading the configuration: defaults < file < environment < flags.

use super::error::ConfigError;
use super::settings::{Config, NamedBy, RootsConfig};
use super::sources::{Overrides, Sources};
use super::{check, defaults};
use std::path::Path;

impl Config {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] that names the file, the line and the key, what is allowed and the next step. A file that was
    /// named must be there; the default one may be missing.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let file = match sources.flags.file.as_ref().or(sources.env.file.as_ref()) {
            Some(named) => Some(sources.start_dir.join(named)),
            None => sources
                .default_file
                .clone()
                .filter(|default| default.exists()),
        };
        let mut config = match &file {
            Some(path) => Self::from_file(path, sources)?,
            None => defaults::config(sources),
        };
        for (over, by) in [
            (&sources.env, NamedBy::Environment),
            (&sources.flags, NamedBy::Flag),
        ] {
            config.apply(over, by, &sources.start_dir);
        }
        Ok(config)
    }

    fn from_file(path: &Path, sources: &Sources) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            file: path.to_owned(),
            source,
        })?;
        check::config(path, &text, sources)
    }

    fn apply(&mut self, over: &Overrides, by: NamedBy, start_dir: &Path) {
        if !over.roots.is_empty() {
            let absolute = over.roots.iter().map(|root| start_dir.join(root));
            self.roots = RootsConfig::Given(absolute.collect(), by);
        }
        if let Some(dir) = &over.state_dir {
            self.store.dir = start_dir.join(dir);
        }
        if let Some(filter) = &over.log {
            self.log.filter.clone_from(filter);
        }
    }
}
