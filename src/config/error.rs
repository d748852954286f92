//! What is wrong with a configuration.

use crate::error::{ErrorKind, Fault};
use std::path::PathBuf;

/// Why the configuration was refused. Nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named cannot be read.
    #[error("cannot read the config file {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line}: not TOML: {message}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The parser's message.
        message: String,
    },
    /// A key that does not exist.
    #[error("{}:{line}: unknown key `{key}`", file.display())]
    UnknownKey {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key with the tables around it.
        key: String,
        /// The known key that was probably meant.
        nearest: Option<String>,
        /// The keys that may stand there.
        known: Vec<String>,
    },
    /// A key with a value that it may not have.
    #[error("{}:{line}: `{key}` {message}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key with the tables around it.
        key: String,
        /// What is wrong with the value, to be read after the key.
        message: String,
        /// What it may be.
        allowed: String,
    },
}

impl Fault for ConfigError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                ErrorKind::NotFound
            }
            _ => ErrorKind::InvalidArgument,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some(
                "name a readable file with --config or MAHAVISHNU_CONFIG, or unset both for the defaults".into(),
            ),
            Self::Syntax { line, .. } => Some(format!("correct line {line}; texts need \"quotes\"")),
            Self::UnknownKey { nearest: Some(name), .. } => Some(format!("did you mean {name}?")),
            Self::UnknownKey { .. } => Some("remove the key".into()),
            Self::Value { key, .. } => Some(format!("change `{key}` or remove it for the default")),
        }
    }

    fn field(&self) -> Option<String> {
        match self {
            Self::UnknownKey { key, .. } | Self::Value { key, .. } => Some(key.clone()),
            _ => None,
        }
    }

    fn allowed(&self) -> Option<String> {
        match self {
            Self::UnknownKey { known, .. } => Some(known.join(", ")),
            Self::Value { allowed, .. } => Some(allowed.clone()),
            _ => None,
        }
    }
}
