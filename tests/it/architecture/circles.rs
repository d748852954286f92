//! No file depends on itself by way of others.

use super::names::{Graph, graph, references};
use super::root;
use super::source::Source;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Dependencies that still close a circle: the first file should stop naming the second. Whoever cuts one removes its line;
/// the test fails for a line that is no longer needed.
const TO_CUT: &[(&str, &str)] = &[];

#[test]
fn no_file_depends_on_itself_by_way_of_others() {
    let whole = graph(&references(&Source::read(&root().join("src"))));
    let mut graph = whole.clone();
    for (from, to) in TO_CUT {
        if let Some(below) = graph.get_mut(*from) {
            below.remove(*to);
        }
    }
    let circles = circles(&graph);
    assert!(
        circles.is_empty(),
        "{} circles, the shortest first:\n{}",
        circles.len(),
        show(&whole, &circles)
    );
    for &(from, to) in TO_CUT {
        let exists = whole.get(from).is_some_and(|below| below.contains_key(to));
        assert!(
            exists && way(&graph, to, from).is_some(),
            "{from} -> {to} closes no circle any more: remove its line from TO_CUT"
        );
    }
}

/// Returns the shortest circle through each dependency that lies on one, without repetitions, the shortest first.
fn circles(graph: &Graph) -> Vec<Vec<String>> {
    let mut found = BTreeSet::new();
    for (from, below) in graph {
        for to in below.keys() {
            if let Some(mut circle) = way(graph, to, from) {
                let least = circle.iter().enumerate().min_by_key(|(_, file)| *file);
                let least = least.expect("a circle is not empty").0;
                circle.rotate_left(least);
                found.insert((circle.len(), circle));
            }
        }
    }
    found.into_iter().map(|(_, circle)| circle).collect()
}

/// Returns the files on the shortest way along dependencies, both ends included.
fn way(graph: &Graph, from: &str, to: &str) -> Option<Vec<String>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut next = VecDeque::from([from]);
    while let Some(file) = next.pop_front() {
        if file == to {
            let mut files = vec![to.to_owned()];
            let mut at = to;
            while at != from {
                at = came_from[at];
                files.insert(0, at.to_owned());
            }
            return Some(files);
        }
        for below in graph.get(file).into_iter().flat_map(BTreeMap::keys) {
            if below != from && !came_from.contains_key(below.as_str()) {
                came_from.insert(below, file);
                next.push_back(below);
            }
        }
    }
    None
}

/// Writes circles one dependency a line, with the names that make it.
fn show(graph: &Graph, circles: &[Vec<String>]) -> String {
    const MOST: usize = 40;
    let mut text = String::new();
    for circle in circles.iter().take(MOST) {
        text.push('\n');
        for (place, file) in circle.iter().enumerate() {
            let below = &circle[(place + 1) % circle.len()];
            let names: Vec<&str> = graph[file][below].iter().map(String::as_str).collect();
            text.push_str(&format!("  {file} -> {below} ({})\n", names.join(", ")));
        }
    }
    text
}

#[test]
fn a_circle_would_be_seen() {
    let source = Source::of(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::B; pub struct A;"),
        ("b.rs", "pub struct B(crate::c::C);"),
        (
            "c.rs",
            "pub use super::a::A; pub struct C; impl From<A> for C {}",
        ),
    ]);
    let graph = graph(&references(&source));
    let circles = circles(&graph);
    assert_eq!(circles, [["a.rs", "b.rs", "c.rs"]]);
    assert_eq!(
        show(&graph, &circles),
        "\n  a.rs -> b.rs (B)\n  b.rs -> c.rs (C)\n  c.rs -> a.rs (A)\n"
    );
}

#[test]
fn files_that_do_not_return_are_no_circle() {
    let source = Source::of(&[
        ("lib.rs", "mod a; mod b;"),
        (
            "a/mod.rs",
            "mod inner; pub use inner::A; pub fn f(_: crate::b::B) {}",
        ),
        ("a/inner.rs", "pub struct A;"),
        ("b.rs", "use crate::a::A; pub struct B(A);"),
    ]);
    assert!(circles(&graph(&references(&source))).is_empty());
}
