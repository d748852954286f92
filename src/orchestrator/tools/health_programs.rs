//! The checks of `check_health` about programs: where they are found, and how many may run at once.

use crate::api::{Check, HealthStatus};
use crate::orchestrator::Orchestrator;
use crate::process::{Origin, SearchPath};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How many programs are named; a config may allow hundreds.
const NAMED: usize = 20;

impl Orchestrator {
    /// Returns where git and the programs that worker kinds name are found.
    pub(super) async fn programs_check(&self) -> Vec<Check> {
        let search = &self.0.host.search;
        search.whole().await;
        let mut found: BTreeMap<String, Option<PathBuf>> = BTreeMap::new();
        for worker in self.0.workers.values() {
            for name in worker.programs().named() {
                let path = worker.programs().find(name, Path::new("/")).await.ok();
                found.insert(name.to_owned(), path);
            }
        }
        let git = crate::process::find_program("git".as_ref(), &search.get(), Path::new("/"));
        let mut checks = vec![match git {
            Ok(git) => Check::ok("git", place(search, &git)),
            Err(error) => Check::new("git", HealthStatus::Fault, error.to_string()).with_fix(
                "install git, or put it on the PATH that the host starts this server with",
            ),
        }];
        if !found.is_empty() {
            checks.push(programs(search, &found));
        }
        checks
    }

    /// Returns how many attempts the limit of open files allows at once.
    pub(super) fn room_check(&self) -> Check {
        let (limit, attempts) = self.0.host.room.limits();
        let (pools, _) = self.0.pools.page(None, usize::MAX);
        let local = pools
            .iter()
            .filter(|it| it.pool.worker.capabilities().local);
        let slots: u64 = local.map(|it| u64::from(it.load.max_workers)).sum();
        if slots <= attempts {
            let detail = format!("the limit is enough for the {slots} slots on this machine");
            return Check::ok("open files", detail);
        }
        let detail = format!(
            "the limit of {limit} open files allows {attempts} attempts on this machine at once; the pools have {slots} slots, so the others wait"
        );
        Check::new("open files", HealthStatus::Warning, detail).with_fix(
            "raise the limit (`ulimit -n`) of the host that starts this server, or use fewer slots",
        )
    }
}

fn programs(search: &SearchPath, found: &BTreeMap<String, Option<PathBuf>>) -> Check {
    let mut places: Vec<String> = found
        .iter()
        .take(NAMED)
        .map(|(name, path)| match path {
            Some(path) => format!("{name}: {}", place(search, path)),
            None => format!("{name}: not found"),
        })
        .collect();
    if found.len() > NAMED {
        places.push(format!("and {} more", found.len() - NAMED));
    }
    let detail = places.join("; ");
    if found.values().all(Option::is_some) {
        return Check::ok("programs", detail);
    }
    Check::new("programs", HealthStatus::Info, detail)
        .with_fix("install what is not found, or name it by its absolute path in the config file")
}

/// Returns the path of a program and why it was searched there.
fn place(search: &SearchPath, program: &Path) -> String {
    let origin = match search.origin(program) {
        Some(Origin::Server) => "the server's PATH",
        Some(Origin::LoginShell) => "the login shell's PATH",
        Some(Origin::Usual) => "a usual folder of tools",
        None => return program.display().to_string(),
    };
    format!("{} ({origin})", program.display())
}
