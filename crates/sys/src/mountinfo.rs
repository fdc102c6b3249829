//! The kernel's tables of mounts (`/proc/PID/mountinfo`, `proc(5)`), read as bytes. Pure, but for [`read`].
//!
//! ```text
//! 36 35 98:0 /mnt1 /mnt/parent rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//! id |  |    root  mount point                       type source
//!    |  device     of the file system, and where it is mounted
//!    parent
//! ```

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustc_hash::FxHashMap;

/// Most tables fit.
const USUAL_BYTES: usize = 16 << 10;
/// The end of a path that has no name any more.
const DELETED: &[u8] = b"//deleted";

/// One mount of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its number, which no other mount of the host has.
    pub id: u64,
    /// The mount that it lies on.
    pub parent: u64,
    /// The device of its file system, as `major:minor`. Of btrfs that is not the device that `stat(2)` tells.
    pub device: &'a [u8],
    root: &'a [u8],
    point: &'a [u8],
    /// The type of its file system.
    pub kind: &'a [u8],
    /// Its options, and those of its file system.
    pub options: (&'a [u8], &'a [u8]),
}

impl<'a> Line<'a> {
    /// Reads a line; none if it is no mount.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|b| *b == b' ');
        let (id, parent) = (number(fields.next()?)?, number(fields.next()?)?);
        let (device, root, point) = (fields.next()?, fields.next()?, fields.next()?);
        let options = fields.next()?;
        fields.find(|field| *field == b"-")?;
        let kind = fields.next()?;
        let of_file_system = fields.nth(1).unwrap_or_default();
        Some(Self {
            id,
            parent,
            device,
            root,
            point,
            kind,
            options: (options, of_file_system),
        })
    }

    /// The directory or file of its file system that is mounted.
    pub fn root(&self) -> Cow<'a, [u8]> {
        unescaped(self.root)
    }

    /// Where it is mounted, as the process sees it whose table this is.
    pub fn point(&self) -> Cow<'a, [u8]> {
        unescaped(self.point)
    }
}

/// All mounts of a table.
pub fn lines(table: &[u8]) -> impl Iterator<Item = Line<'_>> {
    table.split(|b| *b == b'\n').filter_map(Line::parse)
}

/// What of one file system is in use by mounts: each is a path from the top of that file system.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// Directories and files that something is mounted on, or that are mounted elsewhere.
    pub paths: Vec<Vec<u8>>,
}

/// What of the file system with this device is in use by the mounts of a table, below the directory `top` of it.
pub fn in_use(table: &[u8], device: &[u8], top: &[u8]) -> InUse {
    let ours = lines(table).filter(|line| line.device == device);
    let ours: FxHashMap<u64, Line<'_>> = ours.map(|line| (line.id, line)).collect();
    let mut found = InUse::default();
    if ours.is_empty() {
        return found;
    }
    let mut add = |path: &[u8]| {
        if !path.ends_with(DELETED)
            && let Some(below) = below(path, top).filter(|below| !below.is_empty())
        {
            found.paths.push(below.to_vec());
        }
    };
    for line in lines(table) {
        if line.device == device {
            add(&line.root());
        }
        let Some(on) = ours.get(&line.parent).filter(|on| on.id != line.id) else {
            continue;
        };
        let (point, above) = (line.point(), on.point());
        if let Some(rest) = below(&point, &above) {
            add(&join(&on.root(), rest));
        }
    }
    found.paths.sort_unstable();
    found.paths.dedup();
    found
}

/// Mounts that lie on something that the table does not list: its process has another root than the namespace.
pub fn unplaced(table: &[u8]) -> usize {
    let ids: rustc_hash::FxHashSet<u64> = lines(table).map(|line| line.id).collect();
    let is_unplaced = |line: &Line<'_>| line.point != b"/" && !ids.contains(&line.parent);
    lines(table).filter(is_unplaced).count()
}

/// The mount with this number.
pub fn find(table: &[u8], id: u64) -> Option<Line<'_>> {
    lines(table).find(|line| line.id == id)
}

/// A table, of which no more than `bytes_max` are read. True: that is all of it.
///
/// # Errors
/// What `open(2)` and `read(2)` say; EINVAL for a process that has ended.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<(Vec<u8>, bool)> {
    // The kernel makes the whole table again for each call that reads a part of it.
    let mut table = Vec::with_capacity(USUAL_BYTES);
    File::open(path)?.take(bytes_max).read_to_end(&mut table)?;
    let whole = (table.len() as u64) < bytes_max;
    Ok((table, whole))
}

/// What follows `top` in a path; none if it does not lie there.
pub fn below<'p>(path: &'p [u8], top: &[u8]) -> Option<&'p [u8]> {
    let top = top.strip_suffix(b"/").unwrap_or(top);
    let rest = path.strip_prefix(top)?;
    match rest.first() {
        None => Some(rest),
        Some(b'/') => rest.get(1..),
        Some(_) => None,
    }
}

/// A path below another.
pub fn join(top: &[u8], rest: &[u8]) -> Vec<u8> {
    let top = top.strip_suffix(b"/").unwrap_or(top);
    match rest.is_empty() {
        true if top.is_empty() => b"/".to_vec(),
        true => top.to_vec(),
        false => [top, b"/", rest].concat(),
    }
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Blanks, tabs, line ends and backslashes are written as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> Cow<'_, [u8]> {
    if !field.contains(&b'\\') {
        return Cow::Borrowed(field);
    }
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                plain.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = after;
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const TABLE: &[u8] = b"21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        22 21 7:1 / /scratch rw,relatime shared:5 - ext4 /dev/loop1 rw,errors=continue\n\
        23 22 0:40 / /scratch/alice/with\\040blank rw - tmpfs tmpfs rw\n\
        24 21 7:1 /bob/sub /srv/job rw master:1 propagate_from:2 - ext4 /dev/loop1 rw\n\
        25 24 0:41 / /srv/job/x rw - tmpfs tmpfs rw\n\
        26 21 7:1 /carol/f//deleted /srv/f rw - ext4 /dev/loop1 rw\n\
        27 99 0:42 / /elsewhere rw - tmpfs tmpfs rw\n\
        28 22 7:1 /dave\\134 /scratch/eve rw - ext4 /dev/loop1 rw\n";

    fn paths(top: &[u8]) -> Vec<String> {
        let found = in_use(TABLE, b"7:1", top).paths;
        found.into_iter().map(|p| String::from_utf8(p).unwrap()).collect()
    }

    #[test]
    fn mount_points_and_what_is_mounted_elsewhere_are_in_use() {
        assert_eq!(
            paths(b"/"),
            ["alice/with blank", "bob/sub", "bob/sub/x", "dave\\", "eve"]
        );
        assert_eq!(paths(b"/bob"), ["sub", "sub/x"]);
        assert_eq!(paths(b"/bob/sub"), ["x"]);
        assert!(in_use(TABLE, b"7:2", b"/").paths.is_empty());
        assert_eq!(unplaced(TABLE), 1);
        assert_eq!(find(TABLE, 24).unwrap().options.1, b"rw");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_table_or_none(table: Vec<u8>, device in "[0-9]:[0-9]", top in "/[a-z/]{0,8}") {
            let _ = in_use(&table, device.as_bytes(), top.as_bytes());
            let _ = unplaced(&table);
        }

        #[test]
        fn what_is_joined_lies_below(top in "/[a-z]{0,4}(/[a-z]{1,4}){0,3}", rest in "([a-z]{1,4}(/[a-z]{1,4}){0,3})?") {
            let path = join(top.as_bytes(), rest.as_bytes());
            prop_assert_eq!(below(&path, top.as_bytes()), Some(rest.as_bytes()));
        }
    }
}
