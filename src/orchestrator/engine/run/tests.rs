//! The state machine alone: no clock, no store, no process.

use super::*;
use crate::error::{ErrorKind, Problem};
use crate::model::{At, ServerId, Settings, Work};
use crate::orchestrator::engine::journal::gather;
use proptest::prelude::*;
use serde_json::{Value, json};

fn run(count: u32, settings: Value) -> Run {
    let mut all = json!({"isolation": "in_place"});
    for (key, value) in settings.as_object().expect("an object") {
        all[key] = value.clone();
    }
    let record = WorkflowRecord {
        id: WorkflowId::new(),
        title: "true".to_owned(),
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

/// Claims and returns the next item, where one may start.
fn start(run: &Run) -> Option<ItemIndex> {
    match run.next() {
        Next::Item(work) if run.claim(work.item) => Some(work.item),
        _ => None,
    }
}

fn begin(run: &Run, item: ItemIndex) -> Begin {
    let pool = "p".parse().expect("a name");
    run.begin(item, &pool, Duration::ZERO)
        .expect("it was claimed")
}

fn prepare(run: &Run, item: ItemIndex) -> Option<Begun> {
    let pool = "p".parse().expect("a name");
    run.claim_ahead(item, &pool, Duration::ZERO)
}

fn prepared(run: &Run, item: ItemIndex) -> Begun {
    prepare(run, item).expect("it is ready")
}

fn begun(run: &Run, item: ItemIndex) -> Begun {
    match begin(run, item) {
        Begin::Begun(begun) => begun,
        Begin::Stopped(end) => panic!("stopped: {end:?}"),
    }
}

fn end(run: &Run, begun: &Begun, status: ItemState) -> Vec<ItemRecord> {
    let mut record = begun.record.clone();
    record.status = status;
    if is_failure(status) {
        record.cause = Some("exit code 1".to_owned());
        record.error = Some(Problem::new(ErrorKind::Failed, "exit code 1"));
    }
    run.end(&record, true)
}

fn states(run: &Run) -> Vec<ItemState> {
    run.view().items.iter().map(|item| item.status).collect()
}

#[test]
fn max_parallel_counts_what_starts_as_well_as_what_runs() {
    let run = run(3, json!({"max_parallel": 1}));
    let first = start(&run).expect("one may start");
    assert!(matches!(run.next(), Next::Later), "it has not even begun");
    let first = begun(&run, first);
    assert!(matches!(run.next(), Next::Later));
    end(&run, &first, ItemState::Succeeded);
    assert!(
        matches!(run.next(), Next::Item(_)),
        "before it is journaled"
    );
    run.journaled([0], Some(2));
    assert_eq!(start(&run), Some(1));
}

#[test]
fn what_is_parked_or_never_began_gives_its_place_to_another() {
    let run = run(2, json!({"max_parallel": 1}));
    assert!(run.park(0) && !run.park(0));
    let second = start(&run).expect("the other one");
    assert_eq!(second, 1);
    begun(&run, second);
    assert!(run.put_back(0) && !run.put_back(0), "once");
    assert!(matches!(run.next(), Next::Later));
    assert!(run.unbegin(1).is_none());
    assert_eq!(states(&run), [ItemState::Queued; 2]);
    assert_eq!(run.view().items[1].attempt, 0, "as if it had not begun");
    assert_eq!(start(&run), Some(0));
}

#[test]
fn nothing_starts_after_max_failures_not_even_another_attempt() {
    let run = run(
        4,
        json!({"max_failures": 1, "retries": 1, "max_parallel": 2}),
    );
    let (one, two) = (start(&run).expect("one"), start(&run).expect("two"));
    let (one, two) = (begun(&run, one), begun(&run, two));
    assert_eq!(
        end(&run, &one, ItemState::Failed).len(),
        2,
        "has another try"
    );
    run.journaled([0], Some(2));
    assert_eq!(start(&run), Some(2), "fewer tries come first");
    assert_eq!(start(&run), None, "two at once");
    end(&run, &two, ItemState::Succeeded);
    assert_eq!(start(&run), Some(3));
    let third = begun(&run, 2);
    end(&run, &third, ItemState::Failed);
    run.journaled([1, 2], Some(3));
    assert_eq!(start(&run), Some(0));
    let again = begun(&run, 0);
    assert_eq!(again.record.attempt, 2);
    assert_eq!(
        end(&run, &again, ItemState::Failed).len(),
        1,
        "no third try"
    );
    assert!(run.has_failed_enough());
    assert!(matches!(begin(&run, 3), Begin::Stopped(end) if end.status == ItemState::Cancelled));
    assert!(run.stop(&[], Stop::MaxFailures, None)[0].error.is_some());
}

#[test]
fn an_end_is_known_when_it_is_journaled_and_the_revision_is_the_journals() {
    let run = run(1, json!({}));
    assert_eq!(start(&run), Some(0));
    let attempt = begun(&run, 0);
    run.begun(&attempt.record, 2);
    end(&run, &attempt, ItemState::Failed);
    let before = run.view();
    assert_eq!((before.counts.running, before.revision), (1, 2));
    assert_eq!(run.unsaved(), 1);
    assert!(!run.is_over());
    run.journaled([0], Some(7));
    assert_eq!(run.standing().1, 7);
    assert_eq!(run.standing().2, Some(7), "the failure is that new");
    assert!(run.is_over());
    run.journaled([0], Some(5));
    assert_eq!(run.standing().1, 7, "it never goes back");
}

#[test]
fn what_is_stopped_while_it_starts_ends_when_it_would_begin() {
    let run = run(2, json!({}));
    assert_eq!(start(&run), Some(0));
    let waited = run.stop(&[], Stop::Requested, None);
    assert_eq!(waited.len(), 1, "the other one ends at once: {waited:?}");
    let Begin::Stopped(end) = begin(&run, 0) else {
        panic!("it began");
    };
    assert_eq!((end.status, end.attempt), (ItemState::Cancelled, 0));
    run.journaled([0, 1], Some(2));
    assert!(run.is_over());
}

#[test]
fn a_stop_is_not_forgotten_when_the_repository_is_locked() {
    let run = run(1, json!({}));
    assert_eq!(start(&run), Some(0));
    begun(&run, 0);
    assert!(run.stop(&[], Stop::Requested, None).is_empty(), "it runs");
    let end = run.unbegin(0).expect("it ends instead");
    assert_eq!(end.status, ItemState::Cancelled);
    assert!(!run.put_back(0));
    run.journaled([0], Some(2));
    assert!(run.is_over());
}

#[test]
fn what_is_prepared_is_told_as_queued_until_it_has_a_slot() {
    let run = run(2, json!({}));
    let mut ahead = prepared(&run, 0);
    assert!(prepare(&run, 0).is_none(), "once");
    run.begun(&ahead.record, 2);
    assert_eq!(states(&run), [ItemState::Queued; 2]);
    assert_eq!(run.counts().running, 0);
    assert!(run.may_start(0) && !run.may_start(1));
    assert!(run.start(&mut ahead.record).is_some());
    assert_eq!(states(&run), [ItemState::Running, ItemState::Queued]);
    assert!(!run.may_start(0) && run.start(&mut ahead.record).is_none());
    end(&run, &ahead, ItemState::Succeeded);
    run.journaled([0], Some(3));
    assert_eq!(states(&run), [ItemState::Succeeded, ItemState::Queued]);
}

#[test]
fn what_was_prepared_and_had_no_slot_is_as_if_it_had_not_begun() {
    let run = run(1, json!({}));
    prepared(&run, 0);
    assert!(run.unbegin(0).is_none());
    let waits = run.record_of(0).expect("it is there");
    assert_eq!((waits.status, waits.attempt), (ItemState::Queued, 0));
    assert_eq!((waits.pool, waits.started_at), (None, None));
    assert!(run.put_back(0));
    assert_eq!(start(&run), Some(0));
    assert_eq!(begun(&run, 0).record.attempt, 1);
}

#[test]
fn what_is_prepared_does_not_start_once_it_is_stopped_or_enough_have_failed() {
    for why in [Stop::MaxFailures, Stop::NoPool, Stop::Requested] {
        let run = run(1, json!({}));
        let mut ahead = prepared(&run, 0);
        assert!(run.stop(&[], why, None).is_empty(), "its attempt ends it");
        assert!(ahead.live.cancel.is_cancelled());
        assert!(!run.may_start(0) && run.start(&mut ahead.record).is_none());
        let end = run.unbegin(0).expect("it ends");
        assert_eq!((end.status, end.attempt), (ItemState::Cancelled, 0));
        run.journaled([0], Some(2));
        assert!(run.is_over());
    }
    let run = run(2, json!({"max_failures": 1}));
    let mut ahead = prepared(&run, 1);
    assert_eq!(start(&run), Some(0));
    let first = begun(&run, 0);
    end(&run, &first, ItemState::Failed);
    assert!(!run.may_start(1) && run.start(&mut ahead.record).is_none());
}

#[test]
fn what_waits_for_another_attempt_keeps_its_failure_when_it_is_stopped() {
    for stopped_before_it_is_journaled in [true, false] {
        let run = run(1, json!({"retries": 3}));
        assert_eq!(start(&run), Some(0));
        let attempt = begun(&run, 0);
        let records = end(&run, &attempt, ItemState::Failed);
        let journaled: Vec<_> = records.iter().map(|record| record.status).collect();
        assert_eq!(journaled, [ItemState::Failed, ItemState::Queued]);
        assert!(start(&run).is_none(), "not before that is journaled");
        let ended = if stopped_before_it_is_journaled {
            assert!(run.stop(&[], Stop::Requested, None).is_empty());
            run.journaled([0], Some(2))
        } else {
            assert!(run.journaled([0], Some(2)).is_empty());
            run.stop(&[], Stop::Requested, None)
        };
        assert_eq!(ended.len(), 1);
        assert_eq!(ended[0].status, ItemState::Failed);
        assert_eq!(ended[0].cause.as_deref(), Some("exit code 1"));
        run.journaled([0], Some(3));
        assert!(run.is_over());
    }
}

#[test]
fn an_attempt_that_was_stopped_is_not_tried_again() {
    let run = run(1, json!({"retries": 3}));
    assert_eq!(start(&run), Some(0));
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
    assert_eq!(start(&run), Some(0));
    assert_eq!(start(&run), Some(1));
    let (one, two) = (begun(&run, 0), begun(&run, 1));
    end(&run, &one, ItemState::Failed);
    assert!(!run.is_still(0), "its end is not journaled");
    run.journaled([0], Some(2));
    assert!(run.is_still(0) && !run.is_still(1));
    let (work, mut again) = queued(0);
    again.attempt = 1;
    run.resume((*run.record()).clone(), [(work, again)], 3);
    assert_eq!(states(&run), [ItemState::Queued, ItemState::Running]);
    assert_eq!(start(&run), Some(0), "whatever failed before");
    assert_eq!(begun(&run, 0).record.attempt, 2);
    end(&run, &two, ItemState::Succeeded);
}

/// Something that happens to a run, at the item or the end that the number picks.
#[derive(Debug, Clone)]
enum Happens {
    Start,
    Park,
    PutBack(usize),
    Begin(usize),
    Unbegin(usize),
    End(usize, bool),
    Prepare,
    StartPrepared(usize),
    TakeBack(usize),
    Journaled(usize),
    Stop(usize, Option<Stop>),
}

fn happens() -> impl Strategy<Value = Happens> {
    let pick = || any::<usize>();
    prop_oneof![
        4 => Just(Happens::Start),
        1 => Just(Happens::Park),
        1 => pick().prop_map(Happens::PutBack),
        4 => pick().prop_map(Happens::Begin),
        1 => pick().prop_map(Happens::Unbegin),
        2 => Just(Happens::Prepare),
        2 => pick().prop_map(Happens::StartPrepared),
        1 => pick().prop_map(Happens::TakeBack),
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
    claimed: Vec<ItemIndex>,
    parked: Vec<ItemIndex>,
    live: Vec<Begun>,
    ahead: Vec<Begun>,
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
            Happens::Start => self.claimed.extend(start(run)),
            Happens::Park => {
                if let Next::Item(work) = run.next() {
                    assert!(run.park(work.item));
                    self.parked.push(work.item);
                }
            }
            Happens::PutBack(at) => {
                if let Some(item) = take(&mut self.parked, at) {
                    run.put_back(item);
                }
            }
            Happens::Begin(at) => {
                if let Some(item) = take(&mut self.claimed, at) {
                    match begin(run, item) {
                        Begin::Begun(begun) => self.live.push(begun),
                        Begin::Stopped(end) => self.ending.push(vec![end]),
                    }
                }
            }
            Happens::Unbegin(at) => {
                if let Some(begun) = take(&mut self.live, at) {
                    let item = begun.record.item;
                    match run.unbegin(item) {
                        Some(end) => self.ending.push(vec![end]),
                        None => self.parked.push(item),
                    }
                }
            }
            Happens::Prepare => {
                if let Next::Item(work) = run.next() {
                    self.ahead.extend(prepare(run, work.item));
                }
            }
            Happens::StartPrepared(at) => {
                // The dispatcher prepares nothing where there is a limit; here it keeps to it.
                let room = matches!(run.next(), Next::Item(_));
                if let Some(mut begun) = room.then(|| take(&mut self.ahead, at)).flatten() {
                    match run.start(&mut begun.record) {
                        Some(live) => self.live.push(Begun { live, ..begun }),
                        None => self.ahead.push(begun),
                    }
                }
            }
            Happens::TakeBack(at) => {
                if let Some(begun) = take(&mut self.ahead, at) {
                    let item = begun.record.item;
                    match run.unbegin(item) {
                        Some(end) => self.ending.push(vec![end]),
                        None => self.parked.push(item),
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
                    let more = run.journaled(items, Some(self.revision));
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
        let taken = self.claimed.len() + self.live.len();
        assert!(taken <= limit, "{taken} at once");
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
        // From here on nothing is stopped and everybody does their part.
        let first = 0_usize;
        let mut rounds = 0;
        while !run.is_over() {
            for part in [
                Happens::TakeBack(first), Happens::PutBack(first), Happens::Start, Happens::Begin(first),
                Happens::End(first, true), Happens::Journaled(first),
            ] {
                around.step(&run, part);
                around.check(&run, LIMIT);
            }
            rounds += 1;
            prop_assert!(rounds < 1_000, "{:?}", states(&run));
        }
        for item in run.view().items.iter() {
            prop_assert!(item.attempt <= 3 && run.is_still(item.item), "{item:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn lines_gather_while_others_are_on_their_way_and_nobody_is_in_a_hurry() {
    const MS: Duration = Duration::from_millis(1);
    let now = tokio::time::Instant::now;
    let waits = async |run: &Run| {
        let began = now();
        gather(run, began + 10 * MS).await;
        began.elapsed()
    };
    let run = run(2, json!({}));
    assert_eq!(waits(&run).await, Duration::ZERO, "no other is on its way");
    start(&run).expect("one may start");
    assert_eq!(waits(&run).await, 10 * MS);
    let hurry = async {
        tokio::time::sleep(3 * MS).await;
        run.ledger().add_urgent();
    };
    let (waited, ()) = tokio::join!(waits(&run), hurry);
    assert_eq!(waited, 3 * MS);
    assert_eq!(waits(&run).await, Duration::ZERO, "it is not written yet");
}
