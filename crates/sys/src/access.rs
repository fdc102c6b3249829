//! Who may do what in a directory, by its mode and its ACL (`acl(5)`). What is read is read by descriptor; what it means is decided here,
//! without asking the kernel: it could only be asked by a process of that user.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// The access ACL.
const ACL: &CStr = c"system.posix_acl_access";
/// The longest value that the kernel gives (`xattr(7)`).
const KERNEL_MAX: usize = 64 << 10;

/// To make and remove names.
pub const WRITE: u32 = 2;
/// To reach what lies below.
pub const ENTER: u32 = 1;

/// Entries of an ACL (`linux/posix_acl.h`).
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The user; none: anyone who is in the groups.
    pub uid: Option<u32>,
    /// The groups that the user is known to be in.
    pub gids: Vec<u32>,
}

/// What decides of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Named entries and the group's own, with what they give under the mask; empty without an ACL.
    entries: Vec<(u16, u32, u32)>,
}

impl Access {
    /// Of an open directory.
    ///
    /// # Errors
    /// What `fstat(2)` and `fgetxattr(2)` say; EBADF for an O_PATH descriptor.
    pub fn of(dir: &OwnedFd) -> io::Result<Self> {
        let s = rustix::fs::fstat(dir)?;
        let mut acl = Vec::with_capacity(KERNEL_MAX);
        match rustix::fs::fgetxattr(dir, ACL, rustix::buffer::spare_capacity(&mut acl)) {
            Ok(_) => {}
            Err(Errno::NODATA | Errno::OPNOTSUPP) => acl.clear(),
            Err(e) => return Err(e.into()),
        }
        Ok(Self::new(s.st_uid, s.st_gid, s.st_mode & 0o7777, &acl))
    }

    /// Of what the kernel gives.
    pub fn new(uid: u32, gid: u32, mode: u32, acl: &[u8]) -> Self {
        Self {
            uid,
            gid,
            mode,
            entries: entries(acl),
        }
    }

    /// Whether a user may do all of `what` there. Root may.
    pub fn allows(&self, who: &Who, what: u32) -> bool {
        let gives = |bits: u32| bits & what == what;
        if who.uid == Some(0) {
            return true;
        }
        if who.uid == Some(self.uid) {
            return gives(self.mode >> 6);
        }
        if let Some((.., bits)) = self
            .entries
            .iter()
            .find(|(tag, id, _)| *tag == USER && who.uid == Some(*id))
        {
            return gives(*bits);
        }
        let mut is_in_one = false;
        for (_, bits) in self.of_groups().filter(|(gid, _)| who.gids.contains(gid)) {
            if gives(bits) {
                return true;
            }
            is_in_one = true;
        }
        !is_in_one && gives(self.mode)
    }

    /// The owning group and the named ones, with what they have.
    fn of_groups(&self) -> impl Iterator<Item = (u32, u32)> {
        let own = self.entries.iter().find(|(tag, ..)| *tag == GROUP_OBJ);
        // With an ACL the bits of the group are the mask.
        let own = own.map_or(self.mode >> 3 & 7, |(.., bits)| *bits);
        let named = self.entries.iter().filter(|(tag, ..)| *tag == GROUP);
        std::iter::once((self.gid, own)).chain(named.map(|(_, gid, bits)| (*gid, *bits)))
    }

    /// The groups that it speaks of.
    pub fn groups(&self) -> impl Iterator<Item = u32> {
        self.of_groups().map(|(gid, _)| gid)
    }

    /// All but the owner who may write: each as one who has nothing else. Root's own group is left out: it is root's.
    pub fn other_writers(&self) -> Vec<Who> {
        let writes = |bits: u32| bits & WRITE != 0;
        let users = self.entries.iter().filter(|(tag, ..)| *tag == USER);
        let users = users
            .filter(|(_, uid, bits)| writes(*bits) && *uid != 0)
            .map(|(_, uid, _)| Who {
                uid: Some(*uid),
                gids: Vec::new(),
            });
        let groups = self
            .of_groups()
            .filter(|(gid, bits)| writes(*bits) && *gid != 0)
            .map(|(gid, _)| Who {
                uid: None,
                gids: vec![gid],
            });
        let others = writes(self.mode).then_some(Who {
            uid: None,
            gids: Vec::new(),
        });
        users.chain(groups).chain(others).collect()
    }
}

/// The entries of an ACL that name a user or a group, or are the owning group's, with what the mask leaves them. One that cannot be read has none.
fn entries(acl: &[u8]) -> Vec<(u16, u32, u32)> {
    // A version of four bytes, then entries of eight.
    let all: Vec<(u16, u32, u32)> = acl
        .get(4..)
        .unwrap_or_default()
        .chunks_exact(8)
        .filter_map(|entry| match entry {
            [t0, t1, p0, p1, i0, i1, i2, i3] => Some((
                u16::from_le_bytes([*t0, *t1]),
                u32::from_le_bytes([*i0, *i1, *i2, *i3]),
                u32::from(u16::from_le_bytes([*p0, *p1])) & 7,
            )),
            _ => None,
        })
        .collect();
    let mask = all
        .iter()
        .find(|(tag, ..)| *tag == MASK)
        .map_or(7, |(.., bits)| *bits);
    all.into_iter()
        .filter(|(tag, ..)| [USER, GROUP_OBJ, GROUP].contains(tag))
        .map(|(tag, id, bits)| (tag, id, bits & mask))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: u32 = WRITE | ENTER;

    fn who(uid: u32, gids: &[u32]) -> Who {
        Who {
            uid: Some(uid),
            gids: gids.to_vec(),
        }
    }

    fn acl(entries: &[(u16, u32, u16)]) -> Vec<u8> {
        let mut acl = vec![2, 0, 0, 0];
        for (tag, id, bits) in entries {
            acl.extend(tag.to_le_bytes());
            acl.extend(bits.to_le_bytes());
            acl.extend(id.to_le_bytes());
        }
        acl
    }

    #[test]
    fn the_mode_decides_by_the_first_class_that_fits() {
        let dir = |mode| Access::new(10, 20, mode, &[]);
        assert!(dir(0o700).allows(&who(10, &[]), ALL));
        assert!(!dir(0o700).allows(&who(11, &[20]), ALL));
        assert!(dir(0o770).allows(&who(11, &[20]), ALL));
        assert!(
            !dir(0o707).allows(&who(11, &[20]), ALL),
            "the group has less than others"
        );
        assert!(
            !dir(0o077).allows(&who(10, &[20]), ALL),
            "the owner has less than others"
        );
        assert!(dir(0o1777).allows(&who(11, &[]), ALL));
        assert!(dir(0).allows(&who(0, &[]), ALL));
    }

    #[test]
    fn an_acl_decides_under_its_mask() {
        let named = [(USER, 11, 7), (GROUP_OBJ, 0, 5), (GROUP, 30, 7)];
        let dir = |mask| {
            let all: Vec<_> = named.into_iter().chain([(MASK, 0, mask)]).collect();
            Access::new(10, 20, 0o750 | u32::from(mask) << 3, &acl(&all))
        };
        assert!(dir(7).allows(&who(11, &[]), ALL) && !dir(5).allows(&who(11, &[]), ALL));
        assert!(dir(7).allows(&who(12, &[30]), ALL) && !dir(5).allows(&who(12, &[30]), ALL));
        assert!(
            !dir(7).allows(&who(12, &[20]), ALL),
            "the mask is not the group's"
        );
        assert_eq!(
            dir(7).other_writers(),
            [
                who(11, &[]),
                Who {
                    uid: None,
                    gids: vec![30]
                }
            ]
        );
        assert!(dir(5).other_writers().is_empty());
    }

    proptest! {
        #[test]
        fn no_acl_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), mode: u32, uid: u32) {
            let dir = Access::new(1, 2, mode, &bytes);
            let _ = dir.allows(&who(uid, &[2]), ALL);
            let _ = dir.other_writers();
        }

        /// A user may write if an entry of a group of theirs allows it.
        #[test]
        fn a_group_that_may_write_may_write(bits in 0u16..8, gid in 3u32..9) {
            let dir = Access::new(1, 2, 0o770, &acl(&[(GROUP_OBJ, 0, 0), (GROUP, gid, bits), (MASK, 0, 7)]));
            prop_assert_eq!(dir.allows(&who(5, &[gid]), ALL), u32::from(bits) & ALL == ALL);
        }
    }
}
