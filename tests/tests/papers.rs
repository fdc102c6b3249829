//! What the papers say of the tests and the dependencies.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    fs::read_to_string(top().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let text = read("docs/THREAT-MODEL.md");
    let named: BTreeSet<(&str, &str)> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|code| code.split_once("::"))
        .filter(|(program, _)| program.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    assert!(named.len() > 30, "{named:?}");
    let missing: Vec<String> = named
        .iter()
        .filter(|(program, test)| {
            let source = fs::read_to_string(top().join("tests/tests").join(format!("{program}.rs")));
            !source.is_ok_and(|s| s.contains(&format!("fn {test}(")))
        })
        .map(|(program, test)| format!("{program}::{test}"))
        .collect();
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
fn crates_that_are_kept_up_by_nobody_are_used_by_the_store_alone() {
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
