//! The engine with a worker that no config can make: one with a defect.

use super::{Run, Stop};
use crate::api::{Caller, StartMany, StartOne, Tools, WorkflowResult};
use crate::config::{Allow, Config, Overrides, Sources};
use crate::error::{ErrorKind, Problem};
use crate::model::{ItemState, PoolName, Work, WorkflowId, WorkflowStatus};
use crate::orchestrator::routing::PoolSpec;
use crate::orchestrator::routing::pool::Pool;
use crate::orchestrator::{Orchestrator, Setup};
use crate::process::{Options, Processes, Reach, Room, SearchPath};
use crate::worker::{Capabilities, End, Events, Host, Outcome, Programs, Task, Worker};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What the workers of these tests can do.
const ANYTHING: Capabilities = Capabilities {
    tasks: true,
    commands: true,
    local: true,
};

/// Returns the programs of a worker kind that runs none.
fn no_programs() -> Programs {
    let options = Options {
        guardian_program: "/nonexistent".into(),
        hold: None,
    };
    let host = Host {
        processes: Processes::new(options),
        env: Vec::new().into(),
        search: SearchPath::new(OsStr::new(""), None),
        room: Room::make(1, 0, 1),
        log_cap_bytes: 0,
        tail_bytes: 0,
    };
    let nothing = (Allow::default(), BTreeMap::new());
    Programs::new(host, Reach::Fenced, &nothing.0, &[], &nothing.1)
}

/// Panics at its first attempt of an item and does well at any other.
struct Defective {
    programs: Programs,
    /// The items it was given once.
    seen: parking_lot::Mutex<HashSet<(WorkflowId, u32)>>,
}

impl Default for Defective {
    fn default() -> Self {
        Self {
            programs: no_programs(),
            seen: parking_lot::Mutex::default(),
        }
    }
}

impl Worker for Defective {
    fn capabilities(&self) -> Capabilities {
        ANYTHING
    }

    fn check(&self, _: &Work) -> Result<(), Problem> {
        Ok(())
    }

    fn programs(&self) -> &Programs {
        &self.programs
    }

    fn run(&self, task: Task, _: Events, _: CancellationToken) -> BoxFuture<'_, Outcome> {
        async move {
            let is_first = self.seen.lock().insert((task.workflow, task.item));
            assert!(!is_first, "it slipped");
            Outcome::of(End::Succeeded)
        }
        .boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Problem>> {
        std::future::ready(Ok(())).boxed()
    }
}

/// Does most items at once and every tenth in [`LONG`].
#[derive(Clone)]
struct Gauge {
    /// How many it does now, and the most so far.
    counts: Arc<Mutex<(u32, u32)>>,
    programs: Arc<Programs>,
}

impl Default for Gauge {
    fn default() -> Self {
        Self {
            counts: Arc::default(),
            programs: Arc::new(no_programs()),
        }
    }
}

/// How long a long item takes.
const LONG: Duration = Duration::from_millis(150);

impl Gauge {
    fn state(&self) -> MutexGuard<'_, (u32, u32)> {
        self.counts.lock().expect("nobody panics")
    }
}

impl Worker for Gauge {
    fn capabilities(&self) -> Capabilities {
        ANYTHING
    }

    fn check(&self, _: &Work) -> Result<(), Problem> {
        Ok(())
    }

    fn programs(&self) -> &Programs {
        &self.programs
    }

    fn run(&self, task: Task, _: Events, cancel: CancellationToken) -> BoxFuture<'_, Outcome> {
        async move {
            {
                let mut state = self.state();
                state.0 += 1;
                state.1 = state.1.max(state.0);
            }
            let long = task.item % 10 == 9;
            let slept = cancel.run_until_cancelled(tokio::time::sleep(LONG));
            let ran = !long || slept.await.is_some();
            self.state().0 -= 1;
            Outcome::of(if ran { End::Succeeded } else { End::Cancelled })
        }
        .boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Problem>> {
        std::future::ready(Ok(())).boxed()
    }
}

fn open(dir: &Path) -> Orchestrator {
    open_with(dir, 1, Arc::<Defective>::default())
}

/// Opens a core with so many repositories and one pool of one slot.
fn open_with(dir: &Path, count: u32, worker: Arc<dyn Worker>) -> Orchestrator {
    let repos = dir.join("repos");
    for number in 0..count {
        let git = repos.join(match number {
            0 => "r/.git".to_owned(),
            _ => format!("r{number}/.git"),
        });
        for folder in ["objects", "refs/heads"] {
            std::fs::create_dir_all(git.join(folder)).expect("a folder");
        }
        std::fs::write(git.join("HEAD"), "ref: refs/heads/main\n").expect("a file");
    }
    let config = Config::load(&Sources {
        env: Overrides::default(),
        flags: Overrides::default(),
        default_file: None,
        default_state_dir: dir.join("state"),
        start_dir: repos.clone(),
        home: None,
        cores: NonZeroUsize::MIN,
        path: "".into(),
    });
    let core = Orchestrator::open(Setup {
        config: config.expect("the defaults"),
        config_file: dir.join("config.toml"),
        env: Vec::new(),
        start_dir: repos,
        home: None,
        guardian_program: "/nonexistent".into(),
    });
    let core = core.expect("the folder is writable");
    let name: PoolName = "defective".parse().expect("a name");
    let spec = PoolSpec {
        name: name.clone(),
        worker: "command".to_owned(),
        max_workers: 1,
        queue: 1,
        labels: Vec::new(),
    };
    let pool = Pool::new(name, "command".to_owned(), worker, None);
    assert!(core.0.pools.add(spec, pool));
    core
}

async fn run(core: &Orchestrator, retries: u32) -> WorkflowResult {
    let args =
        json!({"repo": "r", "command": ["true"], "pools": ["defective"], "retries": retries});
    let args: StartOne = serde_json::from_value(args).expect("arguments");
    let caller = Caller::new(None, Caller::DEFAULT_WAIT_CAP);
    Tools::route_least_loaded(core, args, &caller)
        .await
        .expect("an answer")
}

#[tokio::test]
async fn a_panic_in_an_attempt_ends_that_attempt_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let core = open(dir.path());
    let failed = run(&core, 0).await;
    assert_eq!(failed.status, WorkflowStatus::Failed, "{failed:#?}");
    let error = failed.items[0].error.clone().expect("an error");
    assert_eq!(error.kind, ErrorKind::Internal);
    assert!(error.message.contains("it slipped"), "{error}");
    // Its slot and its repository are free again, and a retry is one like any other.
    let again = run(&core, 1).await;
    assert_eq!(again.items[0].status, ItemState::Succeeded, "{again:#?}");
    assert_eq!(again.items[0].attempt, 2);
    core.close().await;
}

/// Starts a run over 40 repositories in a pool of one slot.
async fn start_all(dir: &Path, gauge: &Gauge) -> (Orchestrator, Arc<Run>) {
    let core = open_with(dir, 40, Arc::new(gauge.clone()));
    let args = json!({"repos": ["r*"], "command": ["true"], "pools": ["defective"], "isolation": "in_place", "wait_s": 0});
    let args: StartMany = serde_json::from_value(args).expect("arguments");
    let caller = Caller::new(None, Caller::DEFAULT_WAIT_CAP);
    let started = Tools::execute_workflow_parallel(&core, args, &caller)
        .await
        .expect("an answer");
    let run = core.0.engine.run(started.workflow_id).expect("it runs");
    (core, run)
}

#[tokio::test]
async fn no_more_items_run_at_once_than_there_are_slots() {
    let dir = tempfile::tempdir().expect("a folder");
    let gauge = Gauge::default();
    let (core, run) = start_all(dir.path(), &gauge).await;
    let mut changes = run.changes();
    while !run.is_over() {
        // An item whose end is being written counts as running and has no slot any more.
        let (counts, unsaved) = (run.counts(), run.unsaved());
        assert!(counts.running as usize <= 1 + unsaved, "{counts:?}");
        changes.changed().await.expect("the run lives");
    }
    assert_eq!(gauge.state().1, 1, "one at a time");
    for item in run.view().items {
        assert_eq!(
            (item.status, item.attempt),
            (ItemState::Succeeded, 1),
            "{item:?}"
        );
        let earlier = core.0.store.attempt(run.id(), item.item, 0).await;
        assert_eq!(earlier.expect("read"), None);
    }
    core.close().await;
}

#[tokio::test]
async fn waiting_items_end_when_their_run_is_cancelled() {
    let dir = tempfile::tempdir().expect("a folder");
    let gauge = Gauge::default();
    let (core, run) = start_all(dir.path(), &gauge).await;
    let mut changes = run.changes();
    // A long one runs by then, and the others wait behind it.
    while run.counts().succeeded < 9 {
        changes.changed().await.expect("the run lives");
    }
    core.0.engine.stop(&run, &[], Stop::Requested, None).await;
    run.ended().await;
    let counts = run.counts();
    assert_eq!(counts.succeeded + counts.cancelled, 40, "{counts:?}");
    assert!(counts.cancelled >= 29, "{counts:?}");
    let stored = core.0.store.summary(run.id()).await.expect("read");
    assert_eq!(stored.expect("it is there").counts, counts);
    core.close().await;
}

#[tokio::test]
async fn a_run_that_is_over_leaves_no_notice_when_the_server_ends() {
    let dir = tempfile::tempdir().expect("a folder");
    let gauge = Gauge::default();
    let (core, over) = start_all(dir.path(), &gauge).await;
    over.ended().await;
    // As in the moment before it is forgotten.
    core.0.engine.keep(&over);
    core.close().await;
    let next = open(dir.path());
    next.0.engine.stored_notices().await;
    assert_eq!(next.0.notices.take(), Vec::<String>::new());
    next.close().await;
}
