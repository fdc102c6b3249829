//! User and group names. The files are asked first, then `getent(1)`, which knows of LDAP and the like.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
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
        .or_else(|| field(&valid.then(|| getent("passwd", name))??))
}

/// Names are asked for again after this long.
const CACHED_FOR: Duration = Duration::from_secs(300);
/// A directory service that takes longer is taken for dead.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

type Names = HashMap<(&'static str, u32), (Instant, String)>;

fn cached_name(database: &'static str, id: u32) -> String {
    static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);
    if let Some((asked, name)) = NAMES.lock().get(&(database, id))
        && asked.elapsed() < CACHED_FOR
    {
        return name.clone();
    }
    let name = ask(database, &id.to_string()).map_or_else(|| id.to_string(), |(name, _)| name);
    NAMES
        .lock()
        .insert((database, id), (Instant::now(), name.clone()));
    name
}

fn ask(database: &str, key: &str) -> Option<(String, u32)> {
    let lines = fs::read_to_string(format!("/etc/{database}")).unwrap_or_default();
    find(&lines, key).or_else(|| {
        // No shell, and a name that looks like an option is none.
        let valid = !key.is_empty() && !key.starts_with('-');
        find(&valid.then(|| getent(database, key))??, key)
    })
}

/// What `getent DATABASE KEY` prints; nothing when the directory service behind it does not answer in time.
fn getent(database: &str, key: &str) -> Option<String> {
    let mut child = Command::new("getent")
        .args([database, key])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let asked = Instant::now();
    // One line: it fits into the pipe, so the child never waits for a reader.
    while child.try_wait().ok()?.is_none() {
        if asked.elapsed() > ANSWERS_WITHIN {
            tracing::warn!(
                database,
                key,
                "getent does not answer; the name counts as unknown"
            );
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let mut printed = String::new();
    child.stdout?.read_to_string(&mut printed).ok()?;
    Some(printed)
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
    fn names_and_numbers_are_found() {
        assert_eq!(user_id("root"), Some(0));
        assert_eq!(user_id("4711"), Some(4711));
        assert_eq!(user_id("no-such-user-here"), None);
        assert_eq!(user_id("4294967295"), None);
        assert_eq!(user_name(0), "root");
        assert_eq!(user_gecos("root").as_deref(), Some("root"));
        assert_eq!(user_gecos("no-such-user-here"), None);
        assert_eq!(group_name(4_000_000_001), "4000000001");
        assert_eq!(find("a:x:5:\nb:x:6:", "b"), Some(("b".into(), 6)));
    }
}
