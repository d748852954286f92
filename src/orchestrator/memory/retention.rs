//! Retention: removes old workflows, memories and logs as configured, at the start and once a day; never worktrees.

use crate::config::StoreConfig;
use crate::error::Problem;
use crate::model::{At, WorkflowId};
use crate::orchestrator::logs;
use crate::orchestrator::notices::Notices;
use crate::store::{Retention, Store};
use parking_lot::Mutex;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The time between two runs.
const EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Applies the retention settings; clones share the last result.
#[derive(Clone)]
pub(crate) struct Keeper {
    store: Store,
    keep: Retention,
    notices: Notices,
    // Held only to copy the value in or out.
    last: Arc<Mutex<Option<Result<Removed, Problem>>>>,
}

/// What one run removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Removed {
    at: At,
    /// The date to which age was counted.
    as_of: Option<At>,
    workflows: usize,
    memories: u64,
    logs: usize,
}

impl Keeper {
    pub(crate) fn new(store: Store, config: &StoreConfig, notices: Notices) -> Self {
        Self {
            store,
            keep: Retention {
                workflows: config.retention,
                outcomes: config.retention_outcomes,
                lessons_and_notes: config.retention_notes,
            },
            notices,
            last: Arc::default(),
        }
    }

    /// Runs now and every day until `closing`; returns at once if everything is kept for ever.
    pub(crate) async fn run(&self, closing: CancellationToken) {
        if self.keep == Retention::default() {
            return;
        }
        loop {
            let look = self.look(At::now());
            let Some(removed) = closing.run_until_cancelled(look).await else {
                return;
            };
            self.note(removed);
            if closing
                .run_until_cancelled(tokio::time::sleep(EVERY))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    /// Removes what is too old by the date that the store believes, which the clock alone cannot move: see
    /// [`Store::prune`].
    ///
    /// # Cancel safety
    ///
    /// The next run continues.
    async fn look(&self, now: At) -> Result<Removed, Problem> {
        let pruned = self.store.prune(self.keep, now).await?;
        Ok(Removed {
            at: now,
            as_of: pruned.as_of,
            workflows: pruned.workflows.len(),
            memories: pruned.memories,
            logs: match pruned.as_of {
                Some(as_of) => self.remove_logs(as_of).await?,
                None => 0,
            },
        })
    }

    /// Removes the logs of workflows that are too old and no longer in the journal, including those of an earlier run that
    /// was interrupted; returns the number of workflows.
    async fn remove_logs(&self, as_of: At) -> Result<usize, Problem> {
        let Some(age) = self.keep.workflows else {
            return Ok(0);
        };
        let runs = logs::folder(self.store.state_dir());
        let mut removed = 0;
        for (id, logs) in old_logs(runs, as_of.minus(age)).await.map_err(unreadable)? {
            if self.store.summary(id).await?.is_some() {
                continue;
            }
            match tokio::fs::remove_dir_all(&logs).await {
                Ok(()) => removed += 1,
                // Another server of this state directory was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
        Ok(removed)
    }

    fn note(&self, removed: Result<Removed, Problem>) {
        match &removed {
            Ok(removed) if removed.workflows + removed.logs > 0 || removed.memories > 0 => {
                self.notices.add(format!("retention: {}", told(removed)));
            }
            Ok(_) => {}
            Err(problem) => tracing::warn!(%problem, "what is too old could not be removed"),
        }
        *self.last.lock() = Some(removed);
    }

    /// Returns the settings and the last removal as text for people, or why the last run failed.
    pub(crate) fn tell(&self) -> Result<String, Problem> {
        let age = |age: Option<Duration>| match age {
            Some(age) => crate::text::duration(age),
            None => "for ever".to_owned(),
        };
        let kept = format!(
            "kept: ended workflows with their logs {}, outcomes {}, lessons and notes {}",
            age(self.keep.workflows),
            age(self.keep.outcomes),
            age(self.keep.lessons_and_notes)
        );
        let last = self.last.lock();
        match &*last {
            None => Ok(kept),
            Some(Ok(removed)) => Ok(format!("{kept}; {}", told(removed))),
            Some(Err(problem)) => Err(problem.clone()),
        }
    }
}

fn told(removed: &Removed) -> String {
    if removed.as_of.is_none() {
        return "nothing is removed before servers have run on three different days, because one clock may be wrong"
            .to_owned();
    }
    format!(
        "removed at {}: {} workflows, {} memories, the logs of {} workflows",
        removed.at, removed.workflows, removed.memories, removed.logs
    )
}

fn unreadable(error: io::Error) -> Problem {
    let message = format!("old logs cannot be removed: {error}");
    Problem::new(crate::error::ErrorKind::Unavailable, message)
}

/// Returns the log folders of workflows that were made before `before`.
async fn old_logs(runs: PathBuf, before: At) -> io::Result<Vec<(WorkflowId, PathBuf)>> {
    let mut entries = match tokio::fs::read_dir(&runs).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut old = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        let id: Option<WorkflowId> = entry.file_name().to_str().and_then(|id| id.parse().ok());
        if let Some(id) = id
            && id.made_at() < before
        {
            old.push((id, entry.path()));
        }
    }
    Ok(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MemoryKind, NewMemory};
    use crate::store::{Durability, StoreOptions};

    fn keeper(dir: &std::path::Path, retention: Duration) -> Keeper {
        let store = Store::open(StoreOptions {
            dir: dir.to_owned(),
            durability: Durability::Normal,
        });
        let config = StoreConfig {
            dir: dir.to_owned(),
            durability: Default::default(),
            retention: Some(retention),
            retention_outcomes: Some(retention),
            retention_notes: None,
        };
        Keeper::new(
            store.expect("the folder is writable"),
            &config,
            Notices::default(),
        )
    }

    #[tokio::test]
    async fn old_entries_and_their_logs_are_removed_and_reported() {
        let dir = tempfile::tempdir().expect("a folder");
        let keeper = keeper(dir.path(), Duration::from_secs(3_600));
        let old: WorkflowId = "01D00000000000000000000000".parse().expect("an id of 2019");
        let logs = |id: &str| logs::folder(dir.path()).join(id).join("0-1");
        let young = WorkflowId::new().to_string();
        for id in [old.to_string(), young.clone(), "not-an-id".to_owned()] {
            std::fs::create_dir_all(logs(&id)).expect("made");
        }
        let mut outcome = NewMemory::new(
            MemoryKind::Outcome,
            "old",
            "p".parse().expect("a name"),
            "worker",
        );
        outcome.created_at = At::from_unix_ms(1);
        let note = NewMemory {
            kind: MemoryKind::Note,
            text: "an old note".into(),
            ..outcome.clone()
        };
        let stored = keeper
            .store
            .insert_memories(vec![outcome, note], None)
            .await;
        let ids = stored.expect("stored").ids;
        assert_eq!(
            keeper.tell().expect("nothing failed"),
            "kept: ended workflows with their logs 1h, outcomes 1h, lessons and notes for ever"
        );

        for days in [0, 1] {
            let look = keeper.look(At::now().plus(EVERY * days)).await;
            assert_eq!(look.as_ref().map(|removed| removed.as_of), Ok(None));
            keeper.note(look);
        }
        assert!(logs(&old.to_string()).exists(), "two days prove nothing");
        let told = keeper.tell().expect("nothing failed");
        assert!(told.contains("three different days"), "{told}");

        let third = At::now().plus(EVERY * 2);
        keeper.note(keeper.look(third).await);
        assert!(!logs(&old.to_string()).exists());
        assert!(logs(&young).exists() && logs("not-an-id").exists());
        assert_eq!(keeper.store.memory(ids[0]).await.expect("read"), None);
        assert!(keeper.store.memory(ids[1]).await.expect("read").is_some());
        let told = keeper.tell().expect("nothing failed");
        assert!(
            told.ends_with(": 0 workflows, 1 memories, the logs of 1 workflows"),
            "{told}"
        );
        let notices = keeper.notices.take();
        assert!(
            notices[0].starts_with("retention: removed at "),
            "{notices:?}"
        );

        keeper.note(keeper.look(third).await);
        assert_eq!(keeper.notices.take(), [""; 0], "nothing more to tell");
    }

    #[tokio::test]
    async fn nothing_is_looked_at_where_everything_is_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut keeper = keeper(dir.path(), Duration::from_secs(1));
        keeper.keep = Retention::default();
        keeper.run(CancellationToken::new()).await;
    }
}
