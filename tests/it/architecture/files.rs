//! The shape of the files: their length, thin `mod.rs`, one style of folders, one type of a name in each layer, and no
//! file that is never compiled.

use super::source::{Source, definition, is_type};
use super::{only_shrinks, root};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::Visibility;

/// The most lines of a source file; past this it is probably two things.
const LONGEST: usize = 600;

/// The most lines of a `mod.rs`, unit tests aside: its doc, re-exports and at most a thin handle.
const LONGEST_MOD: usize = 150;

/// Each `mod.rs` that is still longer.
const TO_THIN: &[&str] = &[];

/// Files that still lie beside the folder of their submodules.
const TO_FOLD: &[&str] = &["orchestrator/memory/cache.rs"];

/// Type names that a layer still defines twice, as `layer::Name`.
const TO_RENAME: &[&str] = &["store::Entry"];

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder can be listed") {
        let path = entry.expect("the folder can be listed").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns each file of `src/` by its path in there, with its text.
fn sources() -> Vec<(String, String)> {
    let folder = root().join("src");
    let name = |path: &Path| {
        let inner = path.strip_prefix(&folder).expect("below src");
        inner.to_str().expect("UTF-8").to_owned()
    };
    let files = rust_files(&folder);
    files.iter().map(|path| (name(path), read(path))).collect()
}

#[test]
fn no_source_file_is_overlong() {
    let long: Vec<String> = sources()
        .iter()
        .map(|(file, text)| (file, text.lines().count()))
        .filter(|(_, lines)| *lines > LONGEST)
        .map(|(file, lines)| format!("{file}: {lines} lines"))
        .collect();
    assert!(
        long.is_empty(),
        "over {LONGEST} lines:\n{}",
        long.join("\n")
    );
}

#[test]
fn a_mod_file_is_thin() {
    let thick: BTreeSet<String> = sources()
        .into_iter()
        .filter(|(file, text)| file.ends_with("mod.rs") && mod_lines(text) > LONGEST_MOD)
        .map(|(file, _)| file)
        .collect();
    let rule = format!("a mod.rs has at most {LONGEST_MOD} lines before its unit tests");
    only_shrinks(&rule, thick, TO_THIN);
}

/// Returns the lines of a file before its unit tests.
fn mod_lines(text: &str) -> usize {
    let code = text.lines().take_while(|line| *line != "#[cfg(test)]");
    code.count()
}

/// A module with files below it lies in their folder, as `mod.rs`.
#[test]
fn a_folder_is_a_module_of_one_style() {
    let sources = sources();
    let beside = |file: &str| {
        let folder = format!("{}/", file.trim_end_matches(".rs"));
        sources.iter().any(|(other, _)| other.starts_with(&folder))
    };
    let files = sources.iter().map(|(file, _)| file.clone());
    only_shrinks(
        "`x.rs` belongs into `x/mod.rs` where there is a folder `x`",
        files.filter(|file| beside(file)).collect(),
        TO_FOLD,
    );
}

/// Returns as `layer::Name` what types and traits a layer defines more than once, private ones aside.
fn doubled_types(source: &Source) -> BTreeSet<String> {
    let mut files: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for module in &source.modules {
        let layer = module.path.first().map_or("lib", String::as_str);
        for item in module.items.iter().filter(|item| is_type(item)) {
            match definition(item) {
                Some((_, Visibility::Inherited)) | None => {}
                Some((name, _)) => {
                    let found = files.entry(format!("{layer}::{name}")).or_default();
                    found.push(&module.file);
                }
            }
        }
    }
    let doubled = files.into_iter().filter(|(_, files)| files.len() > 1);
    doubled.map(|(name, _)| name).collect()
}

#[test]
fn no_layer_has_two_types_of_one_name() {
    let doubled = doubled_types(&Source::read(&root().join("src")));
    only_shrinks("a layer has one type of a name", doubled, TO_RENAME);
}

#[test]
fn two_types_of_one_name_would_be_seen() {
    let source = Source::of(&[
        ("lib.rs", "mod a; mod b;"),
        ("a/mod.rs", "mod c; mod d; pub struct Own;"),
        ("a/c.rs", "pub(super) struct End; struct Hidden;"),
        ("a/d.rs", "pub enum End {} struct Hidden;"),
        ("b.rs", "pub struct Own;"),
    ]);
    let doubled: Vec<String> = doubled_types(&source).into_iter().collect();
    assert_eq!(doubled, ["a::End"]);
}

#[test]
fn no_test_file_is_forgotten() {
    let folder = root().join("tests/it");
    for path in rust_files(&folder) {
        let inner = path.strip_prefix(&folder).expect("it lies there");
        if inner == Path::new("main.rs") {
            continue;
        }
        let is_mod = path.file_name().is_some_and(|name| name == "mod.rs");
        let own = if is_mod { path.parent() } else { Some(&*path) };
        let own = own.expect("a file lies in a folder");
        let name = own.file_stem().and_then(|name| name.to_str());
        let line = format!("mod {};", name.expect("UTF-8"));
        let parent = own.parent().expect("below tests/it");
        let named_in = if parent == folder {
            folder.join("main.rs")
        } else if parent.join("mod.rs").exists() {
            parent.join("mod.rs")
        } else {
            parent.with_extension("rs")
        };
        let is_named = read(&named_in)
            .lines()
            .any(|found| found.trim().ends_with(&line));
        assert!(
            is_named,
            "{} never runs: add `{line}` to {}",
            path.display(),
            named_in.display()
        );
    }
}
