//! `check_health`: what this server can tell of itself, with the next step for each fault.

use crate::api::{Check, CheckHealth, CheckHealthResult, HealthStatus, ListPools, Probe};
use crate::api::{Detail, Health};
use crate::error::{Fault, Problem};
use crate::orchestrator::Orchestrator;
use crate::process;

/// Below this much free space the state directory's disk is told as a warning, in bytes.
const ENOUGH_BYTES: u64 = 200 << 20;

/// How many worktrees with work that was never applied are named.
const WORKTREES_NAMED: usize = 3;

impl Orchestrator {
    /// Answers `check_health`.
    pub(super) async fn check_health(
        &self,
        args: CheckHealth,
    ) -> Result<CheckHealthResult, Problem> {
        let mut checks = vec![self.config_check(), self.store_check().await];
        checks.push(self.disk_check());
        checks.extend(self.roots_check());
        checks.extend(self.programs_check().await);
        checks.push(self.process_check());
        checks.push(self.room_check());
        checks.push(self.runs_check());
        checks.extend(self.worktree_checks().await);
        checks.push(self.retention_check());
        let peers = args.probe == Some(Probe::Peers);
        checks.extend(self.0.memories.checks(peers).await);
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

    /// Returns how many worktrees there are, which of them hold unapplied work, and applies that a crash cut short.
    async fn worktree_checks(&self) -> Vec<Check> {
        let health = match self.0.repos.health().await {
            Ok(health) => health,
            Err(error) => {
                let problem = error.problem();
                let (message, hint) = (problem.message, problem.hint);
                return vec![check("worktrees", HealthStatus::Warning, message, hint)];
            }
        };
        let unapplied = health.unapplied.len();
        let mut detail = format!(
            "{} worktrees, {} bytes, {} in use, {unapplied} with work that was never applied",
            health.worktrees, health.bytes, health.in_use
        );
        if health.looked_at < health.worktrees {
            detail.push_str(&format!(" (of {} looked at)", health.looked_at));
        }
        for (path, why) in health.unapplied.iter().take(WORKTREES_NAMED) {
            detail.push_str(&format!("; {}: {why}", path.display()));
        }
        let mut status = match unapplied {
            0 => HealthStatus::Ok,
            _ => HealthStatus::Info,
        };
        let mut fix = (unapplied > 0).then(|| {
            "apply_changes applies it; clean_worktrees removes what is applied, and the rest with include_unapplied".to_owned()
        });
        if let Some(max) = health.max_bytes {
            detail.push_str(&format!("; worktrees_max_bytes is {max}"));
            if health.bytes >= max {
                status = HealthStatus::Warning;
                detail.push_str(", so no further one is made");
                fix = Some(format!(
                    "clean_worktrees with dry_run false frees {} bytes, with include_unapplied up to all; or raise [limits] worktrees_max_bytes",
                    health.removable_bytes
                ));
            }
        }
        let mut checks = vec![check("worktrees", status, detail, fix)];
        checks.extend(health.interrupted_applies.iter().map(|repo| {
            let detail = format!("an apply_changes on {repo} was cut short");
            let fix = "it is finished or rolled back by the next server that starts, or the next apply_changes there";
            check("applies", HealthStatus::Warning, detail, Some(fix.to_owned()))
        }));
        checks.extend(health.stuck_applies.iter().map(|(repo, copies)| {
            let detail = format!("an apply_changes on {repo} could not be rolled back wholly");
            let fix = format!(
                "compare its files with the old ones in {}",
                copies.display()
            );
            check("applies", HealthStatus::Fault, detail, Some(fix))
        }));
        checks
    }

    fn runs_check(&self) -> Check {
        let runs = self.0.engine.live_runs();
        let (mut running, mut queued, mut unsaved) = (0, 0, 0);
        for run in &runs {
            let counts = run.counts();
            running += counts.running;
            queued += counts.queued;
            unsaved += run.unsaved();
        }
        let mut detail = format!(
            "{} workflows, {running} items running, {queued} waiting",
            runs.len()
        );
        if unsaved == 0 {
            return check("runs", HealthStatus::Ok, detail, None);
        }
        // One that is being written just now is none to speak of, but it cannot be told from one that cannot be.
        detail.push_str(&format!(
            "; the ends of {unsaved} of them are not written to the store yet"
        ));
        let fix = "if it stays, see the checks `store` and `disk`; they are written as soon as they can be";
        check("runs", HealthStatus::Info, detail, Some(fix.to_owned()))
    }

    /// Tells how much room the state directory has.
    fn disk_check(&self) -> Check {
        let dir = self.0.store.state_dir();
        match rustix::fs::statvfs(dir) {
            Ok(disk) => {
                let free = disk.f_bavail.saturating_mul(disk.f_frsize);
                let detail = format!("{} MB free for {}", free >> 20, dir.display());
                if free >= ENOUGH_BYTES {
                    return check("disk", HealthStatus::Ok, detail, None);
                }
                let fix = "free some space: ends, logs and worktrees are written there".to_owned();
                check("disk", HealthStatus::Warning, detail, Some(fix))
            }
            Err(error) => check(
                "disk",
                HealthStatus::Warning,
                format!("{} cannot be asked about: {error}", dir.display()),
                None,
            ),
        }
    }

    fn retention_check(&self) -> Check {
        match self.0.keeper.tell() {
            Ok(told) => check("retention", HealthStatus::Ok, told, None),
            Err(problem) => check(
                "retention",
                HealthStatus::Warning,
                problem.message,
                problem.hint,
            ),
        }
    }

    async fn pools_check(&self) -> Result<Vec<Check>, Problem> {
        let page = self
            .list_pools(ListPools {
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

pub(super) fn check(
    name: &str,
    status: HealthStatus,
    detail: String,
    fix: Option<String>,
) -> Check {
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
