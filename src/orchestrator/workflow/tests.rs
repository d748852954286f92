//! The engine with a worker that no config can make: one with a defect.

use crate::api::{Caller, StartOne, WorkflowResult};
use crate::config::{Config, Overrides, Sources};
use crate::error::{ErrorKind, Problem};
use crate::model::{ItemState, PoolName, Work, WorkflowStatus};
use crate::orchestrator::router::PoolSpec;
use crate::orchestrator::{Orchestrator, Setup};
use crate::pool::Pool;
use crate::pool::worker::{Capabilities, End, Events, Outcome, Task, Worker};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::json;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Panics at its first attempt of an item and does well at any other.
struct Defective;

impl Worker for Defective {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            tasks: true,
            commands: true,
            local: true,
        }
    }

    fn check(&self, _: &Work) -> Result<(), Problem> {
        Ok(())
    }

    fn check_program(&self, _: &str, _: &str) -> Result<(), Problem> {
        Ok(())
    }

    fn run(&self, task: Task, _: Events, _: CancellationToken) -> BoxFuture<'_, Outcome> {
        async move {
            assert!(task.attempt > 1, "it slipped");
            Outcome {
                end: End::Succeeded,
                exit_code: None,
                final_text: None,
                stdout_tail: String::new(),
                stderr_tail: String::new(),
                usage: None,
            }
        }
        .boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), Problem>> {
        std::future::ready(Ok(())).boxed()
    }
}

fn open(dir: &Path) -> Orchestrator {
    let repos = dir.join("repos");
    for folder in ["objects", "refs/heads"] {
        std::fs::create_dir_all(repos.join("r/.git").join(folder)).expect("a folder");
    }
    std::fs::write(repos.join("r/.git/HEAD"), "ref: refs/heads/main\n").expect("a file");
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
    let pool = Pool::new(name, "command".to_owned(), Arc::new(Defective), None);
    assert!(core.0.pools.add(spec, pool));
    core
}

async fn run(core: &Orchestrator, retries: u32) -> WorkflowResult {
    let args =
        json!({"repo": "r", "command": ["true"], "pools": ["defective"], "retries": retries});
    let args: StartOne = serde_json::from_value(args).expect("arguments");
    let caller = Caller::new(None, Caller::DEFAULT_WAIT_CAP);
    core.start_one(args, &caller).await.expect("an answer")
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
