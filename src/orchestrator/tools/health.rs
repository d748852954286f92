//! `check_health`: the state of this server and of what it needs, with the next step for each fault.

use crate::api::{
    Check, CheckHealth, CheckHealthResult, Health, HealthStatus, ListPools, PoolRow, Probe,
};
use crate::error::Problem;
use crate::orchestrator::Orchestrator;
use crate::process;
use std::cmp::Reverse;

/// Less free space than this on the state directory's disk is a warning, in bytes.
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
        checks.push(process_check());
        checks.push(self.room_check());
        checks.push(self.runs_check());
        checks.extend(self.worktree_checks().await);
        checks.push(self.retention_check());
        let peers = args.probe == Some(Probe::Peers);
        checks.extend(self.0.memories.checks(peers).await);
        if args.probe == Some(Probe::Workers) {
            let pools = self.list_pools(ListPools::default()).await?.pools;
            checks.extend(pools.into_iter().map(pool_check));
        }
        checks.sort_by_key(|check| Reverse(check.status));
        Ok(CheckHealthResult {
            status: checks
                .first()
                .map_or(HealthStatus::Ok, |worst| worst.status),
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
        Check::ok("config", detail)
    }

    async fn store_check(&self) -> Check {
        let health = match self.0.store.integrity().await {
            Ok(health) => health,
            Err(error) => return Check::of("store", HealthStatus::Fault, error),
        };
        let path = health.path.display();
        if health.ok {
            let detail = format!(
                "{path}: {} workflows, {} memories, {} bytes and {} in the log",
                health.workflows, health.memories, health.file_bytes, health.wal_bytes
            );
            return Check::ok("store", detail);
        }
        let detail = format!("{path} is damaged: {}", health.problems.join("; "));
        Check::new("store", HealthStatus::Fault, detail)
            .with_fix("end all servers, copy the file, and repair it with `sqlite3 FILE .recover`")
    }

    /// Returns how much space the state directory's disk has.
    fn disk_check(&self) -> Check {
        let dir = self.0.store.state_dir();
        let disk = match rustix::fs::statvfs(dir) {
            Ok(disk) => disk,
            Err(error) => {
                let detail = format!("the free space of {} is unknown: {error}", dir.display());
                return Check::new("disk", HealthStatus::Warning, detail);
            }
        };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let detail = format!("{} MB free for {}", free >> 20, dir.display());
        if free >= ENOUGH_BYTES {
            return Check::ok("disk", detail);
        }
        Check::new("disk", HealthStatus::Warning, detail)
            .with_fix("free some space: results, logs and worktrees are written there")
    }

    fn roots_check(&self) -> Vec<Check> {
        let roots = self.0.repos.roots();
        let mut checks = vec![match roots.dirs() {
            Ok(dirs) => {
                let dirs: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
                Check::ok("roots", dirs.join(", "))
            }
            Err(error) => Check::of("roots", HealthStatus::Fault, error),
        }];
        checks.extend(roots.unusable().iter().map(|(dir, why)| {
            let detail = format!("{} cannot be used: {why}", dir.display());
            Check::new("roots", HealthStatus::Warning, detail).with_fix(roots.how_to_add())
        }));
        checks
    }

    /// Returns how many worktrees there are, which of them hold unapplied work, and applies that a crash cut short.
    async fn worktree_checks(&self) -> Vec<Check> {
        let health = match self.0.repos.health().await {
            Ok(health) => health,
            Err(error) => return vec![Check::of("worktrees", HealthStatus::Warning, error)],
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
        let mut checks = vec![Check {
            fix,
            ..Check::new("worktrees", status, detail)
        }];
        checks.extend(health.interrupted_applies.iter().map(|repo| {
            let detail = format!("an apply_changes on {repo} was cut short");
            let fix = "it is finished or rolled back by the next server that starts, or the next apply_changes there";
            Check::new("applies", HealthStatus::Warning, detail).with_fix(fix)
        }));
        checks.extend(health.stuck_applies.iter().map(|(repo, copies)| {
            let detail = format!("an apply_changes on {repo} could not be rolled back wholly");
            let fix = format!(
                "compare its files with the old ones in {}",
                copies.display()
            );
            Check::new("applies", HealthStatus::Fault, detail).with_fix(fix)
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
        let detail = format!(
            "{} workflows, {running} items running, {queued} queued",
            runs.len()
        );
        if unsaved == 0 {
            return Check::ok("runs", detail);
        }
        // Usually they are just being written, which looks the same as a store that cannot be written.
        let detail = format!("{detail}; the results of {unsaved} are not written to the store yet");
        Check::new("runs", HealthStatus::Info, detail).with_fix(
            "if this stays, see the checks `store` and `disk`; they are written as soon as possible",
        )
    }

    fn retention_check(&self) -> Check {
        match self.0.keeper.tell() {
            Ok(detail) => Check::ok("retention", detail),
            Err(problem) => Check::of("retention", HealthStatus::Warning, problem),
        }
    }
}

fn process_check() -> Check {
    match process::catches_strays() {
        Ok(()) => Check::ok(
            "processes",
            "every program and what it starts ends with this server",
        ),
        Err(why) => Check::new("processes", HealthStatus::Info, why),
    }
}

fn pool_check(row: PoolRow) -> Check {
    let name = format!("pool {}", row.name);
    let status = match row.health {
        Health::Healthy => HealthStatus::Ok,
        Health::Draining => HealthStatus::Info,
        Health::Degraded => HealthStatus::Warning,
        Health::Unreachable => HealthStatus::Fault,
    };
    match row.error {
        Some(problem) => Check::of(&name, status, problem),
        None => {
            let detail = format!("{} of {} slots taken", row.in_flight, row.max_workers);
            Check::new(&name, status, detail)
        }
    }
}
