//! `check_health`: what this server can tell of itself, with the next step for each fault.

use super::Orchestrator;
use crate::api::{Check, CheckHealth, CheckHealthResult, HealthStatus, ListPools, Probe};
use crate::api::{Detail, Health};
use crate::error::{Fault, Problem};
use crate::process;
use std::path::Path;

impl Orchestrator {
    /// Answers `check_health`.
    pub(super) async fn health(&self, args: CheckHealth) -> Result<CheckHealthResult, Problem> {
        let mut checks = vec![self.config_check(), self.store_check().await];
        checks.extend(self.roots_check());
        checks.push(self.git_check());
        checks.push(self.process_check());
        checks.push(self.runs_check());
        if args.probe == Some(Probe::Workers) {
            checks.extend(self.pools_check().await?);
        }
        let status = checks
            .iter()
            .map(|check| check.status)
            .max_by_key(|status| rank(*status))
            .unwrap_or(HealthStatus::Ok);
        Ok(CheckHealthResult {
            status,
            checks,
            truncated: false,
        })
    }

    fn config_check(&self) -> Check {
        let path = self.0.config_file.display();
        let detail = match &self.0.config.file {
            Some(file) => format!("read from {}", file.display()),
            None => format!("none; the defaults apply. It would be read from {path}"),
        };
        check("config", HealthStatus::Ok, detail, None)
    }

    async fn store_check(&self) -> Check {
        match self.0.store.integrity().await {
            Ok(health) if health.ok => check(
                "store",
                HealthStatus::Ok,
                format!(
                    "{}: {} workflows, {} memories, {} bytes and {} in the log",
                    health.path.display(),
                    health.workflows,
                    health.memories,
                    health.file_bytes,
                    health.wal_bytes
                ),
                None,
            ),
            Ok(health) => check(
                "store",
                HealthStatus::Fault,
                format!(
                    "{} is damaged: {}",
                    health.path.display(),
                    health.problems.join("; ")
                ),
                Some(
                    "end all servers, copy the file, and repair it with `sqlite3 FILE .recover`"
                        .to_owned(),
                ),
            ),
            Err(error) => check(
                "store",
                HealthStatus::Fault,
                error.problem().message,
                error.hint(),
            ),
        }
    }

    fn roots_check(&self) -> Vec<Check> {
        let roots = self.0.repos.roots();
        let mut checks = vec![match roots.dirs() {
            Ok(dirs) => check(
                "roots",
                HealthStatus::Ok,
                dirs.iter()
                    .map(|dir| dir.display().to_string())
                    .collect::<Vec<_>>()
                    .join(", "),
                None,
            ),
            Err(error) => check(
                "roots",
                HealthStatus::Fault,
                error.problem().message,
                error.hint(),
            ),
        }];
        for (dir, why) in roots.unusable() {
            checks.push(check(
                "roots",
                HealthStatus::Warning,
                format!("{} cannot be used: {why}", dir.display()),
                Some(roots.how_to_add()),
            ));
        }
        checks
    }

    fn git_check(&self) -> Check {
        match self.0.host.find("git", Path::new("/")) {
            Ok(git) => check("git", HealthStatus::Ok, git.display().to_string(), None),
            Err(problem) => check(
                "git",
                HealthStatus::Fault,
                problem.message,
                Some(
                    "install git, or put it on the PATH that the host starts this server with"
                        .to_owned(),
                ),
            ),
        }
    }

    fn process_check(&self) -> Check {
        match process::catches_strays() {
            Ok(()) => check(
                "processes",
                HealthStatus::Ok,
                "every program and what it starts ends with this server".to_owned(),
                None,
            ),
            Err(why) => check("processes", HealthStatus::Info, why.to_owned(), None),
        }
    }

    fn runs_check(&self) -> Check {
        let runs = self.0.engine.live_runs();
        let (mut running, mut queued) = (0, 0);
        for run in &runs {
            let counts = run.counts();
            running += counts.running;
            queued += counts.queued;
        }
        check(
            "runs",
            HealthStatus::Ok,
            format!(
                "{} workflows, {running} items running, {queued} waiting",
                runs.len()
            ),
            None,
        )
    }

    async fn pools_check(&self) -> Result<Vec<Check>, Problem> {
        let page = self
            .pools_page(ListPools {
                detail: Some(Detail::Summary),
                ..ListPools::default()
            })
            .await?;
        Ok(page
            .pools
            .into_iter()
            .map(|row| {
                let status = match row.health {
                    Health::Healthy => HealthStatus::Ok,
                    Health::Draining => HealthStatus::Info,
                    Health::Degraded => HealthStatus::Warning,
                    Health::Unreachable => HealthStatus::Fault,
                };
                let (detail, fix) = match row.error {
                    Some(problem) => (problem.message, problem.hint),
                    None => (
                        format!("{} of {} slots taken", row.in_flight, row.max_workers),
                        None,
                    ),
                };
                check(&format!("pool {}", row.name), status, detail, fix)
            })
            .collect())
    }
}

fn check(name: &str, status: HealthStatus, detail: String, fix: Option<String>) -> Check {
    Check {
        name: name.to_owned(),
        status,
        detail,
        fix,
    }
}

fn rank(status: HealthStatus) -> u8 {
    match status {
        HealthStatus::Ok => 0,
        HealthStatus::Info => 1,
        HealthStatus::Warning => 2,
        HealthStatus::Fault => 3,
    }
}
