//! The store, through its public face: journal, ownership, damage and crashes.

mod crash;
mod damage;
mod forget;
mod indexed;
mod journal;
mod memory;
mod outbox;
mod ownership;
mod search;

use mahavishnu::model::{
    At, InsertReport, ItemRecord, ItemState, ItemWork, NewMemory, PoolName, Revision, Settings,
    Work, WorkflowId, WorkflowRecord,
};
use mahavishnu::store::{Created, Durability, Entry, Store, StoreError, StoreOptions};
use std::path::Path;
use std::sync::Arc;

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
        title: "cargo test".to_owned(),
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

/// Item `item` in `state`, at its `attempt`.
fn at(item: u32, attempt: u32, state: ItemState) -> ItemRecord {
    ItemRecord {
        attempt,
        pool: Some("local".parse::<PoolName>().expect("a name")),
        ..ItemRecord::unstarted(item, format!("/repos/r{item}"), state)
    }
}
