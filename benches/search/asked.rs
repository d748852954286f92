//! Asking a filled store, and FTS5 on the same file.

use super::filled::{Filled, open};
use super::harness::quantile;
use super::queries::{self, Class, classes};
use mahavishnu::model::{MemoryPage, MemoryQuery};
use mahavishnu::store::Store;
use rusqlite::{Connection, OpenFlags};
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::time::Instant;

/// A filled store, opened when it is first asked.
pub(crate) struct Asked<'a> {
    filled: &'a Filled<'a>,
    opened: OnceCell<(Store, Connection)>,
    /// How often each query is asked in a turn.
    times: usize,
    classes: Vec<Class>,
}

/// How near an answer comes to the exact ranking.
pub(crate) struct Nearness {
    pub(crate) exact: bool,
    /// Which part of the exact ranking's first ten are among the answer's.
    pub(crate) overlap: f64,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(filled: &'a Filled<'a>, times: usize) -> Self {
        Self {
            filled,
            opened: OnceCell::new(),
            times,
            classes: classes(),
        }
    }

    fn opened(&self) -> &(Store, Connection) {
        self.opened.get_or_init(|| {
            let folder = self.filled.folder();
            (open(folder), self.bare_file())
        })
    }

    fn bare_file(&self) -> Connection {
        let file = self.filled.folder().join("mahavishnu.db");
        Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("opened")
    }

    fn queries(&self) -> impl Iterator<Item = &(MemoryQuery, String)> {
        self.classes.iter().flat_map(|class| &class.queries)
    }

    fn ask(&self, store: &Store, query: &MemoryQuery) -> (f64, MemoryPage) {
        let query = query.clone();
        let begun = Instant::now();
        let page = self.filled.runtime.block_on(store.find_memories(query));
        (nanoseconds(begun), page.expect("found"))
    }

    fn warm_of(&self, class: &Class) -> Vec<f64> {
        let store = &self.opened().0;
        let mut took = Vec::new();
        for (query, _) in &class.queries {
            // The first one warms.
            self.ask(store, query);
            took.extend((0..self.times).map(|_| self.ask(store, query).0));
        }
        took
    }

    /// Returns the nanoseconds of each of all queries, asked several times.
    pub(crate) fn warm(&self) -> Vec<f64> {
        let classes = self.classes.iter();
        classes.flat_map(|class| self.warm_of(class)).collect()
    }

    /// Returns the nanoseconds that one query in a hundred of the slowest sort takes at least; prints all sorts.
    #[expect(clippy::print_stdout, reason = "a benchmark's report")]
    pub(crate) fn slowest(&self) -> f64 {
        println!("  sort of query: median and p99 in ms");
        let mut slowest = 0.0;
        for class in &self.classes {
            let took = self.warm_of(class);
            let (median, p99) = (quantile(&took, 0.5), quantile(&took, 0.99));
            println!(
                "  {:<34} {:>7.2} {:>7.2}",
                class.name,
                median / 1e6,
                p99 / 1e6
            );
            slowest = f64::max(slowest, p99);
        }
        slowest
    }

    /// Returns the nanoseconds that FTS5 takes for each of all queries.
    pub(crate) fn bare(&self) -> Vec<f64> {
        let bare = &self.opened().1;
        let bare = |(query, expression): &(MemoryQuery, String)| {
            let begun = Instant::now();
            std::hint::black_box(queries::bare(bare, query, expression));
            nanoseconds(begun)
        };
        self.queries().map(bare).collect()
    }

    /// Asks one query of each sort of a store that was just opened, after the system was told to forget its file.
    pub(crate) fn cold(&self) -> Vec<f64> {
        let firsts = self
            .classes
            .iter()
            .filter_map(|class| class.queries.first());
        let ask = |(query, _): &(MemoryQuery, String)| {
            self.forget();
            let store = open(self.filled.folder());
            let (took, _) = self.ask(&store, query);
            self.filled.runtime.block_on(store.close());
            took
        };
        firsts.map(ask).collect()
    }

    /// Asks FTS5 the same as [`Self::cold`].
    pub(crate) fn bare_cold(&self) -> Vec<f64> {
        let firsts = self
            .classes
            .iter()
            .filter_map(|class| class.queries.first());
        let ask = |(query, expression): &(MemoryQuery, String)| {
            self.forget();
            let begun = Instant::now();
            std::hint::black_box(queries::bare(&self.bare_file(), query, expression));
            nanoseconds(begun)
        };
        firsts.map(ask).collect()
    }

    /// Makes the system forget the file, where it can be asked to.
    fn forget(&self) {
        #[cfg(target_os = "linux")]
        {
            let file = std::fs::File::open(self.filled.folder().join("mahavishnu.db"));
            let file = file.expect("opened");
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("asked");
        }
    }

    /// Compares every answer with the exact ranking, and prints that sort by sort.
    ///
    /// # Panics
    ///
    /// When an answer says that it is exact and is not.
    #[expect(clippy::print_stdout, reason = "a benchmark's report")]
    pub(crate) fn nearness(&self) -> Vec<Nearness> {
        println!("  sort of query: exact answers, overlap of the first ten");
        let mut all = Vec::new();
        for class in &self.classes {
            let near: Vec<_> = class.queries.iter().map(|asked| self.near(asked)).collect();
            println!(
                "  {:<34} {:>4}/{} {:>6.2}",
                class.name,
                near.iter().filter(|near| near.exact).count(),
                near.len(),
                mean(near.iter().map(|near| near.overlap)),
            );
            all.extend(near);
        }
        all
    }

    fn near(&self, (query, expression): &(MemoryQuery, String)) -> Nearness {
        let (store, bare) = self.opened();
        let (_, page) = self.ask(store, query);
        let hits = page.hits.iter().map(|hit| hit.memory.id.to_string());
        let ours: BTreeSet<_> = hits.collect();
        let theirs = queries::exact(bare, query, expression);
        let common = theirs.iter().filter(|id| ours.contains(*id)).count();
        let overlap = if theirs.is_empty() {
            1.0
        } else {
            common as f64 / theirs.len() as f64
        };
        let exact = !page.approximate;
        assert!(
            !exact || overlap == 1.0,
            "{query:?} is not exact: {overlap}"
        );
        Nearness { exact, overlap }
    }
}

pub(crate) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
    sum / count
}

fn nanoseconds(begun: Instant) -> f64 {
    begun.elapsed().as_nanos() as f64
}
