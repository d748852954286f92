//! `read_output`: what attempts wrote, in pages, from the logs on disk.

use super::select;
use super::view::Snapshot;
use crate::api::{ItemSelector, ReadOutput, ReadOutputResult, Stream};
use crate::error::{ErrorKind, Fault, Problem};
use crate::model::{Attempt, ItemIndex, ItemRecord, ItemState, Stage};
use crate::orchestrator::Orchestrator;
use crate::orchestrator::engine::WROTE_IN_READ_ONLY;
use crate::redact::{CONTEXT_BYTES, Scan};
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
    pub(crate) async fn output(&self, args: ReadOutput) -> Result<ReadOutputResult, Problem> {
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
        let max = crate::orchestrator::tools::arguments::count(
            "max_bytes",
            args.max_bytes,
            1..=MAX_BYTES,
        )?;
        let max = max.unwrap_or(MAX_BYTES) as usize;
        let offset = match args.offset {
            Some(offset) => Some(u64::try_from(offset).map_err(|_| {
                Problem::argument("offset", format!("offset is {offset}"), "0 or more bytes")
            })?),
            None => None,
        };
        let finished = record.status.is_final();
        let attempt = record.attempt;
        let place = Place {
            offset,
            tail: args.tail,
            max,
        };
        if let Some((stream, text)) = self.made(args.stream, &record).await? {
            let total = text.len() as u64;
            let page = place.page(total, true, |start, max| {
                let from = usize::try_from(start).unwrap_or(text.len());
                Ok(text[from..text.len().min(from + max)].to_vec())
            });
            let page = page.map_err(|error| unreadable(&error))?;
            return Ok(page.result(item, stream, attempt, total, true));
        }
        let read = move || -> std::io::Result<ReadOutputResult> {
            let stream = args.stream.unwrap_or_else(|| telling(&record, &logs));
            let parts = parts(&logs, stream)?;
            let total: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
            let page = place.page(total, finished, |start, max| read_parts(&parts, start, max))?;
            Ok(page.result(item, stream, attempt, total, finished))
        };
        let done = tokio::task::spawn_blocking(read).await;
        done.map_err(|error| unreadable(&error))?
            .map_err(|error| unreadable(&error))
    }
}

fn unreadable(error: &dyn std::error::Error) -> Problem {
    Problem::new(
        ErrorKind::Unavailable,
        format!("the log cannot be read: {error}"),
    )
}

impl Orchestrator {
    /// Returns what no log holds: the diff, also where it is what explains the status, and why nothing of an attempt ran.
    async fn made(
        &self,
        asked: Option<Stream>,
        record: &ItemRecord,
    ) -> Result<Option<(Stream, Vec<u8>)>, Problem> {
        Ok(match asked {
            Some(Stream::Diff) => Some((Stream::Diff, self.diff(record).await?)),
            None if wrote_in_read_only(record) => Some((Stream::Diff, self.diff(record).await?)),
            None if record.stage == Some(Stage::Start) => Some((Stream::Final, reason(record))),
            _ => None,
        })
    }

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

/// Returns why nothing of an attempt ran, in the words of its error.
fn reason(record: &ItemRecord) -> Vec<u8> {
    let Some(error) = &record.error else {
        return Vec::new();
    };
    let hint = error.hint.iter().map(String::as_str);
    let lines = std::iter::once(error.message.as_str()).chain(hint);
    lines
        .fold(String::new(), |text, line| text + line + "\n")
        .into_bytes()
}

fn wrote_in_read_only(record: &ItemRecord) -> bool {
    let error = record.error.as_ref();
    error.is_some_and(|error| error.message.starts_with(WROTE_IN_READ_ONLY))
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

/// What part of a stream is asked for.
struct Place {
    offset: Option<u64>,
    tail: bool,
    max: usize,
}

/// A part of a stream, without secrets.
struct Page {
    text: String,
    /// Where it begins and ends in the stream, in raw bytes.
    start: u64,
    end: u64,
}

impl Place {
    /// Reads the page of a stream of `total` bytes by `read`, which is given an offset and how many bytes.
    ///
    /// What lies around the page is read too: a secret that its edge parts is none by its halves.
    fn page(
        &self,
        total: u64,
        finished: bool,
        read: impl FnOnce(u64, usize) -> std::io::Result<Vec<u8>>,
    ) -> std::io::Result<Page> {
        let start = match (self.offset, self.tail) {
            (Some(offset), _) => offset.min(total),
            (None, true) => total.saturating_sub(self.max as u64),
            (None, false) => 0,
        };
        let before = usize::try_from(start).map_or(CONTEXT_BYTES, |start| start.min(CONTEXT_BYTES));
        let bytes = read(start - before as u64, before + self.max + CONTEXT_BYTES)?;
        let window = Window {
            from: before.min(bytes.len()),
            to: (before + self.max).min(bytes.len()),
            start,
            total,
            finished,
            bytes,
        };
        Ok(window.page(self.offset.is_none() && self.tail))
    }
}

impl Page {
    fn result(
        self,
        item: ItemIndex,
        stream: Stream,
        attempt: Attempt,
        total: u64,
        finished: bool,
    ) -> ReadOutputResult {
        ReadOutputResult {
            item,
            stream,
            attempt,
            offset: self.start,
            next_offset: (self.end < total || !finished).then_some(self.end),
            total_bytes: total,
            text: self.text,
        }
    }
}

/// Bytes of a stream of which `from..to` may be shown; `from` lies at `start` in the stream.
struct Window {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
    start: u64,
    total: u64,
    finished: bool,
}

impl Window {
    /// Returns as much as fits as JSON, its end where `tail`; no character is split.
    fn page(&self, tail: bool) -> Page {
        let bytes = &self.bytes;
        let mut from = self.from;
        if self.start > 0 {
            from = next_char(bytes, from).min(self.to);
        }
        let mut to = self.to;
        let at_end = self.start + (to - self.from) as u64 >= self.total;
        if !at_end {
            to = whole_chars(&bytes[..to]);
        } else if !self.finished {
            to -= unfinished_word(&bytes[from..to]);
        }
        to = to.max(from);
        loop {
            let text = self.text(from, to);
            let needs = serde_json::to_string(&text).map_or(usize::MAX, |json| json.len());
            if needs <= TEXT_ROOM || to - from <= 1 {
                let at = |place: usize| self.start + (place - self.from) as u64;
                return Page {
                    text,
                    start: at(from),
                    end: at(to),
                };
            }
            let half = (to - from) / 2;
            if tail {
                from = next_char(bytes, to - half);
            } else {
                to = from + whole_chars(&bytes[from..from + half]).max(1);
            }
        }
    }

    /// Returns what stands in `from..to`, without secrets.
    fn text(&self, from: usize, to: usize) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes[..from]).into_owned();
        let begin = text.len();
        text.push_str(&String::from_utf8_lossy(&self.bytes[from..to]));
        let end = text.len();
        text.push_str(&String::from_utf8_lossy(&self.bytes[to..]));
        Scan::of(&text).part(begin..end).into_string()
    }
}

/// Returns the length of the word at the end that could be the beginning of a token which is being written just now; a
/// longer run is no token, and a shorter one gives nothing away.
fn unfinished_word(bytes: &[u8]) -> usize {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./+=".contains(byte);
    let length = bytes.iter().rev().take_while(|byte| is_token(byte)).count();
    if (8..=256).contains(&length) {
        length
    } else {
        0
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

    fn page_at(bytes: &[u8], place: &Place, finished: bool) -> Page {
        let read = |start: u64, max: usize| {
            let start = start as usize;
            Ok(bytes[start..bytes.len().min(start + max)].to_vec())
        };
        let page = place.page(bytes.len() as u64, finished, read);
        page.expect("it is in memory")
    }

    /// Reads a whole stream in pages of `max` bytes.
    fn read_all(bytes: &[u8], max: usize) -> String {
        let mut text = String::new();
        let (mut at, total) = (0, bytes.len() as u64);
        while at < total {
            let place = Place {
                offset: Some(at),
                tail: false,
                max,
            };
            let page = page_at(bytes, &place, true);
            assert_eq!(page.start, at, "a gap");
            assert!(page.end > at, "no progress at {at}");
            text.push_str(&page.text);
            at = page.end;
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
    fn pages_join_to_the_redacted_whole_wherever_their_edges_fall() {
        let token = format!("ghp_{}", "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYz");
        let text = format!("é with {token}, again:\nAPI_KEY=\"{}\" end", &token[4..]);
        let whole = crate::redact::redact(&text).into_string();
        assert_eq!(whole.matches("[REDACTED-").count(), 2);
        for max in 4..=text.len() {
            assert_eq!(read_all(text.as_bytes(), max), whole, "{max}");
        }
        for (start, _) in text.char_indices() {
            let place = Place {
                offset: Some(start as u64),
                tail: false,
                max: 9,
            };
            let page = page_at(text.as_bytes(), &place, true).text;
            let half = (0..token.len() - 3).find(|&at| page.contains(&token[at..at + 3]));
            assert_eq!(half, None, "{start}: {page}");
        }
    }

    #[test]
    fn a_token_that_is_being_written_waits_until_it_is_whole() {
        let place = Place {
            offset: Some(0),
            tail: false,
            max: 100,
        };
        let half = b"log in with ghp_aB3dE5fG7h";
        let page = page_at(half, &place, false);
        assert_eq!((page.text.as_str(), page.end), ("log in with ", 12));
        assert_eq!(page_at(half, &place, true).end, half.len() as u64);
        assert_eq!(page_at(b"go on? [y/N]", &place, false).text, "go on? [y/N]");
    }

    #[test]
    fn a_page_of_control_characters_stays_within_its_room() {
        let bytes = vec![1_u8; 7_000];
        for tail in [false, true] {
            let place = Place {
                offset: None,
                tail,
                max: 7_000,
            };
            let page = page_at(&bytes, &place, true);
            assert!(serde_json::to_string(&page.text).expect("json").len() <= TEXT_ROOM);
            let edge = if tail { page.end } else { page.start };
            assert_eq!(edge, if tail { 7_000 } else { 0 });
        }
    }
}
