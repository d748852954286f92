//! The crate as a tree of modules, parsed by `syn`. Test modules are left out.

use std::collections::BTreeMap;
use std::path::Path;
use syn::{Attribute, Item, Meta, Visibility};

/// All modules of the library, the root first.
pub(super) struct Source {
    pub(super) modules: Vec<Module>,
}

/// One module: a file, or an inline `mod` of a file.
pub(super) struct Module {
    /// The names from the root to here; empty for the root.
    pub(super) path: Vec<String>,
    /// The file's path below `src/`, such as `store/mod.rs`.
    pub(super) file: String,
    pub(super) parent: Option<usize>,
    pub(super) children: BTreeMap<String, usize>,
    pub(super) items: Vec<Item>,
}

impl Source {
    /// Parses the library below `folder`, from its `lib.rs` on.
    ///
    /// # Panics
    ///
    /// When a module's file is missing or does not parse.
    pub(super) fn read(folder: &Path) -> Self {
        Self::parse(&|file| std::fs::read_to_string(folder.join(file)).ok())
    }

    /// Parses files that are given as pairs of path and text, for tests of the checks themselves.
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        Self::parse(&|file| {
            let found = files.iter().find(|(path, _)| *path == file);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    fn parse(read: &dyn Fn(&str) -> Option<String>) -> Self {
        let text = read("lib.rs").expect("there is a lib.rs");
        let root = Module {
            path: Vec::new(),
            file: "lib.rs".to_owned(),
            parent: None,
            children: BTreeMap::new(),
            items: Vec::new(),
        };
        let mut source = Self {
            modules: vec![root],
        };
        source.add(0, items("lib.rs", &text), "", read);
        source
    }

    /// Adds `items` to a module, and the modules among them below it. `folder` holds the files of its children and ends in
    /// `/` where it is not empty.
    fn add(
        &mut self,
        module: usize,
        items: Vec<Item>,
        folder: &str,
        read: &dyn Fn(&str) -> Option<String>,
    ) {
        for item in items {
            if is_test(attributes(&item)) {
                continue;
            }
            let Item::Mod(inner) = item else {
                self.modules[module].items.push(item);
                continue;
            };
            let name = inner.ident.to_string();
            let below = format!("{folder}{name}/");
            let (file, items, below) = match inner.content {
                Some((_, items)) => (self.modules[module].file.clone(), items, below),
                None => {
                    let flat = format!("{folder}{name}.rs");
                    let nested = format!("{below}mod.rs");
                    let file = if read(&flat).is_some() { flat } else { nested };
                    let text = read(&file).unwrap_or_else(|| panic!("no file for `mod {name}`"));
                    let items = self::items(&file, &text);
                    (file, items, below)
                }
            };
            let child = self.modules.len();
            let mut path = self.modules[module].path.clone();
            path.push(name.clone());
            self.modules.push(Module {
                path,
                file,
                parent: Some(module),
                children: BTreeMap::new(),
                items: Vec::new(),
            });
            self.modules[module].children.insert(name, child);
            self.add(child, items, &below, read);
        }
    }
}

fn items(file: &str, text: &str) -> Vec<Item> {
    let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{file}: {error}"));
    parsed.items
}

/// Returns whether an item is compiled for tests only.
pub(super) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && matches!(&attribute.meta, Meta::List(list) if list.tokens.to_string() == "test")
    })
}

/// Returns the attributes of an item of any kind that can have some.
pub(super) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Returns the name that an item defines, with its visibility. `use`, `impl` and `mod` define none here.
pub(super) fn definition(item: &Item) -> Option<(String, &Visibility)> {
    let (ident, visibility) = match item {
        Item::Const(item) => (&item.ident, &item.vis),
        Item::Enum(item) => (&item.ident, &item.vis),
        Item::Fn(item) => (&item.sig.ident, &item.vis),
        Item::Static(item) => (&item.ident, &item.vis),
        Item::Struct(item) => (&item.ident, &item.vis),
        Item::Trait(item) => (&item.ident, &item.vis),
        Item::TraitAlias(item) => (&item.ident, &item.vis),
        Item::Type(item) => (&item.ident, &item.vis),
        Item::Union(item) => (&item.ident, &item.vis),
        _ => return None,
    };
    Some((ident.to_string(), visibility))
}

/// Returns whether an item is a type or a trait.
pub(super) fn is_type(item: &Item) -> bool {
    matches!(
        item,
        Item::Enum(_) | Item::Struct(_) | Item::Trait(_) | Item::Type(_) | Item::Union(_)
    )
}
