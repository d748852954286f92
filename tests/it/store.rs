//! The store, through its public face: journal, ownership, damage and crashes.

mod crash;
mod damage;
mod forget;
mod indexed;
mod journal;
mod memory;
mod outbox;
mod ownership;
mod removed;
mod retention;
mod search;

use mahavishnu::model::{
    At, InsertReport, ItemRecord, ItemState, ItemWork, NewMemory, PoolName, Revision, Settings,
    Work, WorkflowId, WorkflowRecord,
};
use mahavishnu::redact::Redacted;
use mahavishnu::store::{
    Created, Durability, Entry, Pruned, Retention, Store, StoreError, StoreOptions, Unfinished,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Opens a store in `dir`, as one server does.
fn open(dir: &Path) -> Store {
    Store::open(StoreOptions {
        dir: dir.to_owned(),
        durability: Durability::Normal,
    })
    .expect("the folder is writable")
}

/// A workflow record that `store`'s server owns.
fn record(store: &Store) -> WorkflowRecord {
    let settings: Settings =
        serde_json::from_value(serde_json::json!({"isolation": "in_place"})).expect("settings");
    WorkflowRecord {
        id: WorkflowId::new(),
        title: "cargo test".into(),
        owner: store.server_id(),
        created_at: At::from_unix_ms(At::now().unix_ms()),
        settings,
        single: false,
        idempotency_key: None,
        arguments_hash: "0".repeat(64),
    }
}

/// `count` items in `state`, each on a repository of its own.
fn items(count: u32, state: ItemState) -> Vec<(ItemWork, ItemRecord)> {
    (0..count)
        .map(|item| {
            let repo = format!("/repos/r{item}");
            let work = ItemWork {
                item,
                repo: repo.clone(),
                work: Work::Command(vec!["true".to_owned()]),
            };
            (work, ItemRecord::unstarted(item, repo, state))
        })
        .collect()
}

/// Journals a workflow of `count` queued items.
async fn journal(store: &Store, count: u32) -> WorkflowId {
    let record = record(store);
    let id = record.id;
    let created = store
        .create_workflow(record, items(count, ItemState::Queued))
        .await
        .expect("journaled");
    assert_eq!(created, Created::New);
    id
}

/// Journals ends, in one entry with what they left behind.
async fn finish(
    store: &Store,
    id: WorkflowId,
    records: Vec<ItemRecord>,
    memories: Vec<NewMemory>,
) -> Result<(Revision, InsertReport), StoreError> {
    let entry = Entry { records, memories };
    store.journal(id, Arc::new(vec![entry]), None).await
}

/// A workflow whose server was dead.
#[derive(Debug)]
struct Recovered {
    id: WorkflowId,
    title: String,
    interrupted: usize,
}

/// What the engine does with a store, in short.
trait Engine {
    /// Journals that an attempt is about to begin.
    async fn begin_attempt(
        &self,
        id: WorkflowId,
        record: ItemRecord,
    ) -> Result<Revision, StoreError>;

    /// Journals records.
    async fn save_items(&self, id: WorkflowId, records: Vec<ItemRecord>) -> Result<(), StoreError>;

    /// Returns an item's latest record.
    async fn item(&self, id: WorkflowId, item: u32) -> Result<Option<ItemRecord>, StoreError>;

    /// Marks what dead servers left as interrupted, until there is nothing more.
    async fn recover(&self) -> Result<Vec<Recovered>, StoreError>;

    /// Marks what this server journaled and does not run as interrupted; returns how many items that were.
    async fn give_up(&self, id: WorkflowId) -> Result<usize, StoreError>;
}

impl Engine for Store {
    async fn begin_attempt(
        &self,
        id: WorkflowId,
        record: ItemRecord,
    ) -> Result<Revision, StoreError> {
        let written = finish(self, id, vec![record], Vec::new()).await;
        written.map(|(revision, _)| revision)
    }

    async fn save_items(&self, id: WorkflowId, records: Vec<ItemRecord>) -> Result<(), StoreError> {
        let written = finish(self, id, records, Vec::new()).await;
        written.map(|_| ())
    }

    async fn item(&self, id: WorkflowId, item: u32) -> Result<Option<ItemRecord>, StoreError> {
        let stored = self.workflow(id).await?;
        Ok(stored.and_then(|stored| stored.items.into_iter().nth(item as usize)))
    }

    async fn recover(&self) -> Result<Vec<Recovered>, StoreError> {
        let mut recovered = Vec::new();
        loop {
            let abandoned = self.abandoned().await?;
            if abandoned.is_empty() {
                return Ok(recovered);
            }
            for unfinished in abandoned {
                let one = Recovered {
                    id: unfinished.id,
                    title: unfinished.title.to_string(),
                    interrupted: unfinished.items.len(),
                };
                if interrupt(self, unfinished).await? {
                    recovered.push(one);
                }
            }
        }
    }

    async fn give_up(&self, id: WorkflowId) -> Result<usize, StoreError> {
        let unfinished = self.unfinished(id).await?.expect("the workflow exists");
        let items = unfinished.items.len();
        assert!(interrupt(self, unfinished).await?);
        Ok(items)
    }
}

/// Marks items as interrupted, without memories.
async fn interrupt(store: &Store, unfinished: Unfinished) -> Result<bool, StoreError> {
    let records = unfinished.items.iter().map(|(item, _)| ItemRecord {
        status: ItemState::Interrupted,
        ..item.clone()
    });
    let entry = Entry::of(records.collect());
    store.interrupt(unfinished, entry, None).await
}

/// Prunes by a clock whose date, `day`, two later days have confirmed.
async fn prune(store: &Store, keep: Retention, day: At) -> Pruned {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    for later in 0..2 {
        let pruned = store.prune(keep, day.plus(DAY * later)).await;
        let pruned = pruned.expect("pruned");
        assert!(pruned.memories == 0 && pruned.workflows.is_empty());
    }
    let pruned = store.prune(keep, day.plus(DAY * 2)).await;
    pruned.expect("pruned")
}

/// A text that has no secrets. Read as the store reads one, because redacting thousands of texts takes a while here.
fn clean(text: impl Into<String>) -> Redacted {
    let text: String = text.into();
    serde_json::from_value(text.into()).expect("a text")
}

/// Item `item` in `state`, at its `attempt`.
fn at(item: u32, attempt: u32, state: ItemState) -> ItemRecord {
    ItemRecord {
        attempt,
        pool: Some("local".parse::<PoolName>().expect("a name")),
        ..ItemRecord::unstarted(item, format!("/repos/r{item}"), state)
    }
}
