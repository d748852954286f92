//! Single values: paths, URLs, argvs, counts, sizes and durations.

use super::super::document::KeyPath;
use super::{Check, Checked};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

impl Check<'_> {
    pub(super) fn url(&self, path: &KeyPath, url: String) -> Checked<String> {
        let good = reqwest::Url::parse(&url)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if good {
            Ok(url)
        } else {
            let message = format!("is {url:?}, not a URL of an MCP server");
            let allowed =
                "an http:// or https:// URL with a host, such as http://127.0.0.1:8678/mcp";
            Err(self.document.refuse(path, message, allowed))
        }
    }

    pub(super) fn argv(&self, path: &KeyPath, argv: Vec<String>) -> Checked<Vec<String>> {
        let allowed = "a list: the program, then each argument as a text of its own";
        match argv.as_slice() {
            [] => Err(self.document.refuse(path, "is empty", allowed)),
            [program, ..] if program.trim().is_empty() => {
                Err(self.document.refuse(path, "names no program", allowed))
            }
            [line] if line.contains(char::is_whitespace) && !line.starts_with('/') => {
                let words: Vec<String> =
                    line.split_whitespace().map(|w| format!("{w:?}")).collect();
                let message = format!("is one text with blanks; write [{}]", words.join(", "));
                Err(self.document.refuse(path, message, allowed))
            }
            _ if argv.iter().any(|word| word.contains('\0')) => {
                Err(self.document.refuse(path, "holds a NUL character", allowed))
            }
            _ => Ok(argv),
        }
    }

    /// Returns `text` as an absolute path: `~/` is the home folder, the rest is relative to the file.
    pub(super) fn folder(&self, path: &KeyPath, text: &str) -> Checked<PathBuf> {
        let allowed = "a folder: absolute, ~/..., or relative to the config file";
        if text.is_empty() || text.contains('\0') {
            return Err(self.document.refuse(path, "is no path", allowed));
        }
        let below_home = if text == "~" {
            Some("")
        } else {
            text.strip_prefix("~/")
        };
        match (below_home, &self.sources.home) {
            (None, _) => Ok(self
                .sources
                .start_dir
                .join(self.document.folder())
                .join(text)),
            (Some(rest), Some(home)) => Ok(home.join(rest)),
            (Some(_), None) => {
                Err(self
                    .document
                    .refuse(path, "begins with ~, but HOME is not set", allowed))
            }
        }
    }

    pub(super) fn count(
        &self,
        path: &KeyPath,
        value: Option<i64>,
        default: u32,
        range: &RangeInclusive<u32>,
    ) -> Checked<u32> {
        let Some(value) = value else {
            return Ok(default);
        };
        match u32::try_from(value) {
            Ok(count) if range.contains(&count) => Ok(count),
            _ => Err(self.document.refuse(
                path,
                format!("is {value}"),
                format!("{} to {}", range.start(), range.end()),
            )),
        }
    }

    pub(super) fn size(
        &self,
        path: &KeyPath,
        text: Option<&str>,
        default: u64,
        range: &RangeInclusive<u64>,
    ) -> Checked<u64> {
        let Some(text) = text else {
            return Ok(default);
        };
        match text.parse::<bytesize::ByteSize>() {
            Ok(size) if range.contains(&size.as_u64()) => Ok(size.as_u64()),
            _ => Err(self.document.refuse(
                path,
                format!("is {text:?}"),
                format!(
                    "{} to {} bytes, as a number with B, KB, MB, GB (powers of 1000) or KiB, MiB, GiB (of 1024)",
                    range.start(),
                    range.end()
                ),
            )),
        }
    }

    pub(super) fn duration(
        &self,
        path: &KeyPath,
        text: Option<&str>,
        default: Duration,
        range: &RangeInclusive<Duration>,
    ) -> Checked<Duration> {
        let Some(text) = text else {
            return Ok(default);
        };
        match humantime::parse_duration(text) {
            Ok(duration) if range.contains(&duration) => Ok(duration),
            _ => Err(self.document.refuse(
                path,
                format!("is {text:?}"),
                format!("{}, such as \"90s\", \"5m\" or \"1h 30m\"", describe(range)),
            )),
        }
    }
}

fn describe(range: &RangeInclusive<Duration>) -> String {
    let start = humantime::format_duration(*range.start());
    if *range.end() == Duration::MAX {
        format!("{start} or more")
    } else {
        format!("{start} to {}", humantime::format_duration(*range.end()))
    }
}
