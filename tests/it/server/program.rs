//! The real program's own face: help, refusals, exit statuses.

use crate::support::server::Home;

fn run(home: &Home, args: &[&str]) -> (Option<i32>, String, String) {
    let output = home.command().args(args).output().expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn help_and_version_are_no_errors() {
    let home = Home::new();
    let (status, stdout, _) = run(&home, &["--version"]);
    assert_eq!(
        (status, stdout.starts_with("mahavishnu ")),
        (Some(0), true),
        "{stdout}"
    );
    let (status, stdout, _) = run(&home, &["--help"]);
    assert_eq!(status, Some(0));
    assert!(
        stdout.contains("call") && stdout.contains("--state-dir"),
        "{stdout}"
    );
    assert!(
        !stdout.contains("schemas"),
        "what only we need is hidden: {stdout}"
    );
}

#[test]
fn a_bad_config_or_flag_is_refused_before_anything_starts() {
    let home = Home::with_config("max_worker = 3\n");
    let (status, stdout, stderr) = run(&home, &["serve"]);
    assert_eq!((status, stdout.as_str()), (Some(2), ""), "{stderr}");
    assert!(stderr.contains("max_worker"), "{stderr}");
    let (status, stdout, stderr) = run(&home, &["--confi", "x"]);
    assert_eq!((status, stdout.as_str()), (Some(2), ""), "{stderr}");
    assert!(stderr.contains("--config"), "{stderr}");
    let (status, _, stderr) = run(&Home::new(), &["--config", "/no/such/file", "serve"]);
    assert_eq!(status, Some(2));
    assert!(stderr.contains("/no/such/file"), "{stderr}");
}
