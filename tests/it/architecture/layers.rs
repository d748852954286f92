//! Requests go down, results come up: no layer names one above or beside it, and neither does a room of the orchestrator.

use super::names::{Reference, references};
use super::source::Source;
use super::{only_shrinks, root};
use std::collections::BTreeSet;

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
const FRONT: &[&str] = &["cli", "lib"];

/// Which rooms of the orchestrator each room may name. The tools implement the handle of its `mod.rs`.
const ROOMS: &[(&str, &[&str])] = &[
    ("tools", &["mod", "engine", "routing", "memory", "sync"]),
    ("engine", &["routing", "memory"]),
    ("memory", &["sync"]),
    ("routing", &[]),
    ("sync", &[]),
];

/// Files beside the rooms that every room may name. They name none. All other files there put the rooms together.
const SHARED: &[&str] = &["instants", "logs", "notices"];

/// Breaches that remain.
const TO_UNTANGLE: &[&str] = &[];

/// Returns the top module that a file below `src/` lies in: `worker` for `worker/command.rs`.
fn layer(file: &str) -> &str {
    let first = file.split('/').next().unwrap_or(file);
    first.strip_suffix(".rs").unwrap_or(first)
}

/// Returns the room of the orchestrator that a file lies in; `mod` for its handle.
fn room(file: &str) -> Option<&str> {
    file.strip_prefix("orchestrator/").map(layer)
}

/// Returns why a file of layer `from` may not name something in layer `to`.
fn layer_breach(from: &str, to: &str) -> Option<String> {
    let is_layer = |name| LAYERS.iter().any(|(layer, _)| *layer == name) || name == "cli";
    let below: &[&str] = match LAYERS.iter().find(|(name, _)| *name == from) {
        Some((_, below)) => below,
        None if LEAVES.contains(&from) => &[],
        None => return None,
    };
    let forbidden = from != to && is_layer(to) && !below.contains(&to);
    forbidden.then(|| format!("`{from}` may not name `{to}`"))
}

/// Returns why a file in room `from` of the orchestrator may not name something in room `to`.
fn room_breach(from: &str, to: &str) -> Option<String> {
    let below: &[&str] = match ROOMS.iter().find(|(name, _)| *name == from) {
        Some((_, below)) => below,
        None if SHARED.contains(&from) => &[],
        None => return None,
    };
    let forbidden = from != to && !below.contains(&to) && !SHARED.contains(&to);
    forbidden.then(|| format!("room `{from}` may not name room `{to}`"))
}

/// Returns what is wrong with the references, one line each.
fn breaches(source: &Source) -> BTreeSet<String> {
    let breach = |found: &Reference| {
        let written = found.written.first().map_or("", String::as_str);
        let layers = layer_breach(layer(&found.from), layer(&found.to))
            .or_else(|| layer_breach(layer(&found.from), written));
        let rooms = || room_breach(room(&found.from)?, room(&found.to)?);
        let breach = layers.or_else(rooms)?;
        Some(format!(
            "{}: {breach}: {} of {}",
            found.from, found.name, found.to
        ))
    };
    references(source).iter().filter_map(breach).collect()
}

#[test]
fn no_layer_or_room_names_one_above_or_beside_it() {
    let breaches = breaches(&Source::read(&root().join("src")));
    only_shrinks("requests go down, results come up", breaches, TO_UNTANGLE);
}

/// Returns the breaches of a crate in which `file` has `text`, and every layer and room an item `X`.
fn of(file: &str, text: &str) -> Vec<String> {
    let layers = LAYERS.iter().map(|(name, _)| *name);
    let tops: Vec<&str> = layers
        .chain(LEAVES.iter().copied())
        .chain(["cli"])
        .collect();
    let rooms: Vec<&str> = ROOMS.iter().map(|(name, _)| *name).collect();
    let mods = |names: &[&str]| -> String {
        names
            .iter()
            .map(|name| format!("pub mod {name};"))
            .collect()
    };
    let mut files: Vec<(String, String)> = vec![("lib.rs".to_owned(), mods(&tops))];
    for name in tops {
        let inner = if name == "orchestrator" {
            mods(&rooms)
        } else {
            String::new()
        };
        files.push((format!("{name}/mod.rs"), format!("pub struct X; {inner}")));
    }
    for name in rooms {
        files.push((
            format!("orchestrator/{name}/mod.rs"),
            "pub struct X;".to_owned(),
        ));
    }
    let place = files.iter_mut().find(|(path, _)| path == file);
    place.expect("a file of the crate").1.push_str(text);
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(path, text)| (&**path, &**text))
        .collect();
    breaches(&Source::of(&files)).into_iter().collect()
}

#[test]
fn a_breach_of_the_layers_would_be_seen() {
    let cases = [
        (
            "worker",
            "use crate::store::X as Y;",
            "`worker` may not name `store`",
        ),
        (
            "config",
            "fn f(_: crate::server::X) {}",
            "`config` may not name `server`",
        ),
        (
            "repo",
            "use crate::{error::X as E, worker::{X as Y}};",
            "`repo` may not name `worker`",
        ),
        (
            "server",
            "fn f() { crate::store::X.open() }",
            "`server` may not name `store`",
        ),
        (
            "orchestrator",
            "fn f() { vec![super::cli::X] }",
            "`orchestrator` may not name `cli`",
        ),
    ];
    for (layer, text, expected) in cases {
        let found = of(&format!("{layer}/mod.rs"), text);
        assert!(
            found.len() == 1 && found[0].contains(expected),
            "{text}: {found:?}"
        );
    }
    let fine = "use crate::{store::X as Y, worker, model::X as Z}; // crate::server::X";
    assert!(of("orchestrator/mod.rs", fine).is_empty());
}

#[test]
fn a_breach_of_the_rooms_would_be_seen() {
    let cases = [
        (
            "routing",
            "use super::engine::X as Y;",
            "room `routing` may not name room `engine`",
        ),
        (
            "sync",
            "use super::memory::X as Y;",
            "room `sync` may not name room `memory`",
        ),
        (
            "engine",
            "fn f(_: super::sync::X) {}",
            "room `engine` may not name room `sync`",
        ),
        (
            "engine",
            "use super::X as Y;",
            "room `engine` may not name room `mod`",
        ),
    ];
    for (room, text, expected) in cases {
        let found = of(&format!("orchestrator/{room}/mod.rs"), text);
        assert!(
            found.len() == 1 && found[0].contains(expected),
            "{text}: {found:?}"
        );
    }
    let fine = "use super::{engine::X as A, routing::X as B, memory::X as C, sync::X as D};";
    assert!(of("orchestrator/tools/mod.rs", fine).is_empty());
}

#[test]
fn every_module_has_its_place_in_the_picture() {
    let source = Source::read(&root().join("src"));
    let files = source.modules.into_iter().map(|module| module.file);
    let lost = files.filter(|file| {
        let name = layer(file);
        let is_layer = LAYERS.iter().any(|(layer, _)| *layer == name)
            || LEAVES.contains(&name)
            || FRONT.contains(&name);
        let is_in_room = file.matches('/').count() < 2
            || room(file).is_none_or(|room| ROOMS.iter().any(|(name, _)| *name == room));
        !(is_layer && is_in_room)
    });
    let rule = "each file is in a layer or a leaf, and in a room of the orchestrator: see the tables in layers.rs";
    only_shrinks(rule, lost.collect(), &[]);
}
