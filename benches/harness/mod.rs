//! The one harness of all benchmarks.
//!
//! A figure is a subject and its peers, measured in turns (A B A B ...), so that what else the machine does meets all of
//! them alike; ratios are taken within a round. Each turn gives the values of its pieces. Every figure is printed and
//! appended as a [`Record`] to `target/bench.jsonl`. With `--test`, or without cargo's `--bench`, sizes are tiny, there is
//! one round, and nothing is recorded: that shows that a benchmark works, not how fast.

#![allow(dead_code, reason = "each benchmark uses its own part of it")]

pub(crate) mod client;
pub(crate) mod corpus;
pub(crate) mod linux;
pub(crate) mod peers;
pub(crate) mod record;

pub(crate) use record::{Goal, Record, Row, Unit};

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// How often each subject is measured, unless a figure says otherwise.
const ROUNDS: usize = 7;

/// One benchmark program.
pub(crate) struct Bench {
    name: &'static str,
    quick: bool,
    only: Option<String>,
}

impl Bench {
    /// Reads the program's arguments; one that is no flag names the figures to measure, by a part of their name or of
    /// `NAME [SIZE]`.
    pub(crate) fn new(name: &'static str) -> Self {
        without_cargos_libraries();
        let args: Vec<String> = std::env::args().skip(1).collect();
        let has = |flag: &str| args.iter().any(|arg| arg == flag);
        Self {
            name,
            quick: has("--test") || !has("--bench"),
            only: args.iter().find(|arg| !arg.starts_with('-')).cloned(),
        }
    }

    /// Returns `full`, or `quick` where this only shows that the benchmark works.
    pub(crate) fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Begins a figure with values in `unit`.
    pub(crate) fn figure<'a>(&self, figure: impl Into<String>, unit: Unit) -> Figure<'a> {
        Figure {
            bench: self.name,
            only: self.only.clone(),
            figure: figure.into(),
            unit,
            size: None,
            rounds: self.size(ROUNDS, 1),
            quick: self.quick,
            subjects: Vec::new(),
        }
    }
}

/// Begins again without the search path for libraries that cargo sets: every program that a peer starts would look there
/// first, which makes it a fifth slower, while mahavishnu's programs do not get that variable.
fn without_cargos_libraries() {
    const PATH: &str = "LD_LIBRARY_PATH";
    if std::env::var_os(PATH).is_some() {
        let program = std::env::current_exe().expect("this program is a file");
        let mut again = Command::new(program);
        again.args(std::env::args_os().skip(1)).env_remove(PATH);
        panic!("cannot begin again: {}", again.exec());
    }
}

type Turn<'a> = Box<dyn FnMut() -> Vec<f64> + 'a>;

struct Subject<'a> {
    name: String,
    turn: Turn<'a>,
    goal: Option<Goal>,
}

/// A figure in the making: the subject, then its peers.
pub(crate) struct Figure<'a> {
    bench: &'static str,
    only: Option<String>,
    figure: String,
    unit: Unit,
    size: Option<u64>,
    rounds: usize,
    quick: bool,
    subjects: Vec<Subject<'a>>,
}

impl<'a> Figure<'a> {
    /// Sets the size.
    pub(crate) fn of(mut self, size: impl TryInto<u64>) -> Self {
        self.size = size.try_into().ok();
        self
    }

    /// Sets the number of rounds.
    pub(crate) fn rounds(mut self, rounds: usize) -> Self {
        if !self.quick {
            self.rounds = rounds;
        }
        self
    }

    /// Adds the subject, or a peer without a goal; `turn` measures it once and returns its pieces' values.
    pub(crate) fn add(
        mut self,
        name: impl Into<String>,
        turn: impl FnMut() -> Vec<f64> + 'a,
    ) -> Self {
        self.subjects.push(Subject {
            name: name.into(),
            turn: Box::new(turn),
            goal: None,
        });
        self
    }

    /// Says what the ratio to the peer that was added last should be.
    pub(crate) fn goal(mut self, goal: impl Into<Option<Goal>>) -> Self {
        if let Some(peer) = self.subjects.last_mut() {
            peer.goal = goal.into();
        }
        self
    }

    /// Measures all in turns, reports and records it.
    ///
    /// # Panics
    ///
    /// When a turn gives no value or the record cannot be written.
    pub(crate) fn run(mut self) {
        let name = titled(&self.figure, self.size);
        if self.only.as_ref().is_some_and(|only| !name.contains(only)) {
            return;
        }
        let mut turns: Vec<Vec<Vec<f64>>> = self.subjects.iter().map(|_| Vec::new()).collect();
        for _ in 0..self.rounds {
            for (subject, turns) in self.subjects.iter_mut().zip(&mut turns) {
                turns.push((subject.turn)());
            }
        }
        let record = self.record(&turns);
        print(&record);
        if !self.quick {
            append(&record);
        }
    }

    fn record(&self, turns: &[Vec<Vec<f64>>]) -> Record {
        let medians: Vec<Vec<f64>> = turns
            .iter()
            .map(|turns| turns.iter().map(|turn| quantile(turn, 0.5)).collect())
            .collect();
        let worst = match self.unit {
            Unit::PerSecond | Unit::Share => 0.01,
            Unit::Nanoseconds | Unit::Bytes => 0.99,
        };
        let rows = self.subjects.iter().enumerate().map(|(at, subject)| {
            let ratios = medians[0].iter().zip(&medians[at]);
            let ratios: Vec<f64> = ratios.map(|(own, peer)| own / peer).collect();
            Row {
                name: subject.name.clone(),
                median: quantile(&medians[at], 0.5),
                p99: quantile(&turns[at].concat(), worst),
                ratio: (at > 0).then(|| quantile(&ratios, 0.5)),
                goal: subject.goal,
            }
        });
        Record {
            bench: self.bench.to_owned(),
            figure: self.figure.clone(),
            size: self.size,
            unit: self.unit,
            rounds: self.rounds,
            rows: rows.collect(),
        }
    }
}

fn titled(figure: &str, size: Option<u64>) -> String {
    size.map_or(figure.to_owned(), |size| format!("{figure} [{size}]"))
}

/// Returns the value that the part `q` of `values` does not exceed (nearest rank).
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1).expect("a turn gives a value");
    values[(last as f64 * q).round() as usize]
}

#[expect(clippy::print_stdout, reason = "a benchmark's report")]
fn print(record: &Record) {
    println!("{}: {}", record.bench, titled(&record.figure, record.size));
    for row in &record.rows {
        let show = |value| record.unit.show(value);
        let ratio = row.ratio.map(|ratio| format!("  ratio {ratio:.3}"));
        let goal = row.goal.zip(row.ratio).map(|(goal, ratio)| {
            let verdict = if goal.is_met(ratio) { "met" } else { "MISSED" };
            format!("  goal {goal} {verdict}")
        });
        println!(
            "  {:<32} median {:>10}  p99 {:>10}{}{}",
            row.name,
            show(row.median),
            show(row.p99),
            ratio.unwrap_or_default(),
            goal.unwrap_or_default()
        );
    }
}

fn append(record: &Record) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench.jsonl");
    let line = serde_json::to_string(record).expect("a record is JSON");
    let file = File::options().append(true).create(true).open(&path);
    file.and_then(|mut file| writeln!(file, "{line}"))
        .unwrap_or_else(|error| panic!("append to {}: {error}", path.display()));
}

/// Says loudly what is not measured and why.
#[expect(clippy::print_stdout, reason = "a benchmark's report")]
pub(crate) fn skip(what: &str, why: &str) {
    println!("SKIPPED {what}: {why}");
}

/// Returns the nanoseconds that each of `count` calls of `call` takes.
pub(crate) fn each<T>(count: usize, mut call: impl FnMut() -> T) -> Vec<f64> {
    pieces(count, 1, &mut call)
}

/// Returns the nanoseconds that one call of `call` takes, from `count` pieces of `calls` calls each: what takes less than
/// the clock needs several in a piece.
pub(crate) fn pieces<T>(count: usize, calls: usize, mut call: impl FnMut() -> T) -> Vec<f64> {
    let piece = |_| {
        let start = Instant::now();
        for _ in 0..calls {
            std::hint::black_box(call());
        }
        start.elapsed().as_nanos() as f64 / calls as f64
    };
    (0..count).map(piece).collect()
}

/// Returns how many of `items` went in a second while `run` ran, as a turn's one piece.
pub(crate) fn rate<T>(items: usize, run: impl FnOnce() -> T) -> Vec<f64> {
    let start = Instant::now();
    std::hint::black_box(run());
    vec![items as f64 / start.elapsed().as_secs_f64()]
}
