//! Any text that people write as a glob, and any names that users give their files.
//!
//! The first line holds patterns, separated by tabs; every other line is a path.

#![no_main]

use libfuzzer_sys::fuzz_target;
use purge_policy::scope::{Globs, Scope};

fuzz_target!(|input: &[u8]| {
    let mut lines = input.split(|b| *b == b'\n');
    let Some(Ok(first)) = lines.next().map(std::str::from_utf8) else {
        return;
    };
    let patterns: Vec<String> = first.split('\t').map(str::to_owned).collect();
    let globs = match Globs::compile(&patterns) {
        Ok(globs) => globs,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let single: Vec<Globs> = patterns
        .iter()
        .map(|p| Globs::compile(std::slice::from_ref(p)).expect("it is a glob in company"))
        .collect();
    let including = Scope {
        include: globs.clone(),
        ..Scope::all()
    };
    let excluding = Scope {
        exclude: Some(globs.clone()),
        ..Scope::all()
    };
    for path in lines {
        for is_dir in [false, true] {
            let matched = globs.matching(path, is_dir);
            if let Some(pattern) = matched {
                assert!(
                    patterns.iter().any(|p| p == pattern),
                    "{pattern:?} is none of these"
                );
            }
            let alone = single.iter().any(|g| g.matching(path, is_dir).is_some());
            assert_eq!(matched.is_some(), alone, "patterns change each other's meaning");
            check_scope(&including, path, is_dir);
            check_scope(&excluding, path, is_dir);
            assert_eq!(excluding.admits_path(path, is_dir), matched.is_none());
            // As the agent builds paths.
            let is_path = !path
                .split(|b| *b == b'/')
                .any(|part| matches!(part, b"" | b"." | b".."));
            if is_path && is_dir && matched.is_some() {
                let below = [path, b"/x"].concat();
                assert!(
                    globs.matching(&below, false).is_some(),
                    "a matched directory does not cover what it holds"
                );
            }
        }
    }
});

/// The reason is there exactly when something is kept out.
fn check_scope(scope: &Scope, path: &[u8], is_dir: bool) {
    let why_not = scope.why_not(path, is_dir, 1, 1, 1);
    assert_eq!(why_not.is_none(), scope.admits_path(path, is_dir), "{why_not:?}");
    assert!(scope.needs_path() || scope.admits_path(path, is_dir));
}
