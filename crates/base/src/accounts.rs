//! User and group names. The files are asked first, then `getent(1)`, which knows of LDAP and the like.

mod known;
mod persons;

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

pub use self::known::{
    expect_names, group_name, group_names, know_group_names, know_user_names, largest_named, user_account,
    user_name, user_names,
};
pub use self::persons::Persons;

/// `chown(2)` takes this for "leave it": no account has it.
const NO_ACCOUNT: u32 = u32::MAX;
/// A directory service that takes longer is taken for dead.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// Why a word means no account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unclear {
    /// This host knows no such account.
    Unknown,
    /// It is a number, and the name of an account with another number.
    NameOfAnother(u32),
}

/// The one id of a user's name, or the number itself.
pub fn user_id(name: &str) -> Option<u32> {
    first_id("passwd", name)
}

/// The one id of a group's name, or the number itself.
pub fn group_id(name: &str) -> Option<u32> {
    first_id("group", name)
}

/// All ids of a user's name, or the number itself: nothing keeps two numbers from having one name.
///
/// # Errors
/// When there is no such user, or it cannot be told whether a number or a name is meant.
pub fn user_ids(name: &str) -> Result<Vec<u32>, Unclear> {
    all_ids("passwd", name)
}

/// The same for a group.
///
/// # Errors
/// As for [`user_ids`].
pub fn group_ids(name: &str) -> Result<Vec<u32>, Unclear> {
    all_ids("group", name)
}

/// Whether a word stands for an id: `4711`, or `+4711` where an account has the name 4711.
pub fn is_number(word: &str) -> bool {
    number(word).is_some()
}

fn number(word: &str) -> Option<u32> {
    word.parse().ok().filter(|id| *id != NO_ACCOUNT)
}

fn first_id(database: &str, name: &str) -> Option<u32> {
    all_ids(database, name).ok()?.first().copied()
}

fn all_ids(database: &str, name: &str) -> Result<Vec<u32>, Unclear> {
    let file = fs::read_to_string(format!("/etc/{database}")).unwrap_or_default();
    let mut ids = ids_of(&file, name);
    if let Some(id) = number(name) {
        return match ids.first() {
            Some(other) if *other != id => Err(Unclear::NameOfAnother(*other)),
            _ => Ok(vec![id]),
        };
    }
    if ids.is_empty() && known::can_be_asked(name) {
        // A directory may print another form of the name than the one asked for: other case, a domain before or behind it.
        let answer = getent(database, &[name]).unwrap_or_default();
        ids.extend(entries(&answer).map(|(_, id)| id));
    }
    match ids.is_empty() {
        true => Err(Unclear::Unknown),
        false => Ok(ids),
    }
}

/// Names and ids in the lines of a database. A name may have blanks, backslashes and `@` in it.
fn entries(lines: &str) -> impl Iterator<Item = (&str, u32)> {
    lines.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        let id = id.parse().ok().filter(|id| *id != NO_ACCOUNT)?;
        (!name.is_empty()).then_some((name, id))
    })
}

fn ids_of(lines: &str, name: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    for (_, id) in entries(lines).filter(|(known, _)| *known == name) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
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
        if entries(&group).any(|(_, id)| id == *gid) || !getent("group", &[&gid.to_string()])?.is_empty() {
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
        groups.extend(groups_in(&line, &name));
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

/// The groups in what `getent initgroups NAME` prints: the name, padded, and the numbers. A name may have blanks and digits in it.
fn groups_in(line: &str, name: &str) -> Vec<u32> {
    let numbers = line.strip_prefix(name).unwrap_or_default();
    numbers
        .split_whitespace()
        .filter_map(|gid| gid.parse().ok())
        .collect()
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

/// What `getent DATABASE KEY...` prints; nothing when the directory service behind it does not answer in time.
fn getent<K: AsRef<OsStr>>(database: &str, keys: &[K]) -> Option<String> {
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
        assert_eq!(user_ids("+4711"), Ok(vec![4711]));
        assert_eq!(user_ids("4294967294"), Ok(vec![4_294_967_294]));
        assert_eq!(user_id("no-such-user-here"), None);
        assert_eq!(user_ids("DOM\\no-such-user"), Err(Unclear::Unknown));
        assert_eq!(user_id("4294967295"), None);
        assert_eq!(user_gecos("root").as_deref(), Some("root"));
        assert_eq!(user_gecos("no-such-user-here"), None);
        let many: Vec<String> = (0..3000)
            .map(|n| (n % 2 * 4_000_000_000u32).to_string())
            .collect();
        let printed = getent("passwd", &many).unwrap_or_default();
        assert_eq!(printed.lines().count(), 1500, "more than a pipe holds");
    }

    #[test]
    fn a_name_has_all_its_numbers() {
        let lines = "a:x:5:\nb c:x:6:\na:x:7:\na:x:5:\nno:x:-1:\nnot:x:4294967295:\n:x:9:\n";
        assert_eq!(ids_of(lines, "a"), [5, 7]);
        assert_eq!(ids_of(lines, "b c"), [6]);
        assert!(
            ids_of(lines, "no").is_empty() && ids_of(lines, "not").is_empty() && ids_of(lines, "").is_empty()
        );
    }

    #[test]
    fn digits_in_a_name_are_no_group() {
        assert_eq!(groups_in("ann 0 x              5 6\n", "ann 0 x"), [5, 6]);
        assert_eq!(groups_in("other 7", "ann"), [0u32; 0]);
    }
}
