//! `read_output`: what an attempt wrote or changed, in pages, from the logs on disk and from git.

use super::log_files::LogFiles;
use super::select;
use super::snapshot::Snapshot;
use super::text_page::{Place, TextPage};
use crate::api::{ItemSelector, ReadOutput, ReadOutputResult, Stream};
use crate::error::{ErrorKind, Problem};
use crate::model::{Attempt, ItemIndex, ItemRecord, ItemState, Stage, WorkflowId};
use crate::orchestrator::Orchestrator;
use crate::orchestrator::engine::WROTE_IN_READ_ONLY;
use std::path::Path;

/// The most bytes of a diff that are looked at.
const MAX_DIFF_BYTES: u64 = 16 << 20;

/// A page of a stream, and the stream's length so far.
struct Shown {
    stream: Stream,
    page: TextPage,
    total: u64,
}

impl Orchestrator {
    /// Answers `read_output`.
    pub(super) async fn read_output(&self, args: ReadOutput) -> Result<ReadOutputResult, Problem> {
        let id = args.workflow_id;
        let snapshot = self.snapshot(id).await?;
        let item = one_item(&snapshot, args.item.as_ref())?;
        let latest = &snapshot.items[item as usize];
        let record = self.attempt(id, latest, args.attempt).await?;
        let place = Place::new(args.offset, args.max_bytes, args.tail)?;
        let (attempt, finished) = (record.attempt, record.status.is_final());
        let shown = match self.without_log(args.stream, &record).await? {
            Some((stream, text)) => of_text(stream, &text, &place).map_err(|e| unreadable(&e))?,
            None => {
                let logs = self.0.engine.logs(id, item, attempt);
                let read = move || {
                    let stream = args
                        .stream
                        .unwrap_or_else(|| explaining_log(&record, &logs));
                    of_logs(stream, &logs, &place, finished)
                };
                let read = tokio::task::spawn_blocking(read).await;
                read.map_err(|e| unreadable(&e))?
                    .map_err(|e| unreadable(&e))?
            }
        };
        let Shown {
            stream,
            page,
            total,
        } = shown;
        Ok(ReadOutputResult {
            item,
            stream,
            attempt,
            offset: page.start,
            next_offset: (page.end < total || !finished).then_some(page.end),
            total_bytes: total,
            text: page.text,
        })
    }

    /// Returns the record of the attempt that is asked for.
    async fn attempt(
        &self,
        id: WorkflowId,
        latest: &ItemRecord,
        asked: Option<i64>,
    ) -> Result<ItemRecord, Problem> {
        let attempt = attempt_of(latest, asked)?;
        if attempt == latest.attempt {
            return Ok(latest.clone());
        }
        let stored = self.0.store.attempt(id, latest.item, attempt).await?;
        Ok(stored.unwrap_or_else(|| latest.clone()))
    }

    /// Returns what no log holds: the diff, also where it explains the status, and why nothing of an attempt ran.
    async fn without_log(
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
        let repos = &self.0.repos;
        let repo = repos.resolve(&record.repo).await?;
        Ok(repos.diff(&repo, base, commit, MAX_DIFF_BYTES).await?)
    }
}

fn of_text(stream: Stream, text: &[u8], place: &Place) -> std::io::Result<Shown> {
    let total = text.len() as u64;
    let page = place.page(total, true, |start, max| {
        let from = usize::try_from(start).unwrap_or(text.len());
        Ok(text[from..text.len().min(from + max)].to_vec())
    })?;
    Ok(Shown {
        stream,
        page,
        total,
    })
}

fn of_logs(stream: Stream, logs: &Path, place: &Place, finished: bool) -> std::io::Result<Shown> {
    let files = LogFiles::of(logs, stream)?;
    let total = files.len();
    let page = place.page(total, finished, |start, max| files.read(start, max))?;
    Ok(Shown {
        stream,
        page,
        total,
    })
}

fn unreadable(error: &dyn std::error::Error) -> Problem {
    let message = format!("the log cannot be read: {error}");
    Problem::new(ErrorKind::Unavailable, message)
        .with_hint("call read_output again; check_health checks the disk")
}

/// Returns why nothing of an attempt ran: its error with the hint.
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
                .with_hint("get_workflow shows when it has"),
        );
    }
    match asked.map(Attempt::try_from) {
        None => Ok(latest.attempt),
        Some(Ok(attempt)) if (1..=latest.attempt).contains(&attempt) => Ok(attempt),
        Some(_) => Err(Problem::argument(
            "attempt",
            "there is no such attempt",
            format!("1 to {}", latest.attempt),
        )
        .with_hint("leave `attempt` out for the last one")),
    }
}

/// Returns the log that explains the item's status.
fn explaining_log(record: &ItemRecord, logs: &Path) -> Stream {
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
