//! How fast are memories stored, how fast is any search, and how near is it to the exact ranking?
//!
//! Stores of 10,000, 100,000 and 1,000,000 memories, and all sorts of queries (`queries`). Beside it bare SQLite and FTS5:
//! one transaction for all memories, and on the same file `ORDER BY bm25()` with its top ten. Warm is end to end through
//! the store's handle; cold is the first query of a newly opened store whose file the system was told to forget.
//!
//! `cargo bench --bench search -- '[100000]'` measures one size; `MAHAVISHNU_BENCH_DIR` keeps what was filled.

mod asked;
mod filled;
#[path = "../harness/mod.rs"]
mod harness;
mod queries;

use asked::{Asked, Nearness, mean};
use filled::Filled;
use harness::{Bench, Goal, Unit};
use std::cell::OnceCell;
use tokio::runtime::Runtime;

/// The most that a search should take, in nanoseconds: 99 of 100 of any sort, at the largest size.
const LIMIT: f64 = 10e6;
const LARGEST: usize = 1_000_000;
/// The calls of the claim: 100 pools' 1,000 memories at once.
const CLAIMED: usize = 100_000;

fn main() {
    let bench = Bench::new("search");
    let runtime = Runtime::new().expect("a runtime");
    for &size in bench.size(&[10_000, CLAIMED, LARGEST][..], &[1_000]) {
        let filled = Filled::new(&runtime, size);
        let rounds = if size == LARGEST { 1 } else { 5 };
        storing(&bench, &filled, size, rounds);
        let asked = Asked::new(&filled, bench.size(40, 1));
        searching(&bench, &asked, size, rounds);
        ranking(&bench, &asked, size);
    }
}

fn storing(bench: &Bench, filled: &Filled<'_>, size: usize, rounds: usize) {
    bench
        .figure("memories stored", Unit::PerSecond)
        .of(size)
        .rounds(rounds)
        .add("mahavishnu", || vec![filled.stored_a_second()])
        .add("SQLite and FTS5, one transaction", || {
            vec![filled.bare_a_second()]
        })
        .goal((size == CLAIMED).then_some(Goal::AtLeast(0.5)))
        .run();
}

fn searching(bench: &Bench, asked: &Asked<'_>, size: usize, rounds: usize) {
    bench
        .figure("search, warm", Unit::Nanoseconds)
        .of(size)
        .rounds(rounds)
        .add("mahavishnu", || asked.warm())
        .add("FTS5 with bm25", || asked.bare())
        .run();
    bench
        .figure("p99 of the slowest sort of search, warm", Unit::Nanoseconds)
        .of(size)
        .rounds(3)
        .add("mahavishnu", || vec![asked.slowest()])
        .add("the limit", || vec![LIMIT])
        .goal((size == LARGEST).then_some(Goal::AtMost(1.0)))
        .run();
    bench
        .figure("search, cold", Unit::Nanoseconds)
        .of(size)
        .rounds(1)
        .add("mahavishnu", || asked.cold())
        .add("FTS5 with bm25", || asked.bare_cold())
        .run();
}

fn ranking(bench: &Bench, asked: &Asked<'_>, size: usize) {
    let compared = OnceCell::new();
    let compared = || compared.get_or_init(|| asked.nearness());
    let share = |figure: &str, of: &dyn Fn(&[Nearness]) -> f64| {
        bench
            .figure(figure, Unit::Share)
            .of(size)
            .rounds(1)
            .add("mahavishnu", || vec![of(compared())])
            .run();
    };
    share("searches answered exactly", &|near| {
        mean(near.iter().map(|near| f64::from(u8::from(near.exact))))
    });
    share("overlap of the first ten with the exact ranking", &|near| {
        mean(near.iter().map(|near| near.overlap))
    });
    share("the same of the approximate answers", &|near| {
        let approximate = near.iter().filter(|near| !near.exact);
        let overlaps: Vec<_> = approximate.map(|near| near.overlap).collect();
        if overlaps.is_empty() {
            1.0
        } else {
            mean(overlaps.into_iter())
        }
    });
}
