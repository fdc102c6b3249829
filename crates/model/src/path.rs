//! Paths that come from clients, by their words alone. Pure: nothing of the file system is asked here, so nothing of it can be learnt.
//!
//! What is left is a place below a volume: names between single slashes, none of which leads up or nowhere.

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
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(name);
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

/// What of a [`clean`] path lies below `root`: empty for the root itself, none for what lies elsewhere.
pub fn below(root: &[u8], clean: &[u8]) -> Option<Vec<u8>> {
    let root = root.strip_prefix(b"/")?;
    rest(root, clean).map(<[u8]>::to_vec)
}

/// Whether a place is `above` or lies below it. Both are places of one volume.
pub fn is_within(above: &[u8], place: &[u8]) -> bool {
    rest(above, place).is_some()
}

fn rest<'p>(above: &[u8], place: &'p [u8]) -> Option<&'p [u8]> {
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
pub fn led_to(root: &[u8], above: &[u8], link: &[u8]) -> Option<Vec<u8>> {
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
        let of = |path: &[u8]| below(b"/v/a", &clean(path).unwrap());
        assert_eq!(of(b"/v/a"), Some(vec![]));
        assert_eq!(of(b"/v/a/b/c"), Some(b"b/c".to_vec()));
        assert_eq!(of(b"/v//a//b/"), Some(b"b".to_vec()));
        assert_eq!(of(b"/v/ab"), None);
        assert_eq!(of(b"/v"), None);
        assert!(is_within(b"", b"x") && is_within(b"x", b"x") && is_within(b"x", b"x/y"));
        assert!(!is_within(b"x", b"xy") && !is_within(b"x/y", b"x"));
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
                prop_assert_eq!(super::clean(&absolute(b"", &clean)).ok().unwrap_or_default(), clean);
            }
        }
    }
}
