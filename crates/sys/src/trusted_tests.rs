#![allow(clippy::unwrap_used)]
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use super::*;

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A directory that only root can change. As another user nothing is refused: nothing to see.
fn temp() -> Option<tempfile::TempDir> {
    is_root().then(|| tempfile::tempdir().unwrap())
}

#[test]
fn a_place_that_others_can_write_is_refused_anywhere_on_the_way() {
    let Some(tmp) = temp() else { return };
    let (top, inner) = (tmp.path().join("top"), tmp.path().join("top/inner"));
    fs::create_dir_all(&inner).unwrap();
    let file = inner.join("file");
    fs::write(&file, "text").unwrap();
    let verdicts = || {
        (
            directory(&inner).is_ok(),
            look(&inner).is_ok(),
            read(&file, 9).is_ok(),
            append(&file, 0o600).is_ok(),
        )
    };
    assert_eq!(verdicts(), (true, true, true, true));
    for bad in [0o777, 0o757] {
        mode(&top, bad);
        assert_eq!(verdicts(), (false, false, false, false), "{bad:o} above");
        assert!(directory(&inner).unwrap_err().cure().contains("chmod go-w"));
    }
    // Sticky: what is root's in it stays where it is. That is enough above, not for the directory itself.
    mode(&top, 0o1777);
    assert_eq!(verdicts(), (true, true, true, true));
    assert!(directory(&top).is_err() && append(&top.join("new"), 0o600).is_err());
    mode(&top, 0o755);
    chown(&top, Some(4321), None).unwrap();
    assert_eq!(verdicts(), (false, false, false, false));
    assert!(
        directory(&inner)
            .unwrap_err()
            .to_string()
            .contains("belongs to user 4321")
    );
    chown(&top, Some(0), None).unwrap();
    for bad in [0o775, 0o777] {
        mode(&inner, bad);
        assert!(
            directory(&inner).is_err() && append(&file, 0o600).is_err(),
            "{bad:o}"
        );
    }
    mode(&inner, 0o755);
    mode(&file, 0o666);
    assert!(read(&file, 9).is_err() && append(&file, 0o600).is_err());
    mode(&file, 0o644);
    chown(&file, Some(4321), None).unwrap();
    assert!(read(&file, 9).is_err() && append(&file, 0o600).is_err());
}

#[test]
fn a_group_may_write_above_if_it_is_the_systems() {
    let Some(tmp) = temp() else { return };
    let (top, inner) = (tmp.path().join("top"), tmp.path().join("top/inner"));
    fs::create_dir_all(&inner).unwrap();
    for (group, good) in [
        (0, true),
        (110, true),
        (100, false),
        (1000, false),
        (54_321, false),
    ] {
        chown(&top, None, Some(group)).unwrap();
        mode(&top, 0o775);
        assert_eq!(directory(&inner).is_ok(), good, "group {group}");
        assert!(directory(&top).is_err(), "the last directory is root's alone");
    }
}

/// With an ACL the bits of the group are its mask: root's group is not who writes.
#[test]
fn whom_an_acl_lets_write_above_counts_as_the_group_does() {
    let Some(tmp) = temp() else { return };
    let (top, inner) = (tmp.path().join("top"), tmp.path().join("top/inner"));
    fs::create_dir_all(&inner).unwrap();
    fs::write(inner.join("file"), "text").unwrap();
    const ANY: u32 = u32::MAX;
    let cases: [(u16, u16, u32, bool); 8] = [
        (2, 7, 4321, false),
        (2, 5, 4321, true),
        (2, 7, 0, true),
        (8, 7, 4321, false),
        (8, 3, 100, false),
        (8, 7, 110, true),
        (8, 7, 0, true),
        (8, 5, 4321, true),
    ];
    for (tag, may, id, good) in cases {
        mode(&top, 0o755);
        let entries = [
            (1u16, 7u16, ANY),
            (tag, may, id),
            (4, 5, ANY),
            (16, 7, ANY),
            (32, 5, ANY),
        ];
        let mut entries = entries;
        // In the order of their tags.
        entries.sort_by_key(|(tag, ..)| *tag);
        let mut value = 2u32.to_le_bytes().to_vec();
        for (tag, may, id) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(may.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        let flags = rustix::fs::XattrFlags::empty();
        if let Err(e) = rustix::fs::setxattr(&top, c"system.posix_acl_access", &value, flags) {
            eprintln!("skipped: no ACLs here ({e})");
            return;
        }
        assert_eq!(fs::metadata(&top).unwrap().mode() & 0o7777, 0o775, "the mask");
        let found = (directory(&inner).is_ok(), read(&inner.join("file"), 9).is_ok());
        assert_eq!(found, (good, good), "tag {tag}, {may:o} for {id}");
        // Masked, the entry says nothing.
        mode(&top, 0o755);
        assert!(directory(&inner).is_ok());
    }
}

#[test]
fn a_link_is_followed_where_root_made_it_and_never_to_write() {
    let Some(tmp) = temp() else { return };
    let at = |name: &str| tmp.path().join(name);
    fs::create_dir(at("real")).unwrap();
    fs::write(at("real/file"), "text").unwrap();
    symlink("real", at("relative")).unwrap();
    symlink(at("real"), at("absolute")).unwrap();
    symlink("real/file", at("link")).unwrap();
    symlink("loop", at("loop")).unwrap();
    for way in ["relative", "absolute"] {
        assert_eq!(read(&at(way).join("file"), 9).unwrap(), "text");
        assert!(append(&at(way).join("file"), 0o600).is_ok());
        assert!(directory(&at(way)).is_err(), "the last name is no link");
    }
    assert_eq!(read(&at("link"), 9).unwrap(), "text");
    assert!(append(&at("link"), 0o600).is_err());
    assert!(read(&at("loop"), 9).is_err());
    std::os::unix::fs::lchown(at("relative"), Some(4321), None).unwrap();
    assert!(read(&at("relative/file"), 9).is_err());
    std::os::unix::fs::lchown(at("link"), Some(4321), None).unwrap();
    assert!(read(&at("link"), 9).is_err());
}

#[test]
fn only_regular_files_are_read_and_nothing_blocks() {
    let Some(tmp) = temp() else { return };
    let fifo = tmp.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    for other in [fifo.as_path(), tmp.path(), Path::new("/dev/null")] {
        assert!(
            read(other, 9).is_err() && append(other, 0o600).is_err(),
            "{}",
            other.display()
        );
    }
    let file = tmp.path().join("file");
    fs::write(&file, "0123456789").unwrap();
    assert!(matches!(read(&file, 9), Err(Distrust::Large { .. })));
    assert_eq!(read(&file, 10).unwrap(), "0123456789");
    assert!(read(&tmp.path().join("none"), 9).unwrap_err().is_absent());
    assert!(
        append(&tmp.path().join("none/file"), 0o600)
            .unwrap_err()
            .is_absent()
    );
    assert!(!tmp.path().join("none").exists());
}

#[test]
fn what_is_made_has_its_mode_and_takes_nothing_elses_place() {
    let Some(tmp) = temp() else { return };
    let own = Own::make(&tmp.path().join("a/b"), 0o755).unwrap();
    assert_eq!(fs::metadata(tmp.path().join("a")).unwrap().mode() & 0o7777, 0o755);
    let (bait, inside) = (tmp.path().join("bait"), tmp.path().join("a/b"));
    fs::create_dir(&bait).unwrap();
    fs::write(bait.join("x"), "witness").unwrap();
    symlink(&bait, inside.join("link")).unwrap();
    symlink(bait.join("x"), inside.join("new")).unwrap();
    assert!(own.inside("link", 0o755).is_err());
    assert!(own.go_on("new").is_err());
    io::Write::write_all(&mut own.begin("new").unwrap(), b"list").unwrap();
    give(own.go_on("new").unwrap(), 4321, 0o400).unwrap();
    own.rename("new", "list").unwrap();
    let is = fs::symlink_metadata(inside.join("list")).unwrap();
    assert_eq!((is.uid(), is.mode() & 0o7777, is.is_file()), (4321, 0o400, true));
    assert_eq!(fs::read_to_string(bait.join("x")).unwrap(), "witness");
    fs::create_dir(inside.join("theirs")).unwrap();
    chown(inside.join("theirs"), Some(4321), None).unwrap();
    assert!(own.inside("theirs", 0o755).is_err());
}

#[test]
fn a_directory_that_is_mounted_read_only_may_have_any_mode() {
    let Some(tmp) = temp() else { return };
    let (from, at) = (tmp.path().join("from"), tmp.path().join("at"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&at).unwrap();
    fs::write(from.join("file"), "text").unwrap();
    mode(&from, 0o777);
    let run = |program: &str, arguments: &[&OsStr]| {
        let done = std::process::Command::new(program).args(arguments).status();
        done.is_ok_and(|status| status.success())
    };
    let bind = [OsStr::new("--bind"), from.as_os_str(), at.as_os_str()];
    let read_only = [OsStr::new("-o"), OsStr::new("remount,bind,ro"), at.as_os_str()];
    if !run("mount", &bind) {
        eprintln!("skipped: no mounts here");
        return;
    }
    let writable = read(&at.join("file"), 9).is_ok();
    let is_mounted = run("mount", &read_only);
    let trusted = read(&at.join("file"), 9).is_ok();
    assert!(run("umount", &[at.as_os_str()]));
    assert_eq!((writable, is_mounted, trusted), (false, true, true));
}
