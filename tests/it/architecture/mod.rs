//! The conventions that the source keeps, read from the source.
//!
//! [`source`] parses `src/` into modules, [`names`] resolves what each file names to the file that defines it. On top of
//! them: [`layers`] (requests go down, results come up), [`circles`] (no file depends on itself by way of others) and
//! [`files`] (sizes, folders, duplicate type names, forgotten tests).

mod circles;
mod files;
mod layers;
mod names;
mod source;

use std::collections::BTreeSet;
use std::path::Path;

/// Returns the repository's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Fails for each breach that is not in `left`, the list of those that remain from before the rule, and for each entry of
/// `left` that is no breach any more, so that the list only shrinks.
///
/// # Panics
///
/// With `rule` and the breaches.
fn only_shrinks(rule: &str, breaches: BTreeSet<String>, left: &[&str]) {
    let left: BTreeSet<String> = left.iter().map(|&breach| breach.to_owned()).collect();
    let show = |lines: Vec<&String>| {
        let lines = lines.iter().map(|line| format!("  {line}\n"));
        lines.collect::<String>()
    };
    let new = show(breaches.difference(&left).collect());
    assert!(new.is_empty(), "{rule}:\n{new}");
    let mended = show(left.difference(&breaches).collect());
    assert!(
        mended.is_empty(),
        "no breach any more, remove from the list in tests/it/architecture: {rule}:\n{mended}"
    );
}
