//! How many items per second can be journaled, and how many memories stored?
//!
//! End to end through the store's handle, on a file of its own in the temporary folder. Baseline of the callers' sweep:
//! one caller, who pays for every commit alone. Searches are `benches/search`.

mod harness;

use harness::corpus::memory;
use harness::{Bench, Unit, rate};
use mahavishnu::model::{
    At, ItemRecord, ItemState, ItemWork, PoolName, Work, WorkflowId, WorkflowRecord,
};
use mahavishnu::store::{Durability, Store, StoreOptions};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// How many callers journal at once.
const CALLERS: [u32; 4] = [1, 8, 64, 512];

fn main() {
    let bench = Bench::new("store");
    journaling(&bench);
    inserting(&bench);
}

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

async fn journal(store: &Store, items: u32) -> WorkflowId {
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
    let items = (0..items).map(|n| {
        let work = ItemWork {
            item: n,
            repo: format!("/repos/r{n}"),
            work: Work::Command(vec!["true".to_owned()]),
        };
        (work, item(n, 0, ItemState::Queued))
    });
    let created = store
        .create_workflow(record, items.collect::<Vec<_>>())
        .await;
    created.expect("journaled");
    id
}

/// Begins and ends every item, `callers` at a time.
async fn begin_and_save(store: &Store, id: WorkflowId, items: u32, callers: u32) {
    let mut running = JoinSet::new();
    for caller in 0..callers {
        let store = store.clone();
        running.spawn(async move {
            for n in (caller..items).step_by(callers as usize) {
                let begun = store.begin_attempt(id, item(n, 1, ItemState::Running));
                begun.await.expect("begun");
                let ended = vec![item(n, 1, ItemState::Succeeded)];
                store.save_items(id, ended).await.expect("saved");
            }
        });
    }
    running.join_all().await;
}

fn journaling(bench: &Bench) {
    let items = bench.size(2_000, 20);
    let fixture = fixture();
    let turn = |callers| {
        let fixture = &fixture;
        move || {
            let id = fixture.runtime.block_on(journal(&fixture.store, items));
            rate(items as usize, || {
                fixture
                    .runtime
                    .block_on(begin_and_save(&fixture.store, id, items, callers))
            })
        }
    };
    for callers in CALLERS {
        bench
            .figure("items begun and ended, by callers", Unit::PerSecond)
            .of(callers)
            .rounds(5)
            .add("mahavishnu", turn(callers))
            .add("one caller", turn(1))
            .run();
    }
}

fn inserting(bench: &Bench) {
    let batches: &[usize] = bench.size(&[1, 100, 1_000], &[1, 10]);
    let (fixture, pool) = (fixture(), pool());
    let mut next = 0;
    for &batch in batches {
        bench
            .figure("memories stored, by batch", Unit::PerSecond)
            .of(batch)
            .add("mahavishnu", || {
                let new = (next..next + batch)
                    .map(|number| memory(&pool, number))
                    .collect();
                next += batch;
                rate(batch, || {
                    let stored = fixture.store.insert_memories(new, None);
                    fixture.runtime.block_on(stored).expect("stored")
                })
            })
            .run();
    }
}
