//! The tables: `benches/RESULTS.md` with every figure, and the README's with those that a user would ask about.

use crate::figure::{Bench, records};
use crate::record::{Record, Row};
use mahavishnu::cli::with_section;
use std::fmt::Write;
use std::path::Path;

/// The README's section that holds the table.
const SECTION: &str = "bench";

/// The README's rows: the beginning of a figure's title, and what the row is called.
const ROWS: [(&str, &str); 12] = [
    ("list_pools, one call out", "`list_pools`, answer time"),
    (
        "cached search, one call out",
        "a search made before, answer time",
    ),
    ("list_pools, 64 calls out, pipes", "64 calls at once"),
    ("cold start", "from start to the first tool's answer"),
    ("idle memory", "memory of an idle server"),
    (
        "workflow items of true",
        "items of `true` in a workflow, 8 slots",
    ),
    (
        "worktree item in a repository of many files, from call",
        "a worktree of 80,000 files, until the program starts",
    ),
    (
        "worktree item in a repository of many files, whole",
        "the same, whole: with commit and clean",
    ),
    ("route and release [10000]", "choosing among 10,000 pools"),
    (
        "aggregation 5 x 100, peer of 8 at once, known",
        "500 memories collected and forwarded, slow peer",
    ),
    (
        "aggregation 5 x 100, peer of 500 at once, first",
        "the same at first contact, fast peer",
    ),
    (
        "memory with items in flight",
        "memory with 10,000 items running",
    ),
];

/// Writes both tables from all records, where the machine is described by `MAHAVISHNU_BENCH_MACHINE`.
///
/// # Panics
///
/// When a file cannot be read or written.
pub(crate) fn write(bench: &Bench) {
    let Ok(machine) = std::env::var("MAHAVISHNU_BENCH_MACHINE") else {
        return;
    };
    if bench.is_quick() {
        return;
    }
    let lines = std::fs::read_to_string(records()).expect("the records can be read");
    let records = latest(&lines);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let results = format!(
        "# Benchmark results\n\nWritten by `benches/compare.sh`. {machine}\n\n{}\n{}",
        figures(&records),
        misses(&records)
    );
    std::fs::write(root.join("benches/RESULTS.md"), results).expect("it can be written");
    let readme = root.join("README.md");
    let text = std::fs::read_to_string(&readme).expect("there is a README");
    let body = format!("{machine}\n\n{}\n{}", rows(&records), misses(&records));
    let text = with_section(&text, SECTION, &body).expect("the README has the section");
    std::fs::write(readme, text).expect("it can be written");
}

/// Returns the last record of each figure, in the order in which the figures were first measured.
fn latest(lines: &str) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    for line in lines.lines() {
        let new: Record = serde_json::from_str(line).expect("a line is a record");
        match records
            .iter_mut()
            .find(|old| old.full_title() == new.full_title())
        {
            Some(old) => *old = new,
            None => records.push(new),
        }
    }
    records
}

/// Returns the peers of a record that have a goal, with the ratio and whether it is met.
fn goals(record: &Record) -> impl Iterator<Item = (&Row, String, bool)> {
    record.rows.iter().filter_map(|row| {
        let (goal, ratio) = row.goal.zip(row.ratio)?;
        Some((row, format!("{ratio:.2} ({goal})"), goal.is_met(ratio)))
    })
}

/// Every figure, a line for each peer.
fn figures(records: &[Record]) -> String {
    let mut table = String::from(
        "| figure | median | p99 | beside | its median | ratio | goal | |\n|---|---:|---:|---|---:|---:|---|---|\n",
    );
    for record in records {
        let Some((own, peers)) = record.rows.split_first() else {
            continue;
        };
        let show = |value| record.unit.show(value);
        let mut head = format!(
            "{} | {} | {}",
            record.full_title(),
            show(own.median),
            show(own.p99)
        );
        for peer in peers {
            let ratio = peer.ratio.unwrap_or(f64::NAN);
            let (goal, verdict) = match peer.goal {
                Some(goal) if goal.is_met(ratio) => (goal.to_string(), "met"),
                Some(goal) => (goal.to_string(), "**missed**"),
                None => (String::new(), ""),
            };
            let median = show(peer.median);
            line(
                &mut table,
                format_args!(
                    "| {head} | {} | {median} | {ratio:.2} | {goal} | {verdict} |",
                    peer.name
                ),
            );
            " | | ".clone_into(&mut head);
        }
    }
    table
}

/// The README's rows, one for each figure that was measured.
fn rows(records: &[Record]) -> String {
    let mut table = String::from("| | mahavishnu | beside | ratio (goal) |\n|---|---:|---|---|\n");
    for (title, name) in ROWS {
        let found = records
            .iter()
            .find(|record| record.full_title().starts_with(title));
        let Some((record, own)) = found.and_then(|record| Some((record, record.rows.first()?)))
        else {
            continue;
        };
        let show = |value| record.unit.show(value);
        let beside: Vec<String> = goals(record)
            .map(|(peer, _, _)| format!("{} {}", peer.name, show(peer.median)))
            .collect();
        let ratios: Vec<String> = goals(record).map(|(_, ratio, _)| ratio).collect();
        line(
            &mut table,
            format_args!(
                "| {name} | {} | {} | {} |",
                show(own.median),
                beside.join(", "),
                ratios.join(", ")
            ),
        );
    }
    table
}

/// Names every goal that is missed.
fn misses(records: &[Record]) -> String {
    let mut missed: Vec<String> = Vec::new();
    for record in records {
        for (peer, ratio, is_met) in goals(record) {
            if !is_met {
                missed.push(format!(
                    "{} beside {}: {ratio}",
                    record.full_title(),
                    peer.name
                ));
            }
        }
    }
    match missed.as_slice() {
        [] => "No goal is missed.\n".to_owned(),
        missed => format!("Missed: {}.\n", missed.join("; ")),
    }
}

fn line(table: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(table, "{line}").expect("a string takes everything");
}
