//! Everything that the configuration is made from.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// What one source above the file sets: the environment or the flags.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The config file: `--config`, `MAHAVISHNU_CONFIG`.
    pub file: Option<PathBuf>,
    /// Where the state lives: `--state-dir`, `MAHAVISHNU_STATE_DIR`.
    pub state_dir: Option<PathBuf>,
    /// Folders to work under, in place of the file's: `--root`, `MAHAVISHNU_ROOTS`.
    pub roots: Vec<PathBuf>,
    /// The log filter: `--log`, `MAHAVISHNU_LOG`.
    pub log: Option<String>,
}

impl Overrides {
    /// Returns what the environment sets, asked through `get`; an empty value is an absent one.
    pub fn from_env(get: impl Fn(&str) -> Option<OsString>) -> Self {
        let get = |name| get(name).filter(|value| !value.is_empty());
        Self {
            file: get("MAHAVISHNU_CONFIG").map(PathBuf::from),
            state_dir: get("MAHAVISHNU_STATE_DIR").map(PathBuf::from),
            roots: get("MAHAVISHNU_ROOTS")
                .map(|list| std::env::split_paths(&list).collect())
                .unwrap_or_default(),
            log: get("MAHAVISHNU_LOG").map(|text| text.to_string_lossy().into_owned()),
        }
    }
}

/// Everything the configuration is made from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// What the environment sets.
    pub env: Overrides,
    /// What the flags set.
    pub flags: Overrides,
    /// The file read where neither names one; it may be missing.
    pub default_file: Option<PathBuf>,
    /// The state folder where none is named.
    pub default_state_dir: PathBuf,
    /// The folder the program was started in.
    pub start_dir: PathBuf,
    /// The user's home, for `~/` in the file.
    pub home: Option<PathBuf>,
    /// How many processors there are.
    pub cores: NonZeroUsize,
    /// The PATH on which programs are looked for.
    pub path: OsString,
}
