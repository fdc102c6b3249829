//! Paths that come from clients, by their words alone. Pure: nothing of the file system is asked here, so nothing of it can be learnt.
//!
//! What is left is a [`VolumePath`]: names between single slashes, none of which leads up or nowhere.

use std::ops::Deref;

/// A client's path has at most this many bytes. Trees may be deeper than one system call reaches (4,095 bytes).
pub const PATH_BYTES_MAX: usize = 16 << 10;
/// No file system has longer names.
pub const NAME_BYTES_MAX: usize = 255;

/// The names of an absolute path, joined by single slashes and without one at the beginning; empty for `/` itself.
///
/// # Errors
/// What is wrong with it, for a person: it is empty, relative or too long, or a name is `.`, `..`, too long or has a NUL in it.
pub fn clean(path: &[u8]) -> Result<Vec<u8>, String> {
    match path {
        [] => return Err("is empty; give an absolute path".into()),
        [b'/', ..] => {}
        _ => return Err("is not absolute; give a path that begins with \"/\"".into()),
    }
    if path.len() > PATH_BYTES_MAX {
        let length = path.len();
        return Err(format!(
            "has {length} bytes; a path may have {PATH_BYTES_MAX}: name a directory above it"
        ));
    }
    let mut clean = Vec::with_capacity(path.len());
    for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
        check(name)?;
        push(&mut clean, name);
    }
    Ok(clean)
}

fn check(name: &[u8]) -> Result<(), String> {
    if matches!(name, b"." | b"..") {
        return Err("has \".\" or \"..\" in it; give the path without them".into());
    }
    if name.contains(&0) {
        return Err("has a NUL byte in it; no name on a disk has one".into());
    }
    if name.len() > NAME_BYTES_MAX {
        let length = name.len();
        return Err(format!(
            "has a name of {length} bytes in it; no name on a disk has more than {NAME_BYTES_MAX}"
        ));
    }
    Ok(())
}

/// A path beneath a volume: names joined by single slashes, none of them `.` or `..`, no slash at the beginning; empty for the root itself.
///
/// It can be used as bytes, and is made of bytes only where these were checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumePath(Vec<u8>);

impl VolumePath {
    /// None: these bytes are not such a path.
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        let is_clean = bytes.is_empty() || bytes.split(|b| *b == b'/').all(is_name);
        is_clean.then_some(Self(bytes))
    }

    /// Its bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Its names from the root on; none for the root itself.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|name| !name.is_empty())
    }

    /// The directory in which it lies, and its name there. The root lies in none, and has no name.
    pub fn split_last(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|b| *b == b'/') {
            Some(cut) => {
                let (dir, name) = self.0.split_at(cut);
                (dir, name.strip_prefix(b"/").unwrap_or(name))
            }
            None => (b"", &self.0),
        }
    }

    /// Its absolute path, if the volume's root is `root`.
    pub fn absolute(&self, root: &[u8]) -> Vec<u8> {
        absolute(root, &self.0)
    }
}

impl Deref for VolumePath {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Whether a name leads to something that lies in its directory.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && !matches!(name, b"." | b"..") && !name.contains(&0)
}

/// Adds a name to the path of the directory in which it lies; to an empty one, which is the root's, without a slash.
#[inline]
pub fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// What of a [`clean`] path lies below `root`; none for what lies elsewhere.
pub fn below(root: &[u8], clean: &[u8]) -> Option<VolumePath> {
    let root = root.strip_prefix(b"/")?;
    VolumePath::new(rest(root, clean)?.to_vec())
}

/// Whether a place is `above` or lies below it. Both are places of one volume.
pub fn is_within(above: &[u8], place: &[u8]) -> bool {
    rest(above, place).is_some()
}

/// What of a place lies below `above`: empty for that itself, none for what lies elsewhere. Both are places of one volume.
pub fn rest<'p>(above: &[u8], place: &'p [u8]) -> Option<&'p [u8]> {
    if above.is_empty() {
        return Some(place);
    }
    let rest = place.strip_prefix(above)?;
    match rest.split_first() {
        None => Some(rest),
        Some((b'/', rest)) => Some(rest),
        Some(_) => None,
    }
}

/// Where below `root` a symbolic link leads that lies in the directory `above`, by its words alone. None: out of it.
pub fn led_to(root: &[u8], above: &[u8], link: &[u8]) -> Option<VolumePath> {
    let from = match link.first()? {
        b'/' => Vec::new(),
        _ => absolute(root, above),
    };
    let mut names: Vec<&[u8]> = Vec::new();
    for name in from.split(|b| *b == b'/').chain(link.split(|b| *b == b'/')) {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    let whole = names.join(&b'/');
    (whole.len() <= PATH_BYTES_MAX).then(|| below(root, &whole))?
}

/// The absolute path of a place below `root`.
pub fn absolute(root: &[u8], below: &[u8]) -> Vec<u8> {
    let mut path = root.to_vec();
    if !below.is_empty() {
        path.push(b'/');
        path.extend_from_slice(below);
    }
    path
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_leads_up_or_nowhere_is_refused() {
        let long = [b"/".as_slice(), &[b'x'; NAME_BYTES_MAX + 1]].concat();
        let deep = b"/d".repeat(PATH_BYTES_MAX);
        let bad: [&[u8]; 12] = [
            b"",
            b"a",
            b"./a",
            b"../a",
            b"/a/..",
            b"/../a",
            b"/a/../../etc",
            b"/a/./b",
            b"/.",
            b"/a/b\0c",
            &long,
            &deep,
        ];
        for path in bad {
            assert!(clean(path).is_err(), "{}", String::from_utf8_lossy(path));
        }
        for (path, expected) in [
            (&b"/"[..], &b""[..]),
            (b"//a///b/", b"a/b"),
            (b"/..a/.b/...", b"..a/.b/..."),
            (b"/a b/\xff", b"a b/\xff"),
        ] {
            assert_eq!(clean(path).unwrap(), expected);
        }
    }

    #[test]
    fn a_volume_holds_what_lies_below_it_name_by_name() {
        let of = |path: &[u8]| below(b"/v/a", &clean(path).unwrap()).map(VolumePath::into_bytes);
        assert_eq!(of(b"/v/a"), Some(vec![]));
        assert_eq!(of(b"/v/a/b/c"), Some(b"b/c".to_vec()));
        assert_eq!(of(b"/v//a//b/"), Some(b"b".to_vec()));
        assert_eq!(of(b"/v/ab"), None);
        assert_eq!(of(b"/v"), None);
        assert!(is_within(b"", b"x") && is_within(b"x", b"x") && is_within(b"x", b"x/y"));
        assert!(!is_within(b"x", b"xy") && !is_within(b"x/y", b"x"));
    }

    #[test]
    fn a_path_of_a_volume_has_nothing_but_names() {
        for bad in ["/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a\0b"] {
            assert_eq!(VolumePath::new(bad.into()), None, "{bad:?}");
        }
        let of = |path: &str| VolumePath::new(path.into()).unwrap();
        assert_eq!(of("").split_last(), (&b""[..], &b""[..]));
        assert_eq!(of("a").split_last(), (&b""[..], &b"a"[..]));
        assert_eq!(of("a/b/c").split_last(), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(of("a/..b").names().collect::<Vec<_>>(), [&b"a"[..], b"..b"]);
        assert_eq!(of("").names().count(), 0);
        assert_eq!(of("a/b").absolute(b"/v"), b"/v/a/b");
    }

    #[test]
    fn a_link_leads_where_its_words_say() {
        for (above, link, to) in [
            ("a", "b", Some("a/b")),
            ("a/b", "../c/./d", Some("a/c/d")),
            ("", "/v/a/x", Some("x")),
            ("a", "..", Some("")),
            ("a", "../..", None),
            ("a", "../../../v/a/y", Some("y")),
            ("a", "/etc/passwd", None),
            ("a", "/v/ab", None),
            ("a", "", None),
        ] {
            let found = led_to(b"/v/a", above.as_bytes(), link.as_bytes());
            assert_eq!(found.as_deref(), to.map(str::as_bytes), "{above} {link}");
        }
    }

    proptest! {
        /// For any path a client sends: what is taken is a list of plain names, and means the same when it is sent again.
        #[test]
        fn what_is_taken_has_nothing_but_names(path in prop::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..60)) {
            if let Ok(clean) = clean(&path) {
                let names = clean.split(|b| *b == b'/');
                prop_assert!(clean.is_empty() || names.clone().all(|n| check(n).is_ok() && !n.is_empty()));
                prop_assert_eq!(VolumePath::new(clean.clone()).map(VolumePath::into_bytes), Some(clean.clone()));
                prop_assert_eq!(super::clean(&absolute(b"", &clean)).ok().unwrap_or_default(), clean);
            }
        }
    }
}
