//! The real stdio front and command line over tools that do what a test asks for: panic, hang, answer too much.
//!
//! `faulty_server serve` speaks MCP; anything else is the command line of the program, with this one as its server.

use futures_util::FutureExt;
use mahavishnu::api::*;
use mahavishnu::cli::{self, Invocation, ServerProgram};
use mahavishnu::error::{ErrorKind, Problem};
use mahavishnu::model::{Counts, ItemState, WorkflowId};
use mahavishnu::server::stdio;
use std::error::Error;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    match cli::parse(std::env::args_os()) {
        Err(said) => {
            said.print()?;
            Ok(ExitCode::from(u8::try_from(said.exit_code())?))
        }
        Ok(Invocation::Call(_, call)) => {
            let server = ServerProgram {
                program: std::env::current_exe()?,
                flags: vec![],
            };
            Ok(ExitCode::from(cli::call::run(&server, *call).await?))
        }
        Ok(_) => {
            let ended = stdio::serve(Arc::new(Faulty::default())).await?;
            eprintln!("ended: {ended:?}");
            std::process::exit(0);
        }
    }
}

#[derive(Default)]
struct Faulty {
    notices: Mutex<Vec<String>>,
    interrupts: Mutex<Vec<String>>,
    asked: Mutex<u64>,
}

impl Faulty {
    /// Works until `steps` steps are done, the wait is over or the call is interrupted.
    async fn work(
        &self,
        steps: u64,
        wait: Duration,
        caller: &Caller,
    ) -> (ItemState, Option<Interrupt>) {
        let work = async {
            for done in 0..=steps {
                caller.progress.report(Progress {
                    done,
                    total: Some(steps),
                    message: Some(format!("step {done}")),
                });
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        };
        tokio::select! {
            () = work => (ItemState::Succeeded, None),
            () = tokio::time::sleep(wait) => (ItemState::Running, None),
            why = caller.interrupted() => (ItemState::Running, Some(why)),
        }
    }

    fn result(state: ItemState) -> WorkflowResult {
        let counts = Counts::of([state]);
        WorkflowResult {
            workflow_id: WorkflowId::new(),
            title: "faulty".into(),
            status: counts.status(),
            owner: Owner::This,
            counts,
            failures: vec![],
            pool: None,
            why: None,
            items: vec![],
            revision: 1,
            eta_s: None,
            existing: false,
            truncated: false,
            wait_capped_s: None,
            next_step: None,
            cursor: None,
        }
    }
}

fn refused<T>() -> Result<T, Problem> {
    Err(Problem::new(
        ErrorKind::Unavailable,
        "not part of this server",
    ))
}

macro_rules! refuse {
    ($($method:ident($args:ty) -> $result:ty;)*) => {
        $(fn $method<'a>(&'a self, _: $args, _: &'a Caller) -> Answer<'a, $result> {
            async { refused() }.boxed()
        })*
    };
}

impl Tools for Faulty {
    refuse! {
        list_repos(ListRepos) -> ListReposResult;
        route_least_loaded(StartOne) -> WorkflowResult;
        read_output(ReadOutput) -> ReadOutputResult;
        cancel_workflow(CancelWorkflow) -> WorkflowResult;
        resume_workflow(ResumeWorkflow) -> WorkflowResult;
        apply_changes(ApplyChanges) -> ApplyChangesResult;
        clean_worktrees(CleanWorktrees) -> CleanWorktreesResult;
        set_pool(SetPool) -> PoolRow;
        close_pool(ClosePool) -> PoolRow;
        aggregate_memory(AggregateMemory) -> AggregateMemoryResult;
        clear_cache(ClearCache) -> ClearCacheResult;
    }

    fn list_pools<'a>(&'a self, _: ListPools, _: &'a Caller) -> Answer<'a, ListPoolsResult> {
        async {
            Ok(ListPoolsResult {
                total: 0,
                pools: vec![],
                cursor: None,
            })
        }
        .boxed()
    }

    /// `repos[0]` says how many steps it takes; `hang` never ends by itself.
    fn execute_workflow_parallel<'a>(
        &'a self,
        args: StartMany,
        caller: &'a Caller,
    ) -> Answer<'a, WorkflowResult> {
        async move {
            let (repos, options) = args.split();
            let steps = repos.first().and_then(|repo| repo.parse().ok());
            let wait = caller.wait(options.wait_s, Caller::DEFAULT_WAIT)?;
            let steps = steps.unwrap_or(1_000_000);
            let (state, interrupt) = self.work(steps, wait.duration, caller).await;
            if let Some(why) = interrupt {
                let mut interrupts = self.interrupts.lock().expect("no panic under it");
                interrupts.push(format!("{why:?}"));
            }
            let mut result = Self::result(state);
            result.wait_capped_s = wait.capped_s;
            Ok(result)
        }
        .boxed()
    }

    /// The workflow is done at the second question.
    fn get_workflow<'a>(&'a self, _: GetWorkflow, _: &'a Caller) -> Answer<'a, GetWorkflowResult> {
        async {
            let mut asked = self.asked.lock().expect("no panic under it");
            *asked += 1;
            let state = match *asked {
                1 => ItemState::Running,
                _ => ItemState::Failed,
            };
            Ok(GetWorkflowResult::One(Box::new(Self::result(state))))
        }
        .boxed()
    }

    /// `query` says how many bytes of hits come.
    fn cross_pool_search<'a>(
        &'a self,
        args: CrossPoolSearch,
        _: &'a Caller,
    ) -> Answer<'a, CrossPoolSearchResult> {
        async move {
            let bytes = args.query.parse().unwrap_or(0);
            let hit = Hit {
                id: "m".into(),
                kind: None,
                score: 1.0,
                text: "x".repeat(bytes),
                pool: None,
                repo: None,
                workflow_id: None,
                item: None,
                worker: None,
                commit: None,
                source: "worker".into(),
                matched: vec![Matched::Fulltext],
                created_at: None,
                also_count: None,
                also: vec![],
                truncated: false,
            };
            Ok(CrossPoolSearchResult {
                hits: vec![hit],
                sources: vec![],
                cursor: None,
            })
        }
        .boxed()
    }

    /// `text` says what to do: `panic`, `block` a thread for ever, `wait` for ever without one, or a notice to give with
    /// the next answer.
    fn remember<'a>(&'a self, args: Remember, _: &'a Caller) -> Answer<'a, RememberResult> {
        async move {
            match args.text.as_str() {
                "panic" => panic!("as asked"),
                "wait" => std::future::pending().await,
                "block" => loop {
                    std::thread::park();
                },
                _ => {}
            }
            let mut notices = self.notices.lock().expect("no panic under it");
            notices.push(args.text);
            Ok(RememberResult {
                id: "m".into(),
                new: true,
                forwarding: Forwarding::Off,
            })
        }
        .boxed()
    }

    /// Tells the interrupts that calls saw.
    fn check_health<'a>(
        &'a self,
        _: CheckHealth,
        caller: &'a Caller,
    ) -> Answer<'a, CheckHealthResult> {
        async move {
            let interrupts = self.interrupts.lock().expect("no panic under it");
            let check = |name: &str, detail: String| Check {
                name: name.into(),
                status: HealthStatus::Ok,
                detail,
                fix: None,
            };
            Ok(CheckHealthResult {
                status: HealthStatus::Ok,
                checks: vec![
                    check("interrupts", interrupts.join(" ")),
                    check("client", caller.client.clone().unwrap_or_default()),
                    check("cap", caller.host_wait_cap.as_secs().to_string()),
                ],
                truncated: false,
            })
        }
        .boxed()
    }

    fn take_notices(&self) -> Vec<String> {
        std::mem::take(&mut self.notices.lock().expect("no panic under it"))
    }
}
