//! Moving a name to a place that is free, between directories of users and directories that the agent alone can reach. What lies at the place
//! already is never replaced.
//!
//! One call does that (`renameat2(2)`, RENAME_NOREPLACE) where the file system knows it. Where it does not (OpenZFS before 2.2: EINVAL), the
//! second way depends on which side is the agent's:
//!
//! ```text
//!   take   a place that is the agent's    looked at, then rename(2): none but the agent can put anything there in between
//!   give   a file, to a user's directory  link(2), which fails where anything has the name; then unlink(2) of the agent's name
//!          a directory                    mkdir(2) of a placeholder, which fails likewise; then rename(2) over it
//!   aside  to a name of the agent's own   a placeholder, a directory or a file, and rename(2) over it
//!          choice, among users' names
//! ```
//! The kernel puts a directory over an empty directory only. Who exchanges the placeholder for an empty directory of his own in that moment
//! could also have removed that one. A process that is killed in between leaves the file at both places, or a placeholder: the next
//! call with the same names goes on from there.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;

use parking_lot::Mutex;
use purge_model::Kind;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};

use super::fanotify::{Feature, Features};
use super::{beneath, inside, mark, stat};

/// Nothing of the agent's takes a place between the look at it and the move to it.
static LOOKING: Mutex<()> = Mutex::new(());

/// Moves a name from anywhere into a directory that the agent alone can reach.
///
/// # Errors
/// EEXIST when something has the name there, EXDEV on another mount, and what `renameat2(2)` says.
pub fn take(from: impl AsFd, name: &CStr, to: impl AsFd, as_name: &CStr) -> io::Result<()> {
    if let Some(done) = at_once(&from, name, &to, as_name) {
        return done;
    }
    let _looking = LOOKING.lock();
    match inside::is_there(&to, as_name)? {
        true => Err(rustix::io::Errno::EXIST.into()),
        false => inside::move_over(from, name, to, as_name),
    }
}

/// Moves a name from a directory that the agent alone can reach to anywhere.
///
/// # Errors
/// EEXIST when something has the name there, EXDEV on another mount, and what `renameat2(2)`, `linkat(2)` and `mkdirat(2)` say.
pub fn give(from: impl AsFd, name: &CStr, to: impl AsFd, as_name: &CStr) -> io::Result<()> {
    if let Some(done) = at_once(&from, name, &to, as_name) {
        return done;
    }
    match stat::entry(&from, name)?.stat.kind {
        Kind::Directory => give_directory(from, name, to, as_name),
        _ => give_file(from, name, to, as_name),
    }
}

/// Moves a name of users to another that the agent has chosen and that no user has a reason to use.
///
/// # Errors
/// As for [`give`].
pub fn set_aside(from: impl AsFd, name: &CStr, to: impl AsFd, as_name: &CStr) -> io::Result<()> {
    if let Some(done) = at_once(&from, name, &to, as_name) {
        return done;
    }
    if stat::entry(&from, name)?.stat.kind == Kind::Directory {
        return give_directory(from, name, to, as_name);
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(&to, as_name, flags, Mode::empty())?;
    // A directory that has taken the name meanwhile is put over no file.
    inside::move_over(from, name, &to, as_name).inspect_err(|_| {
        if is_at(&made, &to, as_name) {
            let _ = inside::unlink(&to, as_name);
        }
    })
}

/// In one call; none: the file system does not know it.
fn at_once(from: impl AsFd, name: &CStr, to: impl AsFd, as_name: &CStr) -> Option<io::Result<()>> {
    let is_allowed = Features::allowed().is_ok_and(|allowed| allowed.has(Feature::NoReplace));
    let moved =
        is_allowed.then(|| rustix::fs::renameat_with(from, name, to, as_name, RenameFlags::NOREPLACE));
    match moved? {
        // Also said of a directory that would come to lie in itself: the second way says it again.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => None,
        other => Some(other.map_err(Into::into)),
    }
}

fn give_file(from: impl AsFd, name: &CStr, to: impl AsFd, as_name: &CStr) -> io::Result<()> {
    match rustix::fs::linkat(&from, name, &to, as_name, AtFlags::empty()) {
        Ok(()) => {}
        // A process that was killed has linked it.
        Err(rustix::io::Errno::EXIST) if is_same(&from, name, &to, as_name) => {}
        Err(e) => return Err(e.into()),
    }
    inside::unlink(from, name)
}

fn is_same(from: impl AsFd, name: &CStr, to: impl AsFd, as_name: &CStr) -> bool {
    let (Ok(here), Ok(there)) = (stat::entry(from, name), stat::entry(to, as_name)) else {
        return false;
    };
    (here.device, here.stat.ino) == (there.device, there.stat.ino)
}

fn give_directory(from: impl AsFd, name: &CStr, to: impl AsFd, as_name: &CStr) -> io::Result<()> {
    let is_new = match inside::make_closed_dir(&to, as_name) {
        Ok(()) => true,
        // A process that was killed has made it. Where the file system keeps no attributes, it is not known again, and the name is taken.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && is_placeholder(&to, as_name) => false,
        Err(e) => return Err(e),
    };
    let made = beneath::open_dir(&to, as_name.to_bytes())?;
    // A user may have put another directory there since: that is not marked.
    if is_new && is_closed(&made) {
        let _ = mark::set_placeholder(&made);
    }
    inside::move_over(from, name, &to, as_name).inspect_err(|_| {
        if is_at(&made, &to, as_name) {
            let _ = inside::remove_dir(&to, as_name);
        }
    })
}

/// Whether it is as [`inside::make_closed_dir`] makes them.
fn is_closed(dir: impl AsFd) -> bool {
    let own = rustix::process::geteuid().as_raw();
    rustix::fs::fstat(dir).is_ok_and(|is| (is.st_mode & 0o7777, is.st_uid) == (0, own))
}

/// Whether a name leads to what is open.
fn is_at(open: impl AsFd, dir: impl AsFd, name: &CStr) -> bool {
    let found = |located: &stat::Located| (located.device, located.stat.ino);
    let (Ok(open), Ok(there)) = (stat::open_file(open), stat::entry(dir, name)) else {
        return false;
    };
    found(&open) == found(&there)
}

/// An empty directory of the agent's own that keeps a name free. The kernel removes and replaces empty ones only.
fn is_placeholder(dir: impl AsFd, name: &CStr) -> bool {
    let Ok(found) = beneath::open_dir(dir, name.to_bytes()) else {
        return false;
    };
    let is_own = rustix::fs::fstat(&found).is_ok_and(|is| is.st_uid == rustix::process::geteuid().as_raw());
    is_own && mark::is_placeholder(&found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use std::os::fd::OwnedFd;
    use std::path::PathBuf;

    struct Ground {
        tmp: tempfile::TempDir,
        users: OwnedFd,
        own: OwnedFd,
    }

    impl Ground {
        fn new() -> Self {
            let tmp = tempfile::tempdir().unwrap();
            for dir in ["users", "own"] {
                fs::create_dir(tmp.path().join(dir)).unwrap();
            }
            let root = beneath::open_root(tmp.path()).unwrap();
            let open = |path: &[u8]| beneath::open_anchor(&root, path).unwrap();
            let (users, own) = (open(b"users"), open(b"own"));
            Self { tmp, users, own }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.tmp.path().join(path)
        }

        fn read(&self, path: &str) -> Option<String> {
            fs::read_to_string(self.at(path)).ok()
        }
    }

    #[test]
    fn a_file_that_is_given_back_replaces_nothing() {
        let ground = Ground::new();
        fs::write(ground.at("own/f"), "ours").unwrap();
        for there in ["users/f", "users/d"] {
            match there {
                "users/d" => fs::create_dir(ground.at(there)).unwrap(),
                _ => fs::write(ground.at(there), "another's").unwrap(),
            }
        }
        for name in [c"f", c"d"] {
            let error = give_file(&ground.own, c"f", &ground.users, name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(ground.read("users/f").as_deref(), Some("another's"));
        assert_eq!(ground.read("own/f").as_deref(), Some("ours"));
        give_file(&ground.own, c"f", &ground.users, c"g").unwrap();
        assert_eq!(ground.read("users/g").as_deref(), Some("ours"));
        assert!(!ground.at("own/f").exists());
    }

    #[test]
    fn a_link_is_given_back_itself_and_not_what_it_leads_to() {
        let ground = Ground::new();
        fs::write(ground.at("users/target"), "x").unwrap();
        std::os::unix::fs::symlink("../users/target", ground.at("own/l")).unwrap();
        give_file(&ground.own, c"l", &ground.users, c"l").unwrap();
        assert!(ground.at("users/l").is_symlink() && !ground.at("own/l").is_symlink());
        // One that has the name is not followed.
        fs::write(ground.at("own/f"), "ours").unwrap();
        assert!(give_file(&ground.own, c"f", &ground.users, c"l").is_err());
        assert_eq!(ground.read("users/target").as_deref(), Some("x"));
    }

    #[test]
    fn what_a_killed_process_has_begun_is_completed() {
        let ground = Ground::new();
        fs::write(ground.at("own/f"), "ours").unwrap();
        fs::hard_link(ground.at("own/f"), ground.at("users/f")).unwrap();
        give_file(&ground.own, c"f", &ground.users, c"f").unwrap();
        assert_eq!(ground.read("users/f").as_deref(), Some("ours"));
        assert!(!ground.at("own/f").exists());
        fs::create_dir(ground.at("own/d")).unwrap();
        fs::write(ground.at("own/d/in"), "ours").unwrap();
        inside::make_closed_dir(&ground.users, c"d").unwrap();
        let made = beneath::open_dir(&ground.users, b"d").unwrap();
        // Without attributes it cannot be known.
        if mark::set_placeholder(&made).is_ok() {
            give_directory(&ground.own, c"d", &ground.users, c"d").unwrap();
            assert_eq!(ground.read("users/d/in").as_deref(), Some("ours"));
        }
    }

    #[test]
    fn a_directory_that_is_given_back_replaces_nothing() {
        let ground = Ground::new();
        fs::create_dir(ground.at("own/d")).unwrap();
        fs::write(ground.at("own/d/in"), "ours").unwrap();
        fs::create_dir(ground.at("users/empty")).unwrap();
        fs::write(ground.at("users/f"), "another's").unwrap();
        for name in [c"empty", c"f"] {
            let error = give_directory(&ground.own, c"d", &ground.users, name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        assert_eq!(ground.read("users/f").as_deref(), Some("another's"));
        assert_eq!(fs::read_dir(ground.at("users/empty")).unwrap().count(), 0);
        give_directory(&ground.own, c"d", &ground.users, c"d").unwrap();
        assert_eq!(ground.read("users/d/in").as_deref(), Some("ours"));
        assert!(!ground.at("own/d").exists());
    }

    #[test]
    fn a_move_that_fails_leaves_no_placeholder() {
        let ground = Ground::new();
        assert!(give_directory(&ground.own, c"missing", &ground.users, c"d").is_err());
        assert!(!ground.at("users/d").exists());
    }

    #[test]
    fn what_is_taken_replaces_nothing() {
        let ground = Ground::new();
        fs::write(ground.at("users/f"), "a user's").unwrap();
        fs::write(ground.at("own/f"), "ours").unwrap();
        let error = take(&ground.users, c"f", &ground.own, c"f").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        take(&ground.users, c"f", &ground.own, c"g").unwrap();
        assert_eq!(ground.read("own/f").as_deref(), Some("ours"));
        assert_eq!(ground.read("own/g").as_deref(), Some("a user's"));
    }
}
