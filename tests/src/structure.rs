//! Which crate uses which, and which module: read from the manifests and the imports.
//!
//! ```text
//! cargo run -p purge-tests --bin structure          prints the arrows of the crates, and those of the modules in each
//! cargo test -p purge-tests --test host structure   fails when modules import each other in a circle
//! ```
//! Cargo refuses a circle of crates. Modules are compared with their neighbours: those of one folder, each with all that lies below it. A
//! module and its own parent may use each other. Tests do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// The arrows from each to others.
pub type Arrows = BTreeMap<String, BTreeSet<String>>;

/// A crate of the workspace.
#[derive(Debug)]
pub struct Crate {
    /// As Cargo has it.
    pub name: String,
    /// Crates of this workspace that it needs when it is built, tests aside.
    pub needs: BTreeSet<String>,
    /// By folder of its source, the arrows between the modules in it.
    pub folders: BTreeMap<String, Arrows>,
}

/// The crates in the workspace at `top`.
pub fn crates(top: &Path) -> Vec<Crate> {
    let in_folder = fs::read_dir(top.join("crates")).unwrap();
    let mut places: Vec<PathBuf> = in_folder.map(|entry| entry.unwrap().path()).collect();
    places.extend(["proto", "ctl", "agent", "package", "bench", "tests"].map(|name| top.join(name)));
    let mut all: Vec<Crate> = places.iter().map(|place| read(place)).collect();
    let names: BTreeSet<String> = all.iter().map(|c| c.name.clone()).collect();
    for found in &mut all {
        found.needs.retain(|need| names.contains(need));
    }
    all
}

/// The source files of the agent and of its layers.
pub fn sources(top: &Path) -> Vec<PathBuf> {
    let layers = fs::read_dir(top.join("crates")).unwrap();
    let mut places: Vec<PathBuf> = layers.map(|entry| entry.unwrap().path()).collect();
    places.push(top.join("agent"));
    let found = places.iter().flat_map(|place| files(&place.join("src")));
    found.map(|(_, file)| file).collect()
}

fn read(place: &Path) -> Crate {
    let manifest = fs::read_to_string(place.join("Cargo.toml")).unwrap();
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = \""));
    let of_build = manifest.split("\n[dependencies]\n").nth(1).unwrap_or_default();
    let lines = of_build.lines().take_while(|line| !line.starts_with('['));
    let needs = lines.filter_map(|line| line.split(['.', ' ']).next());
    Crate {
        name: name.unwrap().trim_end_matches('"').to_owned(),
        needs: needs.filter(|need| !need.is_empty()).map(str::to_owned).collect(),
        folders: folders(&place.join("src")),
    }
}

/// The arrows between the modules of each folder of a crate's source.
pub fn folders(src: &Path) -> BTreeMap<String, Arrows> {
    let mut uses = Vec::new();
    let mut modules = BTreeSet::new();
    for (module, file) in files(src) {
        let text = fs::read_to_string(&file).unwrap();
        let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let mut found = Uses {
            of: module.clone(),
            to: Vec::new(),
        };
        found.visit_file(&parsed);
        uses.extend(found.to.into_iter().map(|to| (module.clone(), to)));
        modules.insert(module);
    }
    let mut all: BTreeMap<String, Arrows> = BTreeMap::new();
    for (from, to) in uses {
        // The last names of a path are items in a module.
        let Some(to) = (1..=to.len())
            .rev()
            .map(|n| &to[..n])
            .find(|path| modules.contains(*path))
        else {
            continue;
        };
        let shared = from.iter().zip(to).take_while(|(a, b)| a == b).count();
        if let (Some(a), Some(b)) = (from.get(shared), to.get(shared)) {
            let folder = from[..shared].join("/");
            let arrows = all.entry(folder).or_default();
            arrows.entry(a.clone()).or_default().insert(b.clone());
        }
    }
    all
}

/// The modules of a crate with their files: `a/b.rs` is a::b, and so is `a/b/mod.rs`.
fn files(src: &Path) -> Vec<(Vec<String>, PathBuf)> {
    let (mut left, mut all) = (vec![src.to_owned()], Vec::new());
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|e| e == "rs")
                && !name.ends_with("tests")
                && name != "testing"
            {
                let above = path.parent().unwrap().strip_prefix(src).unwrap();
                let mut module: Vec<String> =
                    above.iter().map(|n| n.to_string_lossy().into_owned()).collect();
                if !["lib", "main", "mod"].contains(&name.as_str()) {
                    module.push(name);
                }
                all.push((module, path));
            }
        }
    }
    all
}

/// Finds what a file names of its own crate.
struct Uses {
    of: Vec<String>,
    to: Vec<Vec<String>>,
}

impl Uses {
    /// Takes in a path as it is written.
    fn note(&mut self, written: &[String]) {
        let Some(first) = written.first() else { return };
        let up = written.iter().take_while(|name| *name == "super").count();
        let (base, rest) = match first.as_str() {
            "crate" => (&self.of[..0], &written[1..]),
            "self" => (&self.of[..], &written[1..]),
            "super" => (&self.of[..self.of.len().saturating_sub(up)], &written[up..]),
            _ => return,
        };
        self.to.push(base.iter().chain(rest).cloned().collect());
    }

    fn note_tree(&mut self, above: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [above, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.note_tree(&with(&path.ident), &path.tree),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.note_tree(above, item)),
            syn::UseTree::Name(name) => self.note(&with(&name.ident)),
            syn::UseTree::Rename(name) => self.note(&with(&name.ident)),
            syn::UseTree::Glob(_) => self.note(above),
        }
    }
}

impl<'f> Visit<'f> for Uses {
    fn visit_item_use(&mut self, item: &'f syn::ItemUse) {
        self.note_tree(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'f syn::Path) {
        let written: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.note(&written);
        visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, item: &'f syn::ItemMod) {
        let is_test = item.attrs.iter().any(|a| {
            let words = a.meta.require_list().map(|list| list.tokens.to_string());
            a.path().is_ident("cfg") && words.is_ok_and(|words| words.contains("test"))
        });
        if !is_test {
            visit::visit_item_mod(self, item);
        }
    }
}

/// Those that use each other in a circle.
pub fn circles(arrows: &Arrows) -> Vec<BTreeSet<String>> {
    let reach: BTreeMap<&String, BTreeSet<&String>> =
        arrows.keys().map(|from| (from, reached(arrows, from))).collect();
    let mut all: Vec<BTreeSet<String>> = Vec::new();
    for (from, reached) in &reach {
        let back = reached
            .iter()
            .filter(|to| reach.get(**to).is_some_and(|of| of.contains(from)));
        let circle: BTreeSet<String> = back.map(|name| (*name).clone()).collect();
        if circle.contains(*from) && !all.contains(&circle) {
            all.push(circle);
        }
    }
    all
}

fn reached<'a>(arrows: &'a Arrows, from: &'a String) -> BTreeSet<&'a String> {
    let (mut left, mut all) = (vec![from], BTreeSet::new());
    while let Some(at) = left.pop() {
        for to in arrows.get(at).into_iter().flatten() {
            if all.insert(to) {
                left.push(to);
            }
        }
    }
    all
}
