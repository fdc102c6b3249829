//! Links over a real directory.
#![allow(clippy::unwrap_used)]
use super::*;
use std::os::unix::fs::symlink;

struct Tree {
    tmp: tempfile::TempDir,
    links: Links,
}

fn tree() -> Tree {
    let tmp = tempfile::tempdir().unwrap();
    let volume = tmp.path().join("vol");
    std::fs::create_dir_all(volume.join("a/b")).unwrap();
    std::fs::write(volume.join("a/file"), "x").unwrap();
    std::fs::write(tmp.path().join("outside"), "x").unwrap();
    let root = beneath::open_root(&volume).unwrap();
    let device = stat::open_file(&root).unwrap().device;
    let links = Links::of(root, device, &volume, Vec::new());
    Tree { tmp, links }
}

impl Tree {
    fn end(&mut self, target: &str) -> End {
        let link = self.tmp.path().join("vol/a/link");
        let _ = std::fs::remove_file(&link);
        symlink(target, &link).unwrap();
        self.links.look(b"a", b"link", true).unwrap().end
    }

    fn ino(&self, path: &str) -> Inode {
        let found = stat::path(&self.tmp.path().join("vol").join(path)).unwrap();
        found.stat.ino
    }
}

#[test]
fn a_link_ends_where_the_kernel_would_end_and_never_outside() {
    let mut t = tree();
    let (file, dir) = (t.ino("a/file"), t.ino("a/b"));
    let volume = t.tmp.path().join("vol").display().to_string();
    for (target, end) in [
        ("file", End::At(file)),
        ("./b/../file", End::At(file)),
        ("../a/file", End::At(file)),
        ("b", End::At(dir)),
        ("b/", End::At(dir)),
        ("nothing", End::Nowhere),
        ("b/nothing/below", End::Nowhere),
        ("link", End::Nowhere),
        ("../../outside", End::Unknown),
        ("../../vol/a/file", End::Unknown),
        ("/etc/passwd", End::Unknown),
        ("/nothing", End::Unknown),
        ("file/below", End::Unknown),
        ("file/", End::Unknown),
        ("..", End::Unknown),
        (&format!("{volume}/a/file"), End::At(file)),
        (&format!("{volume}//a/./file"), End::At(file)),
        (&format!("{volume}/a/none"), End::Nowhere),
        (&format!("{volume}/../outside"), End::Unknown),
        (&format!("{volume}x/a"), End::Unknown),
    ] {
        assert_eq!(t.end(target), end, "{target}");
    }
}

#[test]
fn links_to_links_are_followed() {
    let mut t = tree();
    let volume = t.tmp.path().join("vol");
    symlink("b", volume.join("a/dir")).unwrap();
    symlink("dir/../second", volume.join("a/first")).unwrap();
    symlink("file", volume.join("a/second")).unwrap();
    symlink("../../outside", volume.join("a/out")).unwrap();
    symlink("loop2", volume.join("a/loop1")).unwrap();
    symlink("loop1", volume.join("a/loop2")).unwrap();
    let file = t.ino("a/file");
    assert_eq!(t.end("first"), End::At(file));
    assert!(t.links.look(b"a", b"link", true).unwrap().changed > Seconds::MIN);
    assert_eq!(t.end("file"), End::At(file));
    assert_eq!(t.links.look(b"a", b"link", true).unwrap().changed, Seconds::MIN);
    assert_eq!(t.end("out"), End::Unknown);
    assert_eq!(t.end("loop1"), End::Nowhere);
    std::fs::remove_file(volume.join("a/file")).unwrap();
    assert_eq!(t.end("first"), End::Nowhere);
    for n in 0..50 {
        symlink(format!("chain{}", n + 1), volume.join(format!("a/chain{n}"))).unwrap();
    }
    std::fs::write(volume.join("a/chain50"), "x").unwrap();
    assert_eq!(
        t.end("chain0"),
        End::Unknown,
        "the kernel follows no more than 40"
    );
    assert_eq!(t.end("chain20"), End::At(t.ino("a/chain50")));
}

#[test]
fn what_is_no_link_is_none() {
    let mut t = tree();
    assert!(t.links.look(b"a", b"file", true).is_err());
    assert!(t.links.look(b"a", b"nothing", true).is_err());
    assert!(t.links.look(b"nothing", b"x", true).is_err());
}
