//! `read_output`: what attempts wrote, in pages, from the logs on disk.

use super::Orchestrator;
use super::report::Snapshot;
use super::select;
use crate::api::{ItemSelector, ReadOutput, ReadOutputResult, Stream};
use crate::error::{ErrorKind, Fault, Problem};
use crate::model::{Attempt, ItemIndex, ItemRecord, ItemState, Stage};
use crate::redact::redact;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// The most bytes one answer reads.
const MAX_BYTES: u32 = 7_000;

/// The most bytes of a diff that are looked at.
const MAX_DIFF_BYTES: u64 = 16 << 20;

/// The most bytes of JSON that the text may take, so that the answer stays within its size.
const TEXT_ROOM: usize = 8_200;

/// The longest UTF-8 sequence less one: how far a cut may have to move to spare a character.
const CHAR_TAIL: usize = 3;

impl Orchestrator {
    /// Answers `read_output`.
    pub(super) async fn output(&self, args: ReadOutput) -> Result<ReadOutputResult, Problem> {
        let snapshot = self.snapshot(args.workflow_id).await?;
        let item = one_item(&snapshot, args.item.as_ref())?;
        let latest = snapshot
            .items
            .get(item as usize)
            .ok_or_else(|| Problem::new(ErrorKind::Internal, "the item has no record"))?;
        let attempt = attempt_of(latest, args.attempt)?;
        let record = if attempt == latest.attempt {
            ItemRecord::clone(latest)
        } else {
            let stored = self.0.store.attempt(args.workflow_id, item, attempt).await;
            stored
                .map_err(|error| error.problem())?
                .unwrap_or_else(|| ItemRecord::clone(latest))
        };
        let logs = self.0.engine.logs(args.workflow_id, item, attempt);
        let max = super::arguments::count("max_bytes", args.max_bytes, 1..=MAX_BYTES)?;
        let max = max.unwrap_or(MAX_BYTES) as usize;
        let offset = match args.offset {
            Some(offset) => Some(u64::try_from(offset).map_err(|_| {
                Problem::argument("offset", format!("offset is {offset}"), "0 or more bytes")
            })?),
            None => None,
        };
        let finished = record.status.is_final();
        if args.stream == Some(Stream::Diff) {
            let diff = self.diff(&record).await?;
            let total = diff.len() as u64;
            let start = match (offset, args.tail) {
                (Some(offset), _) => offset.min(total),
                (None, true) => total.saturating_sub(max as u64),
                (None, false) => 0,
            };
            let from = usize::try_from(start).unwrap_or(diff.len());
            let bytes = &diff[from..diff.len().min(from + max)];
            let (text, start, end) = page(bytes, start, total, offset.is_none() && args.tail);
            return Ok(ReadOutputResult {
                item,
                stream: Stream::Diff,
                attempt,
                offset: start,
                next_offset: (end < total).then_some(end),
                total_bytes: total,
                text,
            });
        }
        let read = move || -> std::io::Result<ReadOutputResult> {
            let stream = args.stream.unwrap_or_else(|| telling(&record, &logs));
            let parts = parts(&logs, stream)?;
            let total: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
            let start = match (offset, args.tail) {
                (Some(offset), _) => offset.min(total),
                (None, true) => total.saturating_sub(max as u64),
                (None, false) => 0,
            };
            let bytes = read_parts(&parts, start, max)?;
            let (text, start, end) = page(&bytes, start, total, offset.is_none() && args.tail);
            Ok(ReadOutputResult {
                item,
                stream,
                attempt,
                offset: start,
                next_offset: (end < total || !finished).then_some(end),
                total_bytes: total,
                text,
            })
        };
        let done = tokio::task::spawn_blocking(read).await;
        let failed = |error: String| {
            Problem::new(
                ErrorKind::Unavailable,
                format!("the log cannot be read: {error}"),
            )
        };
        done.map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(error.to_string()))
    }
}

impl Orchestrator {
    /// Returns the change that an attempt made, as git shows it; empty where it made none.
    async fn diff(&self, record: &ItemRecord) -> Result<Vec<u8>, Problem> {
        let (Some(base), Some(commit)) = (&record.base_commit, &record.commit) else {
            return Ok(Vec::new());
        };
        let fault = |error: crate::repo::RepoError| error.problem();
        let repo = self.0.repos.resolve(&record.repo).await.map_err(fault)?;
        self.0
            .repos
            .diff(&repo, base, commit, MAX_DIFF_BYTES)
            .await
            .map_err(fault)
    }
}

fn one_item(snapshot: &Snapshot, item: Option<&ItemSelector>) -> Result<ItemIndex, Problem> {
    let refuse = |message: String| {
        Problem::argument(
            "item",
            message,
            format!("0 to {}", snapshot.items.len().saturating_sub(1)),
        )
        .with_hint("get_workflow lists the items")
    };
    let Some(selector) = item else {
        return match snapshot.items.len() {
            1 => Ok(0),
            many => Err(refuse(format!("the workflow has {many} items"))),
        };
    };
    let found = select::items(&snapshot.items, std::slice::from_ref(selector));
    let found = found.map_err(|mut problem| {
        problem.field = Some("item".to_owned());
        problem
    })?;
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(item), None) => Ok(item),
        _ => Err(refuse(format!("{selector} fits several items"))),
    }
}

fn attempt_of(latest: &ItemRecord, asked: Option<i64>) -> Result<Attempt, Problem> {
    if latest.attempt == 0 {
        return Err(
            Problem::new(ErrorKind::NotFound, "the item has not started yet")
                .with_hint("get_workflow tells when it has"),
        );
    }
    match asked.map(Attempt::try_from) {
        None => Ok(latest.attempt),
        Some(Ok(attempt)) if (1..=latest.attempt).contains(&attempt) => Ok(attempt),
        Some(_) => Err(Problem::argument(
            "attempt",
            "there is no such attempt",
            format!("1 to {}", latest.attempt),
        )),
    }
}

/// Returns the stream that explains the item's status.
fn telling(record: &ItemRecord, logs: &Path) -> Stream {
    let has_text = |name: &str| logs.join(name).metadata().is_ok_and(|file| file.len() > 0);
    let failed = matches!(record.status, ItemState::Failed | ItemState::TimedOut);
    match record.stage {
        Some(Stage::Setup) => Stream::Setup,
        Some(Stage::Verify) => Stream::Verify,
        _ if failed && has_text("stderr") => Stream::Stderr,
        _ if has_text("final") => Stream::Final,
        _ if !has_text("stdout") && has_text("stderr") => Stream::Stderr,
        _ => Stream::Stdout,
    }
}

/// Returns the files that make up a stream, in order, with their sizes; none where nothing was written.
fn parts(logs: &Path, stream: Stream) -> std::io::Result<Vec<(PathBuf, u64)>> {
    let stage = |name: &str| -> std::io::Result<Vec<PathBuf>> {
        let entries = match std::fs::read_dir(logs) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let file = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let rest = file
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('-'));
            let number = rest.and_then(|rest| rest.split_once('.')?.0.parse::<u32>().ok());
            if let Some(number) = number {
                found.push((number, path));
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_, path)| path).collect())
    };
    let files = match stream {
        Stream::Stdout => vec![logs.join("stdout")],
        Stream::Stderr => vec![logs.join("stderr")],
        Stream::Final => vec![logs.join("final")],
        Stream::Events => vec![logs.join("events")],
        Stream::Diff => vec![logs.join("diff")],
        Stream::Setup => stage("setup")?,
        Stream::Verify => stage("verify")?,
    };
    let mut parts = Vec::new();
    for file in files {
        match file.metadata() {
            Ok(found) => parts.push((file, found.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(parts)
}

/// Reads up to `max` bytes from `start` of the parts, taken as one stream.
fn read_parts(parts: &[(PathBuf, u64)], start: u64, max: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut before = 0;
    for (path, size) in parts {
        let left = max - bytes.len();
        let from = (start + bytes.len() as u64).saturating_sub(before);
        before += size;
        if left == 0 || from >= *size {
            continue;
        }
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        let most = (size - from).min(left as u64);
        file.take(most).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Returns the text of a page and the offsets between which it lies: no character is split, and its JSON fits.
fn page(bytes: &[u8], start: u64, total: u64, tail: bool) -> (String, u64, u64) {
    let mut from = 0;
    if start > 0 {
        from = bytes
            .iter()
            .take(CHAR_TAIL)
            .take_while(|byte| is_continuation(**byte))
            .count();
    }
    let mut to = bytes.len();
    if start + (to as u64) < total {
        to = whole_chars(bytes);
    }
    to = to.max(from);
    loop {
        let text = redact(&String::from_utf8_lossy(&bytes[from..to])).into_owned();
        let needs = serde_json::to_string(&text).map_or(usize::MAX, |json| json.len());
        if needs <= TEXT_ROOM || to - from <= 1 {
            return (text, start + from as u64, start + to as u64);
        }
        let half = (to - from) / 2;
        if tail {
            from = next_char(bytes, to - half);
        } else {
            to = from + whole_chars(&bytes[from..from + half]).max(1);
        }
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

fn next_char(bytes: &[u8], at: usize) -> usize {
    let skip = bytes[at..]
        .iter()
        .take(CHAR_TAIL)
        .take_while(|byte| is_continuation(**byte))
        .count();
    at + skip
}

/// Returns the length without a character that the end cuts.
fn whole_chars(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(CHAR_TAIL + 1) {
        let at = bytes.len() - back;
        let byte = bytes[at];
        if is_continuation(byte) {
            continue;
        }
        let needs = match byte {
            0b1111_0000.. => 4,
            0b1110_0000.. => 3,
            0b1100_0000.. => 2,
            _ => 1,
        };
        return if needs > back { at } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a whole stream in pages of `max` bytes.
    fn read_all(bytes: &[u8], max: usize) -> String {
        let mut text = String::new();
        let (mut at, total) = (0, bytes.len() as u64);
        while at < total {
            let end = (at as usize + max).min(bytes.len());
            let (more, start, next) = page(&bytes[at as usize..end], at, total, false);
            assert_eq!(start, at, "a gap");
            assert!(next > at, "no progress at {at}");
            text.push_str(&more);
            at = next;
        }
        text
    }

    #[test]
    fn pages_join_to_the_whole_without_a_split_character() {
        let text = "aé€😀\u{1}".repeat(500);
        for max in [4, 5, 7, 100, 7_000] {
            assert_eq!(read_all(text.as_bytes(), max), text, "{max}");
        }
        assert_eq!(read_all(b"\xff\xfe\x80 x", 7_000).chars().last(), Some('x'));
    }

    #[test]
    fn a_page_of_control_characters_stays_within_its_room() {
        let bytes = vec![1_u8; 7_000];
        for tail in [false, true] {
            let (text, start, end) = page(&bytes, 0, 7_000, tail);
            assert!(serde_json::to_string(&text).expect("json").len() <= TEXT_ROOM);
            assert_eq!(if tail { end } else { start }, if tail { 7_000 } else { 0 });
        }
    }
}
