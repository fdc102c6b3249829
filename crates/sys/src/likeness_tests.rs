#![allow(clippy::unwrap_used, clippy::panic)]
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::beneath;

fn of(mode: u32, uid: u32, gid: u32) -> Likeness {
    Likeness {
        ino: 7,
        uid,
        gid,
        mode,
        atime: (1, 2),
        mtime: (3, 4),
        project: None,
        attributes: Vec::new(),
    }
}

/// An access ACL: the owner, `uid` 4242, the group, the mask, others.
fn acl(user: u16, group: u16, mask: u16, other: u16) -> Vec<u8> {
    let mut acl = 2u32.to_le_bytes().to_vec();
    let nobody = u32::MAX;
    let entries = [
        (0x01u16, 7, nobody),
        (0x02, user, 4242),
        (0x04, group, nobody),
        (0x10, mask, nobody),
        (0x20, other, nobody),
    ];
    for (tag, permissions, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

fn with_acl(mode: u32, value: Vec<u8>) -> Likeness {
    Likeness {
        attributes: vec![(ACCESS_ACL.to_owned(), value)],
        ..of(mode, 1000, 1000)
    }
}

#[test]
fn another_owner_or_more_open_is_less_safe() {
    let before = of(0o750, 1000, 1000);
    let is_safe = |now: Likeness| now.is_less_safe_than(&before).is_none();
    assert!(is_safe(of(0o750, 1000, 1000)));
    assert!(is_safe(of(0o700, 1000, 1000)), "less open");
    assert!(is_safe(of(0o700, 1000, 99)), "another group that may nothing");
    assert!(!is_safe(of(0o750, 1001, 1000)), "another owner");
    assert!(
        !is_safe(of(0o750, 0, 0)),
        "also root: its owner would be locked out"
    );
    assert!(!is_safe(of(0o770, 1000, 1000)));
    assert!(!is_safe(of(0o751, 1000, 1000)));
    assert!(
        !is_safe(of(0o750, 1000, 99)),
        "another group that may what it might not"
    );
    let shared = of(0o1777, 0, 0);
    assert!(of(0o1777, 0, 0).is_less_safe_than(&shared).is_none());
    assert!(
        of(0o777, 0, 0).is_less_safe_than(&shared).is_some(),
        "no sticky bit"
    );
}

#[test]
fn an_acl_counts() {
    let acl_of_before = acl(5, 0, 5, 0);
    let before = with_acl(0o750, acl_of_before.clone());
    assert!(
        with_acl(0o750, acl_of_before)
            .is_less_safe_than(&before)
            .is_none()
    );
    assert!(
        with_acl(0o750, acl(7, 0, 7, 0))
            .is_less_safe_than(&before)
            .is_some()
    );
    // The group could do nothing: the bits of the mode were a mask.
    assert!(of(0o750, 1000, 1000).is_less_safe_than(&before).is_some());
    assert!(of(0o700, 1000, 1000).is_less_safe_than(&before).is_none());
    assert!(
        with_acl(0o750, acl(5, 5, 5, 0))
            .is_less_safe_than(&of(0o750, 1000, 1000))
            .is_some()
    );
}

#[test]
fn where_nothing_is_remembered_only_the_owner_or_root_is_trusted() {
    assert!(of(0o755, 1000, 1000).protection().is_unsafe_for(1000).is_none());
    assert!(of(0o1777, 0, 0).protection().is_unsafe_for(1000).is_none());
    assert!(of(0o777, 0, 0).protection().is_unsafe_for(1000).is_some());
    assert!(of(0o775, 1000, 1000).protection().is_unsafe_for(1000).is_some());
    assert!(of(0o700, 1001, 1000).protection().is_unsafe_for(1000).is_some());
}

#[test]
fn a_directory_gets_what_another_has() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root to give directories away");
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let open = |name: &str| {
        std::fs::create_dir(tmp.path().join(name)).unwrap();
        let root = beneath::open_root(tmp.path()).unwrap();
        beneath::open_dir(&root, name.as_bytes()).unwrap()
    };
    let (model, kept, back) = (open("model"), open("kept"), open("back"));
    let set =
        |name: &CStr, value: &[u8]| match rustix::fs::fsetxattr(&model, name, value, XattrFlags::empty()) {
            Ok(()) => true,
            Err(Errno::OPNOTSUPP) => false,
            Err(e) => panic!("{e}"),
        };
    let acls = set(ACCESS_ACL, &acl(5, 4, 5, 1)) && set(DEFAULT_ACL, &acl(7, 0, 7, 0));
    let user = set(c"user.note", b"mine");
    rustix::fs::fchown(&model, Some(Uid::from_raw(1234)), Some(Gid::from_raw(2345))).unwrap();
    rustix::fs::fchmod(&model, Mode::from_raw_mode(0o2751)).unwrap();
    let like = Likeness::of(&model).unwrap();
    let like = Likeness {
        atime: (1_000_000_000, 5),
        mtime: (1_100_000_000, 7),
        ..like
    };
    like.record_in(&kept).unwrap();
    let remembered = Likeness::recorded(&kept).unwrap();
    assert_eq!(
        remembered,
        Likeness {
            project: remembered.project,
            ..like.clone()
        }
    );
    remembered.give(&back).unwrap();
    remembered.give_times(&back).unwrap();
    let now = Likeness::of(&back).unwrap();
    assert_eq!(
        now,
        Likeness {
            ino: now.ino,
            project: now.project,
            ..like
        }
    );
    assert_eq!((now.uid, now.gid, now.mode), (1234, 2345, 0o2751));
    assert_eq!(now.attribute(c"user.note").is_some(), user);
    assert_eq!(now.attribute(ACCESS_ACL).is_some(), acls);
}

#[test]
fn an_acl_that_was_inherited_is_taken_away() {
    let tmp = tempfile::tempdir().unwrap();
    let root = beneath::open_dir(beneath::open_root(tmp.path()).unwrap(), b"").unwrap();
    if rustix::fs::fsetxattr(&root, DEFAULT_ACL, &acl(7, 7, 7, 7), XattrFlags::empty()).is_err() {
        eprintln!("skipped: this file system keeps no ACLs");
        return;
    }
    std::fs::create_dir(tmp.path().join("d")).unwrap();
    let dir = beneath::open_dir(&root, b"d").unwrap();
    assert!(
        Likeness::of(&dir).unwrap().attribute(ACCESS_ACL).is_some(),
        "it was inherited"
    );
    let own = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    of(0o700, own, gid).give(&dir).unwrap();
    let now = Likeness::of(&dir).unwrap();
    assert!(
        now.attributes
            .iter()
            .all(|(name, _)| !name.as_bytes().starts_with(b"system.posix_acl"))
    );
    assert_eq!(now.mode, 0o700);
}

proptest! {
    #[test]
    fn a_directory_is_as_safe_as_itself(mode in 0u32..0o10000, uid: u32, gid: u32) {
        let now = of(mode, uid, gid);
        prop_assert!(now.is_less_safe_than(&now).is_none());
    }

    #[test]
    fn what_may_more_is_less_safe(before in 0u32..0o1000, now in 0u32..0o1000) {
        let safe = of(now, 1, 1).is_less_safe_than(&of(before, 1, 1)).is_none();
        prop_assert_eq!(safe, now & 0o077 & !before == 0);
    }

    #[test]
    fn any_acl_has_a_group_entry_or_none(acl in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = super::super::protection::group_entry(&acl);
    }
}

#[test]
fn an_anchor_cannot_be_read() {
    let tmp = tempfile::tempdir().unwrap();
    let anchor = beneath::open_root(Path::new(tmp.path())).unwrap();
    assert!(Likeness::of(&anchor).is_err());
}
