//! The outputs of real tools in `tests/causes`, and how many of their reasons are found.

use super::line::telling_line;
use std::fs;
use std::path::{Path, PathBuf};

/// Of ten reasons this many must be found.
const LEAST_OF_TEN: usize = 9;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/causes");
    let entries = fs::read_dir(&folder).expect("the corpus is there");
    let mut cases: Vec<PathBuf> = entries
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    cases
}

fn part(case: &Path, name: &str) -> String {
    let file = case.join(name);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Prints the score. `expected` holds the line that a person would quote; where two lines are as good, both.
#[test]
#[expect(clippy::print_stdout, reason = "the score is what this test reports")]
fn the_reason_is_found_in_outputs_of_real_tools() {
    let cases = cases();
    assert!(cases.len() >= 40, "the corpus has {} cases", cases.len());
    let mut missed = Vec::new();
    for case in &cases {
        let found = telling_line(&part(case, "stdout"), &part(case, "stderr"));
        let found = found.unwrap_or_default();
        let expected = part(case, "expected");
        if !expected.lines().any(|line| line.trim() == found) {
            let name = case.file_name().unwrap_or_default().to_string_lossy();
            missed.push(format!("{name}: found {found:?}, expected {expected:?}"));
        }
    }
    let right = cases.len() - missed.len();
    println!(
        "causes: {right} of {} right\n{}",
        cases.len(),
        missed.join("\n")
    );
    assert!(
        right * 10 >= cases.len() * LEAST_OF_TEN,
        "{right} of {} right:\n{}",
        cases.len(),
        missed.join("\n")
    );
}

/// The line must stand in the output as a terminal shows it: an expectation is quoted, not made up.
#[test]
fn every_expected_line_is_in_its_output() {
    for case in cases() {
        let seen = format!(
            "{}\n{}",
            crate::text::on_screen(&part(&case, "stdout")),
            crate::text::on_screen(&part(&case, "stderr"))
        );
        let expected = part(&case, "expected");
        assert!(!expected.trim().is_empty(), "{}", case.display());
        for line in expected.lines() {
            let is_event = seen.contains(&serde_json::to_string(line).expect("a text"));
            assert!(
                seen.contains(line.trim()) || is_event,
                "{}: {line}",
                case.display()
            );
        }
    }
}
