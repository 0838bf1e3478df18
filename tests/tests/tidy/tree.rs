//! The tree of files: which file uses which, read from `use` lines and paths.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use syn::{
    Attribute, ItemMod, ItemUse, UseTree, Visibility,
    visit::{self, Visit},
};

use super::{nothing_found, root, sources};

/// The path of a module from its crate's root, or of an item in it.
type ModulePath = Vec<String>;
/// Which file uses which.
type Edges = BTreeMap<ModulePath, BTreeSet<ModulePath>>;

/// The modules of `filter-user` from the bottom to the top: each uses only modules before it.
const LAYERS: [&str; 27] = [
    "clock",
    "ui",
    "ranges",
    "codes",
    "config",
    "cli",
    "policy",
    "kernel::version",
    "kernel::capabilities",
    "kernel::net",
    "kernel::nat",
    "kernel::routes",
    "kernel::pins",
    "kernel::bpf",
    "kernel::links",
    "store",
    "cluster",
    "context",
    "metrics",
    "warnings",
    "change",
    "view",
    "survey",
    "daemon",
    "top",
    "command",
    "",
];

#[test]
fn no_files_use_each_other_in_a_circle() -> Result<()> {
    let mut found = Vec::new();
    for krate in crates()? {
        let modules = Modules::read(&krate)?;
        let edges = modules.edges();
        for (module, uses) in &edges {
            let around = uses.iter().filter(|used| reaches(&edges, used, module));
            let around: Vec<String> = around.map(name).collect();
            if !around.is_empty() {
                let around = around.join("`, `");
                found.push(format!(
                    "{}: `{}` uses `{around}`",
                    krate.display(),
                    name(module)
                ));
            }
        }
    }
    nothing_found(&found);
    Ok(())
}

#[test]
fn dependencies_run_one_way() -> Result<()> {
    let layer = |module: &ModulePath| {
        let name = name(module);
        let is_in = |layer: &&str| {
            name == **layer || name.starts_with(&format!("{layer}::")) && !layer.is_empty()
        };
        LAYERS.iter().position(is_in)
    };
    let modules = Modules::read(&PathBuf::from("filter-user/src/lib.rs"))?;
    let mut found = Vec::new();
    for (module, uses) in modules.edges() {
        // It holds the others and nothing else.
        if module == ["kernel"] {
            continue;
        }
        let own = layer(&module).with_context(|| format!("no layer for `{}`", name(&module)))?;
        for used in uses {
            if layer(&used).is_none_or(|used| used > own) {
                found.push(format!("`{}` uses `{}`", name(&module), name(&used)));
            }
        }
    }
    nothing_found(&found);
    Ok(())
}

/// Whether `from` uses `to`, or a file that does.
fn reaches(edges: &Edges, from: &ModulePath, to: &ModulePath) -> bool {
    let mut waiting = vec![from];
    let mut seen = BTreeSet::new();
    while let Some(module) = waiting.pop() {
        if module == to {
            return true;
        }
        if seen.insert(module) {
            waiting.extend(edges.get(module).into_iter().flatten());
        }
    }
    false
}

fn name(module: &ModulePath) -> String {
    module.join("::")
}

/// The root file of every crate: libraries, programs and tests that have a folder.
fn crates() -> Result<Vec<PathBuf>> {
    let paths = sources()?.into_iter().map(|(path, _)| path);
    let is_root = |path: &PathBuf| path.ends_with("lib.rs") || path.ends_with("main.rs");
    let found: Vec<PathBuf> = paths.filter(is_root).collect();
    assert!(found.len() > 5, "{found:?}");
    Ok(found)
}

/// The files of a crate.
struct Modules(BTreeMap<ModulePath, File>);

/// What a file says of others.
#[derive(Default)]
struct File {
    /// The paths that its `use` lines bring in, by the name that they get.
    imports: BTreeMap<String, Import>,
    /// All paths that it uses.
    paths: Vec<ModulePath>,
    /// Where it is.
    module: ModulePath,
    /// How many inline modules the visitor is in.
    depth: usize,
    /// The modules that it declares.
    children: BTreeSet<String>,
}

struct Import {
    path: ModulePath,
    is_public: bool,
}

impl Modules {
    /// Reads the crate with the root file `root_file`.
    fn read(root_file: &Path) -> Result<Self> {
        let folder = root_file.parent().context("a file is in a folder")?;
        let mut modules = BTreeMap::new();
        let mut waiting = vec![(Vec::new(), root_file.to_owned(), folder.to_owned())];
        while let Some((module, path, folder)) = waiting.pop() {
            let text = fs::read_to_string(root().join(&path))
                .with_context(|| format!("read {}", path.display()))?;
            let mut file = File {
                module: module.clone(),
                ..File::default()
            };
            let parsed = syn::parse_file(&text).with_context(|| path.display().to_string())?;
            file.children = declared(&parsed);
            file.visit_file(&parsed);
            for child in &file.children {
                let plain = folder.join(format!("{child}.rs"));
                let inside = folder.join(child);
                let path = match root().join(&plain).exists() {
                    true => plain,
                    false => inside.join("mod.rs"),
                };
                let mut module = module.clone();
                module.push(child.clone());
                waiting.push((module, path, inside));
            }
            modules.insert(module, file);
        }
        Ok(Self(modules))
    }

    /// Which file uses which.
    fn edges(&self) -> Edges {
        let of = |(module, file): (&ModulePath, &File)| {
            let private = file.imports.values().filter(|import| {
                // What a file hands on from its own folder, it does not use.
                !(import.is_public && import.path.starts_with(module))
            });
            let paths = private.map(|import| &import.path).chain(&file.paths);
            let uses = paths.filter_map(|path| self.file_of(path, 0));
            let uses = uses.filter(|used| used != module).collect();
            (module.clone(), uses)
        };
        self.0.iter().map(of).collect()
    }

    /// The file that defines what `path` names.
    fn file_of(&self, path: &ModulePath, depth: usize) -> Option<ModulePath> {
        let is_file = |len: &usize| self.0.contains_key(&path[..*len]);
        let len = (0..=path.len()).rev().find(is_file)?;
        let (module, rest) = path.split_at(len);
        let import = rest
            .first()
            .and_then(|item| self.0[module].imports.get(item));
        match import {
            Some(import) if depth < 8 => {
                let mut path = import.path.clone();
                path.extend_from_slice(&rest[1..]);
                self.file_of(&path, depth + 1)
            }
            _ => Some(module.to_vec()),
        }
    }
}

/// The modules that have a file of their own in the crate's folder, but for tests.
fn declared(file: &syn::File) -> BTreeSet<String> {
    let modules = file.items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) if module.content.is_none() && !is_elsewhere(&module.attrs) => {
            Some(module.ident.to_string())
        }
        _ => None,
    });
    modules.collect()
}

/// Whether a module is for tests alone, or its file is shared by several crates.
fn is_elsewhere(attributes: &[Attribute]) -> bool {
    let is_shared = |attribute: &Attribute| attribute.path().is_ident("path");
    is_test(attributes) || attributes.iter().any(is_shared)
}

fn is_test(attributes: &[Attribute]) -> bool {
    let is_test = |attribute: &Attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|argument| argument.is_ident("test"))
    };
    attributes.iter().any(is_test)
}

impl File {
    /// `path`, which stands in this file, as a path from the crate's root; none if it leads to
    /// another crate.
    fn absolute(&self, path: &[String]) -> Option<ModulePath> {
        let mut base = self.module.clone();
        let mut supers = 0;
        let mut rest = path;
        while let Some((first, after)) = rest.split_first() {
            match first.as_str() {
                "crate" => base.clear(),
                "self" => {}
                "super" => supers += 1,
                _ => break,
            }
            rest = after;
        }
        let is_child = || {
            path.first()
                .is_some_and(|first| self.children.contains(first))
        };
        if rest.len() == path.len() && !is_child() {
            return None;
        }
        for _ in 0..supers.max(self.depth) - self.depth {
            base.pop()?;
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    fn import(&mut self, tree: &UseTree, before: &mut Vec<String>, is_public: bool) {
        let (name, rename) = match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.import(&path.tree, before, is_public);
                before.pop();
                return;
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, before, is_public);
                }
                return;
            }
            UseTree::Glob(_) => {
                self.paths.extend(self.absolute(before));
                return;
            }
            UseTree::Name(name) => (name.ident.to_string(), None),
            UseTree::Rename(rename) => (rename.ident.to_string(), Some(rename.rename.to_string())),
        };
        let mut path = before.clone();
        if name != "self" {
            path.push(name);
        }
        let Some(path) = self.absolute(&path) else {
            return;
        };
        let last = path.last().cloned().unwrap_or_default();
        let name = rename.unwrap_or(last);
        match self.depth {
            0 => drop(self.imports.insert(name, Import { path, is_public })),
            _ => self.paths.push(path),
        }
    }
}

impl<'ast> Visit<'ast> for File {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_public = !matches!(item.vis, Visibility::Inherited);
        self.import(&item.tree, &mut Vec::new(), is_public);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !is_test(&item.attrs) {
            self.depth += 1;
            visit::visit_item_mod(self, item);
            self.depth -= 1;
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if names.len() > 1 {
            self.paths.extend(self.absolute(&names));
        }
        visit::visit_path(self, path);
    }
}
