//! The names of ids, asked for once and remembered.
//!
//! ```text
//! one id, several names    it is shown by the first, and is meant by each of them
//! one name, several ids    the id that the host gives for the name is shown by it; each other id by its number.
//!                          The name means all of them
//! no name                  the number
//! ```

use std::collections::HashMap;
use std::fs;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{entries, getent};

/// Names are asked for again after this long; until the answer is there, the old one is given.
const CACHED_FOR: Duration = Duration::from_secs(300);
/// No remembered name is older than this.
const CACHED_MAX: Duration = Duration::from_secs(86_400);
/// Ids asked for by one command.
const ASKED_AT_ONCE: usize = 1000;

/// What an id is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Called {
    /// Its names, the first one first.
    names: Vec<String>,
    /// The first name leads to another id.
    leads_elsewhere: bool,
}

type Names = HashMap<(&'static str, u32), (Instant, Called)>;

static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

/// The user's name: the number where the host knows no name, or where the name leads to another number. So no two users are shown by one name.
pub fn user_name(uid: u32) -> String {
    label("passwd", uid)
}

/// The same for a group.
pub fn group_name(gid: u32) -> String {
    label("group", gid)
}

/// The name that a user goes by, also where another number has the same one; the number where there is no name.
pub fn user_account(uid: u32) -> String {
    let names = called("passwd", uid).names;
    names.into_iter().next().unwrap_or_else(|| uid.to_string())
}

/// All names of a user.
pub fn user_names(uid: u32) -> Vec<String> {
    called("passwd", uid).names
}

/// All names of a group.
pub fn group_names(gid: u32) -> Vec<String> {
    called("group", gid).names
}

/// Owners in one answer who are shown by name, those with most first; the others by number. One person can have 65,536 uids, and a directory
/// service is asked for each uid that has no name.
const NAMED_MAX: usize = 1000;

/// The names of the first of these users, in their order.
pub fn largest_named(uids: &[u32]) -> HashMap<u32, String> {
    let first = uids.get(..NAMED_MAX).unwrap_or(uids);
    know_user_names(first.iter().copied());
    first.iter().map(|uid| (*uid, user_name(*uid))).collect()
}

/// Asks for the names of users that are not known yet, all at once: one by one, each takes milliseconds.
pub fn know_user_names(uids: impl Iterator<Item = u32>) {
    know("passwd", uids);
}

/// The same for groups.
pub fn know_group_names(gids: impl Iterator<Item = u32>) {
    know("group", gids);
}

fn label(database: &'static str, id: u32) -> String {
    let called = called(database, id);
    let name = called.names.into_iter().next();
    name.filter(|_| !called.leads_elsewhere)
        .unwrap_or_else(|| id.to_string())
}

fn called(database: &'static str, id: u32) -> Called {
    know(database, std::iter::once(id));
    let names = NAMES.lock();
    names
        .get(&(database, id))
        .map(|(_, called)| called.clone())
        .unwrap_or_default()
}

/// Asks for the names that are not known yet, while others go on: a question that comes later need not wait for them.
pub fn expect_names(uids: impl Iterator<Item = u32>, gids: impl Iterator<Item = u32>) {
    let (users, groups) = (lookup("passwd", uids), lookup("group", gids));
    if !users.unknown.is_empty() || !groups.unknown.is_empty() {
        in_background(move || {
            learn("passwd", &users.unknown);
            learn("group", &groups.unknown);
        });
    }
}

fn know(database: &'static str, ids: impl Iterator<Item = u32>) {
    let found = lookup(database, ids);
    if !found.unknown.is_empty() {
        learn(database, &found.unknown);
    }
    if found.some_are_old {
        in_background(renew);
    }
}

/// What is known of names.
struct Lookup {
    unknown: Vec<u32>,
    /// Some are known, but were asked for long ago.
    some_are_old: bool,
}

fn lookup(database: &'static str, ids: impl Iterator<Item = u32>) -> Lookup {
    let (mut unknown, mut some_are_old) = (Vec::new(), false);
    let names = NAMES.lock();
    for id in ids {
        match names.get(&(database, id)).map(|(asked, _)| asked.elapsed()) {
            Some(age) if age < CACHED_FOR => {}
            Some(age) if age < CACHED_MAX => some_are_old = true,
            _ => unknown.push(id),
        }
    }
    Lookup {
        unknown,
        some_are_old,
    }
}

/// Asks again for all names that were asked for long ago.
fn renew() {
    for database in ["passwd", "group"] {
        let old = |(key, (asked, _)): (&(&str, u32), &(Instant, Called))| {
            (key.0 == database && asked.elapsed() >= CACHED_FOR).then_some(key.1)
        };
        let ids: Vec<u32> = NAMES.lock().iter().filter_map(old).collect();
        learn(database, &ids);
    }
}

/// Only one works at a time: what is left undone is asked for again.
fn in_background(work: impl FnOnce() + Send + 'static) {
    static RUNS: AtomicBool = AtomicBool::new(false);
    if RUNS.swap(true, SeqCst) {
        return;
    }
    let work = || {
        work();
        RUNS.store(false, SeqCst);
    };
    let begun = std::thread::Builder::new().name("names".into()).spawn(work);
    if begun.is_err() {
        RUNS.store(false, SeqCst);
    }
}

fn learn(database: &'static str, ids: &[u32]) {
    let file = fs::read_to_string(format!("/etc/{database}")).unwrap_or_default();
    let mut found = by_id(&file);
    let elsewhere: Vec<u32> = ids.iter().copied().filter(|id| !found.contains_key(id)).collect();
    found.extend(ask_for(database, &elsewhere, &file));
    let now = Instant::now();
    let mut names = NAMES.lock();
    for id in ids {
        let called = found.remove(id).unwrap_or_default();
        names.insert((database, *id), (now, called));
    }
}

/// The names of ids that are not in the file. Whether each name leads back to its id is asked as well.
fn ask_for(database: &str, ids: &[u32], file: &str) -> HashMap<u32, Called> {
    let mut found = HashMap::new();
    for some in ids.chunks(ASKED_AT_ONCE) {
        let keys: Vec<String> = some.iter().map(u32::to_string).collect();
        // One that does not answer is not asked for the others.
        let Some(lines) = getent(database, &keys) else {
            break;
        };
        found.extend(by_id(&lines));
    }
    let names: Vec<String> = found.values().filter_map(|c| c.names.first().cloned()).collect();
    let mut leads = first_ids(file);
    for some in names.chunks(ASKED_AT_ONCE) {
        let asked: Vec<String> = some.iter().filter(|n| can_be_asked(n)).cloned().collect();
        let answer = (!asked.is_empty()).then(|| getent(database, &asked)).flatten();
        for (name, id) in first_ids(&answer.unwrap_or_default()) {
            leads.entry(name).or_insert(id);
        }
    }
    for (id, called) in &mut found {
        let first = called.names.first().and_then(|name| leads.get(name));
        called.leads_elsewhere = first.is_some_and(|of_name| of_name != id);
    }
    found
}

/// `getent` takes a name of digits for an id, and one with `-` before it for an option.
pub(super) fn can_be_asked(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('-') && !name.bytes().all(|b| b.is_ascii_digit())
}

/// The id that each name leads to: the first line counts, as for the C library.
fn first_ids(lines: &str) -> HashMap<String, u32> {
    let mut ids = HashMap::new();
    for (name, id) in entries(lines) {
        ids.entry(name.to_owned()).or_insert(id);
    }
    ids
}

/// All names of each id; the first counts, as for the C library.
fn by_id(lines: &str) -> HashMap<u32, Called> {
    let leads = first_ids(lines);
    let mut all: HashMap<u32, Called> = HashMap::new();
    for (name, id) in entries(lines) {
        let called = all.entry(id).or_default();
        if called.names.is_empty() {
            called.leads_elsewhere = leads.get(name).is_some_and(|first| *first != id);
        }
        if !called.names.iter().any(|known| known == name) {
            called.names.push(name.to_owned());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_known_and_expected() {
        assert_eq!(user_name(0), "root");
        assert_eq!(group_name(4_000_000_001), "4000000001");
        know_group_names([0, 4_000_000_002].into_iter());
        expect_names([4_000_000_003].into_iter(), [].into_iter());
        let until = Instant::now() + Duration::from_secs(10);
        while !lookup("passwd", [4_000_000_003].into_iter()).unknown.is_empty() {
            assert!(
                Instant::now() < until,
                "a name that is expected was not asked for"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(
            (group_name(0), group_name(4_000_000_002)),
            ("root".into(), "4000000002".into())
        );
    }

    #[test]
    fn each_id_has_all_its_names_and_each_name_leads_to_one_id() {
        let all = by_id("a:x:5:\nb:x:5:\nbad\nb:x:6:\nc:x:4294967294:\nDOM\\d:x:7:\n");
        let of = |id: u32| all.get(&id).cloned().unwrap();
        assert_eq!(of(5).names, ["a", "b"]);
        assert!(!of(5).leads_elsewhere);
        assert_eq!(of(6).names, ["b"]);
        assert!(of(6).leads_elsewhere, "the name b leads to 5");
        assert_eq!(of(4_294_967_294).names, ["c"]);
        assert_eq!(of(7).names, ["DOM\\d"]);
    }
}
