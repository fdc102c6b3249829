//! Tests that cannot run where they are: said aloud, counted, and a failure where nothing may be skipped.

use std::io::Write;

/// Why a test cannot run here.
#[derive(Debug)]
pub struct Unmet(pub String);

/// Gives the value of a `Result<T, Unmet>`, or skips the test that contains it.
#[macro_export]
macro_rules! need {
    ($wanted:expr) => {
        match $wanted {
            Ok(value) => value,
            Err(unmet) => {
                fn here() {}
                $crate::skip::skipped(std::any::type_name_of_val(&here), &unmet);
                return;
            }
        }
    };
}

/// Says that a test was skipped. `place` is the path of a function inside it.
///
/// # Panics
/// When nothing may be skipped: `CI=true` or `PURGE_TESTS_NO_SKIP=1`.
pub fn skipped(place: &str, unmet: &Unmet) {
    let name = place.trim_end_matches("::here");
    // One line for each, for they are counted.
    let why: Vec<_> = unmet.0.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let line = format!("SKIPPED {name}: {}\n", why.join("; "));
    // Not with `println!`, which the test runner swallows where a test passes.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(list) = std::env::var_os("PURGE_TESTS_SKIPS") {
        let list = std::fs::OpenOptions::new().create(true).append(true).open(list);
        let _ = list.and_then(|mut f| f.write_all(line.as_bytes()));
    }
    let on = |name, value| std::env::var(name).is_ok_and(|v| v == value);
    assert!(
        !on("CI", "true") && !on("PURGE_TESTS_NO_SKIP", "1"),
        "a skipped test is a failure here: {}",
        unmet.0
    );
}
