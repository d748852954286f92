//! Which pools a workflow may use: those that were asked for whose workers accept the work.

use super::{arguments, command_lines};
use crate::error::{ErrorKind, Problem};
use crate::model::{Filter, PoolName, Work};
use crate::orchestrator::Core;
use crate::worker::Worker;

impl Core {
    /// Narrows a choice of pools to those whose workers accept the work.
    ///
    /// # Errors
    ///
    /// A name that no pool or worker kind has, or a choice of which no pool is left.
    pub(super) async fn narrow(
        &self,
        mut filter: Filter,
        work: &Work,
        setup: &[Vec<String>],
        verify: &[Vec<String>],
    ) -> Result<Filter, Problem> {
        self.known_pools(&filter.pools)?;
        self.known_workers(&filter.workers)?;
        let (kinds, are_all) = self.pools.kinds_in(&filter);
        if kinds.is_empty() {
            return Err(no_pool(&filter));
        }
        let count = kinds.len();
        let mut refusal = None;
        let mut accepting = Vec::new();
        for name in kinds {
            let Some(worker) = self.workers.get(&name) else {
                continue;
            };
            match accepts(worker.as_ref(), work, setup, verify).await {
                Ok(()) => accepting.push(name),
                Err(problem) => refusal = Some(more_telling(refusal, problem)),
            }
        }
        if let (true, Some(problem)) = (accepting.is_empty(), refusal) {
            return Err(problem);
        }
        let all_accept = are_all && accepting.len() == count;
        filter.workers = if all_accept { Vec::new() } else { accepting };
        Ok(filter)
    }

    /// Refuses names that no pool has.
    pub(super) fn known_pools(&self, pools: &[PoolName]) -> Result<(), Problem> {
        let Some(missing) = self.pools.missing(pools) else {
            return Ok(());
        };
        Err(self.no_such_pool("pools", missing))
    }

    /// Returns the refusal of argument `field` for a name that no pool has.
    pub(super) fn no_such_pool(&self, field: &str, name: &PoolName) -> Problem {
        let names = self.pools.names();
        let names = names.iter().map(PoolName::as_str);
        let hint = "list_pools lists the pools, set_pool makes one";
        arguments::unknown(field, "pool", name.as_str(), names, hint)
    }

    fn known_workers(&self, workers: &[String]) -> Result<(), Problem> {
        match workers
            .iter()
            .find(|worker| !self.workers.contains_key(*worker))
        {
            None => Ok(()),
            Some(unknown) => Err(self.no_such_worker("workers", unknown)),
        }
    }

    /// Returns the refusal of argument `field` for a name that no worker kind has.
    pub(super) fn no_such_worker(&self, field: &str, name: &str) -> Problem {
        let names = self.workers.keys().map(String::as_str);
        let hint = format!(
            "worker kinds come from the config file, {}",
            self.config_file.display()
        );
        arguments::unknown(field, "worker kind", name, names, &hint)
    }
}

/// Refuses work that a worker does not accept, its `setup` and `verify` included.
async fn accepts(
    worker: &dyn Worker,
    work: &Work,
    setup: &[Vec<String>],
    verify: &[Vec<String>],
) -> Result<(), Problem> {
    worker.check(work)?;
    let programs = worker.programs();
    for (field, lines) in [("setup", setup), ("verify", verify)] {
        for (number, line) in lines.iter().enumerate() {
            let program = line.first().map_or("", String::as_str);
            let permitted = programs.permits(field, program);
            permitted.map_err(|problem| command_lines::refused(problem, field, number, line))?;
        }
    }
    // What comes after a line of `setup` is looked for when that has run: it may install the program.
    let verify = if setup.is_empty() { verify } else { &[] };
    programs
        .exist("setup", setup.get(..1).unwrap_or_default())
        .await?;
    programs.exist("verify", verify).await
}

/// Returns the refusal that helps more: one by `allow` before one by the kind of worker.
fn more_telling(old: Option<Problem>, new: Problem) -> Problem {
    match old {
        Some(old) if old.kind == ErrorKind::Forbidden => old,
        _ => new,
    }
}

fn no_pool(filter: &Filter) -> Problem {
    let (field, allowed) = match filter.labels.is_empty() {
        true => ("workers", "worker kinds of the pools asked for"),
        false => ("labels", "labels that at least one of the pools has all of"),
    };
    Problem::argument(field, "no pool matches what was asked for", allowed)
        .with_hint("list_pools shows each pool's worker and labels")
}
