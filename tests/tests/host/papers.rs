//! What the papers say of the tests and the dependencies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    fs::read_to_string(top().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The source of each module of whole-program tests, by the program and the module. Of by_descriptor, its first file.
fn modules() -> BTreeMap<(String, String), String> {
    let mut found = BTreeMap::new();
    let programs = entries(&top().join("tests/tests"));
    for program in programs.into_iter().filter(|p| p.is_dir()) {
        for module in entries(&program).iter().filter(|m| m.is_file()) {
            let key = (stem(&program), stem(module));
            found.insert(key, fs::read_to_string(module).unwrap());
        }
    }
    found
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let list = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut list: Vec<PathBuf> = list.map(|entry| entry.unwrap().path()).collect();
    list.sort();
    list
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

/// What stands between backquotes, and is not a block.
fn codes(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let text = read("docs/THREAT-MODEL.md");
    let named: BTreeSet<(&str, &str)> = codes(&text)
        .filter_map(|code| code.split_once("::"))
        .filter(|(module, _)| module.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    assert!(named.len() > 30, "{named:?}");
    let modules = modules();
    let is_there = |module: &str, test: &str| {
        // Some are made for each file system.
        let test = test.rsplit("::").next().unwrap_or(test);
        let mut sources = modules.iter().filter(|((_, name), _)| name == module);
        sources.any(|(_, source)| source.contains(&format!("fn {test}(")))
    };
    let missing: Vec<String> = named
        .iter()
        .filter(|(module, test)| !is_there(module, test))
        .map(|(module, test)| format!("{module}::{test}"))
        .collect();
    assert!(
        missing.is_empty(),
        "named, and not there:\n{}",
        missing.join("\n")
    );
}

#[test]
fn a_module_of_tests_has_one_name_and_a_line_in_the_program_that_it_belongs_to() {
    let modules = modules();
    let mut programs = BTreeMap::new();
    for (program, module) in modules.keys().filter(|(_, module)| module != "main") {
        let main = &modules[&(program.clone(), "main".to_owned())];
        assert!(
            main.contains(&format!("\nmod {module};\n")),
            "{program}: {module} is not run"
        );
        let other = programs.insert(module, program);
        assert_eq!(
            other, None,
            "{module} is in two programs: name a test by its module alone"
        );
    }
}

/// Program and filter of each command with `--test`.
fn commands(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let commands = text.lines().flat_map(|line| line.split("--test ").skip(1));
    commands.filter_map(|rest| {
        let command = rest.split('`').next()?;
        let mut words = command.split_whitespace();
        let program = words.next()?;
        let is_name = program.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        is_name.then(|| (program, words.next().filter(|word| !word.starts_with('-'))))
    })
}

/// Documents and heads of sources, which name commands.
fn documents(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in entries(dir) {
        let name = stem(&entry);
        if entry.is_dir() {
            if name != "target" && !name.starts_with('.') {
                documents(&entry, found);
            }
        } else if name == "run" || entry.extension().is_some_and(|e| e == "md" || e == "rs") {
            found.push(entry);
        }
    }
}

#[test]
fn every_test_that_a_command_of_the_documents_names_is_there() {
    let modules = modules();
    let is_there = |program: &str, filter: Option<&str>| {
        let (module, test) = match filter.map(|filter| filter.split_once("::").unwrap_or((filter, ""))) {
            Some((module, test)) => (module, test),
            None => ("main", ""),
        };
        let source = modules.get(&(program.to_owned(), module.to_owned()));
        source.is_some_and(|source| source.contains(&format!("fn {test}")) || test.is_empty())
    };
    let of_others = |program: &str| {
        let packages = [entries(&top()), entries(&top().join("crates"))].concat();
        packages
            .iter()
            .any(|p| p.join("tests").join(format!("{program}.rs")).is_file())
    };
    let mut pages = Vec::new();
    documents(&top(), &mut pages);
    let (mut looked_at, mut missing) = (0, Vec::new());
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for (program, filter) in commands(&text) {
            looked_at += 1;
            if !is_there(program, filter) && !of_others(program) {
                missing.push(format!(
                    "{}: --test {program} {}",
                    page.display(),
                    filter.unwrap_or_default()
                ));
            }
        }
    }
    assert!(looked_at > 3, "{looked_at} commands");
    assert!(
        missing.is_empty(),
        "named, and not there:\n{}",
        missing.join("\n")
    );
}

/// The crates of Cargo.lock that depend on one.
fn users_of<'a>(lock: &'a str, krate: &str) -> BTreeSet<&'a str> {
    let packages = lock.split("[[package]]").skip(1);
    let uses = |package: &&str| {
        let dependencies = package
            .split_once("dependencies = [")
            .map_or("", |(_, list)| list);
        dependencies
            .lines()
            .map(|line| line.trim().trim_matches([',', '"']))
            .any(|d| d == krate || d.starts_with(&format!("{krate} ")))
    };
    let name = |package: &'a str| package.split('"').nth(1).unwrap();
    packages.filter(uses).map(name).collect()
}

#[test]
fn unmaintained_crates_are_used_by_the_store_alone() {
    let (lock, deny) = (read("Cargo.lock"), read("deny.toml"));
    assert_eq!(users_of(&lock, "fxhash"), BTreeSet::from(["sled"]));
    let above: BTreeSet<&str> = users_of(&lock, "instant");
    assert!(
        above.is_subset(&BTreeSet::from(["parking_lot", "parking_lot_core", "sled"])),
        "{above:?}"
    );
    assert_eq!(users_of(&lock, "parking_lot 0.11.2"), BTreeSet::from(["sled"]));
    for id in ["RUSTSEC-2025-0057", "RUSTSEC-2024-0384"] {
        let line = deny
            .lines()
            .find(|l| l.contains(id))
            .unwrap_or_else(|| panic!("{id} is not in deny.toml"));
        assert!(line.contains("reason = "), "{line}");
    }
}
