//! The other servers on this store: what dead ones left behind, and what live ones ask of this one's runs.

use super::handle::Engine;
use crate::error::Problem;
use crate::process;
use crate::repo::{Recovered, Recovery};
use crate::store::TakenRequest;
use std::time::Duration;

/// How often other servers' requests and notices are looked for.
const EVERY: Duration = Duration::from_millis(200);

/// How many of those looks go by before dead servers are looked for again.
const LOOKS_PER_RECOVERY: u32 = 10;

/// Looks after what other servers left and ask.
pub(crate) struct Neighbours {
    engine: Engine,
    looks: u32,
    /// The store's version when requests and notices were read last. Only a commit changes it, so that an idle server
    /// reads one integer.
    read_at: Option<i64>,
}

impl Neighbours {
    /// Takes over what dead servers left in the store and in repositories.
    pub(crate) async fn take_over(engine: Engine) -> Self {
        let neighbours = Self {
            engine,
            looks: 0,
            read_at: None,
        };
        neighbours.recover().await;
        neighbours.recover_applies().await;
        neighbours.engine.stored_notices().await;
        neighbours
    }

    /// Waits until other servers ask something of this one's runs, and returns their requests. Meanwhile takes over from
    /// servers that die, and passes on notices.
    ///
    /// # Cancel safety
    ///
    /// Requests are lost if the future is dropped while it reads them.
    pub(crate) async fn requests(&mut self) -> Vec<TakenRequest> {
        loop {
            tokio::time::sleep(EVERY).await;
            self.looks += 1;
            if self.looks.is_multiple_of(LOOKS_PER_RECOVERY) {
                self.recover().await;
            }
            let version = match self.engine.store.version().await {
                Ok(version) => version,
                Err(error) => {
                    tracing::debug!(%error, "could not look for requests");
                    continue;
                }
            };
            if self.read_at == Some(version) {
                continue;
            }
            self.engine.stored_notices().await;
            match self.engine.store.take_requests().await {
                Ok(requests) => {
                    self.read_at = Some(version);
                    if !requests.is_empty() {
                        return requests;
                    }
                }
                Err(error) => tracing::warn!(%error, "could not read requests"),
            }
        }
    }

    async fn recover(&self) {
        if let Err(problem) = self.engine.recover().await {
            tracing::warn!(%problem, "could not look for interrupted workflows");
        }
    }

    /// Finishes or undoes what a crash left half done in a repository, with a notice of it.
    async fn recover_applies(&self) {
        match self.engine.repos.recover().await {
            Ok(recovered) => recovered
                .iter()
                .for_each(|one| self.engine.notices.add(notice_of(one))),
            Err(error) => tracing::warn!(%error, "could not look for interrupted applies"),
        }
    }
}

impl Engine {
    /// Marks what dead servers left as interrupted; the next answer has a notice of it.
    pub(crate) async fn recover(&self) -> Result<(), Problem> {
        self.end_leftovers().await;
        if self.interrupt_abandoned().await? {
            self.stored_notices().await;
        }
        Ok(())
    }

    /// Ends the programs that dead servers left behind, so that none still runs when its item is called interrupted.
    async fn end_leftovers(&self) {
        let dead = self.store.dead_ownership_files();
        let ended = tokio::task::spawn_blocking(move || process::end_leftovers(&dead)).await;
        if let Ok(count @ 1..) = ended {
            tracing::warn!(count, "ended programs that a dead server had left behind");
        }
    }

    /// Passes on the notices that servers left in the store.
    pub(super) async fn stored_notices(&self) {
        match self.store.take_notices().await {
            Ok(notices) => notices
                .into_iter()
                .for_each(|notice| self.notices.add(notice.text.into())),
            Err(error) => tracing::warn!(%error, "could not read notices"),
        }
    }
}

fn notice_of(recovered: &Recovered) -> String {
    let repo = &recovered.repo;
    let what = match &recovered.outcome {
        Ok(Recovery::Finished) => "was finished".to_owned(),
        Ok(Recovery::RolledBack) => {
            "was rolled back: the repository is as it was before".to_owned()
        }
        Ok(Recovery::Stuck(copies)) => format!(
            "could not be rolled back wholly, because files or commits changed since; the old files are in {}",
            copies.display()
        ),
        Err(error) => format!("could not be rolled back yet: {error}; check_health shows it"),
    };
    format!("an apply_changes on {repo} that was interrupted {what}")
}
