//! How fast is any search, how near is it to the exact ranking, and how fast are memories stored?
//!
//! `cargo bench --bench search`; `MAHAVISHNU_BENCH_MEMORIES=1000000` adds a size, which takes minutes to fill, and
//! `MAHAVISHNU_BENCH_DIR` keeps what was filled. Baseline in the same run: bare FTS5 on the same file, `ORDER BY bm25()`
//! with its top ten. Warm is end to end through the store's handle; cold is the first query of a newly opened store
//! whose file the system was told to forget.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measured")]

mod corpus;
mod insert;
mod queries;

use corpus::Corpus;
use mahavishnu::model::MemoryQuery;
use mahavishnu::store::{Durability, Store, StoreOptions};
use queries::{Class, classes};
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Memories stored in one call.
const BATCH: usize = 1_000;
/// How often a query is asked; more at the sizes where that takes no time.
const ASKED: usize = 40;
/// How long bare FTS5 is asked the same again.
const BARE_TIME: Duration = Duration::from_millis(300);

fn main() {
    let asked = |flag: &str| std::env::args().any(|argument| argument == flag);
    let smoke = asked("--test") || !asked("--bench");
    let runtime = Runtime::new().expect("a runtime");
    let sizes = if smoke { vec![1_000] } else { sizes() };
    for &size in &sizes {
        let kept = std::env::var_os("MAHAVISHNU_BENCH_DIR").filter(|_| !smoke);
        let temporary = tempfile::tempdir().expect("a folder");
        let folder = match &kept {
            Some(kept) => Path::new(kept).join(size.to_string()),
            None => temporary.path().to_owned(),
        };
        fill(&runtime, &folder, size);
        measure(&runtime, &folder, size);
    }
    insert::measure(&runtime, if smoke { (2, 100) } else { (100, 1_000) });
}

fn sizes() -> Vec<usize> {
    let more = std::env::var("MAHAVISHNU_BENCH_MEMORIES").ok();
    let more = more.map(|more| more.parse().expect("MAHAVISHNU_BENCH_MEMORIES is a number"));
    [10_000, 100_000].into_iter().chain(more).collect()
}

fn open(folder: &Path) -> Store {
    Store::open(StoreOptions {
        dir: folder.to_owned(),
        durability: Durability::Normal,
    })
    .expect("opened")
}

/// Stores the corpus, unless the folder has it already.
fn fill(runtime: &Runtime, folder: &Path, size: usize) {
    let done = folder.join("filled");
    if done.exists() {
        return;
    }
    let (store, corpus, begun) = (open(folder), Corpus::new(), Instant::now());
    for from in (0..size).step_by(BATCH) {
        let new = (from..size.min(from + BATCH)).map(|n| corpus.memory(n));
        let stored = store.insert_memories(new.collect(), None);
        runtime.block_on(stored).expect("stored");
    }
    runtime.block_on(store.close());
    std::fs::write(done, "").expect("noted");
    println!(
        "{size} memories stored in {:.1} s",
        begun.elapsed().as_secs_f64()
    );
}

fn measure(runtime: &Runtime, folder: &Path, size: usize) {
    println!("\n{size} memories: ms");
    println!(
        "{:<34} {:>7} {:>7} {:>7} {:>8} {:>6} {:>8}",
        "query", "p50", "p99", "cold", "bare p50", "exact", "overlap"
    );
    let bare = Connection::open_with_flags(
        folder.join("mahavishnu.db"),
        OpenFlags::SQLITE_OPEN_READ_ONLY,
    );
    let bare = bare.expect("opened");
    let store = open(folder);
    let mut all = Vec::new();
    for class in classes() {
        let row = Row::of(runtime, &store, folder, &bare, &class);
        println!("{:<34} {row}", class.name);
        all.extend(row.warm);
    }
    println!(
        "{:<34} {:>7.2} {:>7.2}",
        "all",
        at(&mut all, 0.5),
        at(&mut all, 0.99)
    );
}

/// What was measured of a class.
struct Row {
    warm: Vec<f64>,
    cold: Vec<f64>,
    bare: Vec<f64>,
    exact: usize,
    queries: usize,
    /// Which part of the exact ranking's first ten were among the first ten.
    overlap: f64,
}

impl Row {
    fn of(
        runtime: &Runtime,
        store: &Store,
        folder: &Path,
        bare: &Connection,
        class: &Class,
    ) -> Self {
        let mut row = Self {
            warm: Vec::new(),
            cold: Vec::new(),
            bare: Vec::new(),
            exact: 0,
            queries: class.queries.len(),
            overlap: 0.0,
        };
        for (query, expression) in &class.queries {
            row.cold.push(cold(runtime, folder, query));
            let (_, page) = ask(runtime, store, query);
            row.exact += usize::from(!page.approximate);
            for _ in 0..ASKED {
                row.warm.push(ask(runtime, store, query).0);
            }
            let ours: BTreeSet<_> = page
                .hits
                .iter()
                .map(|hit| hit.memory.id.to_string())
                .collect();
            let theirs = queries::exact(bare, query, expression);
            let common = theirs.iter().filter(|id| ours.contains(*id)).count();
            #[expect(clippy::cast_precision_loss, reason = "at most ten")]
            let part = if theirs.is_empty() {
                1.0
            } else {
                common as f64 / theirs.len() as f64
            };
            row.overlap += part;
            let begun = Instant::now();
            while row.bare.is_empty() || begun.elapsed() < BARE_TIME {
                row.bare.push(queries::bare(bare, query, expression));
            }
        }
        row
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "a few queries")]
        let queries = self.queries as f64;
        let (warm, cold, bare) = (
            &mut self.warm.clone(),
            &mut self.cold.clone(),
            &mut self.bare.clone(),
        );
        write!(
            f,
            "{:>7.2} {:>7.2} {:>7.1} {:>8.2} {:>4}/{} {:>8.2}",
            at(warm, 0.5),
            at(warm, 0.99),
            at(cold, 0.5),
            at(bare, 0.5),
            self.exact,
            self.queries,
            self.overlap / queries,
        )
    }
}

fn ask(
    runtime: &Runtime,
    store: &Store,
    query: &MemoryQuery,
) -> (f64, mahavishnu::model::MemoryPage) {
    let query = query.clone();
    let begun = Instant::now();
    let page = runtime.block_on(store.find_memories(query)).expect("found");
    (milliseconds(begun), page)
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

/// Asks a store that was just opened, after the system was told to forget its file.
fn cold(runtime: &Runtime, folder: &Path, query: &MemoryQuery) -> f64 {
    #[cfg(target_os = "linux")]
    {
        let file = std::fs::File::open(folder.join("mahavishnu.db")).expect("opened");
        let forget = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        forget.expect("asked the system to forget the file");
    }
    let store = open(folder);
    let (took, _) = ask(runtime, &store, query);
    runtime.block_on(store.close());
    took
}

/// Returns the value below which `part` of `values` lie.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index"
)]
fn at(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values
        .get(((last as f64) * part).round() as usize)
        .copied()
        .unwrap_or(f64::NAN)
}
