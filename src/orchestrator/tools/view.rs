//! What an answer shows of a workflow, within the size that hosts show whole: status, counts and failures first, then
//! items in a stable order, texts cut, the rest by a cursor.

use super::item_row::{ItemRow, cut_head};
use super::page::{Budget, bad_cursor};
use super::snapshot::Snapshot;
use crate::api::{Detail, Failure, WorkflowResult};
use crate::error::Problem;
use crate::model::{ItemIndex, ItemRecord, ItemState, WorkflowStatus};
use crate::orchestrator::engine::groups;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// The budget of an answer's items and failures. The server allows 9,000 bytes in all.
const BYTES: usize = 7_600;

/// The budget of the short answer about a workflow that runs; it stays under 1,500 bytes in all.
const BRIEF_BYTES: usize = 900;

/// Failures take at most this fraction of the budget: one part in three.
const FAILURES_SHARE: usize = 3;

/// What an answer about a workflow is to show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// Only these items; none: all.
    pub(super) items: Option<BTreeSet<ItemIndex>>,
    /// Only items in these states; empty: all.
    pub(super) only: Vec<ItemState>,
    /// How much of each item.
    pub(super) detail: Detail,
    /// Where the page begins.
    pub(super) cursor: Cursor,
    /// Whether the caller asked for more than the state of a running workflow.
    pub(super) asked: bool,
}

/// Where a page of items begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The first item.
    from: ItemIndex,
    /// Whether the pages show running items only, as the short answer does.
    running: bool,
}

/// What the cursor of a short answer ends with.
const RUNNING: &str = "-running";

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}",
            self.from,
            if self.running { RUNNING } else { "" }
        )
    }
}

impl FromStr for Cursor {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let rest = text.strip_suffix(RUNNING);
        Ok(Self {
            from: rest.unwrap_or(text).parse().map_err(|_| bad_cursor())?,
            running: rest.is_some(),
        })
    }
}

impl Shown {
    fn includes(&self, record: &ItemRecord) -> bool {
        let named = self.items.as_ref();
        record.item >= self.cursor.from
            && named.is_none_or(|items| items.contains(&record.item))
            && (self.only.is_empty() || self.only.contains(&record.status))
            && (!self.cursor.running || record.status == ItemState::Running)
    }
}

/// Returns the answer about a workflow.
pub(super) fn workflow(snapshot: &Snapshot, shown: &Shown) -> WorkflowResult {
    if snapshot.status() == WorkflowStatus::Running && !shown.asked {
        return brief(snapshot);
    }
    let mut budget = Budget::new(BYTES);
    let (failures, mut truncated) = failures(snapshot, &mut budget, |failure| failure);
    let flaky = snapshot.flaky();
    let records = snapshot
        .items
        .iter()
        .filter(|record| shown.includes(record));
    let rows = records.map(|record| {
        let mut row = ItemRow::new(record, shown.detail);
        row.item.flaky = flaky.contains(record.repo.as_str()).then_some(true);
        row
    });
    let (rows, next) = budget.fill(rows, ItemRow::squeeze);
    truncated |= next.is_some() || rows.iter().any(|row| row.is_cut);
    WorkflowResult {
        failures,
        items: rows.into_iter().map(|row| row.item).collect(),
        truncated,
        cursor: next.map(|row| {
            let from = row.item.item;
            Cursor {
                from,
                ..shown.cursor
            }
            .to_string()
        }),
        ..without_rows(snapshot)
    }
}

/// Returns the short answer about a workflow that runs: counts, failures and the items that run.
fn brief(snapshot: &Snapshot) -> WorkflowResult {
    let mut budget = Budget::new(BRIEF_BYTES);
    let (failures, left_out) = failures(snapshot, &mut budget, brief_failure);
    let running = |record: &&Arc<ItemRecord>| record.status == ItemState::Running;
    let running = snapshot.items.iter().filter(running);
    let mut rows = running.map(|record| ItemRow::brief(record)).peekable();
    let mut items = Vec::new();
    while let Some(row) = rows.next_if(|row| budget.take(row)) {
        items.push(row.item);
    }
    let cursor = match rows.peek() {
        Some(row) => Some(Cursor {
            from: row.item.item,
            running: true,
        }),
        // The long answer has more room for failures.
        None => left_out.then(Cursor::default),
    };
    WorkflowResult {
        failures,
        items,
        truncated: cursor.is_some(),
        cursor: cursor.map(|cursor| cursor.to_string()),
        ..without_rows(snapshot)
    }
}

/// Returns what an answer has beside failures and items.
fn without_rows(snapshot: &Snapshot) -> WorkflowResult {
    let tenths = |eta: Duration| (eta.as_secs_f64() * 10.0).round() / 10.0;
    WorkflowResult {
        workflow_id: snapshot.record.id,
        title: snapshot.record.title.to_string(),
        status: snapshot.status(),
        owner: snapshot.owner,
        counts: snapshot.counts,
        next_step: next_step(snapshot),
        failures: Vec::new(),
        pool: None,
        why: None,
        items: Vec::new(),
        revision: snapshot.revision,
        eta_s: snapshot.eta.map(tenths),
        existing: false,
        truncated: false,
        wait_capped_s: None,
        cursor: None,
    }
}

/// Returns the groups of failures that fit into their share of the budget, and whether some were left out.
fn failures(
    snapshot: &Snapshot,
    budget: &mut Budget,
    shorten: impl Fn(Failure) -> Failure,
) -> (Vec<Failure>, bool) {
    let mut share = budget.split(FAILURES_SHARE);
    let groups = groups(&snapshot.items);
    let count = groups.len();
    let groups = groups.into_iter().map(shorten);
    let shown: Vec<Failure> = groups.take_while(|group| share.take(group)).collect();
    budget.join(share);
    let left_out = shown.len() < count;
    (shown, left_out)
}

fn brief_failure(mut group: Failure) -> Failure {
    const INDEXES: usize = 5;
    group.items.truncate(INDEXES);
    group.example.clear();
    cut_head(&mut group.cause, 120);
    cut_head(&mut group.next_step, 80);
    group
}

fn next_step(snapshot: &Snapshot) -> Option<String> {
    let id = snapshot.record.id;
    match snapshot.status() {
        WorkflowStatus::Running => Some(format!("get_workflow {id} with wait_for done or change")),
        WorkflowStatus::Planned => {
            let refused = snapshot.items.iter().filter(|item| item.error.is_some());
            let refused = match refused.count() {
                0 => String::new(),
                count => {
                    format!("{count} item(s) cannot start as things are now, see their error; ")
                }
            };
            Some(format!(
                "{refused}resume_workflow {id} starts exactly this plan"
            ))
        }
        WorkflowStatus::Interrupted | WorkflowStatus::Cancelled => {
            Some(format!("resume_workflow {id} runs what did not finish"))
        }
        WorkflowStatus::Partial | WorkflowStatus::Failed => {
            let flaky = snapshot.flaky();
            let repeats = match flaky.first() {
                None => String::new(),
                Some(first) => format!(
                    "{} of the repositories are `flaky`, such as {first}: the same task passed and failed there; ",
                    flaky.len()
                ),
            };
            Some(format!(
                "{repeats}see `failures` and read_output; then resume_workflow {id}, with a hint for a task"
            ))
        }
        WorkflowStatus::Succeeded => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Owner;
    use crate::model::{
        At, Counts, Isolation, ServerId, Settings, Stage, WorkflowId, WorkflowRecord,
    };
    use crate::redact::redact;

    fn snapshot(items: Vec<ItemRecord>) -> Snapshot {
        let settings = serde_json::from_value::<Settings>(serde_json::json!({
            "isolation": Isolation::InPlace, "retries": 0
        }));
        Snapshot {
            record: Arc::new(WorkflowRecord {
                id: WorkflowId::new(),
                title: redact(&"é".repeat(80)),
                owner: ServerId::new(),
                created_at: At::now(),
                single: false,
                settings: settings.expect("settings"),
                idempotency_key: None,
                arguments_hash: String::new(),
            }),
            counts: Counts::of(items.iter().map(|item| item.status)),
            items: items.into_iter().map(Arc::new).collect(),
            revision: u64::MAX,
            owner: Owner::This,
            eta: Some(Duration::from_secs(1_000_000)),
        }
    }

    fn failed(item: u32) -> ItemRecord {
        let repo = format!("/home/somebody/{}/repository-{item}", "deep/".repeat(20));
        let mut record = ItemRecord::unstarted(item, repo, ItemState::Failed);
        record.stage = Some(Stage::Run);
        record.cause = Some(redact(&format!("exit code {item}: {}", "why ".repeat(30))));
        record.output_tail = Some(redact(&"\u{1}\u{2}\n".repeat(700)));
        record.error =
            Some(Problem::new(crate::error::ErrorKind::Failed, "x".repeat(9_000)).into());
        record
    }

    #[test]
    fn answers_stay_within_their_size_and_paging_shows_every_item_once() {
        let snapshot = snapshot((0..60).map(failed).collect());
        for detail in [Detail::Summary, Detail::Full] {
            let mut shown = Shown {
                detail,
                asked: true,
                ..Shown::default()
            };
            let mut seen = Vec::new();
            loop {
                let page = workflow(&snapshot, &shown);
                let bytes = serde_json::to_vec(&page).expect("serialises").len();
                assert!(bytes <= 9_000, "{bytes}");
                assert!(
                    !page.items.is_empty() || page.cursor.is_none(),
                    "no progress"
                );
                seen.extend(page.items.iter().map(|item| item.item));
                match page.cursor {
                    Some(cursor) => shown.cursor = cursor.parse().expect("a cursor"),
                    None => break,
                }
            }
            assert_eq!(seen, (0..60).collect::<Vec<_>>());
        }
    }

    /// Follows the cursors of a running workflow's short answer; returns the items of all pages.
    fn all_running(snapshot: &Snapshot) -> Vec<ItemIndex> {
        let mut page = workflow(snapshot, &Shown::default());
        let bytes = serde_json::to_vec(&page).expect("serialises").len();
        assert!(bytes <= 1_500, "{bytes}");
        let mut seen = Vec::new();
        loop {
            assert!(
                page.items
                    .iter()
                    .all(|item| item.status == ItemState::Running)
            );
            assert_eq!(page.truncated, page.cursor.is_some());
            seen.extend(page.items.iter().map(|item| item.item));
            let Some(cursor) = page.cursor else {
                return seen;
            };
            let cursor = cursor.parse().expect("a cursor");
            page = workflow(
                snapshot,
                &Shown {
                    cursor,
                    asked: true,
                    ..Shown::default()
                },
            );
        }
    }

    #[test]
    fn a_running_workflow_is_shown_in_1500_bytes_and_its_cursor_leads_on() {
        let running = |item: u32| {
            let mut record = ItemRecord::unstarted(item, format!("/r/{item}"), ItemState::Running);
            record.doing = Some("running".into());
            record.worktree = Some("/deep/".repeat(30));
            record
        };
        let eight: Vec<ItemRecord> = (0..8).map(running).collect();
        assert_eq!(all_running(&snapshot(eight)), (0..8).collect::<Vec<_>>());
        let failures = snapshot((0..100).map(failed).chain([running(100)]).collect());
        let page = workflow(&failures, &Shown::default());
        assert!(page.truncated && page.cursor.is_some());
        let mixed = (0..100).map(|item| match item % 2 {
            0 => ItemRecord::unstarted(item, format!("/r/{item}"), ItemState::Succeeded),
            _ => running(item),
        });
        let odd: Vec<_> = (0..100).filter(|item| item % 2 == 1).collect();
        assert_eq!(all_running(&snapshot(mixed.collect())), odd);
    }
}
