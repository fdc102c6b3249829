//! The documents in the packages: a link that leads to nothing there is a fault of the list of files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

const PLACE: &str = "usr/share/doc/purge-agent/";

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What a package installs below [`PLACE`], by its place in the sources. Each line of a list of files names source and place first.
fn installed(is_rpm: bool) -> BTreeSet<PathBuf> {
    let manifest = fs::read_to_string(top().join("package/Cargo.toml")).unwrap();
    let mut found = BTreeSet::new();
    for line in manifest.lines().map(str::trim) {
        let mut words = line.split('"').skip(1).step_by(2);
        let (Some(source), Some(place)) = (words.next(), words.next()) else {
            continue;
        };
        if place.starts_with('/') != is_rpm {
            continue;
        }
        let Some(below) = place.trim_start_matches('/').strip_prefix(PLACE) else {
            continue;
        };
        let source = source.trim_start_matches("../");
        let (dir, name) = source
            .rsplit_once('/')
            .map_or(("", source), |(dir, name)| (dir, name));
        assert_eq!(
            dir,
            below.trim_end_matches('/'),
            "{line}: a document lies as in the sources"
        );
        match name.strip_prefix('*') {
            Some(suffix) => found.extend(with_suffix(dir, suffix)),
            None => found.extend([Path::new(dir).join(name)]),
        }
    }
    found
}

fn with_suffix(dir: &str, suffix: &str) -> impl Iterator<Item = PathBuf> {
    let names = fs::read_dir(top().join(dir)).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let ours: Vec<String> = names.filter(|name| name.ends_with(suffix)).collect();
    ours.into_iter().map(move |name| Path::new(dir).join(name))
}

/// Where a link of a page leads, from the top of the sources.
fn target(page: &Path, link: &str) -> PathBuf {
    let mut to = PathBuf::new();
    for part in page.parent().unwrap().join(link).components() {
        match part {
            Component::ParentDir => assert!(to.pop(), "{}: {link}", page.display()),
            part => to.push(part),
        }
    }
    to
}

fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|l| l.split([')', '#']).next());
    targets.filter(|l| !l.is_empty() && !l.contains("://"))
}

#[test]
fn both_packages_install_the_same_documents() {
    let deb = installed(false);
    assert!(deb.len() > 50, "{deb:?}");
    assert_eq!(deb, installed(true));
}

/// Pages for developers may lead to the sources as well. A page of the handbook is read where only a package is installed.
#[test]
fn every_link_between_installed_documents_holds() {
    let installed = installed(false);
    let pages = installed
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "md"));
    for page in pages {
        let text = fs::read_to_string(top().join(page)).unwrap();
        for link in links(&text) {
            let to = target(page, link);
            let is_document = to.starts_with("docs") || to.extension().is_some_and(|e| e == "md");
            let may_be_source = !page.starts_with("docs/handbook") && !is_document;
            let is_of_bench = to.starts_with("bench");
            assert!(
                installed.contains(&to) || may_be_source || is_of_bench,
                "{}: {link} is not installed",
                page.display()
            );
        }
    }
}
