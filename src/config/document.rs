//! The config file as text with places: reads it, and finds the line of a key.

use super::error::ConfigError;
use crate::error::nearest;
use serde::de::DeserializeOwned;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The way to a key: `pools[0].max_workers`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeyPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl KeyPath {
    pub(super) fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl From<&serde_path_to_error::Path> for KeyPath {
    fn from(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment;
        let step = |segment: &Segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        Self(path.iter().filter_map(step).collect())
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if place == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

/// A config file's text, parsed as TOML.
pub(super) struct Document<'a> {
    file: &'a Path,
    text: &'a str,
    table: Spanned<DeTable<'a>>,
}

impl<'a> Document<'a> {
    /// Parses `text`, the content of `file`.
    pub(super) fn parse(file: &'a Path, text: &'a str) -> Result<Self, ConfigError> {
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            file: file.to_owned(),
            line: line_at(text, error.span().map_or(0, |span| span.start)),
            message: error.message().trim().to_owned(),
        })?;
        Ok(Self { file, text, table })
    }

    /// Reads the settings.
    ///
    /// # Errors
    ///
    /// The first unknown key, missing key, or value of a wrong type.
    pub(super) fn settings<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let reader = toml::de::Deserializer::from(self.table.clone());
        serde_path_to_error::deserialize(reader).map_err(|error| {
            let path = KeyPath::from(error.path());
            match UnknownField::of(error.inner().message()) {
                Some(field) => self.unknown_key(&path, &field),
                None => self.wrong_value(&path, error.inner()),
            }
        })
    }

    fn unknown_key(&self, path: &KeyPath, field: &UnknownField<'_>) -> ConfigError {
        ConfigError::UnknownKey {
            file: self.file.to_owned(),
            line: self.line(path),
            key: path.to_string(),
            nearest: nearest(field.name, field.known.iter().copied()).map(str::to_owned),
            known: field.known.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    fn wrong_value(&self, path: &KeyPath, error: &toml::de::Error) -> ConfigError {
        let message = error.message();
        let (message, allowed) = match message.split_once(", expected ") {
            Some((what, expected)) => (what, expected),
            None => (message, "see schemas/config.json"),
        };
        ConfigError::Value {
            file: self.file.to_owned(),
            line: match error.span() {
                Some(span) => line_at(self.text, span.start),
                None => self.line(path),
            },
            key: path.to_string(),
            message: format!("has a wrong value: {}", message.trim()),
            allowed: allowed.to_owned(),
        }
    }

    /// Returns the refusal of the value at `path`; `message` is read after the key.
    pub(super) fn refuse(
        &self,
        path: &KeyPath,
        message: impl Into<String>,
        allowed: impl Into<String>,
    ) -> ConfigError {
        ConfigError::Value {
            file: self.file.to_owned(),
            line: self.line(path),
            key: path.to_string(),
            message: message.into(),
            allowed: allowed.into(),
        }
    }

    /// Returns the folder that relative paths in the file start from.
    pub(super) fn folder(&self) -> PathBuf {
        self.file.parent().map(Path::to_owned).unwrap_or_default()
    }

    /// Returns the line of the nearest key on the way to `path` that is there, from 1.
    fn line(&self, path: &KeyPath) -> usize {
        let mut start = self.table.span().start;
        let mut tables = Some(self.table.get_ref());
        let mut value: Option<&Spanned<DeValue<'_>>> = None;
        for step in &path.0 {
            let found = match step {
                Step::Key(name) => tables
                    .or_else(|| value.and_then(|value| value.get_ref().as_table()))
                    .and_then(|table| table.get_key_value(name.as_str()))
                    .map(|(key, value)| (key.span().start, value)),
                Step::Index(index) => value
                    .and_then(|value| value.get_ref().get(*index))
                    .map(|value| (value.span().start, value)),
            };
            let Some((place, found)) = found else { break };
            start = place;
            tables = None;
            value = Some(found);
        }
        line_at(self.text, start)
    }
}

/// What serde reports of a field that a struct does not have.
struct UnknownField<'a> {
    name: &'a str,
    known: Vec<&'a str>,
}

impl<'a> UnknownField<'a> {
    /// Reads serde's message; its names stand in backticks, the unknown one first.
    fn of(message: &'a str) -> Option<Self> {
        let names = message.strip_prefix("unknown field ")?;
        let mut names = names.split('`').skip(1).step_by(2);
        Some(Self {
            name: names.next()?,
            known: names.collect(),
        })
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}
