//! How many memories a second are stored, beside bare SQLite and FTS5 in one transaction.

use super::corpus::Corpus;
use super::open;
use mahavishnu::model::NewMemory;
use rusqlite::Connection;
use std::time::Instant;
use tokio::runtime::Runtime;

/// How often both are measured, in turn.
const TURNS: usize = 5;

/// Stores `pools` times `each` memories, a call per pool, all pools at once.
pub fn measure(runtime: &Runtime, (pools, each): (usize, usize)) {
    let corpus = Corpus::new();
    let memories: Vec<_> = (0..pools * each).map(|n| corpus.memory(n)).collect();
    let mut ratios = Vec::new();
    println!("\n{pools} pools x {each} memories: stored a second");
    for _ in 0..TURNS {
        let ours = ours(runtime, &memories, each);
        let plain = bare(&memories, "");
        let alike = bare(
            &memories,
            ", tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3'",
        );
        println!(
            "ours {ours:>7.0}  bare {plain:>7.0} (ratio {:.2})  bare with the same tokenizer and beginnings {alike:>7.0} (ratio {:.2})",
            ours / plain,
            ours / alike
        );
        ratios.push(ours / plain);
    }
    println!("median ratio to bare {:.2}", super::at(&mut ratios, 0.5));
}

#[expect(clippy::cast_precision_loss, reason = "a count")]
fn rate(count: usize, begun: Instant) -> f64 {
    count as f64 / begun.elapsed().as_secs_f64()
}

fn ours(runtime: &Runtime, memories: &[NewMemory], each: usize) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path());
    let batches: Vec<_> = memories.chunks(each).map(<[_]>::to_vec).collect();
    let begun = Instant::now();
    runtime.block_on(async {
        let stored = batches
            .into_iter()
            .map(|batch| store.insert_memories(batch, None));
        futures_util::future::try_join_all(stored)
            .await
            .expect("stored");
    });
    let rate = rate(memories.len(), begun);
    runtime.block_on(store.close());
    rate
}

fn bare(memories: &[NewMemory], options: &str) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let mut db = Connection::open(folder.path().join("bare.db")).expect("opened");
    db.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
         CREATE TABLE memories (m INTEGER PRIMARY KEY, text TEXT NOT NULL);
         CREATE VIRTUAL TABLE fts USING fts5(text, content = 'memories', content_rowid = 'm' {options});"
    ))
    .expect("made");
    let begun = Instant::now();
    let all = db.transaction().expect("begun");
    {
        let mut row = all
            .prepare("INSERT INTO memories (text) VALUES (?1)")
            .expect("prepared");
        let mut words = all
            .prepare("INSERT INTO fts (rowid, text) VALUES (?1, ?2)")
            .expect("prepared");
        for new in memories {
            let m = row.insert([&new.text]).expect("stored");
            words.execute((m, &new.text)).expect("indexed");
        }
    }
    all.commit().expect("committed");
    rate(memories.len(), begun)
}
