//! No modules that import each other in a circle.

use std::fs;
use std::path::PathBuf;

use purge_tests::files::walk;
use purge_tests::structure::{circles, crates, folders};
use purge_tests::top;

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let all = crates(&top());
    assert!(all.len() > 15, "the crates are not where they were");
    assert!(
        all.iter().filter(|one| !one.folders.is_empty()).count() > 10,
        "no imports are found"
    );
    let mut found = Vec::new();
    for one in &all {
        for (folder, arrows) in &one.folders {
            let circles = circles(arrows).into_iter();
            found.extend(circles.map(|circle| format!("{}: src/{folder}: {circle:?}", one.name)));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_circle_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let file = dir.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    write("lib.rs", "mod a; mod b; mod c;");
    write("a.rs", "use crate::{c::X, b::deep::Y};");
    write("b/mod.rs", "mod deep;");
    write("b/deep.rs", "fn f() -> super::super::c::X { todo!() }");
    write("c.rs", "#[cfg(test)] mod tests { use crate::a::Z; }");
    let circles_of = || {
        let all = folders(dir.path());
        all.values().flat_map(circles).collect::<Vec<_>>()
    };
    assert!(circles_of().is_empty(), "tests do not count");
    write("c.rs", "use super::a::Z;");
    let circles = circles_of();
    assert_eq!(circles.len(), 1);
    assert_eq!(circles[0].iter().collect::<Vec<_>>(), ["a", "b", "c"]);
}

/// A longer file is two nouns.
#[test]
fn no_file_has_more_than_600_lines() {
    const LINES_MAX: usize = 600;
    let folders = "agent bench crates ctl fuzz/fuzz_targets package proto tests".split(' ');
    let entries = folders.flat_map(|folder| walk(&top().join(folder)));
    let sources: Vec<_> = entries
        .map(|entry| entry.path)
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .collect();
    assert!(sources.len() > 500, "the sources are not where they were");
    let is_long = |path: &&PathBuf| fs::read_to_string(path).unwrap().lines().count() > LINES_MAX;
    let long: Vec<_> = sources.iter().filter(is_long).collect();
    assert!(long.is_empty(), "cut these along a joint: {long:?}");
}
