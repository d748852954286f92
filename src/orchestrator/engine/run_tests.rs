//! The state machine of a run alone: no clock, no store, no process.

use super::item::is_failure;
use super::run::{Begun, Next, Run};
use super::stop::Stop;
use crate::error::{ErrorKind, Problem};
use crate::model::{
    At, Counts, ItemIndex, ItemRecord, ItemState, ItemWork, Revision, ServerId, Settings, Work,
    WorkflowId, WorkflowRecord,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::Duration;

fn run(count: u32, settings: Value) -> Run {
    let mut all = json!({"isolation": "in_place"});
    for (key, value) in settings.as_object().expect("an object") {
        all[key] = value.clone();
    }
    let record = WorkflowRecord {
        id: WorkflowId::new(),
        title: "true".into(),
        owner: ServerId::new(),
        created_at: At::now(),
        single: false,
        settings: serde_json::from_value::<Settings>(all).expect("settings"),
        idempotency_key: None,
        arguments_hash: String::new(),
    };
    Run::new(record, (0..count).map(queued), 1)
}

fn queued(item: ItemIndex) -> (ItemWork, ItemRecord) {
    let repo = format!("/r/{item}");
    let work = ItemWork {
        item,
        repo: repo.clone(),
        work: Work::Command(vec!["true".to_owned()]),
    };
    (work, ItemRecord::unstarted(item, repo, ItemState::Queued))
}

/// Begins an attempt at the next item, where one may start.
fn start(run: &Run) -> Option<Begun> {
    let Next::Item(work) = run.next() else {
        return None;
    };
    let pool = "p".parse().expect("a name");
    let begun = run.begin(work.item, &pool, Duration::ZERO);
    Some(begun.expect("it is ready"))
}

/// Begins an attempt at the next item, which must be this one.
fn begun(run: &Run, item: ItemIndex) -> Begun {
    let begun = start(run).expect("one may start");
    assert_eq!(begun.record.item, item);
    begun
}

fn end(run: &Run, begun: &Begun, status: ItemState) -> Vec<ItemRecord> {
    let mut record = begun.record.clone();
    record.status = status;
    if is_failure(status) {
        record.cause = Some("exit code 1".into());
        record.error = Some(Problem::new(ErrorKind::Failed, "exit code 1").into());
    }
    run.end(&record, true)
}

fn states(run: &Run) -> Vec<ItemState> {
    run.view().items.iter().map(|item| item.status).collect()
}

#[test]
fn max_parallel_limits_what_runs_at_once() {
    let run = run(3, json!({"max_parallel": 1}));
    let first = begun(&run, 0);
    assert!(matches!(run.next(), Next::Later));
    end(&run, &first, ItemState::Succeeded);
    assert!(
        matches!(run.next(), Next::Item(_)),
        "before it is journaled"
    );
    run.ends_journaled([0], Some(2));
    begun(&run, 1);
}

#[test]
fn an_item_that_waits_for_its_repository_takes_no_place() {
    let run = run(2, json!({"max_parallel": 1}));
    assert!(run.block(0) && !run.block(0));
    begun(&run, 1);
    assert!(run.unblock(0) && !run.unblock(0), "once");
    assert!(matches!(run.next(), Next::Later));
    assert!(run.undo_begin(1).is_none());
    assert_eq!(states(&run), [ItemState::Queued; 2]);
    assert_eq!(run.view().items[1].attempt, 0, "as if it had not begun");
    begun(&run, 0);
}

#[test]
fn nothing_starts_after_max_failures_not_even_another_attempt() {
    let run = run(
        4,
        json!({"max_failures": 1, "retries": 1, "max_parallel": 2}),
    );
    let (one, two) = (begun(&run, 0), begun(&run, 1));
    assert_eq!(
        end(&run, &one, ItemState::Failed).len(),
        2,
        "has another try"
    );
    run.ends_journaled([0], Some(2));
    let third = begun(&run, 2);
    assert!(start(&run).is_none(), "two at once");
    end(&run, &two, ItemState::Succeeded);
    let fourth = begun(&run, 3);
    end(&run, &third, ItemState::Failed);
    run.ends_journaled([1, 2], Some(3));
    let again = begun(&run, 0);
    assert_eq!(again.record.attempt, 2, "fewer tries come first");
    assert_eq!(
        end(&run, &again, ItemState::Failed).len(),
        1,
        "no third try"
    );
    assert!(run.has_failed_enough());
    end(&run, &fourth, ItemState::Failed);
    run.ends_journaled([3], Some(4));
    assert!(start(&run).is_none(), "another attempt is none any more");
    assert!(run.stop(&[], Stop::MaxFailures, None)[0].error.is_some());
}

#[test]
fn an_end_is_known_when_it_is_journaled_and_the_revision_is_the_journals() {
    let run = run(1, json!({}));
    let attempt = begun(&run, 0);
    run.begin_journaled(&attempt.record, 2);
    end(&run, &attempt, ItemState::Failed);
    let before = run.view();
    assert_eq!((before.counts.running, before.revision), (1, 2));
    assert_eq!(run.unsaved(), 1);
    assert!(!run.is_over());
    run.ends_journaled([0], Some(7));
    assert_eq!(run.status().revision, 7);
    assert_eq!(run.status().failed_at, Some(7), "the failure is that new");
    assert!(run.is_over());
    run.ends_journaled([0], Some(5));
    assert_eq!(run.status().revision, 7, "it never goes back");
}

#[test]
fn a_stop_is_not_forgotten_when_the_repository_is_locked() {
    let run = run(1, json!({}));
    begun(&run, 0);
    assert!(run.stop(&[], Stop::Requested, None).is_empty(), "it runs");
    let end = run.undo_begin(0).expect("it ends instead");
    assert_eq!(end.status, ItemState::Cancelled);
    assert!(!run.unblock(0));
    run.ends_journaled([0], Some(2));
    assert!(run.is_over());
}

#[test]
fn what_waits_for_another_attempt_keeps_its_failure_when_it_is_stopped() {
    for stopped_before_it_is_journaled in [true, false] {
        let run = run(1, json!({"retries": 3}));
        let attempt = begun(&run, 0);
        let records = end(&run, &attempt, ItemState::Failed);
        let journaled: Vec<_> = records.iter().map(|record| record.status).collect();
        assert_eq!(journaled, [ItemState::Failed, ItemState::Queued]);
        assert!(start(&run).is_none(), "not before that is journaled");
        let ended = if stopped_before_it_is_journaled {
            assert!(run.stop(&[], Stop::Requested, None).is_empty());
            run.ends_journaled([0], Some(2))
        } else {
            assert!(run.ends_journaled([0], Some(2)).is_empty());
            run.stop(&[], Stop::Requested, None)
        };
        assert_eq!(ended.len(), 1);
        assert_eq!(ended[0].status, ItemState::Failed);
        assert_eq!(ended[0].cause.as_deref(), Some("exit code 1"));
        run.ends_journaled([0], Some(3));
        assert!(run.is_over());
    }
}

#[test]
fn an_attempt_that_was_stopped_is_not_tried_again() {
    let run = run(1, json!({"retries": 3}));
    let attempt = begun(&run, 0);
    run.stop(&[0], Stop::Requested, Some(Duration::from_secs(1)));
    assert_eq!(attempt.live.grace.get(), Duration::from_secs(1));
    run.stop(&[0], Stop::Requested, Some(Duration::from_secs(9)));
    assert_eq!(
        attempt.live.grace.get(),
        Duration::from_secs(1),
        "no more time"
    );
    run.stop(&[0], Stop::Requested, Some(Duration::ZERO));
    assert_eq!(attempt.live.grace.get(), Duration::ZERO, "less is heard");
    // It failed by itself just before it was stopped.
    assert_eq!(end(&run, &attempt, ItemState::Failed).len(), 1);
}

#[test]
fn items_are_resumed_while_others_run() {
    let run = run(2, json!({"max_failures": 1}));
    let (one, two) = (begun(&run, 0), begun(&run, 1));
    end(&run, &one, ItemState::Failed);
    assert!(!run.is_idle(0), "its end is not journaled");
    run.ends_journaled([0], Some(2));
    assert!(run.is_idle(0) && !run.is_idle(1));
    let (work, mut again) = queued(0);
    again.attempt = 1;
    run.resume((*run.record()).clone(), [(work, again)], 3);
    assert_eq!(states(&run), [ItemState::Queued, ItemState::Running]);
    let again = start(&run).expect("whatever failed before");
    assert_eq!((again.record.item, again.record.attempt), (0, 2));
    end(&run, &two, ItemState::Succeeded);
}

/// Something that happens to a run, at the item or the end that the number picks.
#[derive(Debug, Clone)]
enum Happens {
    Begin,
    Block,
    Unblock(usize),
    UndoBegin(usize),
    End(usize, bool),
    Journaled(usize),
    Stop(usize, Option<Stop>),
}

fn happens() -> impl Strategy<Value = Happens> {
    let pick = || any::<usize>();
    prop_oneof![
        4 => Just(Happens::Begin),
        1 => Just(Happens::Block),
        1 => pick().prop_map(Happens::Unblock),
        1 => pick().prop_map(Happens::UndoBegin),
        3 => (pick(), any::<bool>()).prop_map(|(at, well)| Happens::End(at, well)),
        3 => pick().prop_map(Happens::Journaled),
        1 => (pick(), prop::sample::select(vec![
            None, Some(Stop::MaxFailures), Some(Stop::NoPool), Some(Stop::Requested),
        ])).prop_map(|(at, why)| Happens::Stop(at, why)),
    ]
}

/// What the dispatcher, the attempts and the journal hold of a run.
#[derive(Default)]
struct Around {
    blocked: Vec<ItemIndex>,
    live: Vec<Begun>,
    /// Ends that are being journaled, in the order of their items' ends.
    ending: Vec<Vec<ItemRecord>>,
    revision: Revision,
}

fn take<T>(from: &mut Vec<T>, at: usize) -> Option<T> {
    (!from.is_empty()).then(|| from.remove(at % from.len()))
}

impl Around {
    fn step(&mut self, run: &Run, happens: Happens) {
        match happens {
            Happens::Begin => self.live.extend(start(run)),
            Happens::Block => {
                if let Next::Item(work) = run.next() {
                    assert!(run.block(work.item));
                    self.blocked.push(work.item);
                }
            }
            Happens::Unblock(at) => {
                if let Some(item) = take(&mut self.blocked, at) {
                    run.unblock(item);
                }
            }
            Happens::UndoBegin(at) => {
                if let Some(begun) = take(&mut self.live, at) {
                    let item = begun.record.item;
                    match run.undo_begin(item) {
                        Some(end) => self.ending.push(vec![end]),
                        None => self.blocked.push(item),
                    }
                }
            }
            Happens::End(at, well) => {
                if let Some(begun) = take(&mut self.live, at) {
                    let status = if well {
                        ItemState::Succeeded
                    } else {
                        ItemState::Failed
                    };
                    self.ending.push(end(run, &begun, status));
                }
            }
            Happens::Journaled(at) => {
                if let Some(ends) = take(&mut self.ending, at) {
                    self.revision += 1;
                    let items = ends.iter().map(|end| end.item);
                    let more = run.ends_journaled(items, Some(self.revision));
                    self.ending.extend(more.into_iter().map(|end| vec![end]));
                }
            }
            Happens::Stop(at, why) => {
                let item = u32::try_from(at % run.view().items.len()).expect("few");
                let ended = run.stop(&[item], why.unwrap_or(Stop::RunTimeout), None);
                self.ending.extend(ended.into_iter().map(|end| vec![end]));
            }
        }
    }

    fn check(&self, run: &Run, limit: usize) {
        assert!(self.live.len() <= limit, "{} at once", self.live.len());
        let counts = run.counts();
        assert_eq!(counts, Counts::of(states(run)));
        assert!(counts.running as usize >= self.live.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_happens_every_item_comes_to_an_end(
        steps in prop::collection::vec(happens(), 0..200)
    ) {
        const LIMIT: usize = 3;
        let run = run(6, json!({"max_parallel": LIMIT, "retries": 2}));
        let mut around = Around { revision: 1, ..Around::default() };
        for step in steps {
            around.step(&run, step);
            around.check(&run, LIMIT);
        }
        // From here on nothing is stopped, and every part goes on.
        let first = 0_usize;
        let mut rounds = 0;
        while !run.is_over() {
            for part in [
                Happens::Unblock(first), Happens::Begin, Happens::End(first, true),
                Happens::Journaled(first),
            ] {
                around.step(&run, part);
                around.check(&run, LIMIT);
            }
            rounds += 1;
            prop_assert!(rounds < 1_000, "{:?}", states(&run));
        }
        for item in run.view().items.iter() {
            prop_assert!(item.attempt <= 3 && run.is_idle(item.item), "{item:?}");
        }
    }
}
