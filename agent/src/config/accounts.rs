//! User and group names. The files are asked first, then `getent(1)`, which knows of LDAP and the like.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{LazyLock, mpsc};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// `chown(2)` takes this for "leave it": nobody has it.
const NOBODYS_ID: u32 = u32::MAX;

/// The id of a user's name, or the number itself.
pub fn user_id(name: &str) -> Option<u32> {
    number(name).or_else(|| ask("passwd", name).map(|(_, id)| id))
}

/// The id of a group's name, or the number itself.
pub fn group_id(name: &str) -> Option<u32> {
    number(name).or_else(|| ask("group", name).map(|(_, id)| id))
}

fn number(name: &str) -> Option<u32> {
    name.parse().ok().filter(|id| *id != NOBODYS_ID)
}

/// The user's name, or the number where the host knows none.
pub fn user_name(uid: u32) -> String {
    cached_name("passwd", uid)
}

/// The group's name, or the number where the host knows none.
pub fn group_name(gid: u32) -> String {
    cached_name("group", gid)
}

/// What the user database says of a person besides the name: gecos.
pub fn user_gecos(name: &str) -> Option<String> {
    let field = |lines: &str| {
        let of = |line: &str| line.split(':').next() == Some(name);
        let line = lines.lines().find(|l| of(l))?;
        line.split(':').nth(4).map(str::to_owned)
    };
    let valid = !name.is_empty() && !name.starts_with('-');
    field(&fs::read_to_string("/etc/passwd").unwrap_or_default())
        .or_else(|| field(&valid.then(|| getent("passwd", &[name]))??))
}

/// What the host's accounts say of a user and of some groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// Whether there is such a user.
    pub is_known: bool,
    /// The user's groups, the primary one among them.
    pub groups: Vec<u32>,
    /// Those of the groups asked for that there are.
    pub known_groups: Vec<u32>,
}

/// Asks for a user's groups, and which of `gids` there are. None: a directory service does not answer.
pub fn membership(uid: u32, gids: &[u32]) -> Option<Membership> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    let mut known_groups = Vec::new();
    for gid in gids {
        if find(&group, &gid.to_string()).is_some() || !getent("group", &[&gid.to_string()])?.is_empty() {
            known_groups.push(*gid);
        }
    }
    let user = match user_of(&passwd, uid) {
        Some(user) => Some(user),
        None => user_of(&getent("passwd", &[&uid.to_string()])?, uid),
    };
    let Some((name, primary)) = user else {
        return Some(Membership {
            known_groups,
            ..Membership::default()
        });
    };
    let mut groups = vec![primary];
    groups.extend(groups_with(&group, &name));
    if !name.starts_with('-') {
        let line = getent("initgroups", &[&name])?;
        groups.extend(
            line.split_whitespace()
                .skip(1)
                .filter_map(|gid| gid.parse::<u32>().ok()),
        );
    }
    Some(Membership {
        is_known: true,
        groups,
        known_groups,
    })
}

/// The name and primary group of a uid in the lines of a user database.
fn user_of(lines: &str, uid: u32) -> Option<(String, u32)> {
    lines.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields.as_slice() {
            [name, _, id, gid, ..] if id.parse() == Ok(uid) => Some(((*name).to_owned(), gid.parse().ok()?)),
            _ => None,
        }
    })
}

/// The groups that name a user among their members.
fn groups_with(lines: &str, user: &str) -> Vec<u32> {
    let of = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields.as_slice() {
            [_, _, gid, members, ..] if members.split(',').any(|m| m.trim() == user) => gid.parse().ok(),
            _ => None,
        }
    };
    lines.lines().filter_map(of).collect()
}

/// Names are asked for again after this long; until the answer is there, the old one is given.
const CACHED_FOR: Duration = Duration::from_secs(300);
/// Nobody's name is older than this.
const CACHED_MAX: Duration = Duration::from_secs(86_400);
/// A directory service that takes longer is taken for dead.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
/// Ids asked for by one command.
const ASKED_AT_ONCE: usize = 1000;

type Names = HashMap<(&'static str, u32), (Instant, String)>;

static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

/// Asks for the names of users that are not known yet, all at once: one by one, each takes milliseconds.
pub fn know_user_names(uids: impl Iterator<Item = u32>) {
    know("passwd", uids);
}

/// The same for groups.
pub fn know_group_names(gids: impl Iterator<Item = u32>) {
    know("group", gids);
}

fn cached_name(database: &'static str, id: u32) -> String {
    know(database, std::iter::once(id));
    let names = NAMES.lock();
    names
        .get(&(database, id))
        .map_or_else(|| id.to_string(), |(_, name)| name.clone())
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
        let old = |(key, (asked, _)): (&(&str, u32), &(Instant, String))| {
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
    let mut found = by_id(&fs::read_to_string(format!("/etc/{database}")).unwrap_or_default());
    let elsewhere: Vec<String> = ids
        .iter()
        .filter(|id| !found.contains_key(id))
        .map(u32::to_string)
        .collect();
    for some in elsewhere.chunks(ASKED_AT_ONCE) {
        let keys: Vec<&str> = some.iter().map(String::as_str).collect();
        // One that does not answer is not asked for the others.
        let Some(lines) = getent(database, &keys) else {
            break;
        };
        found.extend(by_id(&lines));
    }
    let now = Instant::now();
    let mut names = NAMES.lock();
    for id in ids {
        let name = found.remove(id).unwrap_or_else(|| id.to_string());
        names.insert((database, *id), (now, name));
    }
}

/// The first name of each id counts, as for the C library.
fn by_id(lines: &str) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in lines.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(id))) = (fields.next(), fields.nth(1).map(str::parse)) {
            names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    names
}

fn ask(database: &str, key: &str) -> Option<(String, u32)> {
    let lines = fs::read_to_string(format!("/etc/{database}")).unwrap_or_default();
    find(&lines, key).or_else(|| {
        // No shell, and a name that looks like an option is none.
        let valid = !key.is_empty() && !key.starts_with('-');
        find(&valid.then(|| getent(database, &[key]))??, key)
    })
}

/// What `getent DATABASE KEY...` prints; nothing when the directory service behind it does not answer in time.
fn getent(database: &str, keys: &[&str]) -> Option<String> {
    let mut command = Command::new("getent");
    command.arg(database).args(keys);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        // Where there is none, there is no directory service either.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Some(String::new()),
        Err(_) => return None,
    };
    let mut stdout = child.stdout.take()?;
    let (give, take) = mpsc::channel();
    // It ends with the child.
    let reader = std::thread::Builder::new().spawn(move || {
        let mut printed = Vec::new();
        let _ = stdout.read_to_end(&mut printed);
        let _ = give.send(printed);
    });
    let printed = match reader {
        Ok(_) => take.recv_timeout(ANSWERS_WITHIN).ok(),
        Err(_) => None,
    };
    if printed.is_none() {
        tracing::warn!(
            database,
            keys = keys.len(),
            "getent does not answer; the names count as unknown"
        );
        let _ = child.kill();
    }
    let _ = child.wait();
    Some(String::from_utf8_lossy(&printed?).into_owned())
}

fn find(lines: &str, key: &str) -> Option<(String, u32)> {
    lines.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (name == key || id == key).then_some(())?;
        Some((name.to_owned(), id.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_a_user_are_those_that_name_them_and_the_primary_one() {
        let root = membership(0, &[0, 4_000_000_001]).unwrap_or_default();
        assert!(root.is_known && root.groups.contains(&0));
        assert_eq!(root.known_groups, [0]);
        let nobody = membership(4_000_000_001, &[]);
        assert_eq!(nobody, Some(Membership::default()));
        let passwd = "a:x:5:50:x:/:/bin/sh\nbad\nb:x:6:60::/:\n";
        assert_eq!(user_of(passwd, 6), Some(("b".into(), 60)));
        assert_eq!(user_of(passwd, 7), None);
        assert_eq!(groups_with("g:x:1:a,b\nh:x:2:ab\ni:x:3:\nj:x:4:b", "b"), [1, 4]);
    }

    #[test]
    fn names_and_numbers_are_found() {
        assert_eq!(user_id("root"), Some(0));
        assert_eq!(user_id("4711"), Some(4711));
        assert_eq!(user_id("no-such-user-here"), None);
        assert_eq!(user_id("4294967295"), None);
        assert_eq!(user_name(0), "root");
        assert_eq!(user_gecos("root").as_deref(), Some("root"));
        assert_eq!(user_gecos("no-such-user-here"), None);
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
        let many: Vec<String> = (0..3000)
            .map(|n| (n % 2 * 4_000_000_000u32).to_string())
            .collect();
        let keys: Vec<&str> = many.iter().map(String::as_str).collect();
        let printed = getent("passwd", &keys).unwrap_or_default();
        assert_eq!(printed.lines().count(), 1500, "more than a pipe holds");
        assert_eq!(by_id("a:x:5:\nb:x:5:\nbad\n"), HashMap::from([(5, "a".into())]));
        assert_eq!(find("a:x:5:\nb:x:6:", "b"), Some(("b".into(), 6)));
    }
}
