//! Items whose server is gone: their ends and memories, written in one transaction.

use super::handle::Engine;
use crate::error::{ErrorKind, Problem};
use crate::model::{ItemRecord, ItemState, NewMemory, Work, WorkflowId};
use crate::orchestrator::memory;
use crate::store::{Entry, StoreError, Unfinished};

impl Engine {
    /// Marks what dead servers left queued or running as interrupted; returns whether that was anything.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of reading or writing; workflows that were marked before stay marked.
    pub(in crate::orchestrator) async fn interrupt_abandoned(&self) -> Result<bool, StoreError> {
        let mut any = false;
        loop {
            let abandoned = self.store.abandoned().await?;
            if abandoned.is_empty() {
                return Ok(any);
            }
            any = true;
            for unfinished in abandoned {
                // One that another server has marked meanwhile is not found again.
                self.interrupt(unfinished).await?;
            }
        }
    }

    /// Marks what this server journaled as queued or running, but does not run, as interrupted. The caller holds the
    /// right to take the workflow up again, so that it is about to be run by nothing.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotOwner`] where another live server owns the workflow.
    pub(in crate::orchestrator) async fn give_up(&self, id: WorkflowId) -> Result<(), StoreError> {
        while let Some(unfinished) = self.store.unfinished(id).await? {
            let items = unfinished.items.len();
            if items == 0 {
                break;
            }
            if self.interrupt(unfinished).await? {
                tracing::warn!(%id, items, "items were journaled as running that nothing runs");
                break;
            }
        }
        Ok(())
    }

    async fn interrupt(&self, unfinished: Unfinished) -> Result<bool, StoreError> {
        let mut entry = Entry::default();
        for (item, work) in &unfinished.items {
            let began = item.status == ItemState::Running;
            let record = interrupted(item.clone());
            if began {
                entry
                    .memories
                    .extend(self.memory_of(unfinished.id, &record, work));
            }
            entry.records.push(record);
        }
        let forward_to = self.memories.forward_to();
        self.store.interrupt(unfinished, entry, forward_to).await
    }

    fn memory_of(&self, id: WorkflowId, record: &ItemRecord, work: &Work) -> Option<NewMemory> {
        let pool = self.pools.get(record.pool.as_ref()?.as_str());
        let worker = pool.map(|state| state.pool.worker_name.clone());
        memory::outcome(id, record, work, worker)
    }
}

fn interrupted(item: ItemRecord) -> ItemRecord {
    let error = Problem::new(
        ErrorKind::Interrupted,
        "the server that ran it ended before it did",
    )
    .with_hint("resume_workflow runs it again");
    ItemRecord {
        status: ItemState::Interrupted,
        idle_s: None,
        doing: None,
        cause: Some("interrupted".into()),
        error: Some(error.into()),
        ..item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_item_names_its_cause_and_the_next_step() {
        let running = ItemRecord {
            attempt: 2,
            idle_s: Some(1.0),
            doing: Some("run".into()),
            ..ItemRecord::unstarted(0, "/r", ItemState::Running)
        };
        let record = interrupted(running);
        assert_eq!((record.status, record.attempt), (ItemState::Interrupted, 2));
        assert_eq!((record.idle_s, &record.doing), (None, &None));
        let error = record.error.expect("an error");
        assert_eq!(error.kind, ErrorKind::Interrupted);
        assert!(
            error
                .hint
                .as_ref()
                .is_some_and(|hint| hint.contains("resume_workflow"))
        );
    }
}
