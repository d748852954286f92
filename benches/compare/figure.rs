//! A figure: the subject and its peers, measured in turns (A B A B ...), so that other load on the machine meets all of them
//! alike; ratios are taken within a round.
//!
//! With `--test`, or without cargo's `--bench`, sizes are tiny, there is one round and nothing is kept: that shows that a
//! benchmark works, not how fast the program is.

use crate::peers::Build;
use crate::record::{Goal, Record, Row, Unit};
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// How often each subject is measured, unless a figure says otherwise.
const ROUNDS: usize = 7;

/// How the benchmark was called.
pub(crate) struct Bench {
    quick: bool,
    only: Option<String>,
}

impl Bench {
    /// Reads the program's arguments. One that is no flag selects the figures whose title contains it.
    pub(crate) fn from_args() -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let has = |flag: &str| args.iter().any(|arg| arg == flag);
        Self {
            quick: has("--test") || !has("--bench"),
            only: args.iter().find(|arg| !arg.starts_with('-')).cloned(),
        }
    }

    /// Returns whether this only shows that the benchmark works.
    pub(crate) fn is_quick(&self) -> bool {
        self.quick
    }

    /// Returns whether a figure of this title was asked for.
    pub(crate) fn wants(&self, title: &str) -> bool {
        self.only.as_ref().is_none_or(|only| title.contains(only))
    }

    /// Returns `full`, or `quick` where this only shows that the benchmark works.
    pub(crate) fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Begins a figure with values in `unit`.
    pub(crate) fn figure<'a>(&self, title: impl Into<String>, unit: Unit) -> Figure<'a> {
        Figure {
            title: title.into(),
            unit,
            size: None,
            rounds: self.size(ROUNDS, 1),
            quick: self.quick,
            subjects: Vec::new(),
        }
    }
}

/// Replaces this process by one without the library search path that cargo sets. Every program that a peer starts would
/// search it, which makes a start a fifth slower, while mahavishnu does not pass the variable on.
pub(crate) fn without_cargos_libraries() {
    const PATH: &str = "LD_LIBRARY_PATH";
    if std::env::var_os(PATH).is_some() {
        let program = std::env::current_exe().expect("this program is a file");
        let mut again = Command::new(program);
        again.args(std::env::args_os().skip(1)).env_remove(PATH);
        panic!("cannot run itself again: {}", again.exec());
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
    title: String,
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

    /// Adds each build of mahavishnu, the one under test first. `make` prepares a build and returns its turn.
    pub(crate) fn builds<T: FnMut() -> Vec<f64> + 'a>(
        mut self,
        builds: &[Build],
        mut make: impl FnMut(&Build) -> T,
    ) -> Self {
        for build in builds {
            self = self.add(build.name, make(build));
        }
        self
    }

    /// Adds a subject without a goal; `turn` measures it once and returns the values of its pieces.
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

    /// Adds a fixed value to compare with.
    pub(crate) fn limit(self, name: impl Into<String>, value: f64) -> Self {
        self.add(name, move || vec![value])
    }

    /// Sets the goal of the ratio to the peer that was added last.
    pub(crate) fn goal(mut self, goal: Goal) -> Self {
        if let Some(peer) = self.subjects.last_mut() {
            peer.goal = Some(goal);
        }
        self
    }

    /// Measures all in turns, prints the figure and keeps it.
    ///
    /// # Panics
    ///
    /// When a turn gives no value or the record cannot be written.
    #[expect(clippy::print_stdout, reason = "a benchmark's report")]
    pub(crate) fn run(mut self) {
        let mut turns: Vec<Vec<Vec<f64>>> = self.subjects.iter().map(|_| Vec::new()).collect();
        for _ in 0..self.rounds {
            for (subject, turns) in self.subjects.iter_mut().zip(&mut turns) {
                turns.push((subject.turn)());
            }
        }
        let record = self.record(&turns);
        if self.quick {
            println!("works: {}", record.full_title());
        } else {
            print(&record);
            append(&record);
        }
    }

    fn record(&self, turns: &[Vec<Vec<f64>>]) -> Record {
        let medians: Vec<Vec<f64>> = turns
            .iter()
            .map(|turns| turns.iter().map(|turn| quantile(turn, 0.5)).collect())
            .collect();
        let worst = match self.unit {
            Unit::PerSecond => 0.01,
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
            title: self.title.clone(),
            size: self.size,
            unit: self.unit,
            rounds: self.rounds,
            rows: rows.collect(),
        }
    }
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
    println!("{}", record.full_title());
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

/// Returns the file that keeps every record.
pub(crate) fn records() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench.jsonl")
}

fn append(record: &Record) {
    let path = records();
    let line = serde_json::to_string(record).expect("a record is JSON");
    let file = File::options().append(true).create(true).open(&path);
    file.and_then(|mut file| writeln!(file, "{line}"))
        .unwrap_or_else(|error| panic!("append to {}: {error}", path.display()));
}

/// Prints what is not measured and why.
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
