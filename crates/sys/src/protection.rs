//! Who may do what in a directory, and whether another directory protects what is put into it as well.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::stat::{self, Located};

/// The access ACL (`acl(5)`).
pub(super) const ACCESS_ACL: &CStr = c"system.posix_acl_access";
/// The longest access ACL that is remembered: it has 31 entries.
const ACL_MAX: usize = 256;

/// Owner, group, mode and access ACL of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, set-id bits and the sticky bit.
    pub mode: u32,
    /// The access ACL, as the kernel gives it.
    pub acl: Option<Vec<u8>>,
}

impl Protection {
    /// Of a directory that is root's alone.
    pub const ROOTS: Self = Self {
        uid: 0,
        gid: 0,
        mode: 0o700,
        acl: None,
    };

    /// Of an open directory.
    ///
    /// # Errors
    /// What `statx(2)` and `fgetxattr(2)` say; ERANGE where the ACL is too long to be remembered.
    pub fn of(dir: &OwnedFd) -> io::Result<Self> {
        Self::of_found(dir, &stat::open_file(dir)?)
    }

    /// The same of a directory that was `found` so a moment ago.
    ///
    /// # Errors
    /// What `fgetxattr(2)` says; ERANGE where the ACL is too long to be remembered.
    pub fn of_found(dir: &OwnedFd, found: &Located) -> io::Result<Self> {
        let mut buffer = [0; ACL_MAX];
        let acl = match rustix::fs::fgetxattr(dir, ACCESS_ACL, &mut buffer) {
            Ok(len) => buffer.get(..len).map(<[u8]>::to_vec),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => None,
            Err(e) => return Err(e.into()),
        };
        Ok(Self {
            uid: found.stat.uid,
            gid: found.stat.gid,
            mode: found.mode,
            acl,
        })
    }

    /// Whether all users and groups that its ACL names and lets write are such. The mask is not looked at.
    pub fn named_writers_are(&self, user: impl Fn(u32) -> bool, group: impl Fn(u32) -> bool) -> bool {
        let Some(acl) = &self.acl else {
            return true;
        };
        let is_such = |entry: &Entry| match entry.tag {
            _ if entry.permissions & WRITE == 0 => true,
            USER => user(entry.id),
            GROUP => group(entry.id),
            _ => true,
        };
        entries(acl).is_some_and(|all| all.iter().all(is_such))
    }

    /// Whether a user may enter it. The groups are asked for only where they matter.
    pub fn lets_enter<'g>(&self, uid: u32, groups: impl FnOnce() -> &'g [u32]) -> bool {
        self.lets(ENTER, uid, groups)
    }

    /// Whether a user may list its entries. The owner may give the right to themselves.
    pub fn lets_list<'g>(&self, uid: u32, groups: impl FnOnce() -> &'g [u32]) -> bool {
        uid == self.uid || self.lets(LIST, uid, groups)
    }

    /// Whether a user may make, name and remove entries in it.
    pub fn lets_change<'g>(&self, uid: u32, groups: impl Fn() -> &'g [u32]) -> bool {
        self.lets(WRITE, uid, &groups) && self.lets(ENTER, uid, &groups)
    }

    /// `acl(5)`, access check algorithm.
    fn lets<'g>(&self, right: u32, uid: u32, groups: impl FnOnce() -> &'g [u32]) -> bool {
        let may = |bits: u32| bits & right != 0;
        if uid == 0 {
            return true;
        }
        if uid == self.uid {
            return may(self.mode >> 6);
        }
        let (of_group, others) = (may(self.mode >> 3), may(self.mode));
        let Some(acl) = &self.acl else {
            return match of_group == others {
                true => others,
                false if groups().contains(&self.gid) => of_group,
                false => others,
            };
        };
        let Some(entries) = entries(acl) else {
            return false;
        };
        let mut named = entries.iter().filter(|e| e.tag == USER && e.id == uid);
        if let Some(entry) = named.next() {
            // The bits of the group are the mask.
            return may(entry.permissions) && of_group;
        }
        let groups = groups();
        let mut matching = entries
            .iter()
            .filter(|e| {
                e.tag == GROUP_OBJ && groups.contains(&self.gid) || e.tag == GROUP && groups.contains(&e.id)
            })
            .peekable();
        match matching.peek() {
            Some(_) => of_group && matching.any(|e| may(e.permissions)),
            None => others,
        }
    }

    /// Why a directory with this protection must not take what a directory like `before` protected; none: it may.
    pub fn is_less_safe_than(&self, before: &Self) -> Option<String> {
        if self.uid != before.uid {
            return Some(format!(
                "it belongs to user {} now, and belonged to user {}",
                self.uid, before.uid
            ));
        }
        let (own, others) = (self.mode >> 3 & 7, self.mode & 7);
        // With an ACL the bits of the group are a mask over all its entries.
        let acl_before = before.acl.as_deref();
        let group_before = acl_before.map_or(Some(before.mode >> 3 & 7), group_entry);
        let others_before = before.mode & 7;
        let allowed = match self.gid == before.gid {
            true => group_before.unwrap_or(0),
            false => others_before & group_before.unwrap_or(0),
        };
        match &self.acl {
            None if own & !allowed == 0 => {}
            // Entries are compared as a whole; the mask is in the mode.
            Some(acl) if acl_before == Some(acl) && self.gid == before.gid => {}
            Some(_) => return Some("it has another ACL now".into()),
            None => return Some(self.opened_to("its group", before)),
        }
        if others & !others_before != 0 {
            return Some(self.opened_to("others", before));
        }
        let is_shared = self.mode & 0o022 != 0;
        if is_shared && before.mode & 0o1000 != 0 && self.mode & 0o1000 == 0 {
            return Some("its sticky bit is not set any more".into());
        }
        None
    }

    fn opened_to(&self, whom: &str, before: &Self) -> String {
        format!(
            "it is more open to {whom} now: mode {:04o}, and it was {:04o}",
            self.mode, before.mode
        )
    }

    /// Why a directory must not be on the way to a file of `uid` of which it is not known who could reach it before; none: it may.
    pub fn is_unsafe_for(&self, uid: u32) -> Option<String> {
        if ![0, uid].contains(&self.uid) {
            return Some(format!(
                "it belongs to user {}, and the file to user {uid}",
                self.uid
            ));
        }
        let is_shared = self.mode & 0o022 != 0 && self.mode & 0o1000 == 0;
        is_shared.then(|| format!("others may write to it: mode {:04o}", self.mode))
    }

    /// Why it must not hold such a file itself; none: only its owner can reach what is in it, as in any directory.
    pub fn is_open_to_others(&self) -> Option<String> {
        // With an ACL the bits of the group are the mask of its entries.
        let is_open = self.mode & 0o077 != 0;
        is_open.then(|| {
            format!(
                "it is not known how private the directory was that it came from, and this one is open to others: mode {:04o}",
                self.mode
            )
        })
    }
}

/// Permission bits of a directory.
const ENTER: u32 = 1;
const WRITE: u32 = 2;
const LIST: u32 = 4;

/// Tags of entries (linux/posix_acl.h): a named user, the owning group, a named group.
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;

/// An entry of an ACL.
struct Entry {
    tag: u16,
    permissions: u32,
    id: u32,
}

/// The entries of eight bytes that follow a version of four; none if it cannot be read.
fn entries(acl: &[u8]) -> Option<Vec<Entry>> {
    let entry = |bytes: &[u8]| match bytes {
        [t0, t1, p0, p1, id @ ..] => Some(Entry {
            tag: u16::from_le_bytes([*t0, *t1]),
            permissions: u32::from(u16::from_le_bytes([*p0, *p1])) & 7,
            id: u32::from_le_bytes(id.try_into().ok()?),
        }),
        _ => None,
    };
    acl.get(4..)?.chunks(8).map(entry).collect()
}

/// What the owning group may, by an access ACL; none if it cannot be read.
pub(super) fn group_entry(acl: &[u8]) -> Option<u32> {
    let entries = entries(acl)?;
    let of_group = entries.iter().find(|e| e.tag == GROUP_OBJ);
    of_group.map(|e| e.permissions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Option<Vec<u8>> {
        let mut acl = 2u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            acl.extend(tag.to_le_bytes());
            acl.extend(permissions.to_le_bytes());
            acl.extend(id.to_le_bytes());
        }
        Some(acl)
    }

    /// As the kernel decides: the first class that matches counts, and no other.
    #[test]
    fn who_may_enter() {
        let of = |mode, acl| Protection {
            uid: 1000,
            gid: 100,
            mode,
            acl,
        };
        let may = |p: &Protection, uid, groups: &[u32]| p.lets_enter(uid, || groups);
        assert!(may(&of(0o700, None), 1000, &[]) && !may(&of(0o077, None), 1000, &[100]));
        assert!(!may(&of(0o700, None), 7, &[100]) && may(&of(0, None), 0, &[]));
        assert!(may(&of(0o710, None), 7, &[100]) && !may(&of(0o710, None), 7, &[7]));
        assert!(!may(&of(0o701, None), 7, &[100]) && may(&of(0o701, None), 7, &[7]));
        let named = acl(&[
            (1, 7, u32::MAX),
            (USER, 5, 7),
            (GROUP_OBJ, 0, u32::MAX),
            (GROUP, 1, 50),
            (0x10, 5, u32::MAX),
            (0x20, 0, u32::MAX),
        ]);
        let with_acl = of(0o750, named.clone());
        assert!(may(&with_acl, 7, &[]) && may(&with_acl, 8, &[50]));
        assert!(!may(&with_acl, 8, &[100]) && !may(&with_acl, 8, &[8]));
        assert!(!may(&of(0o740, named.clone()), 7, &[50]), "the mask");
        let lists = |p: &Protection, uid, groups: &[u32]| p.lets_list(uid, || groups);
        assert!(lists(&of(0o711, None), 1000, &[]) && !lists(&of(0o711, None), 7, &[100]));
        assert!(lists(&of(0o000, None), 1000, &[]) && lists(&of(0o744, None), 7, &[7]));
        assert!(lists(&of(0o750, named.clone()), 7, &[]) && !lists(&of(0o750, named), 8, &[50]));
        assert!(
            !may(&of(0o755, Some(vec![2, 0, 0, 0, 1])), 8, &[]),
            "damaged: doubt hides"
        );
    }
}
