//! The conventions that the source keeps, read from the source.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Which modules of this crate each layer may name. Leaves may name leaves.
const LAYERS: &[(&str, &[&str])] = &[
    ("server", &["orchestrator"]),
    (
        "orchestrator",
        &["worker", "session_buddy", "repo", "store"],
    ),
    ("worker", &[]),
    ("session_buddy", &[]),
    ("repo", &[]),
    ("store", &[]),
];

/// Modules that any layer may name. They name no layer.
const LEAVES: &[&str] = &[
    "api",
    "config",
    "error",
    "mcp_client",
    "model",
    "panic",
    "process",
    "redact",
    "resilience",
    "shutdown",
    "text",
];

/// Modules beside the layers: the front of the program, which may name any of them.
const FRONT: &[&str] = &["cli", "main", "lib"];

/// The longest a source file may be, in lines; past this it is probably two things.
const LONGEST: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

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

/// Returns the top module that a file of `src/` lies in: `worker` for `src/worker/mcp.rs`.
fn module(path: &Path) -> String {
    let inner = path.strip_prefix(root().join("src")).expect("below src");
    let first = inner.components().next().expect("a file has a name");
    let name = first.as_os_str().to_str().expect("UTF-8");
    name.strip_suffix(".rs").unwrap_or(name).to_owned()
}

/// Returns the top modules that a source names by `crate::`, also in `use crate::{a, b}`.
fn named(source: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    let code: String = source
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    for (at, prefix) in code.match_indices("crate::") {
        let longer = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if longer {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => modules.extend(heads(group)),
            None => modules.extend(word(rest)),
        }
    }
    modules
}

/// Returns the first words of a `use` group's entries at its own depth.
fn heads(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut starts = vec![0];
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => starts.push(at + 1),
            _ => {}
        }
    }
    starts
        .into_iter()
        .filter_map(|at| word(group[at..].trim_start()))
        .collect()
}

fn word(text: &str) -> Option<String> {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

/// Returns what is wrong with `source`, a file of module `module`, as the layers go.
fn breaches(module: &str, source: &str) -> Vec<String> {
    let layer = LAYERS.iter().find(|(name, _)| *name == module);
    let below: &[&str] = match layer {
        Some((_, below)) => below,
        None if LEAVES.contains(&module) => &[],
        None => return Vec::new(),
    };
    named(source)
        .into_iter()
        .filter(|other| other != module && LAYERS.iter().any(|(name, _)| name == other))
        .filter(|other| !below.contains(&other.as_str()))
        .map(|other| format!("`{module}` names `{other}`"))
        .collect()
}

#[test]
fn no_layer_names_one_above_or_beside_it() {
    let breaches: Vec<String> = rust_files(&root().join("src"))
        .iter()
        .flat_map(|path| {
            let found = breaches(&module(path), &read(path));
            found
                .into_iter()
                .map(move |breach| format!("{}: {breach}", path.display()))
        })
        .collect();
    assert!(
        breaches.is_empty(),
        "requests go down, results come up:\n{}",
        breaches.join("\n")
    );
}

#[test]
fn a_breach_of_the_layers_would_be_seen() {
    assert_eq!(
        breaches("worker", "use crate::store::Store;"),
        ["`worker` names `store`"]
    );
    assert_eq!(
        breaches("config", "fn f() { crate::server::start() }"),
        ["`config` names `server`"]
    );
    assert_eq!(
        breaches(
            "repo",
            "use crate::{error::{Fault, Problem}, worker::{Worker}};"
        ),
        ["`repo` names `worker`"]
    );
    assert_eq!(
        breaches("server", "use crate::store::Store;"),
        ["`server` names `store`"]
    );
    assert!(breaches("orchestrator", "use crate::{store, worker, model};").is_empty());
    assert!(
        breaches(
            "store",
            "use crate::model; // not crate::worker\nmycrate::worker::x()"
        )
        .is_empty()
    );
}

#[test]
fn every_module_has_its_place_in_the_picture() {
    for path in rust_files(&root().join("src")) {
        let module = module(&path);
        let known = LAYERS.iter().any(|(name, _)| *name == module)
            || LEAVES.contains(&module.as_str())
            || FRONT.contains(&module.as_str());
        assert!(
            known,
            "{} is neither a layer nor a leaf: say in tests/it/architecture.rs which it is",
            path.display()
        );
    }
}

#[test]
fn no_source_file_is_overlong() {
    let long: Vec<String> = rust_files(&root().join("src"))
        .iter()
        .map(|path| (path, read(path).lines().count()))
        .filter(|(_, lines)| *lines > LONGEST)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(
        long.is_empty(),
        "over {LONGEST} lines:\n{}",
        long.join("\n")
    );
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
