//! Polling with a deadline: never longer than needed, never for ever.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::files::assert_same;

/// How long anything that should happen soon may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);
/// How long a scan or a large run may take.
pub const LONG: Duration = Duration::from_secs(300);

const EVERY: Duration = Duration::from_millis(50);

/// Asks until there is an answer.
///
/// # Panics
/// When there is none in time.
pub fn until<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < within, "waited {within:?} in vain until {what}");
        std::thread::sleep(EVERY);
    }
}

/// Waits until `look` gives exactly the `expected` paths; after the deadline fails with the differences.
///
/// # Panics
/// When it does not in time.
pub fn until_same(what: &str, expected: &BTreeSet<PathBuf>, mut look: impl FnMut() -> BTreeSet<PathBuf>) {
    let began = Instant::now();
    loop {
        let found = look();
        if found == *expected || began.elapsed() >= SOON {
            return assert_same(what, &found, expected);
        }
        std::thread::sleep(EVERY);
    }
}

/// Tells threads that go on until the flag is set to end, when it is dropped: also by a panic, which would wait for them for ever.
#[derive(Debug)]
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Lets `seconds` go by: only for time itself, which no polling hastens (a TTL, a write-back).
pub fn let_pass(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}
