//! Random histories, dirty states and changes: what an undo brings back is compared byte for byte.

use super::apply::{everything, files, item};
use super::support::{Place, Work, workflow};
use mahavishnu::model::BaseRef;
use mahavishnu::repo::{ApplyRequest, How};
use proptest::prelude::*;
use std::fs;

/// Few names, so that steps meet; some are folders of others.
const NAMES: [&str; 8] = ["a", "b", "d", "d/x", "d/y", "d/e/z", "sp ace\n", "Ä"];

#[derive(Debug, Clone)]
enum Step {
    Write(usize, u8),
    Append(usize, u8),
    Remove(usize),
    Move(usize, usize),
    Run(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    prop_oneof![
        3 => (name.clone(), any::<u8>()).prop_map(|(name, text)| Step::Write(name, text)),
        3 => (name.clone(), any::<u8>()).prop_map(|(name, text)| Step::Append(name, text)),
        2 => name.clone().prop_map(Step::Remove),
        1 => (name.clone(), name.clone()).prop_map(|(from, to)| Step::Move(from, to)),
        1 => name.prop_map(Step::Run),
    ]
}

fn play(work: &Work, steps: &[Step]) {
    for step in steps {
        match *step {
            Step::Write(name, text) => {
                clear_way(work, NAMES[name]);
                let lines: String = (0..6).map(|line| format!("{text} {line}\n")).collect();
                work.write(NAMES[name], lines);
            }
            Step::Append(name, text) => {
                let path = work.dir.join(NAMES[name]);
                if let Ok(old) = fs::read_to_string(&path) {
                    work.write(NAMES[name], format!("{old}{text}\n"));
                }
            }
            Step::Remove(name) => clear_way(work, NAMES[name]),
            Step::Move(from, to) => {
                let path = work.dir.join(NAMES[from]);
                if path.is_file() && from != to {
                    let text = fs::read(&path).expect("readable");
                    clear_way(work, NAMES[from]);
                    clear_way(work, NAMES[to]);
                    work.write(NAMES[to], text);
                }
            }
            Step::Run(name) => {
                let path = work.dir.join(NAMES[name]);
                if path.is_file() {
                    let text = fs::read_to_string(&path).expect("readable");
                    work.script(NAMES[name], &text);
                }
            }
        }
    }
}

/// Removes what is at `name`, and a file where a folder above it should be.
fn clear_way(work: &Work, name: &str) {
    let mut above = work.dir.clone();
    for part in name.split('/') {
        above.push(part);
        if above.is_file() {
            fs::remove_file(&above).expect("removed");
        }
    }
    if above.is_dir() {
        fs::remove_dir_all(&above).expect("removed");
    }
}

#[derive(Debug, Clone)]
struct Story {
    first: Vec<Step>,
    dirty_before: Vec<Step>,
    work: Vec<Step>,
    later: Vec<Step>,
    staged: Vec<Step>,
    dirty: Vec<Step>,
    on_working_copy: bool,
    how: How,
}

fn story() -> impl Strategy<Value = Story> {
    let steps = |most: usize| prop::collection::vec(step(), 0..most);
    (
        prop::collection::vec(step(), 3..9),
        steps(3),
        prop::collection::vec(step(), 1..6),
        steps(3),
        steps(3),
        steps(3),
        any::<bool>(),
        prop_oneof![2 => Just(How::WorkingCopy), 2 => Just(How::Merge), 1 => Just(How::Branch)],
    )
        .prop_map(
            |(first, dirty_before, work, later, staged, dirty, on_working_copy, how)| Story {
                first,
                dirty_before,
                work,
                later,
                staged,
                dirty,
                on_working_copy,
                how,
            },
        )
}

/// Plays a story; returns whether the work could be applied.
async fn tell(story: &Story) -> bool {
    let place = Place::new();
    let repo = place.empty("app");
    play(&repo, &story.first);
    repo.commit("first");
    if story.on_working_copy {
        play(&repo, &story.dirty_before);
    }
    let repos = place.repos();
    let base = if story.on_working_copy {
        BaseRef::WorkingCopy
    } else {
        BaseRef::Head
    };
    let change = item(&repos, &place, &repo, 0, base, |work| {
        play(work, &story.work)
    })
    .await;
    if !story.on_working_copy && !story.later.is_empty() {
        play(&repo, &story.later);
        repo.commit("later");
    }
    play(&repo, &story.staged);
    if !story.on_working_copy {
        repo.git(["add", "-A"]);
    }
    play(&repo, &story.dirty);

    let before = everything(&repo);
    let mut request = ApplyRequest {
        repo: repo.path(),
        workflow: workflow(),
        changes: vec![change.clone()],
        how: story.how,
        check_only: true,
    };
    let checked = repos.apply(request.clone()).await.expect("checked");
    assert_eq!(everything(&repo), before, "a check touches nothing");
    request.check_only = false;
    let outcome = repos.apply(request).await.expect("answered");
    assert_eq!(
        (outcome.applied, &outcome.items),
        (checked.applied, &checked.items)
    );
    let obstacles = &outcome.items[0];
    assert_eq!(
        outcome.applied,
        obstacles.conflicts.is_empty() && obstacles.overlaps_dirty.is_empty()
    );
    let Some(token) = outcome.undo else {
        assert_eq!(
            everything(&repo),
            before,
            "nothing to undo, nothing touched"
        );
        return outcome.applied;
    };
    if story.how == How::Branch {
        assert_eq!(files(&repo.dir), before.0);
    }
    repos.undo(&token).await.expect("undone");
    let after = everything(&repo);
    assert!(after.0 == before.0, "files differ");
    assert_eq!((after.1, after.2), (before.1, before.2));
    true
}

#[test]
fn what_is_applied_and_undone_is_as_it_was() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let config = ProptestConfig {
        cases: 64,
        max_shrink_iters: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let applied = std::cell::Cell::new(0);
    proptest!(config, |(story in story())| {
        if runtime.block_on(tell(&story)) {
            applied.set(applied.get() + 1);
        }
    });
    assert!(
        applied.get() > 10,
        "only {} stories could be applied",
        applied.get()
    );
}
