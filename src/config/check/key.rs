//! One key of the config file: its place, for messages, and how its value is checked.

use crate::config::Sources;
use crate::config::document::{Document, KeyPath};
use crate::config::error::ConfigError;
use crate::text;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

/// A checked value, or the refusal of the first bad one.
pub(super) type Checked<T> = Result<T, ConfigError>;

/// A key, or a table of keys, at its place in the file.
#[derive(Clone)]
pub(super) struct Key<'a> {
    document: &'a Document<'a>,
    pub(super) sources: &'a Sources,
    path: KeyPath,
}

impl<'a> Key<'a> {
    /// Returns the whole file.
    pub(super) fn top(document: &'a Document<'a>, sources: &'a Sources) -> Self {
        Self {
            document,
            sources,
            path: KeyPath::default(),
        }
    }

    /// Returns the key `name` of this table.
    pub(super) fn key(&self, name: &str) -> Self {
        Self {
            path: self.path.key(name),
            ..self.clone()
        }
    }

    /// Returns the entry `index` of this list, from 0.
    pub(super) fn index(&self, index: usize) -> Self {
        Self {
            path: self.path.index(index),
            ..self.clone()
        }
    }

    /// Returns the refusal of the value; `message` is read after the key.
    pub(super) fn refuse(
        &self,
        message: impl Into<String>,
        allowed: impl Into<String>,
    ) -> ConfigError {
        self.document.refuse(&self.path, message, allowed)
    }

    /// Refuses those keys of this table that are there and must not be.
    pub(super) fn absent(&self, keys: &[(&str, bool)], why: &str, allowed: &str) -> Checked<()> {
        match keys.iter().find(|(_, is_there)| *is_there) {
            Some((key, _)) => Err(self.key(key).refuse(why, allowed)),
            None => Ok(()),
        }
    }

    /// Returns the count, or `default` where there is none.
    pub(super) fn count(
        &self,
        value: Option<i64>,
        default: u32,
        range: &RangeInclusive<u32>,
    ) -> Checked<u32> {
        let Some(value) = value else {
            return Ok(default);
        };
        let count = u32::try_from(value).ok();
        self.within(value.to_string(), count, range, || {
            format!("{} to {}", range.start(), range.end())
        })
    }

    /// Returns the size in bytes, or `default` where there is none.
    pub(super) fn size(
        &self,
        text: Option<&str>,
        default: u64,
        range: &RangeInclusive<u64>,
    ) -> Checked<u64> {
        let Some(text) = text else {
            return Ok(default);
        };
        let size = text.parse::<bytesize::ByteSize>().ok();
        let size = size.map(|size| size.as_u64());
        self.within(format!("{text:?}"), size, range, || {
            format!(
                "{} to {} bytes, as a number with B, KB, MB, GB (powers of 1000) or KiB, MiB, GiB (of 1024)",
                range.start(),
                range.end()
            )
        })
    }

    /// Returns the duration; none where there is none.
    pub(super) fn duration(
        &self,
        text: Option<&str>,
        range: &RangeInclusive<Duration>,
    ) -> Checked<Option<Duration>> {
        let Some(text) = text else {
            return Ok(None);
        };
        let duration = humantime::parse_duration(text).ok();
        let duration = self.within(format!("{text:?}"), duration, range, || {
            let start = text::duration(*range.start());
            let range = match *range.end() {
                Duration::MAX => format!("{start} or more"),
                end => format!("{start} to {}", text::duration(end)),
            };
            format!("{range}, such as \"90s\", \"5m\" or \"1h 30m\"")
        });
        duration.map(Some)
    }

    fn within<T: PartialOrd>(
        &self,
        shown: String,
        value: Option<T>,
        range: &RangeInclusive<T>,
        allowed: impl FnOnce() -> String,
    ) -> Checked<T> {
        match value {
            Some(value) if range.contains(&value) => Ok(value),
            _ => Err(self.refuse(format!("is {shown}"), allowed())),
        }
    }

    /// Returns the folder as an absolute path, not yet resolved.
    pub(super) fn folder(&self, text: &str) -> Checked<PathBuf> {
        let allowed = "a folder: absolute, ~/..., or relative to the config file";
        if text.is_empty() || text.contains('\0') {
            return Err(self.refuse("is no path", allowed));
        }
        let below_home = match text {
            "~" => Some(""),
            text => text.strip_prefix("~/"),
        };
        match (below_home, &self.sources.home) {
            (None, _) => {
                let folder = self.sources.start_dir.join(self.document.folder());
                Ok(folder.join(text))
            }
            (Some(rest), Some(home)) => Ok(home.join(rest)),
            (Some(_), None) => Err(self.refuse("begins with ~, but HOME is not set", allowed)),
        }
    }

    /// Returns the URL of an MCP server.
    pub(super) fn url(&self, url: String) -> Checked<String> {
        let good = reqwest::Url::parse(&url)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        match good {
            true => Ok(url),
            false => Err(self.refuse(
                format!("is {url:?}, not a URL of an MCP server"),
                "an http:// or https:// URL with a host, such as http://127.0.0.1:8678/mcp",
            )),
        }
    }

    /// Returns the argv, which is not empty.
    pub(super) fn argv(&self, argv: Vec<String>) -> Checked<Vec<String>> {
        let message = match argv.as_slice() {
            [] => "is empty".to_owned(),
            [program, ..] if program.trim().is_empty() => "names no program".to_owned(),
            [line] if line.contains(char::is_whitespace) && !line.starts_with('/') => {
                let words: Vec<String> = line
                    .split_whitespace()
                    .map(|word| format!("{word:?}"))
                    .collect();
                format!("is one text with blanks; write [{}]", words.join(", "))
            }
            _ if argv.iter().any(|word| word.contains('\0')) => "holds a NUL character".to_owned(),
            _ => return Ok(argv),
        };
        Err(self.refuse(
            message,
            "a list: the program, then each argument as a text of its own",
        ))
    }
}
