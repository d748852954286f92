//! The store's methods for workflows: journal, ownership, requests, notices.

use super::journal::{self, Created, Entry};
use super::lookup::{self, StoredWorkflow, WorkflowQuery, WorkflowSummary};
use super::ownership::{self, Adopted, Asked, Notice, OwnerRequest, Recovered};
use super::{Store, StoreError, memory};
use crate::error::Problem;
use crate::model::{
    Attempt, InsertReport, ItemIndex, ItemRecord, ItemWork, PeerName, PoolName, Revision,
    WorkflowId, WorkflowRecord,
};
use rusqlite::Connection;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Store {
    /// Journals a workflow with all its items.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing; nothing was written then.
    pub async fn create_workflow(
        &self,
        record: WorkflowRecord,
        items: impl Into<Arc<Vec<(ItemWork, ItemRecord)>>>,
    ) -> Result<Created, StoreError> {
        let items = items.into();
        self.write("journal a workflow", move |db| {
            journal::create(db, &record, &items)
        })
        .await
    }

    /// Returns the workflow that was started with this idempotency key.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn workflow_by_key(&self, key: String) -> Result<Option<WorkflowRecord>, StoreError> {
        self.read("look an idempotency key up", move |db| {
            journal::by_key(db, &key)
        })
        .await
    }

    /// Writes what happened to items of a workflow, all or nothing; durable when this returns the workflow's new revision
    /// and what became of the memories.
    ///
    /// An attempt may start once its begin is journaled. An end has its memories: a crash between the two cannot be. One
    /// that is followed by the same item's wait for its next attempt is kept beside it.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotOwner`] where another server owns the workflow: nothing may be started then.
    /// [`StoreError::Ended`] where another end of an attempt is journaled that is to begin or to end. As
    /// [`Self::insert_memories`].
    pub async fn journal(
        &self,
        id: WorkflowId,
        entries: Arc<Vec<Entry>>,
        forward_to: Option<PeerName>,
    ) -> Result<(Revision, InsertReport), StoreError> {
        let me = self.server_id();
        self.write("write the journal", move |db| {
            let revision = journal::write(db, me, id, &entries)?;
            let memories = entries.iter().flat_map(|entry| &entry.memories);
            let memories = memory::prepared(memories.map(Cow::Borrowed))?;
            let report = memory::insert(db, &memories, forward_to.as_ref())?;
            Ok((revision, report))
        })
        .await
    }

    /// Journals that an attempt is about to begin, as [`Self::journal`] does.
    ///
    /// # Errors
    ///
    /// As [`Self::journal`].
    pub async fn begin_attempt(
        &self,
        id: WorkflowId,
        record: ItemRecord,
    ) -> Result<Revision, StoreError> {
        let entry = Entry::of(vec![record]);
        let written = self.journal(id, Arc::new(vec![entry]), None).await;
        written.map(|(revision, _)| revision)
    }

    /// Puts items in line again, all or none: `record` is how the workflow runs from now on, each item comes with what
    /// it is to do from now on. Returns the workflow's new revision.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotOwner`] where another server owns the workflow: adopt it first. [`StoreError::Unfinished`]
    /// where one of the items waits or runs.
    pub async fn restart(
        &self,
        record: WorkflowRecord,
        items: Vec<(ItemWork, ItemRecord)>,
    ) -> Result<Revision, StoreError> {
        let me = self.server_id();
        self.write("put items in line again", move |db| {
            journal::restart(db, me, &record, &items)
        })
        .await
    }

    /// Writes the latest state of these items, all or none.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotOwner`] where another server owns the workflow.
    pub async fn save_items(
        &self,
        id: WorkflowId,
        records: Vec<ItemRecord>,
    ) -> Result<(), StoreError> {
        let me = self.server_id();
        self.write("save items", move |db| {
            journal::save_items(db, me, id, &records).map(|_revision| ())
        })
        .await
    }

    /// Returns a workflow with all its items.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn workflow(&self, id: WorkflowId) -> Result<Option<StoredWorkflow>, StoreError> {
        let owners = Arc::clone(&self.inner.owners);
        self.read("read a workflow", move |db| {
            lookup::workflow(db, &owners, id)
        })
        .await
    }

    /// Returns a workflow without its items: cheap, for polling.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn summary(&self, id: WorkflowId) -> Result<Option<WorkflowSummary>, StoreError> {
        let owners = Arc::clone(&self.inner.owners);
        self.read("read a workflow", move |db| {
            lookup::summary(db, &owners, id)
        })
        .await
    }

    /// Returns an item's latest state.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn item(
        &self,
        id: WorkflowId,
        item: ItemIndex,
    ) -> Result<Option<ItemRecord>, StoreError> {
        self.read("read an item", move |db| lookup::item(db, id, item))
            .await
    }

    /// Returns what is known of one attempt of an item, the latest or an earlier one.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn attempt(
        &self,
        id: WorkflowId,
        item: ItemIndex,
        attempt: Attempt,
    ) -> Result<Option<ItemRecord>, StoreError> {
        self.read("read an attempt", move |db| {
            lookup::attempt(db, id, item, attempt)
        })
        .await
    }

    /// Returns the workflows that `query` asks for, newest first.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn workflows(
        &self,
        query: WorkflowQuery,
    ) -> Result<Vec<WorkflowSummary>, StoreError> {
        let owners = Arc::clone(&self.inner.owners);
        self.read("list workflows", move |db| {
            lookup::workflows(db, &owners, &query)
        })
        .await
    }

    /// Marks what dead servers left queued or running as `interrupted`, once, leaves a notice of each workflow, and
    /// removes the servers' lock files.
    ///
    /// A server is dead when its ownership lock is free, that is when its guardian has ended too.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing; nothing is marked then.
    pub async fn recover(&self) -> Result<Vec<Recovered>, StoreError> {
        let remains = self.inner.remains.get().cloned().unwrap_or_default();
        let owners = Arc::clone(&self.inner.owners);
        // Listed before the rows are read: a file that is removed must belong to a server that was asked about.
        let leftovers = owners.leftovers();
        let asked = Arc::clone(&owners);
        let look = move |db: &Connection| ownership::needs_recovery(db, &asked);
        let mut recovered = Vec::new();
        if self.read("look for dead servers", look).await? {
            let asked = Arc::clone(&owners);
            recovered = self
                .write("recover workflows", move |db| {
                    ownership::recover(db, &asked, &remains)
                })
                .await?;
        }
        for owner in leftovers {
            owners.remove(owner);
        }
        Ok(recovered)
    }

    /// Becomes the owner of a workflow whose owner is dead, or that has nothing queued or running.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn adopt(&self, id: WorkflowId) -> Result<Adopted, StoreError> {
        let owners = Arc::clone(&self.inner.owners);
        let remains = self.inner.remains.get().cloned().unwrap_or_default();
        self.write("adopt a workflow", move |db| {
            ownership::adopt(db, &owners, id, &remains)
        })
        .await
    }

    /// Marks what this server journaled as queued or running, but does not run, `interrupted`; returns how many items
    /// that were.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotOwner`] where another server owns the workflow.
    pub async fn give_up(&self, id: WorkflowId) -> Result<u32, StoreError> {
        let remains = self.inner.remains.get().cloned().unwrap_or_default();
        let me = self.server_id();
        self.write("give a workflow up", move |db| {
            ownership::give_up(db, me, id, &remains)
        })
        .await
    }

    /// Leaves a request for a workflow's owner, which watches for it; returns its number.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoWorkflow`] where there is none.
    pub async fn ask_owner(
        &self,
        id: WorkflowId,
        request: OwnerRequest,
    ) -> Result<i64, StoreError> {
        self.write("ask a workflow's owner", move |db| {
            ownership::ask(db, id, &request)
        })
        .await
    }

    /// Takes what others asked of the workflows this server owns, oldest first.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing; the requests stay then.
    pub async fn take_requests(&self) -> Result<Vec<Asked>, StoreError> {
        let me = self.server_id();
        let look = move |db: &Connection| ownership::has_requests(db, me);
        if !self.read("look for requests", look).await? {
            return Ok(Vec::new());
        }
        self.write("take requests", move |db| ownership::take_requests(db, me))
            .await
    }

    /// Answers a request that was taken.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn answer_request(
        &self,
        number: i64,
        answer: Result<(), Problem>,
    ) -> Result<(), StoreError> {
        self.write("answer a request", move |db| {
            ownership::answer(db, number, &answer)
        })
        .await
    }

    /// Returns what the owner answered to request `number`, and an interruption where it ended before it did.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn answer_to(&self, number: i64) -> Result<Option<Result<(), Problem>>, StoreError> {
        self.read("look for an answer", move |db| {
            ownership::answered(db, number)
        })
        .await
    }

    /// Removes request `number`, whose answer nobody waits for any more.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn withdraw_request(&self, number: i64) -> Result<(), StoreError> {
        self.write("withdraw a request", move |db| {
            ownership::withdraw(db, number)
        })
        .await
    }

    /// Leaves word that this server ends before a workflow does, with `items` of it unfinished.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn tell_interrupted(
        &self,
        record: &WorkflowRecord,
        items: u32,
    ) -> Result<(), StoreError> {
        let text = ownership::interrupted_notice(record.id, &record.title, items);
        self.add_notice(text, Some(record.id)).await
    }

    /// Keeps a notice for the next caller.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing.
    pub async fn add_notice(
        &self,
        text: String,
        workflow: Option<WorkflowId>,
    ) -> Result<(), StoreError> {
        self.write("keep a notice", move |db| {
            ownership::add_notice(db, &text, workflow)
        })
        .await
    }

    /// Takes all notices, oldest first; each is delivered once.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or writing; the notices stay then.
    pub async fn take_notices(&self) -> Result<Vec<Notice>, StoreError> {
        if !self
            .read("look for notices", ownership::has_notices)
            .await?
        {
            return Ok(Vec::new());
        }
        self.write("take notices", ownership::take_notices).await
    }

    /// Counts the running items of other live servers, by pool.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] of opening or reading.
    pub async fn in_flight_elsewhere(&self) -> Result<BTreeMap<PoolName, u32>, StoreError> {
        let owners = Arc::clone(&self.inner.owners);
        self.read("count what other servers run", move |db| {
            lookup::in_flight_elsewhere(db, &owners)
        })
        .await
    }
}
