//! A store of a size, filled from the corpus, and the same in bare SQLite and FTS5.

use crate::harness::corpus::Corpus;
use mahavishnu::model::NewMemory;
use mahavishnu::store::{Durability, Store, StoreOptions};
use rusqlite::Connection;
use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Memories stored in one call, and calls that are made at once.
const BATCH: usize = 1_000;
const CALLS: usize = 100;

/// Where memories of the corpus are stored and found again.
pub(crate) struct Filled<'a> {
    pub(crate) runtime: &'a Runtime,
    corpus: Corpus,
    size: usize,
    /// Where filled stores are kept from one run to the next, each in a folder of its size.
    kept: Option<PathBuf>,
    folder: OnceCell<(PathBuf, Option<TempDir>)>,
}

impl<'a> Filled<'a> {
    pub(crate) fn new(runtime: &'a Runtime, size: usize) -> Self {
        let kept = std::env::var_os("MAHAVISHNU_BENCH_DIR");
        Self {
            runtime,
            corpus: Corpus::new(),
            size,
            kept: kept.map(|kept| Path::new(&kept).join(size.to_string())),
            folder: OnceCell::new(),
        }
    }

    /// Returns the folder of a filled store, which it fills unless there is one.
    pub(crate) fn folder(&self) -> &Path {
        let make = || {
            let Some(kept) = &self.kept else {
                let folder = tempfile::tempdir().expect("a folder");
                self.store_all(folder.path());
                return (folder.path().to_owned(), Some(folder));
            };
            let filled = kept.join("filled");
            if !filled.exists() {
                self.store_all(kept);
                std::fs::write(filled, "").expect("noted");
            }
            (kept.clone(), None)
        };
        &self.folder.get_or_init(make).0
    }

    /// Stores all memories in a store of its own, which becomes the filled one where there is none yet; returns how many
    /// a second.
    pub(crate) fn stored_a_second(&self) -> f64 {
        let folder = tempfile::tempdir().expect("a folder");
        let rate = self.store_all(folder.path());
        if self.kept.is_none() {
            // Refused where there is one; then this one is removed.
            drop(self.folder.set((folder.path().to_owned(), Some(folder))));
        }
        rate
    }

    fn store_all(&self, folder: &Path) -> f64 {
        let store = open(folder);
        let rate = self.timed(|memories| {
            let calls: Vec<_> = memories.chunks(BATCH).map(<[_]>::to_vec).collect();
            let begun = Instant::now();
            let calls = calls
                .into_iter()
                .map(|batch| store.insert_memories(batch, None));
            let stored = self
                .runtime
                .block_on(futures_util::future::try_join_all(calls));
            stored.expect("stored");
            begun.elapsed()
        });
        self.runtime.block_on(store.close());
        rate
    }

    /// Returns how many memories a second `store` stores, to which they are given in parts.
    fn timed(&self, mut store: impl FnMut(&[NewMemory]) -> Duration) -> f64 {
        let mut took = Duration::ZERO;
        for from in (0..self.size).step_by(CALLS * BATCH) {
            let to = self.size.min(from + CALLS * BATCH);
            let memories: Vec<_> = (from..to).map(|n| self.corpus.memory(n)).collect();
            took += store(&memories);
        }
        self.size as f64 / took.as_secs_f64()
    }

    /// Stores the texts in a bare table and its FTS5 index, in one transaction; returns how many a second.
    pub(crate) fn bare_a_second(&self) -> f64 {
        let folder = tempfile::tempdir().expect("a folder");
        let db = Connection::open(folder.path().join("bare.db")).expect("opened");
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
             CREATE TABLE memories (m INTEGER PRIMARY KEY, text TEXT NOT NULL);
             CREATE VIRTUAL TABLE fts USING fts5(text, content = 'memories', content_rowid = 'm');
             BEGIN",
        )
        .expect("made");
        let mut left = self.size;
        self.timed(|memories| {
            let begun = Instant::now();
            let mut row = db
                .prepare_cached("INSERT INTO memories (text) VALUES (?1)")
                .expect("prepared");
            let mut words = db
                .prepare_cached("INSERT INTO fts (rowid, text) VALUES (?1, ?2)")
                .expect("prepared");
            for new in memories {
                let m = row.insert([&new.text]).expect("stored");
                words.execute((m, &new.text)).expect("indexed");
            }
            left -= memories.len();
            if left == 0 {
                db.execute_batch("COMMIT").expect("committed");
            }
            begun.elapsed()
        })
    }
}

pub(crate) fn open(folder: &Path) -> Store {
    Store::open(StoreOptions {
        dir: folder.to_owned(),
        durability: Durability::Normal,
    })
    .expect("opened")
}
