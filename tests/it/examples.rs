//! The scripts that the README names, run as a person runs them.

use crate::support::binary;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

/// Runs an example with the built server, with no input.
fn run(script: &str) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    Command::new(root.join("examples").join(script))
        .env("MAHAVISHNU", binary())
        .stdin(std::process::Stdio::null())
        .output()
        .expect("bash is there")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_first_run_shows_the_main_job_with_one_failure() {
    let output = run("first-run.sh");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains(r#""status":"partial""#), "{stdout}");
    assert!(stdout.contains(r#""succeeded":5,"failed":1"#), "{stdout}");
    assert!(stderr.contains("the exit status is 1"), "{stderr}");
}

#[test]
fn results_come_home_exactly_as_the_readme_tells() {
    if Command::new("python3").arg("--version").output().is_err() {
        // Written past the test runner's capture: a skipped test must not look like a passed one.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED results_come_home_exactly_as_the_readme_tells: python3 is missing"
        );
        return;
    }
    let output = run("results-home.sh");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).expect("it is there");
    let shown = readme
        .split_once("<!-- results-home:begin -->\n```text\n")
        .and_then(|(_, rest)| rest.split_once("```\n<!-- results-home:end -->"))
        .map(|(shown, _)| shown)
        .expect("the README has the block");
    assert_eq!(
        shown, stdout,
        "the README differs from what examples/results-home.sh prints: paste it in"
    );
}
