//! Writes what the benchmarks measured into a README: `bench_table RECORDS README MACHINE`.
//!
//! RECORDS is `target/bench.jsonl`; of a figure that was measured several times, the last counts. MACHINE is the text that
//! says what it was measured on.

mod record;

use mahavishnu::cli::with_section;
use record::{Record, Unit};
use std::error::Error;
use std::fmt::Write;

/// The README's section that holds the table.
const SECTION: &str = "bench";

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [records, readme, machine] = args.as_slice() else {
        return Err("usage: bench_table RECORDS README MACHINE".into());
    };
    let records = read(&std::fs::read_to_string(records)?)?;
    let body = format!("{machine}\n\n{}\n{}", figures(&records), growth(&records));
    let text = std::fs::read_to_string(readme)?;
    let text = with_section(&text, SECTION, &body)
        .ok_or_else(|| format!("{readme} has no section `{SECTION}`"))?;
    std::fs::write(readme, text)?;
    Ok(())
}

/// Returns the last record of each figure, in the order in which the figures were first measured.
fn read(lines: &str) -> Result<Vec<Record>, serde_json::Error> {
    let mut records: Vec<Record> = Vec::new();
    for line in lines.lines() {
        let new: Record = serde_json::from_str(line)?;
        let key = |record: &Record| (record.bench.clone(), record.figure.clone(), record.size);
        match records.iter_mut().find(|old| key(old) == key(&new)) {
            Some(old) => *old = new,
            None => records.push(new),
        }
    }
    Ok(records)
}

fn figures(records: &[Record]) -> String {
    let mut table = String::from(
        "| what | size | median | p99 | beside | its median | ratio | goal |\n|---|---:|---:|---:|---|---:|---:|---|\n",
    );
    for record in records {
        let Some((own, peers)) = record.rows.split_first() else {
            continue;
        };
        let size = record.size.map(grouped).unwrap_or_default();
        let head = format!(
            "{}: {} | {size} | {} | {}",
            record.bench,
            record.figure,
            record.unit.show(own.median),
            record.unit.show(own.p99)
        );
        if peers.is_empty() {
            line(&mut table, format_args!("| {head} | | | | |"));
        }
        for (at, peer) in peers.iter().enumerate() {
            let head = if at == 0 { head.as_str() } else { " | | |" };
            let ratio = peer.ratio.unwrap_or(f64::NAN);
            let (mark, goal) = match peer.goal {
                Some(goal) if goal.is_met(ratio) => ("", goal.to_string()),
                Some(goal) => ("**", goal.to_string()),
                None => ("", String::new()),
            };
            let median = record.unit.show(peer.median);
            line(
                &mut table,
                format_args!(
                    "| {head} | {} | {median} | {mark}{ratio:.2}{mark} | {goal} |",
                    peer.name
                ),
            );
        }
    }
    table
}

/// The slopes of the figures that were measured at several sizes.
fn growth(records: &[Record]) -> String {
    const LEAST_SIZES: usize = 3;
    let mut table = String::from(
        "| grows with its size | from | to | as size to the power of |\n|---|---:|---:|---:|\n",
    );
    let mut told: Vec<(&str, &str)> = Vec::new();
    for record in records {
        let key = (record.bench.as_str(), record.figure.as_str());
        if matches!(record.unit, Unit::PerSecond | Unit::Share) || told.contains(&key) {
            continue;
        }
        told.push(key);
        let same = records
            .iter()
            .filter(|other| (other.bench.as_str(), other.figure.as_str()) == key);
        let points: Vec<(f64, f64)> = same
            .filter_map(|other| Some((other.size? as f64, other.rows.first()?.median)))
            .collect();
        if points.len() < LEAST_SIZES {
            continue;
        }
        let sizes = points.iter().map(|point| point.0 as u64);
        let (least, most) = (sizes.clone().min().unwrap_or(0), sizes.max().unwrap_or(0));
        line(
            &mut table,
            format_args!(
                "| {}: {} | {} | {} | {:.2} |",
                key.0,
                key.1,
                grouped(least),
                grouped(most),
                slope(&points)
            ),
        );
    }
    table
}

/// Returns the slope of the least-squares line through the points' logarithms.
fn slope(points: &[(f64, f64)]) -> f64 {
    let logs: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let count = logs.len() as f64;
    let mean_x = logs.iter().map(|point| point.0).sum::<f64>() / count;
    let mean_y = logs.iter().map(|point| point.1).sum::<f64>() / count;
    let both = logs.iter().map(|(x, y)| (x - mean_x) * (y - mean_y));
    let square = logs.iter().map(|(x, _)| (x - mean_x).powi(2));
    both.sum::<f64>() / square.sum::<f64>()
}

fn line(table: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(table, "{line}").expect("a string takes everything");
}

/// Returns `number` with its digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use record::{Goal, Row};

    fn record(size: u64, median: f64, ratio: f64) -> Record {
        let row = |name: &str, ratio, goal| Row {
            name: name.to_owned(),
            median,
            p99: median * 2.0,
            ratio,
            goal,
        };
        Record {
            bench: "b".to_owned(),
            figure: "f".to_owned(),
            size: Some(size),
            unit: Unit::Nanoseconds,
            rounds: 7,
            rows: vec![
                row("ours", None, None),
                row("peer", Some(ratio), Some(Goal::AtMost(1.3))),
            ],
        }
    }

    #[test]
    fn a_missed_goal_is_seen_and_a_met_one_is_not_marked() {
        let table = figures(&[record(1_000, 1_500.0, 1.2), record(10, 20.0, 2.5)]);
        assert!(
            table
                .contains("| b: f | 1,000 | 1.50 µs | 3.00 µs | peer | 1.50 µs | 1.20 | ≤ 1.3 |\n"),
            "{table}"
        );
        assert!(table.contains("| **2.50** | ≤ 1.3 |\n"), "{table}");
    }

    #[test]
    fn growth_is_the_exponent() {
        let quadratic = [10, 100, 1_000].map(|size| record(size, (size * size) as f64, 1.0));
        let table = growth(&quadratic);
        assert!(table.contains("| b: f | 10 | 1,000 | 2.00 |"), "{table}");
        assert!(!growth(&quadratic[..2]).contains("b: f"));
    }

    #[test]
    fn the_last_measurement_counts() {
        let lines: Vec<String> = [1.0, 2.0]
            .map(|ratio| serde_json::to_string(&record(10, 5.0, ratio)).expect("JSON"))
            .into();
        let read = read(&lines.join("\n")).expect("records");
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].rows[1].ratio, Some(2.0));
    }
}
