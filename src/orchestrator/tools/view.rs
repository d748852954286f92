//! What callers see of a workflow, within the size that hosts show whole.
//!
//! Status, counts and failures first, then rows in a stable order, texts cut with `truncated`, the rest by a cursor.

use super::select::Shown;
use crate::api::{Detail, Failure, Owner, WorkflowResult};
use crate::error::Problem;
use crate::model::{Counts, ItemRecord, ItemState, WorkflowRecord, WorkflowStatus};
use crate::orchestrator::engine::{View, groups};
use crate::store::StoredWorkflow;
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The most bytes of JSON that an answer's rows and failures take. The server allows 9,000 in all.
pub(crate) const ROOM: usize = 7_600;

/// The same for a run that goes on and was not asked for more than how it stands: 1,500 in all.
const RUNNING_ROOM: usize = 900;

/// How much of the room failures may take before items come.
const FAILURES_SHARE: usize = 3;

/// All that is known of a workflow at one moment.
pub(crate) struct Snapshot {
    pub(crate) record: Arc<WorkflowRecord>,
    pub(crate) items: Vec<Arc<ItemRecord>>,
    pub(crate) counts: Counts,
    pub(crate) revision: u64,
    pub(crate) owner: Owner,
    pub(crate) eta: Option<Duration>,
}

impl Snapshot {
    /// Returns the one of a run of this server.
    pub(crate) fn of_run(view: View) -> Self {
        Self {
            record: view.record,
            items: view.items,
            counts: view.counts,
            revision: view.revision,
            owner: Owner::This,
            eta: view.eta,
        }
    }

    /// Returns the one of a workflow that this server does not run now.
    pub(crate) fn of_store(stored: StoredWorkflow) -> Self {
        Self {
            record: Arc::new(stored.record),
            counts: Counts::of(stored.items.iter().map(|item| item.status)),
            items: stored.items.into_iter().map(Arc::new).collect(),
            revision: stored.revision,
            owner: crate::orchestrator::tools::watch::owner(stored.owner),
            eta: None,
        }
    }
}

impl Snapshot {
    /// Returns the items' records.
    pub(crate) fn into_records(self) -> Vec<ItemRecord> {
        self.items.into_iter().map(Arc::unwrap_or_clone).collect()
    }

    /// Returns the repositories whose repeats ended differently.
    fn flaky(&self) -> BTreeSet<&str> {
        if self.record.settings.repeat <= 1 {
            return BTreeSet::new();
        }
        let ended = |states: &[ItemState]| -> BTreeSet<&str> {
            let records = self.items.iter();
            let those = records.filter(|record| states.contains(&record.status));
            those.map(|record| record.repo.as_str()).collect()
        };
        let passed = ended(&[ItemState::Succeeded]);
        let failed = ended(&[ItemState::Failed, ItemState::TimedOut]);
        passed.intersection(&failed).copied().collect()
    }

    fn status(&self) -> WorkflowStatus {
        self.counts.status_within(self.record.settings.max_failures)
    }
}

impl StoredWorkflow {
    /// Returns whether no item waits or runs.
    pub(crate) fn is_over(&self) -> bool {
        !self
            .items
            .iter()
            .any(|item| matches!(item.status, ItemState::Queued | ItemState::Running))
    }
}

/// Returns the answer about a workflow.
pub(crate) fn result(snapshot: &Snapshot, shown: &Shown) -> Result<WorkflowResult, Problem> {
    let status = snapshot.status();
    let brief = status == WorkflowStatus::Running && !shown.asked;
    let mut room = Room::new(if brief { RUNNING_ROOM } else { ROOM });
    let mut failures = Vec::new();
    let groups = groups(&snapshot.items);
    let share = room.left / FAILURES_SHARE;
    let mut failures_room = Room::new(share);
    let mut truncated = false;
    for group in groups {
        let group = if brief { brief_failure(group) } else { group };
        if !failures_room.take(&group) {
            truncated = true;
            break;
        }
        failures.push(group);
    }
    room.left -= share - failures_room.left;
    let mut items = Vec::new();
    let mut cursor = None;
    let flaky = snapshot.flaky();
    for record in &snapshot.items {
        if !is_shown(record, shown, brief) {
            continue;
        }
        let (mut row, cut) = row(record, shown.detail, brief);
        row.flaky = flaky.contains(row.repo.as_str()).then_some(true);
        let (row, squeezed) = if items.is_empty() && !brief {
            squeeze(row, &room)
        } else {
            (row, false)
        };
        if !room.take(&row) {
            if !brief {
                cursor = Some(record.item.to_string());
            }
            break;
        }
        truncated |= cut || squeezed;
        items.push(row);
    }
    Ok(WorkflowResult {
        workflow_id: snapshot.record.id,
        title: snapshot.record.title.clone(),
        status,
        owner: snapshot.owner,
        counts: snapshot.counts,
        next_step: next_step(status, snapshot),
        failures,
        pool: None,
        why: None,
        items,
        revision: snapshot.revision,
        eta_s: snapshot
            .eta
            .map(|eta| (eta.as_secs_f64() * 10.0).round() / 10.0),
        existing: false,
        truncated,
        wait_capped_s: None,
        cursor,
    })
}

/// Bytes of JSON that are left for rows.
pub(crate) struct Room {
    left: usize,
}

impl Room {
    /// Returns room for `bytes`.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { left: bytes }
    }

    /// Takes what `row` needs with its comma; returns whether it fits.
    pub(crate) fn take(&mut self, row: &impl Serialize) -> bool {
        let needs = needs(row);
        let fits = needs <= self.left;
        if fits {
            self.left -= needs;
        }
        fits
    }

    fn fits(&self, row: &impl Serialize) -> bool {
        needs(row) <= self.left
    }
}

/// Returns how many bytes of JSON a row with its comma takes, without making them.
fn needs(row: &impl Serialize) -> usize {
    struct Count(usize);

    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(1);
    serde_json::to_writer(&mut count, row).map_or(usize::MAX, |()| count.0)
}

fn is_shown(record: &ItemRecord, shown: &Shown, brief: bool) -> bool {
    if brief {
        return record.status == ItemState::Running;
    }
    record.item >= shown.from
        && shown
            .items
            .as_ref()
            .is_none_or(|items| items.contains(&record.item))
        && (shown.only.is_empty() || shown.only.contains(&record.status))
}

/// Returns an item's row, and whether a text in it was cut.
fn row(record: &ItemRecord, detail: Detail, brief: bool) -> (ItemRecord, bool) {
    let mut row = record.clone();
    let limits = match (brief, detail) {
        (true, _) => Limits {
            tail: 0,
            verify: 0,
            message: 80,
        },
        (false, Detail::Summary) if row.status == ItemState::Succeeded => Limits {
            tail: 200,
            verify: 0,
            message: 200,
        },
        (false, Detail::Summary) => Limits {
            tail: 300,
            verify: 200,
            message: 200,
        },
        (false, Detail::Full) => Limits {
            tail: 2_000,
            verify: 1_000,
            message: 600,
        },
    };
    let mut cut = keep_end(&mut row.output_tail, limits.tail);
    if let Some(verify) = &mut row.verify {
        cut |= keep_end(&mut verify.output_tail, limits.verify);
    }
    if let Some(error) = &mut row.error {
        cut |= keep_start(&mut error.message, limits.message);
        if detail == Detail::Summary {
            error.hint = None;
        }
    }
    if let Some(doing) = &mut row.doing {
        cut |= keep_start(doing, 80);
    }
    (row, cut)
}

/// Halves the texts of a row that would not even fit alone (control characters take six bytes each in JSON).
fn squeeze(mut row: ItemRecord, room: &Room) -> (ItemRecord, bool) {
    let mut cut = false;
    for bytes in [1_000, 500, 250, 100, 0] {
        if room.fits(&row) {
            break;
        }
        cut = true;
        keep_end(&mut row.output_tail, bytes);
        if let Some(verify) = &mut row.verify {
            keep_end(&mut verify.output_tail, bytes);
        }
        if let Some(error) = &mut row.error {
            keep_start(&mut error.message, bytes.max(100));
        }
        if let Some(cause) = &mut row.cause {
            keep_start(cause, bytes.max(100));
        }
    }
    (row, cut)
}

struct Limits {
    tail: usize,
    verify: usize,
    message: usize,
}

/// Keeps the end of a text, of about `bytes`; returns whether it was cut.
fn keep_end(text: &mut Option<String>, bytes: usize) -> bool {
    let Some(whole) = text else {
        return false;
    };
    if whole.len() <= bytes {
        return false;
    }
    if bytes == 0 {
        *text = None;
        return true;
    }
    let start = whole.ceil_char_boundary(whole.len() - bytes);
    *whole = format!("…{}", &whole[start..]);
    true
}

fn keep_start(text: &mut String, bytes: usize) -> bool {
    if text.len() <= bytes {
        return false;
    }
    text.truncate(text.floor_char_boundary(bytes));
    text.push('…');
    true
}

fn brief_failure(mut group: Failure) -> Failure {
    const INDEXES: usize = 5;
    group.items.truncate(INDEXES);
    keep_start(&mut group.example, 0);
    keep_start(&mut group.cause, 120);
    keep_start(&mut group.next_step, 80);
    group
}

fn next_step(status: WorkflowStatus, snapshot: &Snapshot) -> Option<String> {
    let id = snapshot.record.id;
    match status {
        WorkflowStatus::Running => Some(format!("get_workflow {id} with wait_for done or change")),
        WorkflowStatus::Planned => {
            let refused = snapshot.items.iter().filter(|item| item.error.is_some());
            let refused = match refused.count() {
                0 => String::new(),
                count => format!("{count} item(s) cannot start as things stand, see their error; "),
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
                    "{} of the repositories are `flaky`, {first} among them: the same task passed and failed there; ",
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

/// Returns the refusal of a cursor that no answer gave.
pub(crate) fn bad_cursor() -> Problem {
    Problem::argument(
        "cursor",
        "it is no cursor of this tool",
        "the `cursor` of an earlier answer, unchanged",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{At, Isolation, ServerId, Settings, Stage, WorkflowId};

    fn snapshot(items: Vec<ItemRecord>) -> Snapshot {
        let settings = serde_json::from_value::<Settings>(serde_json::json!({
            "isolation": Isolation::InPlace, "retries": 0
        }));
        Snapshot {
            record: Arc::new(WorkflowRecord {
                id: WorkflowId::new(),
                title: "é".repeat(80),
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
        record.cause = Some(format!("exit code {item}: {}", "why ".repeat(30)));
        record.output_tail = Some("\u{1}\u{2}\n".repeat(700));
        record.error = Some(Problem::new(
            crate::error::ErrorKind::Failed,
            "x".repeat(9_000),
        ));
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
                let page = result(&snapshot, &shown).expect("a page");
                let bytes = serde_json::to_vec(&page).expect("serialises").len();
                assert!(bytes <= 9_000, "{bytes}");
                assert!(
                    !page.items.is_empty() || page.cursor.is_none(),
                    "no progress"
                );
                seen.extend(page.items.iter().map(|item| item.item));
                match page.cursor {
                    Some(cursor) => shown.from = cursor.parse().expect("a cursor"),
                    None => break,
                }
            }
            assert_eq!(seen, (0..60).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_running_workflow_is_told_in_1500_bytes() {
        let mut items: Vec<ItemRecord> = (0..100).map(failed).collect();
        for item in 100..200 {
            items.push(ItemRecord::unstarted(
                item,
                format!("/r/{item}"),
                ItemState::Running,
            ));
        }
        let page = result(&snapshot(items), &Shown::default()).expect("a page");
        let bytes = serde_json::to_vec(&page).expect("serialises").len();
        assert!(bytes <= 1_500, "{bytes}");
        assert!(
            page.items
                .iter()
                .all(|item| item.status == ItemState::Running)
        );
    }
}
