//! How many items per second can be journaled, how many memories stored, and how fast are they found?
//!
//! `cargo bench --bench store`. Every figure is end to end through the store's handle, on a file of its own in the
//! temporary folder. Baseline for the callers' sweep: one caller, who pays for every commit alone.

use divan::Bencher;
use divan::counter::ItemsCount;
use mahavishnu::model::{
    At, ItemRecord, ItemState, ItemWork, MemoryKind, MemoryQuery, NewMemory, PoolName, Work,
    WorkflowId, WorkflowRecord,
};
use mahavishnu::store::{Durability, Store, StoreOptions};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

fn main() {
    divan::main();
}

/// Items of one measured run.
const ITEMS: u32 = 2_000;

struct Fixture {
    runtime: Runtime,
    store: Store,
    _dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let store = Store::open(StoreOptions {
        dir: dir.path().to_owned(),
        durability: Durability::Normal,
    })
    .expect("opened");
    Fixture {
        runtime,
        store,
        _dir: dir,
    }
}

fn pool() -> PoolName {
    "local".parse().expect("a name")
}

fn item(item: u32, attempt: u32, state: ItemState) -> ItemRecord {
    ItemRecord {
        attempt,
        pool: Some(pool()),
        output_tail: state.is_final().then(|| "42 tests passed\n".repeat(8)),
        ..ItemRecord::unstarted(item, format!("/repos/r{item}"), state)
    }
}

async fn journal(store: &Store) -> WorkflowId {
    let settings = serde_json::from_value(serde_json::json!({"isolation": "in_place"}));
    let record = WorkflowRecord {
        id: WorkflowId::new(),
        title: "true".to_owned(),
        owner: store.server_id(),
        created_at: At::now(),
        settings: settings.expect("settings"),
        single: false,
        idempotency_key: None,
        arguments_hash: String::new(),
    };
    let id = record.id;
    let items = (0..ITEMS).map(|n| {
        let work = ItemWork {
            item: n,
            repo: format!("/repos/r{n}"),
            work: Work::Command(vec!["true".to_owned()]),
        };
        (work, item(n, 0, ItemState::Queued))
    });
    let created = store.create_workflow(record, items.collect()).await;
    created.expect("journaled");
    id
}

/// Begins and ends every item, `callers` at a time.
#[divan::bench(args = [1, 8, 64, 512], sample_count = 10, sample_size = 1)]
fn begin_and_save(bencher: Bencher<'_, '_>, callers: u32) {
    let fixture = fixture();
    bencher
        .counter(ItemsCount::new(ITEMS))
        .with_inputs(|| fixture.runtime.block_on(journal(&fixture.store)))
        .bench_values(|id| {
            fixture.runtime.block_on(async {
                let mut running = JoinSet::new();
                for caller in 0..callers {
                    let store = fixture.store.clone();
                    running.spawn(async move {
                        for n in (caller..ITEMS).step_by(callers as usize) {
                            let begun = store.begin_attempt(id, item(n, 1, ItemState::Running));
                            begun.await.expect("begun");
                            let ended = vec![item(n, 1, ItemState::Succeeded)];
                            store.save_items(id, ended).await.expect("saved");
                        }
                    });
                }
                running.join_all().await;
            });
        });
}

/// Memories of 25 words out of 5,000, some of them in most memories.
fn memories(from: usize, count: usize) -> Vec<NewMemory> {
    (from..from + count)
        .map(|n| {
            let mut text = String::from("build");
            let mut state = n as u64 + 1;
            for _ in 0..25 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                text.push_str(&format!(" w{}", (state >> 33) % 5_000));
            }
            NewMemory {
                source_id: Some(n.to_string()),
                ..NewMemory::new(MemoryKind::Outcome, text, pool(), "bench")
            }
        })
        .collect()
}

#[divan::bench(args = [1, 100, 1_000], sample_count = 10, sample_size = 1)]
fn insert_memories(bencher: Bencher<'_, '_>, batch: usize) {
    let fixture = fixture();
    let mut next = 0;
    bencher
        .counter(ItemsCount::new(batch))
        .with_inputs(|| {
            next += batch;
            memories(next, batch)
        })
        .bench_local_values(|new| {
            let stored = fixture.store.insert_memories(new, None);
            fixture.runtime.block_on(stored).expect("stored")
        });
}

/// A rare word, two words, and a word that stands in every memory, over 10,000 and 100,000 memories.
#[divan::bench(args = [("w77", 10_000), ("w77 w78", 10_000), ("build", 10_000),
                       ("w77", 100_000), ("w77 w78", 100_000), ("build", 100_000)], sample_count = 50)]
fn find(bencher: Bencher<'_, '_>, (text, count): (&str, usize)) {
    let fixture = fixture();
    for from in (0..count).step_by(1_000) {
        let stored = fixture.store.insert_memories(memories(from, 1_000), None);
        fixture.runtime.block_on(stored).expect("stored");
    }
    let query = MemoryQuery {
        text: text.to_owned(),
        limit: 10,
        ..MemoryQuery::default()
    };
    bencher.bench_local(|| {
        let found = fixture.store.find_memories(query.clone());
        fixture.runtime.block_on(found).expect("found")
    });
}
