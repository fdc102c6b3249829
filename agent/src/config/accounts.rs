//! User and group names. The files are asked first, then `getent(1)`, which knows of LDAP and the like.

use std::collections::HashMap;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The id of a user's name, or the number itself.
pub fn user_id(name: &str) -> Option<u32> {
    name.parse()
        .ok()
        .or_else(|| ask("passwd", name).map(|(_, id)| id))
}

/// The id of a group's name, or the number itself.
pub fn group_id(name: &str) -> Option<u32> {
    name.parse().ok().or_else(|| ask("group", name).map(|(_, id)| id))
}

/// The user's name, or the number where the host knows none.
pub fn user_name(uid: u32) -> String {
    cached_name("passwd", uid)
}

/// The group's name, or the number where the host knows none.
pub fn group_name(gid: u32) -> String {
    cached_name("group", gid)
}

/// Names are asked for again after this long.
const CACHED_FOR: Duration = Duration::from_secs(300);

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
        let asked = valid.then(|| {
            Command::new("getent")
                .args([database, key])
                .stdin(Stdio::null())
                .output()
        });
        find(&String::from_utf8_lossy(&asked?.ok()?.stdout), key)
    })
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
        assert_eq!(user_name(0), "root");
        assert_eq!(group_name(4_000_000_001), "4000000001");
        assert_eq!(find("a:x:5:\nb:x:6:", "b"), Some(("b".into(), 6)));
    }
}
