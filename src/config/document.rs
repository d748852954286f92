//! The config file as text with places: reads it, refuses what nobody reads, and finds the line of a key.

use super::error::ConfigError;
use super::file::{self, ConfigFile};
use crate::error::nearest;
use serde_json::Value;
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
    /// An unknown key before a value of the wrong type: the first often explains the second.
    pub(super) fn settings(&self) -> Result<ConfigFile, ConfigError> {
        self.refuse_unknown(self.table.get_ref(), &file::schema(), &KeyPath::default())?;
        let reader = toml::de::Deserializer::from(self.table.clone());
        serde_path_to_error::deserialize(reader).map_err(|error| {
            let path = KeyPath::from(error.path());
            let inner = error.inner();
            let line = match inner.span() {
                Some(span) => line_at(self.text, span.start),
                None => self.line(&path),
            };
            self.value_error(path, line, inner.message())
        })
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

    fn value_error(&self, path: KeyPath, line: usize, message: &str) -> ConfigError {
        let (message, allowed) = match message.split_once(", expected ") {
            Some((what, expected)) => (what, expected.to_owned()),
            None => (message, "see schemas/config.json".to_owned()),
        };
        ConfigError::Value {
            file: self.file.to_owned(),
            line,
            key: path.to_string(),
            message: format!("has a wrong value: {}", message.trim()),
            allowed,
        }
    }

    /// Refuses the first key that `schema`, made from the structs that read the file, does not know.
    fn refuse_unknown(
        &self,
        table: &DeTable<'_>,
        schema: &Value,
        path: &KeyPath,
    ) -> Result<(), ConfigError> {
        let properties = schema.get("properties").and_then(Value::as_object);
        for (key, value) in table {
            let name: &str = key.get_ref();
            let here = path.key(name);
            let known = properties.and_then(|known| known.get(name));
            let others = schema.get("additionalProperties");
            match (known, others) {
                (Some(schema), _) => self.refuse_unknown_in(value, schema, &here)?,
                (None, Some(Value::Bool(false)) | None) => {
                    let known: Vec<String> = properties
                        .map(|known| known.keys().cloned().collect())
                        .unwrap_or_default();
                    let meant = nearest(name, known.iter().map(String::as_str));
                    return Err(ConfigError::UnknownKey {
                        file: self.file.to_owned(),
                        line: line_at(self.text, key.span().start),
                        key: here.to_string(),
                        nearest: meant.map(str::to_owned),
                        known,
                    });
                }
                (None, Some(schema @ Value::Object(_))) => {
                    self.refuse_unknown_in(value, schema, &here)?;
                }
                (None, Some(_)) => {}
            }
        }
        Ok(())
    }

    fn refuse_unknown_in(
        &self,
        value: &Spanned<DeValue<'_>>,
        schema: &Value,
        path: &KeyPath,
    ) -> Result<(), ConfigError> {
        match value.get_ref() {
            DeValue::Table(table) if is_table(schema) => self.refuse_unknown(table, schema, path),
            DeValue::Array(list) => match schema.get("items") {
                Some(items) => list.iter().enumerate().try_for_each(|(index, value)| {
                    self.refuse_unknown_in(value, items, &path.index(index))
                }),
                None => Ok(()),
            },
            _ => Ok(()),
        }
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

fn is_table(schema: &Value) -> bool {
    schema.get("properties").is_some() || schema.get("additionalProperties").is_some()
}

fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}
