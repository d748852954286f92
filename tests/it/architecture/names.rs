//! What each file names, resolved to the file that defines it.
//!
//! A name counts where it stands in a private `use`, or in a path of the code, macros and `serde` attributes included.
//! `mod` lines and re-exports (`pub use`) count for nothing by themselves: they are followed to the definition. A method
//! that is called on a value names nothing.

use super::source::{Module, Source, attributes, definition, is_test};
use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, UseTree, Visibility};

/// One name in one module, resolved.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reference {
    /// The file that names it, below `src/`.
    pub(super) from: String,
    /// The file that defines it.
    pub(super) to: String,
    pub(super) name: String,
    /// The path from the crate's root by which it was named, re-exports not followed.
    pub(super) written: Vec<String>,
}

/// For each file the files that it depends on, with the names that make it so.
pub(super) type Graph = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Returns every reference from one file to another.
pub(super) fn references(source: &Source) -> BTreeSet<Reference> {
    let scopes: Vec<Scope> = source.modules.iter().map(Scope::of).collect();
    let resolver = Resolver { source, scopes };
    let mut found = BTreeSet::new();
    for (index, module) in source.modules.iter().enumerate() {
        let mut named = Named::default();
        module.items.iter().for_each(|item| named.visit_item(item));
        for path in named.paths {
            let Some(Target::Item(home, name)) = resolver.resolve(index, &path, 0) else {
                continue;
            };
            let to = source.modules[home].file.clone();
            if to != module.file {
                found.insert(Reference {
                    from: module.file.clone(),
                    to,
                    name,
                    written: resolver.written(index, &path, 0),
                });
            }
        }
    }
    found
}

/// Returns the graph of the references.
pub(super) fn graph(references: &BTreeSet<Reference>) -> Graph {
    let mut graph = Graph::new();
    for reference in references {
        let below = graph.entry(reference.from.clone()).or_default();
        let names = below.entry(reference.to.clone()).or_default();
        names.insert(reference.name.clone());
    }
    graph
}

/// The names that a module's own text brings into scope, child modules aside.
#[derive(Default)]
struct Scope {
    defined: BTreeSet<String>,
    used: HashMap<String, Vec<Vec<String>>>,
    globs: Vec<Vec<String>>,
}

impl Scope {
    fn of(module: &Module) -> Self {
        let mut scope = Self::default();
        for item in &module.items {
            if let Some((name, _)) = definition(item) {
                scope.defined.insert(name);
            }
            let mut inner = Uses::default();
            inner.visit_item(item);
            for leaf in inner.leaves {
                match leaf.name {
                    Some(name) => scope.used.entry(name).or_default().push(leaf.path),
                    None => scope.globs.push(leaf.path),
                }
            }
        }
        scope
    }
}

/// One leaf of a `use` tree: the path, and the name that it has here; none for a glob.
struct Leaf {
    path: Vec<String>,
    name: Option<String>,
}

/// Collects the `use` leaves of an item, those inside of functions too.
#[derive(Default)]
struct Uses {
    leaves: Vec<Leaf>,
}

impl<'a> Visit<'a> for Uses {
    fn visit_item_use(&mut self, item: &'a ItemUse) {
        if !is_test(&item.attrs) {
            leaves(&item.tree, &mut Vec::new(), &mut self.leaves);
        }
    }
}

fn leaves(tree: &UseTree, above: &mut Vec<String>, found: &mut Vec<Leaf>) {
    let mut leaf = |last: String, name: String| {
        let mut path = above.clone();
        // `use a::{self}` names `a`.
        if last != "self" {
            path.push(last);
        }
        let name = if name == "self" {
            path.last().cloned()
        } else {
            Some(name)
        };
        found.push(Leaf { path, name });
    };
    match tree {
        UseTree::Name(name) => leaf(name.ident.to_string(), name.ident.to_string()),
        UseTree::Rename(name) => leaf(name.ident.to_string(), name.rename.to_string()),
        UseTree::Glob(_) => found.push(Leaf {
            path: above.clone(),
            name: None,
        }),
        UseTree::Path(path) => {
            above.push(path.ident.to_string());
            leaves(&path.tree, above, found);
            above.pop();
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                leaves(tree, above, found);
            }
        }
    }
}

/// Collects the paths that a module's items name.
#[derive(Default)]
struct Named {
    paths: BTreeSet<Vec<String>>,
}

impl Named {
    /// Collects the paths in the tokens of a macro.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.end(&mut path);
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.end(&mut path);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.end(&mut path);
    }

    fn end(&mut self, path: &mut Vec<String>) {
        if !path.is_empty() {
            self.paths.insert(std::mem::take(path));
        }
    }

    /// Collects the path in a text such as `#[serde(with = "a::b")]`.
    fn literals(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.literals(group.stream()),
                TokenTree::Literal(literal) => {
                    let text = syn::parse_str::<syn::LitStr>(&literal.to_string());
                    if let Ok(path) = text.and_then(|text| text.parse::<syn::Path>()) {
                        self.visit_path(&path);
                    }
                }
                _ => {}
            }
        }
    }
}

impl<'a> Visit<'a> for Named {
    fn visit_item(&mut self, item: &'a Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        if matches!(item.vis, Visibility::Inherited) {
            let mut found = Vec::new();
            leaves(&item.tree, &mut Vec::new(), &mut found);
            self.paths.extend(found.into_iter().map(|leaf| leaf.path));
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let names = path.segments.iter();
        self.paths
            .insert(names.map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'a syn::Macro) {
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_attribute(&mut self, attribute: &'a Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            if list.path.is_ident("derive") {
                self.tokens(list.tokens.clone());
            } else {
                self.literals(list.tokens.clone());
            }
        }
    }
}

/// What a path leads to.
enum Target {
    Module(usize),
    /// An item by the module that defines it, and its name. What follows in the path is associated with it.
    Item(usize, String),
}

/// A re-export that leads to itself ends here.
const DEEPEST: usize = 32;

struct Resolver<'a> {
    source: &'a Source,
    scopes: Vec<Scope>,
}

impl Resolver<'_> {
    /// Returns what `path` leads to as seen from `module`; nothing where it leaves the crate.
    fn resolve(&self, module: usize, path: &[String], depth: usize) -> Option<Target> {
        if depth > DEEPEST {
            return None;
        }
        let (mut at, mut rest) = (module, path);
        let mut anchored = false;
        while let [first, more @ ..] = rest {
            at = match first.as_str() {
                "crate" => 0,
                "self" => at,
                "super" => self.source.modules[at].parent?,
                _ => break,
            };
            (rest, anchored) = (more, true);
        }
        let mut target = Target::Module(at);
        for (place, name) in rest.iter().enumerate() {
            let Target::Module(at) = target else { break };
            let is_last = place + 1 == rest.len();
            let own = place == 0 && !anchored;
            target = self.lookup(at, name, is_last, depth, own)?;
        }
        Some(target)
    }

    /// Returns what `name` is in a module. A name may be an item and a module at once: the last one in a path is the item,
    /// one before is the module.
    fn lookup(
        &self,
        module: usize,
        name: &str,
        is_last: bool,
        depth: usize,
        own: bool,
    ) -> Option<Target> {
        let scope = &self.scopes[module];
        let child = self.source.modules[module].children.get(name);
        let child = child.map(|&child| Target::Module(child));
        let item = scope.defined.contains(name);
        let item = item.then(|| Target::Item(module, name.to_owned()));
        let direct = if is_last {
            item.or(child)
        } else {
            child.or(item)
        };
        if direct.is_some() {
            return direct;
        }
        let used = scope.used.get(name).into_iter().flatten();
        let mut used = used.filter_map(|path| {
            // `use a::a` does not mean itself.
            let itself = own && path.len() == 1;
            let found = (!itself).then(|| self.resolve(module, path, depth + 1));
            found.flatten()
        });
        used.next().or_else(|| {
            scope.globs.iter().find_map(|path| {
                match self.resolve(module, path, depth + 1)? {
                    Target::Module(at) => self.lookup(at, name, is_last, depth + 1, false),
                    // Variants of an enum.
                    Target::Item(..) => None,
                }
            })
        })
    }

    /// Returns a path from the crate's root by which `path` was written: what `use` brought into scope is spelled out, what
    /// is re-exported elsewhere is not followed.
    fn written(&self, module: usize, path: &[String], depth: usize) -> Vec<String> {
        let own = &self.source.modules[module].path;
        let Some(first) = path.first() else {
            return own.clone();
        };
        let mut absolute = match first.as_str() {
            "crate" => Vec::new(),
            "self" => own.clone(),
            "super" => own[..own.len().saturating_sub(1)].to_vec(),
            name => match self.scopes[module]
                .used
                .get(name)
                .and_then(|all| all.first())
            {
                Some(used) if depth < DEEPEST && used.as_slice() != path => {
                    self.written(module, used, depth + 1)
                }
                _ => [own.as_slice(), std::slice::from_ref(first)].concat(),
            },
        };
        for name in &path[1..] {
            match name.as_str() {
                "super" => drop(absolute.pop()),
                name => absolute.push(name.to_owned()),
            }
        }
        absolute
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the dependencies of some files as `a.rs > b.rs: Name`.
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let references = references(&Source::of(files));
        let line = |found: &Reference| format!("{} > {}: {}", found.from, found.to, found.name);
        let mut lines: Vec<String> = references.iter().map(line).collect();
        lines.dedup();
        lines
    }

    #[test]
    fn names_are_followed_to_the_defining_file() {
        let tree = ("lib.rs", "mod a; mod b;");
        let b = ("b/mod.rs", "mod c; pub use c::{C as D, f};");
        let c = ("b/c.rs", "pub struct C; pub fn f() {}");
        let a = |text| found(&[tree, b, c, ("a.rs", text)]);
        assert_eq!(a("use crate::b::D;"), ["a.rs > b/c.rs: C"]);
        assert_eq!(a("fn g() { super::b::f() }"), ["a.rs > b/c.rs: f"]);
        assert_eq!(a("use crate::b; fn g(_: b::D) {}"), ["a.rs > b/c.rs: C"]);
        assert_eq!(a("use crate::b::*; fn g(_: D) {}"), ["a.rs > b/c.rs: C"]);
        assert_eq!(
            a("fn g() { println!(\"{}\", crate::b::f()) }"),
            ["a.rs > b/c.rs: f"]
        );
        assert_eq!(
            a("struct S(#[serde(with = \"crate::b::D\")] u8);"),
            ["a.rs > b/c.rs: C"]
        );
        assert_eq!(a("fn g() { use crate::b::f; f() }"), ["a.rs > b/c.rs: f"]);
    }

    #[test]
    fn modules_reexports_tests_and_foreign_names_make_no_edge() {
        let nothing: [&str; 0] = [];
        let found = |a| {
            found(&[
                ("lib.rs", "mod a; mod b;"),
                ("a.rs", a),
                ("b.rs", "pub fn f() {}"),
            ])
        };
        assert_eq!(found("pub use crate::b::f;"), nothing);
        assert_eq!(found("use crate::b;"), nothing);
        assert_eq!(
            found("#[cfg(test)] mod tests { use crate::b::f; }"),
            nothing
        );
        assert_eq!(found("use std::b::f; fn g() { b::f() }"), nothing);
        // A re-export that the file itself needs does make one.
        assert_eq!(
            found("pub use crate::b::f; fn g() { f() }"),
            ["a.rs > b.rs: f"]
        );
    }
}
